package smoke

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"nines/internal/progress"
)

// Step is one step that was done, or tried.
type Step struct {
	Name   string `json:"name"`
	TookMS int64  `json:"took_ms"`
	Error  string `json:"error,omitempty"`

	// Err is the error itself, for what it says to do now.
	Err error `json:"-"`
}

// recorder keeps steps and shows them.
type recorder struct {
	emit progress.Emit
	log  *slog.Logger

	mu   sync.Mutex
	done []Step
}

// do does one step, within its limit.
func (r *recorder) do(ctx context.Context, name string, limit time.Duration, f func(ctx context.Context) (detail string, err error)) error {
	id := "smoke/" + name
	r.emit(progress.Event{ID: id, Title: name, State: progress.Running})
	took, detail, err := timed(ctx, limit, f)
	s := Step{Name: name, TookMS: took.Milliseconds(), Err: err}
	end := progress.Event{ID: id, Title: name, State: progress.Done, Detail: detail, Took: took}
	if err != nil {
		s.Error = err.Error()
		end.State, end.Detail = progress.Failed, s.Error
	}
	r.emit(end)
	r.log.Debug("smoke step", "step", name, "took", took, "detail", detail, "err", err)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.done = append(r.done, s)
	return err
}

// timed calls f with a context that ends after the limit, and says so in the error.
func timed(ctx context.Context, limit time.Duration, f func(ctx context.Context) (string, error)) (took time.Duration, detail string, err error) {
	inner, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	began := time.Now()
	if err = ctx.Err(); err == nil {
		detail, err = f(inner)
	}
	took = time.Since(began)
	switch {
	case err == nil:
	case ctx.Err() != nil:
		err = fmt.Errorf("interrupted: %w", context.Cause(ctx))
	case errors.Is(inner.Err(), context.DeadlineExceeded):
		err = fmt.Errorf("not done within %s: %w", limit, err)
	}
	return took, detail, err
}

func (r *recorder) all() []Step {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Step{}, r.done...)
}

func (r *recorder) failed() bool {
	for _, s := range r.all() {
		if s.Err != nil {
			return true
		}
	}
	return false
}

// How a state is watched.
const (
	pollEvery = 500 * time.Millisecond
	// pollLimit ends one look: an answer that was lost with a controller must not use up the time of all others.
	pollLimit = 10 * time.Second
)

// await looks at a thing until it is in a state. A look that gets no answer, or that a service could not
// serve, is followed by the next one.
func (r *Runner) await(ctx context.Context, t Thing, want string) error {
	var last error
	word := "unknown"
	for {
		s, err := r.look(ctx, t)
		switch {
		case errors.Is(err, ErrGone) && want == gone:
			return nil
		case errors.Is(err, ErrGone), errors.Is(err, ErrRefused):
			return fmt.Errorf("%s %s: %w", t.Kind, t.Name, err)
		case err != nil:
			last = err
		case s.Word == want:
			return nil
		case failed(s.Word, want):
			return fmt.Errorf("%s %s went to state %q%s", t.Kind, t.Name, s.Word, because(s.Detail))
		default:
			last, word = nil, s.Word
		}
		if err := pause(ctx); err != nil {
			if last != nil {
				err = last
			}
			return fmt.Errorf("%s %s is not %s but %s: %w", t.Kind, t.Name, want, word, err)
		}
	}
}

// pause waits for the next look.
func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(pollEvery):
		return nil
	}
}

func (r *Runner) look(ctx context.Context, t Thing) (State, error) {
	ctx, cancel := context.WithTimeout(ctx, pollLimit)
	defer cancel()
	return r.Cloud.State(ctx, t)
}

// failed reports whether a thing in a state will never come to the wanted one.
func failed(word, want string) bool {
	if want == gone {
		return word == "error_deleting"
	}
	return strings.HasPrefix(word, "error") || word == "killed" || word == "deleted"
}

func because(detail string) string {
	if detail == "" {
		return ""
	}
	return ": " + detail
}
