package agent

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"nines/internal/converge"
	"nines/internal/heal"
	"nines/internal/health"
	"nines/internal/model"
	"nines/internal/plan"
	"nines/internal/secret"
	"nines/internal/service"
	"nines/internal/store"
	"nines/internal/store/memstore"
)

// patient is a service that can be recovered: it is well or not, and moves as it is told.
type patient struct {
	service.Healer
	well    bool
	lineage string
	move    service.Move
	waited  []time.Duration
}

func (*patient) Name() string { return "db" }
func (*patient) Resources(*model.Cluster, secret.Source) ([]plan.Resource, error) {
	return nil, nil
}
func (p *patient) Watch(*model.Cluster, map[string]service.Observation, json.RawMessage, time.Time) (json.RawMessage, bool) {
	if p.lineage == "" {
		return nil, p.well
	}
	return json.RawMessage(p.lineage), p.well
}
func (p *patient) Next(_ *model.Cluster, o service.Outage) service.Move {
	p.waited = append(p.waited, o.Waited)
	return p.move
}

// hands are the agents as an engine sees them.
type hands struct {
	asked int
	done  []string
	fail  error
}

func (h *hands) Evidence(context.Context, *model.Cluster, string, int64) (map[string]json.RawMessage, map[string]string) {
	h.asked++
	return map[string]json.RawMessage{"ctl1": []byte(`{}`)}, nil
}

func (h *hands) Steps(_ context.Context, steps []heal.StepRequest) error {
	for _, s := range steps {
		h.done = append(h.done, s.Step.Name+" "+s.Step.Node)
	}
	return h.fail
}

func (h *hands) Cycle(_ context.Context, req heal.FenceRequest) error {
	h.done = append(h.done, "cycle "+req.Node)
	return h.fail
}

// ward is a leader with one patient.
type ward struct {
	*Agent
	patient *patient
	hands   *hands
	engine  *heal.Engine
	leader  *converge.Leader
	apart   *noApply
	sick    time.Time
	cluster *model.Cluster
}

func newWard(t *testing.T) *ward {
	t.Helper()
	st := memstore.New()
	t.Cleanup(func() { st.Close() })
	lease, err := st.Campaign(t.Context(), converge.LeaderLease, "ctl1")
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	w := &ward{patient: &patient{}, hands: &hands{}, leader: converge.NewLeader(converge.Options{Log: log}),
		cluster: &model.Cluster{Name: "test", Services: []string{"db"}}} // nobody to be asked over the network
	w.Agent = &Agent{Options: Options{Services: []service.Service{w.patient}, Log: log}}
	w.apart = &noApply{leader: w.leader, by: map[string]bool{}}
	w.engine = w.Agent.engine(st, "db", w.patient, lease.Fence())
	w.engine.Agents = w.hands
	return w
}

func (w *ward) look(t *testing.T) (busy bool, err error) {
	t.Helper()
	return w.tick(t.Context(), w.cluster, w.engine, &w.sick, w.apart)
}

// mayApply reports whether an apply could begin now.
func (w *ward) mayApply() bool {
	release, ok := w.leader.Hold("a test")
	if ok {
		release()
	}
	return ok
}

var (
	opens  = service.Move{Diagnosis: "all-crashed", Act: "halt", Reason: "r", Open: true}
	starts = service.Move{Diagnosis: "all-crashed", Act: "start", Reason: "r", Steps: [][]service.HealStep{{{Node: "ctl1", Name: "start"}}}}
	waits  = service.Move{Diagnosis: "member-missing", Act: "wait", Reason: "r", Hint: "bring it up"}
	rests  = service.Move{Diagnosis: "joining", Act: "wait", Reason: "r", Rest: true}
	ends   = service.Move{Act: "nothing", Reason: "all serve", Done: true}
)

func TestNobodyIsAskedWhileAllIsWell(t *testing.T) {
	w := newWard(t)
	w.patient.well, w.patient.lineage = true, `{"view":1}`
	if busy, err := w.look(t); busy || err != nil || w.hands.asked > 0 {
		t.Errorf("busy %v, %v, evidence asked %d times", busy, err, w.hands.asked)
	}
	if l, err := w.engine.Lineage(t.Context()); err != nil || string(l) != `{"view":1}` {
		t.Errorf("lineage %s, %v", l, err)
	}
}

func TestARecoveryFromBeginningToEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWard(t)
		w.patient.move = waits
		w.look(t)
		time.Sleep(30 * time.Second)
		if busy, err := w.look(t); busy || err != nil || !w.mayApply() {
			t.Fatalf("who only waits keeps nobody from applying: %v, %v", busy, err)
		}
		if last := w.patient.waited[len(w.patient.waited)-1]; last != 30*time.Second {
			t.Errorf("waited %s as the service is told, want 30s", last)
		}
		w.patient.move = opens
		if busy, err := w.look(t); !busy || err != nil || w.mayApply() {
			t.Fatalf("an epoch is open: busy %v, %v, may apply %v", busy, err, w.mayApply())
		}
		w.patient.move = starts
		if busy, err := w.look(t); !busy || err != nil || !slices.Equal(w.hands.done, []string{"start ctl1"}) {
			t.Fatalf("busy %v, %v, did %q", busy, err, w.hands.done)
		}
		w.patient.move = rests
		if busy, err := w.look(t); busy || err != nil || !w.mayApply() {
			t.Errorf("it is at work again: busy %v, %v, may apply %v", busy, err, w.mayApply())
		}
		w.patient.move, w.patient.well = ends, true
		if busy, err := w.look(t); busy || err != nil || !w.mayApply() {
			t.Errorf("over: busy %v, %v, may apply %v", busy, err, w.mayApply())
		}
		if r, _, err := heal.Load(t.Context(), w.engine.State, "db"); err != nil || r.Open || !w.sick.IsZero() {
			t.Errorf("%+v, %v, sick since %s", r, err, w.sick)
		}
	})
}

func TestARecoveryWaitsForAnApply(t *testing.T) {
	w := newWard(t)
	release, ok := w.leader.Hold("somebody's apply")
	if !ok {
		t.Fatal("not free")
	}
	w.patient.move = opens
	if busy, err := w.look(t); busy || err != nil {
		t.Errorf("busy %v, %v", busy, err)
	}
	if r, _, _ := heal.Load(t.Context(), w.engine.State, "db"); r.Open {
		t.Error("it began beside an apply")
	}
	release()
	if busy, err := w.look(t); !busy || err != nil {
		t.Errorf("after the apply: busy %v, %v", busy, err)
	}
}

func TestWhatFailedIsWrittenDown(t *testing.T) {
	w := newWard(t)
	w.patient.move = opens
	w.look(t)
	w.patient.move, w.hands.fail = starts, errors.New("the disk is full")
	if _, err := w.look(t); err == nil || !strings.Contains(err.Error(), "disk is full") {
		t.Errorf("error %v", err)
	}
	r, _, err := heal.Load(t.Context(), w.engine.State, "db")
	if err != nil || !r.Open || !strings.Contains(r.Log[len(r.Log)-1].Text, "disk is full") {
		t.Errorf("%+v, %v", r, err)
	}
	if w.mayApply() {
		t.Error("an apply may begin in the middle of a recovery")
	}
}

// A leader that was replaced changes nothing any more.
func TestALeaderOfThePastWritesNothing(t *testing.T) {
	w := newWard(t)
	w.engine.Fence--
	w.patient.move = opens
	if _, err := w.look(t); !errors.Is(err, store.ErrFenced) {
		t.Errorf("error %v", err)
	}
	if r, _, _ := heal.Load(t.Context(), w.engine.State, "db"); r.Open {
		t.Error("it opened an epoch")
	}
}

func TestAppliesAreHeldWhileAnyServiceIsRecovered(t *testing.T) {
	w := newWard(t)
	if !w.apart.hold("db") || !w.apart.hold("broker") || !w.apart.hold("db") {
		t.Fatal("not held")
	}
	w.apart.letGo("db")
	if w.apart.held("db") || !w.apart.held("broker") || w.mayApply() {
		t.Error("one of two let go")
	}
	w.apart.letGo("nobody")
	w.apart.letGo("broker")
	w.apart.letGo("broker")
	if !w.mayApply() {
		t.Error("both let go, and no apply may begin")
	}
}

func TestRecoveryConditions(t *testing.T) {
	for name, tc := range map[string]struct {
		record heal.Record
		want   string
	}{
		"never":                     {heal.Record{}, ""},
		"under way":                 {heal.Record{Open: true, Move: starts}, "recovery-under-way warning"},
		"given time":                {heal.Record{Move: service.Move{Diagnosis: "d", Act: "wait"}}, "recovery-under-way warning"},
		"waits for a machine":       {heal.Record{Open: true, Move: waits}, "recovery-stuck critical"},
		"one is left, others serve": {heal.Record{Open: true, Move: service.Move{Diagnosis: "d", Act: "ask", Hint: "h", Rest: true}}, "recovery-stuck warning"},
		"over, a member was left":   {heal.Record{Move: service.Move{Left: []string{"ctl3"}}}, "recovery-left warning"},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, c := range recoveryConditions(tc.record) {
				got = append(got, c.Code+" "+string(c.Severity))
				if c.Hint == "" || c.Text == "" {
					t.Errorf("%+v", c)
				}
			}
			if s := strings.Join(got, ", "); s != tc.want {
				t.Errorf("%q, want %q", s, tc.want)
			}
		})
	}
	two := recovering(map[string]heal.Record{"db": {Service: "db", Open: true, Move: starts}, "broker": {Service: "broker", Open: true, Move: waits}})
	if len(two) != 2 || two[0].Service != "broker" || two[0].Severity != health.Critical {
		t.Errorf("%+v", two)
	}
}

func TestOnlyServicesThatCanBeRecoveredAre(t *testing.T) {
	a := &Agent{Options: Options{Services: []service.Service{&patient{}, moody{}}}}
	if h, err := a.healer("db"); err != nil || h == nil {
		t.Errorf("%v, %v", h, err)
	}
	for _, name := range []string{"moody", "nobody"} {
		if _, err := a.healer(name); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := a.healers(&model.Cluster{Services: []string{"moody"}}); len(got) != 0 {
		t.Errorf("a service that the cluster does not run: %v", got)
	}
}
