package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// stopTime is how long an interrupted program may take to end, before it is killed.
const stopTime = time.Minute

// program is an executable that is run and timed as a process.
type program struct {
	path string
	env  []string // nil: this process's
}

// outcome is what one run of a program gave.
type outcome struct {
	stdout []byte // may hold secrets: never part of an error
	took   time.Duration
	code   int // exit code; not 0 only together with an error
}

// run runs the program to its end. A program that fails is an error with the end of what it
// wrote to standard error.
func (p program) run(ctx context.Context, args ...string) (outcome, error) {
	cmd := exec.CommandContext(ctx, p.path, args...)
	var stdout, stderr bytes.Buffer
	cmd.Env, cmd.Stdout, cmd.Stderr = p.env, &stdout, &stderr
	// An interrupt from the terminal must not reach the programs that take the lab down.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	cmd.WaitDelay = stopTime
	started := time.Now()
	err := cmd.Run()
	out := outcome{stdout: stdout.Bytes(), took: time.Since(started)}
	if err == nil {
		return out, nil
	}
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		out.code = exit.ExitCode()
	}
	command, _, _ := strings.Cut(p.path+" "+strings.Join(args, " "), "\n") // of a script, the first line
	if ctx.Err() != nil {                                                  // what it said about being stopped is of no use
		return out, fmt.Errorf("%s: %w", command, context.Cause(ctx))
	}
	return out, fmt.Errorf("%s: %w\n%s", command, err, lastLines(stderr.String(), 20))
}

// lastLines returns at most the last n lines of text.
func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
