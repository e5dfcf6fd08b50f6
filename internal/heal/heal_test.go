package heal

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"slices"
	"testing"
	"time"

	"nines/internal/model"
	"nines/internal/service"
	"nines/internal/store"
	"nines/internal/store/memstore"
)

// script is a service whose moves are given, and agents that note what they are told.
type script struct {
	service.Healer
	moves []service.Move
	seen  []service.Outage
	done  []string
	fail  error
	// orders to take power away, and how they end.
	orders []FenceRequest
	obeys  error
}

func (s *script) Next(_ *model.Cluster, o service.Outage) service.Move {
	s.seen = append(s.seen, o)
	m := s.moves[0]
	if len(s.moves) > 1 {
		s.moves = s.moves[1:]
	}
	return m
}

// told is the script as the agents' side.
type told struct{ *script }

func (s told) Evidence(context.Context, *model.Cluster, string, int64) (map[string]json.RawMessage, map[string]string) {
	return map[string]json.RawMessage{"a": []byte(`{}`)}, map[string]string{"b": "no answer"}
}

func (s told) Steps(_ context.Context, steps []StepRequest) error {
	for _, r := range steps {
		word := r.Step.Name + " " + r.Step.Node
		if r.Founding {
			word += " founds"
		}
		s.done = append(s.done, word)
	}
	return s.fail
}

func (s told) Cycle(_ context.Context, req FenceRequest) error {
	s.orders = append(s.orders, req)
	return s.obeys
}

func newEngine(t *testing.T, st store.Store, s *script) *Engine {
	t.Helper()
	lease, err := st.Campaign(t.Context(), "leader", "a")
	if err != nil {
		t.Fatal(err)
	}
	return &Engine{Name: "db", Healer: s, State: st, Agents: told{s}, Lease: "leader", Fence: lease.Fence(), Leader: "a",
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Now: time.Now}
}

var found = service.Move{Diagnosis: "all-crashed", Act: "found", Node: "b", Founder: "b",
	Steps: [][]service.HealStep{{{Node: "a", Name: "clear"}}, {{Node: "b", Name: "found"}}}}

func TestTheFounderIsWrittenDownBeforeItIsTold(t *testing.T) {
	s := &script{moves: []service.Move{{Act: "halt", Open: true}, found}, fail: errors.New("broke")}
	e := newEngine(t, memstore.New(), s)
	r, _, err := e.Tick(t.Context(), nil, 0, true)
	if err != nil || !r.Open || r.Epoch != 1 || len(s.done) > 0 {
		t.Fatalf("opening an epoch: %+v, %v, %q", r, err, s.done)
	}
	if _, _, err = e.Tick(t.Context(), nil, 0, true); err == nil {
		t.Fatal("a failed step is no error")
	}
	if !slices.Equal(s.done, []string{"clear a"}) {
		t.Errorf("after a failure: %q", s.done)
	}
	r, _, err = Load(t.Context(), e.State, "db")
	if err != nil || r.Founder != "b" || r.Absent["b"] == "" {
		t.Errorf("%+v, %v", r, err)
	}
	s.fail = nil
	if _, _, err = e.Tick(t.Context(), nil, 0, true); err != nil || s.done[len(s.done)-1] != "found b founds" {
		t.Errorf("%q, %v", s.done, err)
	}
	if o := s.seen[2]; o.Founder != "b" || o.Epoch != 1 {
		t.Errorf("decided on %+v", o)
	}
}

func TestAnEpochHasOneFounder(t *testing.T) {
	other := found
	other.Node, other.Founder = "c", "c"
	s := &script{moves: []service.Move{{Open: true}, found, other}}
	e := newEngine(t, memstore.New(), s)
	for range 2 {
		if _, _, err := e.Tick(t.Context(), nil, 0, true); err != nil {
			t.Fatal(err)
		}
	}
	s.done = nil
	if _, _, err := e.Tick(t.Context(), nil, 0, true); err == nil || len(s.done) > 0 {
		t.Errorf("%v, %q", err, s.done)
	}
}

func TestWithoutLeaveNothingIsBegun(t *testing.T) {
	s := &script{moves: []service.Move{{Act: "halt", Open: true, Diagnosis: "unexamined"}, found}}
	e := newEngine(t, memstore.New(), s)
	for range 2 {
		r, _, err := e.Tick(t.Context(), nil, 0, false)
		if err != nil || r.Open || len(s.done) > 0 {
			t.Fatalf("%+v, %v, %q", r, err, s.done)
		}
	}
	if r, _, _ := Load(t.Context(), e.State, "db"); r.Move.Diagnosis != "all-crashed" {
		t.Errorf("what is seen is not told: %+v", r.Move)
	}
}

func TestAReplacedLeaderChangesNothing(t *testing.T) {
	s := &script{moves: []service.Move{{Open: true}, found}}
	st := memstore.New()
	lease, err := st.Campaign(t.Context(), "leader", "a")
	if err != nil {
		t.Fatal(err)
	}
	old := &Engine{Name: "db", Healer: s, State: st, Agents: told{s}, Lease: "leader", Fence: lease.Fence(), Leader: "a", Now: time.Now,
		Log: slog.New(slog.NewTextHandler(io.Discard, nil))}
	if _, _, err := old.Tick(t.Context(), nil, 0, true); err != nil {
		t.Fatal(err)
	}
	if err := lease.Resign(t.Context()); err != nil {
		t.Fatal(err)
	}
	fresh := newEngine(t, st, s)
	if _, _, err := old.Tick(t.Context(), nil, 0, true); !errors.Is(err, store.ErrFenced) || len(s.done) > 0 {
		t.Errorf("%v, %q", err, s.done)
	}
	if _, _, err := fresh.Tick(t.Context(), nil, 0, true); err != nil || len(s.done) != 2 {
		t.Errorf("%v, %q", err, s.done)
	}
}

func TestCheck(t *testing.T) {
	s := &script{moves: []service.Move{{Open: true}, found, {Done: true}}}
	e := newEngine(t, memstore.New(), s)
	for range 2 {
		if _, _, err := e.Tick(t.Context(), nil, 0, true); err != nil {
			t.Fatal(err)
		}
	}
	good := StepRequest{Service: "db", Fence: e.Fence, Epoch: 1, Step: service.HealStep{Node: "b", Name: "found"}, Founding: true}
	if err := Check(t.Context(), e.State, e.Fence, good); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*StepRequest){
		"another leader's": func(r *StepRequest) { r.Fence++ },
		"an old epoch's":   func(r *StepRequest) { r.Epoch = 0 },
		"another founder":  func(r *StepRequest) { r.Step.Node = "a" },
	} {
		r := good
		change(&r)
		if err := Check(t.Context(), e.State, e.Fence, r); !errors.Is(err, ErrStale) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := e.Tick(t.Context(), nil, 0, true); err != nil {
		t.Fatal(err)
	}
	if err := Check(t.Context(), e.State, e.Fence, good); !errors.Is(err, ErrStale) {
		t.Errorf("a step of a recovery that is over: %v", err)
	}
}

func TestAPersonBegins(t *testing.T) {
	s := &script{moves: []service.Move{{Act: "nothing", Reason: "a is in a Primary"}, {Act: "wait", Diagnosis: "self-healing"}, {Act: "wait"}}}
	e := newEngine(t, memstore.New(), s)
	if _, err := e.Begin(t.Context(), nil, "b", "somebody"); !errors.Is(err, ErrNothing) {
		t.Errorf("beside a Primary: %v", err)
	}
	r, err := e.Begin(t.Context(), nil, "", "somebody")
	if err != nil || !r.Open || r.Epoch != 1 || r.Who != "somebody" {
		t.Errorf("%+v, %v", r, err)
	}
	if r, err = e.Begin(t.Context(), nil, "", "another"); err != nil || r.Epoch != 1 || r.Who != "somebody" {
		t.Errorf("begun twice: %+v, %v", r, err)
	}
	s.moves = []service.Move{{Act: "ask", Diagnosis: "bad-choice", Hint: "choose b"}}
	if r, err = e.Begin(t.Context(), nil, "b", "another"); err != nil || r.Move.Act == "ask" || r.Epoch != 2 || r.Choice != "b" || r.Who != "another" {
		t.Errorf("a choice is a new epoch: %+v, %v", r, err)
	}
	// What showed another history is cleared away before the chosen one founds: it must not be forgotten with the epoch.
	s.moves = []service.Move{{Act: "found", Founder: "b", Renew: true, Steps: [][]service.HealStep{{{Node: "b", Name: "found"}}}}, {Act: "wait"}}
	if r, _, err = e.Tick(t.Context(), nil, 0, true); err != nil || !r.Renew {
		t.Fatalf("%+v, %v", r, err)
	}
	if r, err = e.Begin(t.Context(), nil, "b", "another"); err != nil || r.Epoch != 3 || !r.Renew {
		t.Errorf("chosen once more: %+v, %v", r, err)
	}
}

func TestWhatBecameOfThePowerIsWrittenDown(t *testing.T) {
	fence := service.Move{Diagnosis: "maybe-alive", Act: "fence", Node: "b", Fence: "b"}
	s := &script{moves: []service.Move{{Open: true}, fence}, obeys: errors.New("no route")}
	e := newEngine(t, memstore.New(), s)
	tick := func(m service.Move) Record {
		t.Helper()
		s.moves = []service.Move{m}
		if _, _, err := e.Tick(t.Context(), nil, 0, true); err != nil {
			t.Fatal(err)
		}
		r, _, err := Load(t.Context(), e.State, "db")
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	tick(service.Move{Open: true})
	if r := tick(fence); r.Fenced["b"].Error != "no route" {
		t.Fatalf("%+v", r.Fenced)
	}
	s.obeys = nil
	if r := tick(fence); r.Fenced["b"].Error != "" || r.Fenced["b"].At.IsZero() {
		t.Fatalf("%+v", r.Fenced)
	}
	if len(s.orders) != 2 || s.orders[0].ID == s.orders[1].ID || s.orders[0].Node != "b" || s.orders[0].Fence != e.Fence {
		t.Errorf("two attempts are two orders: %+v", s.orders)
	}
	if f := s.seen[len(s.seen)-1].Fenced["b"]; f.Error != "no route" {
		t.Errorf("decided without the attempt: %+v", f)
	}
	// Node "a" answers each time: whatever became of its power before, it may be at work.
	tick(service.Move{Diagnosis: "maybe-alive", Act: "fence", Node: "a", Fence: "a"})
	if r := tick(service.Move{Diagnosis: "x", Act: "wait"}); !r.Fenced["a"].Over || r.Fenced["b"].Over {
		t.Errorf("%+v", r.Fenced)
	}
	if seen := s.seen[len(s.seen)-1].Fenced; len(seen) != 1 {
		t.Errorf("decided on %+v", seen)
	}
	tick(service.Move{Diagnosis: "maybe-alive", Act: "fence", Node: "a", Fence: "a"})
	if n := len(s.orders); s.orders[n-1].ID == s.orders[n-2].ID {
		t.Errorf("the order of before does for another attempt: %+v", s.orders)
	}
	// The next epoch is of the same outage; once something is at work, what comes is another one.
	if r := tick(service.Move{Open: true}); r.Epoch != 2 || r.Fenced["b"].At.IsZero() {
		t.Errorf("%+v", r)
	}
	tick(fence)
	if r := tick(service.Move{Settled: true}); r.fencedNow() {
		t.Errorf("%+v", r.Fenced)
	}
	tick(fence)
	if seen := s.seen[len(s.seen)-1].Fenced; len(seen) > 0 {
		t.Errorf("decided on %+v", seen)
	}
	if n := len(s.orders); s.orders[n-1].ID == s.orders[n-2].ID {
		t.Errorf("in the same epoch, the order of the outage before does for this one: %+v", s.orders)
	}
}
