package storetest

import (
	"context"
	"fmt"
	"testing"

	"nines/internal/store"
)

func testWatchFromNow(t *testing.T, s store.Store) {
	mustPut(t, s, "a", "before", 0)
	events := s.Watch(patient(t), "", 0)
	second := mustPut(t, s, "a", "after", store.Any)
	wantEvent(t, events, event("a", "after", second))
	check(t, s.Delete(patient(t), "a", second))
	got := <-events
	if !got.Deleted || got.Key != "a" || len(got.Value) != 0 || got.Revision <= second {
		t.Fatalf("got %+v, want the deletion of a after %d", got, second)
	}
}

func testWatchResumes(t *testing.T, s store.Store) {
	const n = 50
	first := mustPut(t, s, "k", "0", 0)
	var want []store.Event
	for i := range n {
		value := fmt.Sprint(i + 1)
		want = append(want, event("k", value, mustPut(t, s, "k", value, store.Any)))
	}
	from := first
	for len(want) > 0 { // read a few, drop the watch, go on where it ended
		ctx, cancel := context.WithCancel(patient(t))
		events := s.Watch(ctx, "k", from)
		for range min(7, len(want)) {
			wantEvent(t, events, want[0])
			from, want = want[0].Revision, want[1:]
		}
		cancel()
		wantClosed(t, events, "the watch")
	}
}

func testWatchPrefix(t *testing.T, s store.Store) {
	events := s.Watch(patient(t), "op/", 0)
	mustPut(t, s, "other", "x", 0)
	mustPut(t, s, "op", "x", 0)
	wantEvent(t, events, event("op/1", "y", mustPut(t, s, "op/1", "y", 0)))
}

func testWatchEnds(t *testing.T, s store.Store) {
	ctx, cancel := context.WithCancel(patient(t))
	idle, unread := s.Watch(ctx, "", 0), s.Watch(ctx, "", 0)
	mustPut(t, s, "a", "1", 0)
	wantEvent(t, idle, event("a", "1", mustRevision(t, s, "a")))
	cancel()
	wantClosed(t, idle, "an idle watch")
	wantClosed(t, unread, "a watch nobody reads")
}

func mustRevision(t *testing.T, s store.Store, key string) int64 {
	t.Helper()
	e, err := s.Get(patient(t), key)
	check(t, err)
	return e.Revision
}

// testWatchThenList writes from another goroutine while a follower starts: what it
// lists, with what it is sent, is everything.
func testWatchThenList(t *testing.T, s store.Store) {
	const n = 40
	ctx := patient(t)
	errs := make(chan error, 1)
	go func() {
		for i := range n {
			if _, err := s.Put(ctx, fmt.Sprintf("k/%02d", i), nil, 0); err != nil {
				errs <- err
				return
			}
		}
		errs <- nil
	}()
	events := s.Watch(ctx, "k/", 0)
	entries, err := s.List(ctx, "k/")
	check(t, err)
	seen := map[string]bool{}
	for _, e := range entries {
		seen[e.Key] = true
	}
	for len(seen) < n {
		select {
		case e, ok := <-events:
			if !ok {
				t.Fatal("the watch ended early")
			}
			seen[e.Key] = true
		case <-ctx.Done():
			t.Fatalf("only %d of %d keys arrived", len(seen), n)
		}
	}
	check(t, <-errs)
}
