package storetest

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"nines/internal/store"
)

// model is what a store must look like after a sequence of operations.
type model struct {
	entries map[string]store.Entry
	history []store.Event
	last    int64
}

// testModel runs random operations against the store and the model, each
// sequence under a prefix of its own, and compares every answer, the list and
// the history a watch tells.
func testModel(t *testing.T, s store.Store) {
	lease := mustCampaign(t, s, "model", "tester")
	run := 0
	rapid.Check(t, func(r *rapid.T) {
		run++
		prefix := fmt.Sprintf("run%d/", run)
		m := &model{entries: map[string]store.Entry{}}
		events := s.Watch(patient(t), prefix, 0)
		for range rapid.IntRange(1, 12).Draw(r, "operations") {
			m.step(r, t, s, lease.Fence(), prefix)
		}
		got, err := s.List(patient(t), prefix)
		check(t, err)
		want := slices.SortedFunc(maps.Values(m.entries), func(a, b store.Entry) int { return strings.Compare(a.Key, b.Key) })
		if len(got) != len(want) {
			r.Fatalf("list has %d entries, want %d", len(got), len(want))
		}
		for i := range want {
			if got[i].Key != want[i].Key || string(got[i].Value) != string(want[i].Value) || got[i].Revision != want[i].Revision {
				r.Fatalf("entry %d is %+v, want %+v", i, got[i], want[i])
			}
		}
		for _, e := range m.history {
			got, ok := <-events
			if !ok || got.Key != e.Key || got.Deleted != e.Deleted || string(got.Value) != string(e.Value) {
				r.Fatalf("the watch told %+v, want %+v", got, e)
			}
			if !e.Deleted && got.Revision != e.Revision {
				r.Fatalf("the watch told revision %d, want %d", got.Revision, e.Revision)
			}
		}
	})
}

func (m *model) step(r *rapid.T, t *testing.T, s store.Store, fence store.Fence, prefix string) {
	key := prefix + rapid.SampledFrom([]string{"a", "b", "b/c"}).Draw(r, "key")
	now, exists := m.entries[key]
	revision := rapid.SampledFrom([]int64{store.Any, 0, now.Revision, now.Revision, now.Revision + 1, 1}).Draw(r, "revision")
	var want error
	if revision != store.Any && revision != now.Revision {
		want = store.ErrConflict
	}
	value := rapid.SliceOfN(rapid.Byte(), 0, 8).Draw(r, "value")
	var got error
	var rev int64
	switch op := rapid.SampledFrom([]string{"put", "put", "fenced", "stale", "delete", "get"}).Draw(r, "operation"); op {
	case "put":
		rev, got = s.Put(patient(t), key, value, revision)
	case "fenced":
		rev, got = s.PutFenced(patient(t), "model", fence, key, value, revision)
	case "stale":
		want = store.ErrFenced
		rev, got = s.PutFenced(patient(t), "model", fence-1, key, value, revision)
	case "delete":
		if want == nil && !exists {
			want = store.ErrNotFound
		}
		got = s.Delete(patient(t), key, revision)
		if got == nil {
			delete(m.entries, key)
			m.history = append(m.history, store.Event{Entry: store.Entry{Key: key}, Deleted: true})
		}
		m.compare(r, op, got, want)
		return
	case "get":
		m.get(r, t, s, key)
		return
	}
	m.compare(r, "put", got, want)
	if got == nil {
		if rev <= m.last {
			r.Fatalf("revision %d after %d, want it to grow", rev, m.last)
		}
		m.last = rev
		m.entries[key] = store.Entry{Key: key, Value: value, Revision: rev}
		m.history = append(m.history, store.Event{Entry: m.entries[key]})
	}
}

func (m *model) get(r *rapid.T, t *testing.T, s store.Store, key string) {
	got, err := s.Get(patient(t), key)
	want, exists := m.entries[key]
	if !exists {
		m.compare(r, "get", err, store.ErrNotFound)
		return
	}
	m.compare(r, "get", err, nil)
	if string(got.Value) != string(want.Value) || got.Revision != want.Revision {
		r.Fatalf("got %+v, want %+v", got, want)
	}
}

func (m *model) compare(r *rapid.T, op string, got, want error) {
	if !errors.Is(got, want) { // errors.Is(err, nil) is err == nil
		r.Fatalf("%s: error is %v, want %v", op, got, want)
	}
}
