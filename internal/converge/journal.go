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
// ended or send fails; an event may come twice. Any agent can serve it: it reads the
// journal only.
func Follow(ctx context.Context, s store.Store, id string, send func(Event) error) error {
	for {
		ended, err := followOnce(ctx, s, id, send)
		if err != nil || ended {
			return err
		}
	}
}

// followOnce watches first and reads the journal then, so that nothing is missed in between. It
// returns when the apply has ended or the watch broke.
func followOnce(ctx context.Context, s store.Store, id string, send func(Event) error) (ended bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	changes := s.Watch(ctx, "apply/", 0)
	if ended, err = replay(ctx, s, id, send); err != nil || ended {
		return ended, err
	}
	for e := range changes {
		ev, ok := decode(e.Entry, id)
		if e.Deleted || !ok {
			continue
		}
		if err := send(ev); err != nil || ev.ended() {
			return ev.ended(), err
		}
	}
	return false, ctx.Err()
}

// replay sends what the journal holds, the end of the apply last.
func replay(ctx context.Context, s store.Store, id string, send func(Event) error) (ended bool, err error) {
	entries, err := s.List(ctx, "apply/")
	if err != nil {
		return false, fmt.Errorf("read the journal: %w", err)
	}
	var last *Event
	for _, e := range entries {
		ev, ok := decode(e, id)
		if !ok {
			continue
		}
		if ev.ended() {
			last = &ev
			continue
		}
		if err := send(ev); err != nil {
			return false, err
		}
	}
	if last != nil {
		return true, send(*last)
	}
	return false, nil
}

func (ev Event) ended() bool { return ev.Apply != nil && ev.Apply.State != Converging }

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

// outdated lists the ops of all applies but the current one.
func (l *Leader) outdated(ctx context.Context, keep string) (keys []string) {
	entries, err := l.store.List(ctx, prefixOps)
	if err != nil {
		return nil // the next apply tries again
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Key, prefixOps+keep+"/") {
			keys = append(keys, e.Key)
		}
	}
	return keys
}

// prune removes them. The end of the next apply may have removed some already.
func (l *Leader) prune(ctx context.Context, keys []string) {
	for _, key := range keys {
		if err := l.store.Delete(ctx, key, store.Any); err != nil && !errors.Is(err, store.ErrNotFound) {
			return // the next apply tries again
		}
	}
}
