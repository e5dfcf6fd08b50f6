package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"nines/internal/config"
)

// The exit codes. 2 is a command's own: see exitCode.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 64 // EX_USAGE of sysexits.h
	exitInterrupted = 130
)

// exitCode is an error that only carries an exit code: everything was said already.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// hinted is an error with what to do now.
type hinted struct{ text, hint string }

func (e *hinted) Error() string { return e.text }

// Hint says what to do now.
func (e *hinted) Hint() string { return e.hint }

// usageError is a command line that makes no sense.
type usageError struct {
	err  error
	help string
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// Hint says what to do now.
func (e *usageError) Hint() string { return "'" + e.help + "' shows what is possible" }

// failure is how an error is printed with --json.
type failure struct {
	Error    string           `json:"error"`
	Hint     string           `json:"hint,omitempty"`
	Problems []config.Problem `json:"problems,omitempty"`
}

// fail prints an error the one way all errors are printed and returns the exit code.
func (g *globals) fail(err error) int {
	var code exitCode
	if errors.As(err, &code) {
		return int(code)
	}
	f := failure{Error: strings.TrimSpace(err.Error()), Hint: hint(err)}
	var bad *config.Errors
	if errors.As(err, &bad) {
		f.Problems = bad.Problems
	}
	if g.json {
		enc := json.NewEncoder(g.err)
		enc.SetIndent("", "  ")
		_ = enc.Encode(f) // standard error is all there is to tell
	} else {
		fmt.Fprintf(g.err, "error: %s\n", f.Error)
		if f.Hint != "" {
			fmt.Fprintf(g.err, " next: %s\n", f.Hint)
		}
	}
	var usage *usageError
	switch {
	case errors.As(err, &usage):
		return exitUsage
	case errors.Is(err, context.Canceled):
		return exitInterrupted
	}
	return exitFailed
}

func hint(err error) string {
	var h interface{ Hint() string }
	if errors.As(err, &h) {
		return strings.TrimSpace(h.Hint())
	}
	return ""
}

// print writes the result of a command as JSON.
func (g *globals) print(v any) error {
	enc := json.NewEncoder(g.out)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}
