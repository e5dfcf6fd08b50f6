// Package memstore is a store.Store in memory, for tests of everything that
// stands on a store. It passes the same suite as the real one.
//
// Invariants: one mutex orders all writes; a revision is given out once; the
// whole history is kept, so that a watch may resume from any revision. It reads
// no clock and starts no goroutine of its own but one for each watch, so it may
// be used inside a testing/synctest bubble. It must never be used in production:
// nothing survives the process, and a lease never expires unless Expire is called.
package memstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"nines/internal/store"
)

// Store is a store.Store in memory. The zero value is not usable; call New.
type Store struct {
	mu       sync.Mutex
	revision int64
	entries  map[string]store.Entry
	history  []store.Event
	leases   map[string]*lease
	changed  chan struct{} // closed and replaced at every change
	closed   chan struct{}
}

var _ store.Store = (*Store)(nil)

// New returns an empty store.
func New() *Store {
	return &Store{
		entries: map[string]store.Entry{},
		leases:  map[string]*lease{},
		changed: make(chan struct{}),
		closed:  make(chan struct{}),
	}
}

// usable returns why the store cannot be asked now.
func (s *Store) usable(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case <-s.closed:
		return store.ErrClosed
	default:
		return nil
	}
}

// Get returns the entry of key.
func (s *Store) Get(ctx context.Context, key string) (store.Entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(ctx); err != nil {
		return store.Entry{}, fmt.Errorf("get %s: %w", key, err)
	}
	e, ok := s.entries[key]
	if !ok {
		return store.Entry{}, fmt.Errorf("get %s: %w", key, store.ErrNotFound)
	}
	return clone(e), nil
}

// List returns the entries under prefix, sorted by key.
func (s *Store) List(ctx context.Context, prefix string) ([]store.Entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(ctx); err != nil {
		return nil, fmt.Errorf("list %s: %w", prefix, err)
	}
	var out []store.Entry
	for key, e := range s.entries {
		if strings.HasPrefix(key, prefix) {
			out = append(out, clone(e))
		}
	}
	slices.SortFunc(out, func(a, b store.Entry) int { return strings.Compare(a.Key, b.Key) })
	return out, nil
}

// Put writes key if it is still at revision.
func (s *Store) Put(ctx context.Context, key string, value []byte, revision int64) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.put(ctx, key, value, revision)
}

// PutFenced is Put under a lease that must still be held with that fence.
func (s *Store) PutFenced(ctx context.Context, name string, fence store.Fence, key string, value []byte, revision int64) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.leases[name]; l == nil || l.fence != fence {
		if err := s.usable(ctx); err != nil {
			return 0, fmt.Errorf("put %s: %w", key, err)
		}
		return 0, fmt.Errorf("put %s under lease %s: %w", key, name, store.ErrFenced)
	}
	return s.put(ctx, key, value, revision)
}

// put is called with mu held.
func (s *Store) put(ctx context.Context, key string, value []byte, revision int64) (int64, error) {
	if err := s.usable(ctx); err != nil {
		return 0, fmt.Errorf("put %s: %w", key, err)
	}
	if err := s.compare(key, revision); err != nil {
		return 0, fmt.Errorf("put %s: %w", key, err)
	}
	s.revision++
	e := store.Entry{Key: key, Value: bytes.Clone(value), Revision: s.revision}
	s.entries[key] = e
	s.announce(store.Event{Entry: e})
	return s.revision, nil
}

// Delete removes key if it is still at revision.
func (s *Store) Delete(ctx context.Context, key string, revision int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(ctx); err != nil {
		return fmt.Errorf("delete %s: %w", key, err)
	}
	if err := s.compare(key, revision); err != nil {
		return fmt.Errorf("delete %s: %w", key, err)
	}
	if _, ok := s.entries[key]; !ok {
		return fmt.Errorf("delete %s: %w", key, store.ErrNotFound)
	}
	s.revision++
	delete(s.entries, key)
	s.announce(store.Event{Entry: store.Entry{Key: key, Revision: s.revision}, Deleted: true})
	return nil
}

// compare is called with mu held. A missing key is at revision 0.
func (s *Store) compare(key string, revision int64) error {
	if revision != store.Any && s.entries[key].Revision != revision {
		return store.ErrConflict
	}
	return nil
}

// announce is called with mu held.
func (s *Store) announce(events ...store.Event) {
	s.history = append(s.history, events...)
	close(s.changed)
	s.changed = make(chan struct{})
}

// Watch sends the changes under prefix.
func (s *Store) Watch(ctx context.Context, prefix string, from int64) <-chan store.Event {
	out := make(chan store.Event)
	s.mu.Lock()
	if from == 0 {
		from = s.revision
	}
	s.mu.Unlock()
	go func() {
		defer close(out)
		for {
			pending, changed := s.since(prefix, from)
			for _, e := range pending {
				select {
				case out <- e:
					from = e.Revision
				case <-ctx.Done():
					return
				case <-s.closed:
					return
				}
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			case <-s.closed:
				return
			}
		}
	}()
	return out
}

// since returns the changes under prefix after revision from, and a channel
// that is closed when there may be more.
func (s *Store) since(prefix string, from int64) ([]store.Event, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	first, _ := slices.BinarySearchFunc(s.history, from+1, func(e store.Event, rev int64) int { return int(e.Revision - rev) })
	var out []store.Event
	for _, e := range s.history[first:] {
		if strings.HasPrefix(e.Key, prefix) {
			out = append(out, store.Event{Entry: clone(e.Entry), Deleted: e.Deleted})
		}
	}
	return out, s.changed
}

// Campaign waits for the lease of that name.
func (s *Store) Campaign(ctx context.Context, name, holder string) (store.Lease, error) {
	for {
		l, changed, err := s.take(ctx, name, holder)
		if err != nil {
			return nil, fmt.Errorf("campaign for %s: %w", name, err)
		}
		if l != nil {
			return l, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
		case <-s.closed:
		}
	}
}

// take returns the lease if it is free, else a channel that is closed when it may be.
func (s *Store) take(ctx context.Context, name, holder string) (*lease, <-chan struct{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(ctx); err != nil {
		return nil, nil, err
	}
	if s.leases[name] != nil {
		return nil, s.changed, nil
	}
	s.revision++
	l := &lease{store: s, name: name, holder: holder, fence: store.Fence(s.revision), lost: make(chan struct{})}
	s.leases[name] = l
	return l, nil, nil
}

// Holder says who holds the lease of that name.
func (s *Store) Holder(ctx context.Context, name string) (string, store.Fence, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(ctx); err != nil {
		return "", 0, fmt.Errorf("holder of %s: %w", name, err)
	}
	l := s.leases[name]
	if l == nil {
		return "", 0, fmt.Errorf("holder of %s: %w", name, store.ErrNotFound)
	}
	return l.holder, l.fence, nil
}

// Expire takes the lease of that name away from whoever holds it, as the real
// store does with a holder that is cut off.
func (s *Store) Expire(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.leases[name]; l != nil {
		s.drop(l)
	}
}

// drop is called with mu held. Lost is told before anybody else can win.
func (s *Store) drop(l *lease) {
	close(l.lost)
	delete(s.leases, l.name)
	s.announce()
}

// Close ends every watch and campaign and loses every lease.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if errors.Is(s.usable(context.Background()), store.ErrClosed) {
		return nil
	}
	close(s.closed)
	for _, l := range s.leases {
		s.drop(l)
	}
	return nil
}

type lease struct {
	store  *Store
	name   string
	holder string
	fence  store.Fence
	lost   chan struct{}
}

func (l *lease) Fence() store.Fence    { return l.fence }
func (l *lease) Lost() <-chan struct{} { return l.lost }

func (l *lease) Resign(ctx context.Context) error {
	l.store.mu.Lock()
	defer l.store.mu.Unlock()
	if l.store.leases[l.name] != l {
		return nil
	}
	if err := l.store.usable(ctx); err != nil {
		return fmt.Errorf("resign %s: %w", l.name, err)
	}
	l.store.drop(l)
	return nil
}

func clone(e store.Entry) store.Entry {
	e.Value = bytes.Clone(e.Value)
	return e
}
