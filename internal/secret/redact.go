package secret

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
)

// mask stands where a secret stood.
const mask = "<secret>"

// minRedact is the shortest value that is masked, characters. Generated secrets are
// longer; masking shorter ones would garble ordinary words.
const minRedact = 8

// Redactor masks known secret values in text: outputs of commands, errors, log
// attributes. It is the last net, not a licence to print secrets. The zero value
// knows none and is ready; it is safe for concurrent use.
type Redactor struct {
	mu       sync.RWMutex
	known    map[string]bool
	replacer *strings.Replacer // nil: nothing known
}

// NewRedactor returns a Redactor that knows the values of m.
func NewRedactor(m Map) *Redactor {
	r := &Redactor{}
	r.AddMap(m)
	return r
}

// AddMap adds all values of m.
func (r *Redactor) AddMap(m Map) {
	values := make([]string, 0, len(m))
	for _, v := range m {
		values = append(values, v)
	}
	r.Add(values...)
}

// Add makes values known: each whole, and the parts of it that may appear alone
// (the lines of a PEM key, the strings of a JSON value).
func (r *Redactor) Add(values ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.known == nil {
		r.known = map[string]bool{}
	}
	for _, v := range values {
		for _, p := range parts(v) {
			// Padding is written as %3D in URLs.
			if p = strings.TrimRight(strings.TrimSpace(p), "="); len(p) >= minRedact {
				r.known[p] = true
			}
		}
	}
	var all []string
	for v := range r.known {
		all = append(all, v)
	}
	// The longest first: a secret that contains another one is masked whole.
	slices.SortFunc(all, func(a, b string) int {
		if len(a) != len(b) {
			return len(b) - len(a)
		}
		return strings.Compare(a, b)
	})
	var pairs []string
	for _, v := range all {
		pairs = append(pairs, v, mask)
	}
	r.replacer = strings.NewReplacer(pairs...)
}

// parts returns v and the pieces of it that are secret on their own.
func parts(v string) []string {
	out := []string{v}
	var tree any
	if strings.HasPrefix(v, "{") && json.Unmarshal([]byte(v), &tree) == nil {
		return append(out, leaves(tree)...)
	}
	for line := range strings.Lines(v) {
		if line != v && !strings.HasPrefix(line, "-----") { // "-----BEGIN PRIVATE KEY-----" is no secret
			out = append(out, line)
		}
	}
	return out
}

func leaves(tree any) []string {
	var out []string
	switch t := tree.(type) {
	case string:
		out = append(out, t)
	case map[string]any:
		for _, v := range t {
			out = append(out, leaves(v)...)
		}
	case []any:
		for _, v := range t {
			out = append(out, leaves(v)...)
		}
	}
	return out
}

// String returns s with every known secret masked.
func (r *Redactor) String(s string) string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.replacer == nil {
		return s
	}
	return r.replacer.Replace(s)
}

// Error returns an error whose text is masked; errors.Is and errors.As see the
// original. nil stays nil.
func (r *Redactor) Error(err error) error {
	if err == nil {
		return nil
	}
	if text := r.String(err.Error()); text != err.Error() {
		return &redactedError{text: text, err: err}
	}
	return err
}

type redactedError struct {
	text string
	err  error
}

func (e *redactedError) Error() string { return e.text }
func (e *redactedError) Unwrap() error { return e.err }

// ReplaceAttr is for slog.HandlerOptions: it masks secrets in messages and attributes.
func (r *Redactor) ReplaceAttr(_ []string, a slog.Attr) slog.Attr {
	switch a.Value.Kind() {
	case slog.KindString:
		a.Value = slog.StringValue(r.String(a.Value.String()))
	case slog.KindAny:
		text := printed(a.Value.Any())
		if masked := r.String(text); masked != text {
			a.Value = slog.StringValue(masked)
		}
	}
	return a
}

// printed is how a handler would show v, or close to it.
func printed(v any) string {
	switch v := v.(type) {
	case []byte:
		return string(v)
	case error, fmt.Stringer:
		return fmt.Sprint(v)
	}
	if text, err := json.Marshal(v); err == nil {
		// Both forms: handlers differ, and a []byte inside is base64 in one of them.
		return fmt.Sprintf("%+v %s", v, text)
	}
	return fmt.Sprintf("%+v", v)
}
