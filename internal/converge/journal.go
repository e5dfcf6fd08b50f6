package converge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"nines/internal/model"
	"nines/internal/plan"
	"nines/internal/store"
)

// State of an apply.
type State string

// The states of an apply.
const (
	Converging State = "converging"
	Converged  State = "converged"
	Failed     State = "failed"
)

// Record is an apply as the journal has it.
type Record struct {
	ID       string         `json:"id"`
	Who      string         `json:"who"` // "root@desk"
	Since    time.Time      `json:"since"`
	Finished time.Time      `json:"finished,omitzero"`
	State    State          `json:"state"`
	Spec     *model.Cluster `json:"spec"`
	Plan     plan.Plan      `json:"plan"`
	Error    string         `json:"error,omitempty"`
	// Resumed counts the leaders that took the apply over.
	Resumed int `json:"resumed,omitempty"`
}

// OpRecord is one op of an apply as the journal has it.
type OpRecord struct {
	Op      plan.Op     `json:"op"`
	Running bool        `json:"running"`
	Result  plan.Result `json:"result"`
}

// BusyError says that an apply is under way.
type BusyError struct {
	Who   string
	Since time.Time
}

func (e *BusyError) Error() string {
	return fmt.Sprintf("%s has been applying since %s", e.Who, e.Since.Format(time.TimeOnly))
}

// Hint says what to do now.
func (e *BusyError) Hint() string { return "wait for it with 'nines apply --attach', then try again" }

// ErrNoApply says that nothing was ever applied.
var ErrNoApply = errors.New("nothing has been applied yet")

// Current returns the latest apply.
func Current(ctx context.Context, s store.Store) (Record, error) {
	e, err := s.Get(ctx, KeyApply)
	if errors.Is(err, store.ErrNotFound) {
		return Record{}, ErrNoApply
	}
	if err != nil {
		return Record{}, fmt.Errorf("read the journal: %w", err)
	}
	var r Record
	if err := json.Unmarshal(e.Value, &r); err != nil {
		return Record{}, fmt.Errorf("read the journal: %w", err)
	}
	return r, nil
}

// LastSpec returns the cluster as it was last applied, or ErrNoApply.
func LastSpec(ctx context.Context, s store.Store) (*model.Cluster, error) {
	e, err := s.Get(ctx, KeySpec)
	if errors.Is(err, store.ErrNotFound) {
		return nil, ErrNoApply
	}
	if err != nil {
		return nil, fmt.Errorf("read the spec: %w", err)
	}
	var c model.Cluster
	if err := json.Unmarshal(e.Value, &c); err != nil {
		return nil, fmt.Errorf("read the spec: %w", err)
	}
	return &c, nil
}

// Event is one change of an apply: exactly one field is set.
type Event struct {
	Apply *Record   `json:"apply,omitempty"`
	Op    *OpRecord `json:"op,omitempty"`
}

// Follow sends the apply's state so far and then every change, until it has
// ended or send fails. Any agent can serve it: it reads the journal only.
func Follow(ctx context.Context, s store.Store, id string, send func(Event) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended, next, err := replay(ctx, s, id, send)
	for err == nil && !ended {
		ended, next, err = follow(ctx, s, id, next, send)
	}
	return err
}

// replay sends what the journal holds; next is the revision to watch from.
func replay(ctx context.Context, s store.Store, id string, send func(Event) error) (ended bool, next int64, err error) {
	entries, err := s.List(ctx, "apply/")
	if err != nil {
		return false, 0, fmt.Errorf("read the journal: %w", err)
	}
	var last *Event
	for _, e := range entries {
		next = max(next, e.Revision)
		ev, ok := decode(e, id)
		if !ok {
			continue
		}
		if ev.Apply != nil && ev.Apply.State != Converging {
			last = &ev // the end is sent last
			continue
		}
		if err := send(ev); err != nil {
			return false, 0, err
		}
	}
	if last != nil {
		return true, next, send(*last)
	}
	return false, next, nil
}

func follow(ctx context.Context, s store.Store, id string, from int64, send func(Event) error) (ended bool, next int64, err error) {
	for e := range s.Watch(ctx, "apply/", from) {
		ev, ok := decode(e.Entry, id)
		if e.Deleted || !ok {
			continue
		}
		if err := send(ev); err != nil {
			return false, 0, err
		}
		if ev.Apply != nil && ev.Apply.State != Converging {
			return true, 0, nil
		}
	}
	if ctx.Err() != nil {
		return false, 0, ctx.Err()
	}
	return replay(ctx, s, id, send) // the watch broke: catch up
}

func decode(e store.Entry, id string) (Event, bool) {
	if e.Key == KeyApply {
		var r Record
		if json.Unmarshal(e.Value, &r) != nil || r.ID != id {
			return Event{}, false
		}
		return Event{Apply: &r}, true
	}
	if !strings.HasPrefix(e.Key, prefixOps+id+"/") {
		return Event{}, false
	}
	var o OpRecord
	if json.Unmarshal(e.Value, &o) != nil {
		return Event{}, false
	}
	return Event{Op: &o}, true
}

// save writes a value under the leader's fence.
func (l *Leader) save(ctx context.Context, key string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("journal %s: %w", key, err)
	}
	if _, err := l.store.PutFenced(ctx, LeaderLease, l.fence, key, b, store.Any); err != nil {
		return fmt.Errorf("journal %s: %w", key, err)
	}
	return nil
}

// prune removes the ops of all applies but the current one.
func (l *Leader) prune(ctx context.Context, keep string) {
	entries, err := l.store.List(ctx, prefixOps)
	if err != nil {
		return // the next apply tries again
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Key, prefixOps+keep+"/") {
			if err := l.store.Delete(ctx, e.Key, store.Any); err != nil {
				return
			}
		}
	}
}
