// Package store is the typed, consistent state of a cluster: compare-and-swap,
// watch, and a leader lease that carries a fence. etcd implements it for real,
// memstore for tests; storetest is the suite both must pass.
//
// Invariants: revisions grow with every write; a write under a fence succeeds only
// while that lease is held. It must never know what the values mean.
package store

import (
	"context"
	"errors"
)

// Errors of a store.
var (
	ErrNotFound = errors.New("key not found")
	ErrConflict = errors.New("changed by somebody else")   // compare-and-swap lost
	ErrFenced   = errors.New("lease lost: fence is stale") // the writer is no longer the leader
	ErrNoQuorum = errors.New("no quorum: the store is read-only or unreachable")
	ErrClosed   = errors.New("store is closed")
)

// Fence is the proof of leadership: the revision at which the lease was won.
// A higher fence is newer.
type Fence int64

// Any, as a revision, means "whatever is there"; zero means "must not exist".
const Any int64 = -1

// Entry is one key.
type Entry struct {
	Key      string
	Value    []byte
	Revision int64 // of the last change of this key
}

// Event is one change; Deleted entries have no value.
type Event struct {
	Entry
	Deleted bool
}

// Store is consistent key-value state.
type Store interface {
	Get(ctx context.Context, key string) (Entry, error)
	// List returns the entries whose key begins with prefix, sorted by key.
	List(ctx context.Context, prefix string) ([]Entry, error)
	// Put writes if the key is still at revision (Any, or 0: must not exist) and
	// returns the new one. ErrConflict if not. After ErrNoQuorum or a context error nobody
	// knows whether the write took place: read before trying again.
	Put(ctx context.Context, key string, value []byte, revision int64) (int64, error)
	// PutFenced is Put that also requires the lease of that name to still be held with the fence. ErrFenced if not.
	PutFenced(ctx context.Context, lease string, fence Fence, key string, value []byte, revision int64) (int64, error)
	// Delete removes the key if it is still at revision. ErrNotFound if it does not
	// exist and revision is Any or 0, ErrConflict if it is not at revision.
	Delete(ctx context.Context, key string, revision int64) error
	// Watch sends the changes under prefix after revision from (0: from now on) until ctx ends; the channel is then closed.
	// A consumer that finds it closed early (history compacted, no quorum, store closed) lists and watches
	// again. To follow a prefix without missing anything: Watch from 0 first, then List; every change
	// after Watch has returned is sent, so that the two overlap and never leave a gap.
	Watch(ctx context.Context, prefix string, from int64) <-chan Event

	// Campaign waits until this member holds the lease of that name and returns it. ctx bounds the
	// waiting only; the lease is kept until it is resigned or lost, or the store is closed.
	Campaign(ctx context.Context, lease, holder string) (Lease, error)
	// Holder says who holds the lease; ErrNotFound if nobody does.
	Holder(ctx context.Context, lease string) (holder string, fence Fence, err error)
	Close() error
}

// Lease is held leadership.
type Lease interface {
	Fence() Fence
	// Lost is closed when the lease may no longer be held: before anybody else can win it, or when it was resigned.
	Lost() <-chan struct{}
	// Resign gives it up. Resigning what is lost already is no error.
	Resign(ctx context.Context) error
}
