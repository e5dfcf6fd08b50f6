// Package storetest is the conformance suite of store.Store: what every
// implementation must do, said once. memstore and etcd both run it.
//
// It tests behaviour only, through the interface. It must never depend on the
// time an implementation takes: it waits for what must happen, bounded by
// Patience, and never sleeps.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"nines/internal/store"
)

// Patience bounds the wait for something that must happen. It is above the
// time a real store needs to notice a lost leader and a lease to run out.
const Patience = 20 * time.Second

// Expirer is a store that can take a lease away from its holder, as a
// partition would. Implementations under test offer it so that loss can be tried.
type Expirer interface {
	Expire(lease string)
}

// Run runs the suite. open returns a fresh, empty store; the suite closes it.
func Run(t *testing.T, open func(t *testing.T) store.Store) {
	for _, c := range []struct {
		name string
		test func(t *testing.T, s store.Store)
	}{
		{"get of a missing key", testMissing},
		{"put and get", testPutGet},
		{"compare and swap", testCompareAndSwap},
		{"delete", testDelete},
		{"list is sorted and prefixed", testList},
		{"values are not shared", testValuesAreCopies},
		{"watch from now", testWatchFromNow},
		{"watch resumes without loss", testWatchResumes},
		{"watch is limited to its prefix", testWatchPrefix},
		{"watch ends with its context", testWatchEnds},
		{"watch then list leaves no gap", testWatchThenList},
		{"campaign gives the lease to one", testCampaignExclusive},
		{"fences grow", testFencesGrow},
		{"campaign ends with its context", testCampaignCancelled},
		{"lease outlives the context of its campaign", testLeaseOutlivesContext},
		{"leases of other names are independent", testLeaseNames},
		{"leases are not keys", testLeasesAreNotKeys},
		{"fenced put", testFencedPut},
		{"fenced put after resign", testFencedPutAfterResign},
		{"fenced put after loss", testFencedPutAfterLoss},
		{"resign twice", testResignTwice},
		{"cancelled context", testCancelledContext},
		{"close ends watches and campaigns", testClose},
		{"random operations match a model", testModel},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := open(t)
			t.Cleanup(func() { check(t, s.Close()) })
			c.test(t, s)
		})
	}
}

func patient(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	t.Cleanup(cancel)
	return ctx
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error is %v, want %v", err, want)
	}
}

func mustPut(t *testing.T, s store.Store, key, value string, revision int64) int64 {
	t.Helper()
	rev, err := s.Put(patient(t), key, []byte(value), revision)
	check(t, err)
	return rev
}

func mustCampaign(t *testing.T, s store.Store, name, holder string) store.Lease {
	t.Helper()
	l, err := s.Campaign(patient(t), name, holder)
	check(t, err)
	return l
}

func wantEntry(t *testing.T, s store.Store, key, value string, revision int64) {
	t.Helper()
	e, err := s.Get(patient(t), key)
	check(t, err)
	if e.Key != key || string(e.Value) != value || e.Revision != revision {
		t.Fatalf("got %q=%q at %d, want %q=%q at %d", e.Key, e.Value, e.Revision, key, value, revision)
	}
}

func wantEvent(t *testing.T, events <-chan store.Event, want store.Event) {
	t.Helper()
	select {
	case got, ok := <-events:
		if !ok {
			t.Fatalf("the watch ended, want %+v", want)
		}
		if got.Key != want.Key || !bytes.Equal(got.Value, want.Value) || got.Revision != want.Revision || got.Deleted != want.Deleted {
			t.Fatalf("got event %+v, want %+v", got, want)
		}
	case <-patient(t).Done():
		t.Fatalf("no event, want %+v", want)
	}
}

func wantClosed[T any](t *testing.T, c <-chan T, what string) {
	t.Helper()
	for {
		select {
		case _, ok := <-c:
			if !ok {
				return
			}
		case <-patient(t).Done():
			t.Fatalf("%s is not closed", what)
		}
	}
}

func event(key, value string, revision int64) store.Event {
	return store.Event{Entry: store.Entry{Key: key, Value: []byte(value), Revision: revision}}
}

func testMissing(t *testing.T, s store.Store) {
	_, err := s.Get(patient(t), "nothing")
	wantErr(t, err, store.ErrNotFound)
	_, _, err = s.Holder(patient(t), "nobody")
	wantErr(t, err, store.ErrNotFound)
	wantErr(t, s.Delete(patient(t), "nothing", store.Any), store.ErrNotFound)
	wantErr(t, s.Delete(patient(t), "nothing", 7), store.ErrConflict)
}

func testPutGet(t *testing.T, s store.Store) {
	first := mustPut(t, s, "a", "1", store.Any)
	wantEntry(t, s, "a", "1", first)
	second := mustPut(t, s, "a", "2", store.Any)
	if second <= first {
		t.Fatalf("revision went from %d to %d, want it to grow", first, second)
	}
	wantEntry(t, s, "a", "2", second)
	wantEntry(t, s, "empty", "", mustPut(t, s, "empty", "", 0))
}

func testCompareAndSwap(t *testing.T, s store.Store) {
	_, err := s.Put(patient(t), "a", []byte("x"), 5)
	wantErr(t, err, store.ErrConflict) // it does not exist
	first := mustPut(t, s, "a", "1", 0)
	_, err = s.Put(patient(t), "a", []byte("x"), 0)
	wantErr(t, err, store.ErrConflict) // it exists
	second := mustPut(t, s, "a", "2", first)
	_, err = s.Put(patient(t), "a", []byte("x"), first)
	wantErr(t, err, store.ErrConflict) // it has changed
	wantEntry(t, s, "a", "2", second)
}

func testDelete(t *testing.T, s store.Store) {
	first := mustPut(t, s, "a", "1", 0)
	second := mustPut(t, s, "a", "2", first)
	wantErr(t, s.Delete(patient(t), "a", first), store.ErrConflict)
	wantErr(t, s.Delete(patient(t), "a", 0), store.ErrConflict)
	check(t, s.Delete(patient(t), "a", second))
	_, err := s.Get(patient(t), "a")
	wantErr(t, err, store.ErrNotFound)
	mustPut(t, s, "a", "3", 0) // as if it had never been
	check(t, s.Delete(patient(t), "a", store.Any))
}

func testList(t *testing.T, s store.Store) {
	for _, key := range []string{"op/c", "op/a", "oq", "op", "op/b/1", "z"} {
		mustPut(t, s, key, "v"+key, 0)
	}
	for prefix, want := range map[string][]string{
		"op/":  {"op/a", "op/b/1", "op/c"},
		"op":   {"op", "op/a", "op/b/1", "op/c"},
		"":     {"op", "op/a", "op/b/1", "op/c", "oq", "z"},
		"none": nil,
	} {
		got, err := s.List(patient(t), prefix)
		check(t, err)
		if len(got) != len(want) {
			t.Fatalf("list %q: %d entries %+v, want %v", prefix, len(got), got, want)
		}
		for i, e := range got {
			if e.Key != want[i] || string(e.Value) != "v"+want[i] || e.Revision == 0 {
				t.Fatalf("list %q: entry %d is %+v, want %s", prefix, i, e, want[i])
			}
		}
	}
}

func testValuesAreCopies(t *testing.T, s store.Store) {
	value := []byte("kept")
	rev, err := s.Put(patient(t), "a", value, 0)
	check(t, err)
	value[0] = 'X'
	e, err := s.Get(patient(t), "a")
	check(t, err)
	e.Value[0] = 'Y'
	wantEntry(t, s, "a", "kept", rev)
}

func testCancelledContext(t *testing.T, s store.Store) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := s.Get(ctx, "a")
	wantErr(t, err, context.Canceled)
	_, err = s.List(ctx, "a")
	wantErr(t, err, context.Canceled)
	_, err = s.Put(ctx, "a", nil, store.Any)
	wantErr(t, err, context.Canceled)
	_, err = s.PutFenced(ctx, "leader", 1, "a", nil, store.Any)
	wantErr(t, err, context.Canceled)
	wantErr(t, s.Delete(ctx, "a", store.Any), context.Canceled)
	_, err = s.Campaign(ctx, "leader", "ctl1")
	wantErr(t, err, context.Canceled)
	_, _, err = s.Holder(ctx, "leader")
	wantErr(t, err, context.Canceled)
	wantClosed(t, s.Watch(ctx, "", 0), "the watch")
	_, _, err = s.Holder(patient(t), "leader")
	wantErr(t, err, store.ErrNotFound) // the cancelled campaign left nothing behind
}

func testClose(t *testing.T, s store.Store) {
	held := mustCampaign(t, s, "leader", "ctl1")
	watch := s.Watch(context.Background(), "", 0)
	campaign := make(chan error, 1)
	go func() {
		_, err := s.Campaign(context.Background(), "leader", "ctl2")
		campaign <- err
	}()
	check(t, s.Close())
	wantClosed(t, watch, "the watch")
	wantClosed(t, held.Lost(), "Lost")
	select {
	case err := <-campaign:
		wantErr(t, err, store.ErrClosed)
	case <-patient(t).Done():
		t.Fatal("the campaign goes on after Close")
	}
	_, err := s.Get(patient(t), "a")
	wantErr(t, err, store.ErrClosed)
	_, err = s.Put(patient(t), "a", nil, store.Any)
	wantErr(t, err, store.ErrClosed)
	wantClosed(t, s.Watch(patient(t), "", 0), "a watch on a closed store")
	check(t, s.Close()) // twice is harmless
}
