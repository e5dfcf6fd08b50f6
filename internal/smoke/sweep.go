package smoke

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// removeLeftovers removes what earlier runs could not, unless it was to be kept. That it fails does not stop a run:
// nothing of it is in the way.
func (r *Runner) removeLeftovers(ctx context.Context) {
	_ = r.sweep(ctx, func(n names, _ string) bool { return !n.kept && n.id != r.ID && !r.Alive(n.id) })
}

// cleanUp removes what this run has made, with time of its own: ctx may have ended. What could not be removed is tried
// once more, when the rest is gone.
func (r *Runner) cleanUp(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limitCleanup)
	defer cancel()
	own := func(n names, _ string) bool { return n.id == r.ID }
	if r.sweep(ctx, own) != nil {
		_ = pause(ctx)
		_ = r.sweep(ctx, own)
	}
}

// sweep deletes what runs have made that match, one kind after the other, and does not stop at a failure. What there is
// none of is no step.
func (r *Runner) sweep(ctx context.Context, match func(n names, what string) bool) error {
	var all []error
	for _, kind := range removal {
		var found []Thing
		list := func(ctx context.Context) (err error) {
			found, err = r.list(ctx, kind, match)
			return err
		}
		if err := bounded(ctx, limitRequest, list); err != nil {
			all = append(all, r.steps.do(ctx, "delete "+string(kind), limitRequest, func(context.Context) (string, error) {
				return "", fmt.Errorf("the list of them: %w", err)
			}))
			if ctx.Err() != nil {
				break // the next ones would fail the same way
			}
			continue
		}
		if len(found) == 0 {
			continue
		}
		all = append(all, r.steps.do(ctx, "delete "+string(kind), limitRemove, func(ctx context.Context) (string, error) {
			return found[0].Name + more(len(found)-1), r.removeAll(ctx, found)
		}))
	}
	return errors.Join(all...)
}

func more(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(" and %d more", n)
}

func bounded(ctx context.Context, limit time.Duration, f func(ctx context.Context) error) error {
	_, _, err := timed(ctx, limit, func(ctx context.Context) (string, error) { return "", f(ctx) })
	return err
}

// list returns the things of a kind that runs have made that match. It is the one place that decides what may be deleted.
func (r *Runner) list(ctx context.Context, kind Kind, match func(n names, what string) bool) ([]Thing, error) {
	things, err := r.Cloud.List(ctx, kind)
	if err != nil {
		return nil, err
	}
	var out []Thing
	for _, t := range things {
		if n, what, ok := parseName(t.Name); ok && match(n, what) {
			out = append(out, t)
		}
	}
	return out, nil
}

func (r *Runner) removeAll(ctx context.Context, things []Thing) error {
	var all []error
	for _, t := range things {
		all = append(all, r.remove(ctx, t))
	}
	return errors.Join(all...)
}

// remove deletes a thing and waits until it is gone. While it is in use it is asked again.
func (r *Runner) remove(ctx context.Context, t Thing) error {
	for {
		err := r.Cloud.Delete(ctx, t)
		switch {
		case err == nil:
			return r.await(ctx, t, gone)
		case errors.Is(err, ErrGone):
			return nil
		case !errors.Is(err, ErrBusy) || pause(ctx) != nil:
			return fmt.Errorf("delete %s %s: %w", t.Kind, t.Name, err)
		}
	}
}
