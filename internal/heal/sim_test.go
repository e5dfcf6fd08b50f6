package heal

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"nines/internal/model"
	"nines/internal/service"
	"nines/internal/service/galera"
	"nines/internal/service/galera/recovery"
	"nines/internal/store"
)

var (
	schedules = flag.Int("schedules", usually, "how many schedules the simulation runs")
	oneSeed   = flag.Uint64("seed", 0, "run this one schedule and print what happened")
)

// TestSimulation lets a site fail in every order that a seed gives, with leaders that die between two steps, and holds the
// invariants after every event.
func TestSimulation(t *testing.T) {
	if *oneSeed != 0 {
		s := simulate(*oneSeed)
		t.Log(strings.Join(s.trace, "\n"))
		if s.broken != "" {
			t.Fatal(s.broken)
		}
		return
	}
	var sum tally
	for seed := uint64(1); seed <= uint64(*schedules); seed++ {
		s := simulate(seed)
		sum.add(s)
		if s.broken != "" {
			t.Fatalf("%s\nrun it again: go test ./internal/heal -run TestSimulation -v -args -seed %d", s.broken, seed)
		}
	}
	t.Logf("%d schedules: %+v", *schedules, sum)
	if *schedules >= 10000 && (sum.Foundings == 0 || sum.Promotions == 0 || sum.Stale == 0 || sum.Asked == 0 || sum.Renewed == 0 || sum.ByHand == 0 || sum.Fenced == 0) {
		t.Errorf("the schedules do not reach what they are to try: %+v", sum)
	}
}

// tally is what the schedules came to.
type tally struct{ Foundings, Promotions, Joins, Stale, Asked, Renewed, ByHand, Apart, Fenced, Whole int }

func (t *tally) add(s *sim) {
	t.Foundings += s.sum.Foundings
	t.Promotions += s.sum.Promotions
	t.Joins += s.sum.Joins
	t.Stale += s.sum.Stale
	t.Asked += s.sum.Asked
	t.Renewed += s.sum.Renewed
	t.ByHand += s.sum.ByHand
	t.Apart += s.sum.Apart
	t.Fenced += s.sum.Fenced
	t.Whole += s.sum.Whole
}

// sim is a world with its agents, its store and its leaders. It is the store and the agents of the engine under test.
type sim struct {
	*world
	cluster *model.Cluster
	healer  *galera.Service

	revision int64
	entries  map[string]store.Entry
	fence    store.Fence
	leader   string
	engine   *Engine
	now      time.Time
	sick     time.Time
	depth    int // leaders within the calls of leaders
	quiet    bool
	chosen   bool // by a person, who has made sure that what does not answer is off
	sum      tally
}

func simulate(seed uint64) *sim {
	rng := rand.New(rand.NewPCG(seed, 1))
	members := 3
	if rng.IntN(8) == 0 {
		members = []int{1, 5}[rng.IntN(2)]
	}
	s := &sim{world: newWorld(rng, members), healer: galera.New(nil), entries: map[string]store.Entry{}, now: time.Unix(0, 0)}
	s.cluster = &model.Cluster{Name: "sim"}
	for _, m := range s.nodes {
		s.cluster.Nodes = append(s.cluster.Nodes, model.Node{Name: m.name, Roles: []model.Role{model.RoleController}})
	}
	if rng.IntN(5) == 0 {
		s.cluster.Tuning.Galera.MissingMemberAfter = time.Duration(1+rng.IntN(4)) * 15 * time.Second
		if rng.IntN(2) == 0 {
			s.cluster.Fencing = model.FencingOn
			for i := range s.cluster.Nodes {
				s.cluster.Nodes[i].BMC = model.BMC{Protocol: model.Redfish}
			}
		}
	}
	s.lead()
	for range 60 {
		if s.broken != "" {
			return s
		}
		if s.chance(0.45) {
			s.lead()
		} else {
			s.happen()
		}
		if s.chance(0.02) {
			s.person()
		}
		if s.chance(0.02) {
			s.byHand()
		}
	}
	s.finish()
	return s
}

// finish ends all faults: the site must come back by itself, unless only a person can say how.
func (s *sim) finish() {
	s.say("all faults end")
	s.quiet = true
	for _, m := range s.nodes {
		m.side, m.run.frozen, m.run.unaware = 0, false, 0
		s.boot(m)
	}
	for range 120 {
		if s.broken != "" {
			return
		}
		s.settle()
		s.lead()
		s.check()
		if p := s.primary(); len(p) == len(s.nodes) {
			s.write()
			s.check()
			s.sum.Whole++
			return
		}
	}
	r, _, _ := Load(context.Background(), s, "galera")
	if p := s.primary(); len(p) > 0 && s.excused && slices.ContainsFunc(s.nodes, func(m *machine) bool { return m.run.refused }) {
		s.sum.Apart++ // the others serve, and a person decides about what the one has that they do not
		return
	}
	if r.Move.Act == "ask" || len(r.Move.Left) > 0 {
		s.sum.Asked++
		if !s.damaged && !s.excused && r.Move.Diagnosis != string(recovery.StaleFlag) {
			s.fail("a person is asked although nothing was damaged: %s", r.Move.Reason)
		}
		return
	}
	s.fail("the site does not come back: %s: %s", r.Move.Diagnosis, r.Move.Reason)
}

// person says which member goes on, now and then, although it may not be the best. A person looks first whether what is
// left behind could go on by itself.
func (s *sim) person() {
	if s.engine == nil || len(s.primaries()) > 0 {
		return
	}
	for _, o := range s.nodes {
		if !s.reaches(o) && o.up {
			return
		}
	}
	if m := s.any(); m.up && len(m.disk.history) > 0 {
		if _, err := s.engine.Begin(context.Background(), s.cluster, m.name, "a person"); err == nil {
			s.say("a person chooses %s", m.name)
			s.excused, s.chosen = true, true
		}
	}
}

// byHand has somebody found a database on the last machine that is on. That it is another history than the others' shows from their saved views; where
// a power cut took these as well, nothing shows it.
func (s *sim) byHand() {
	var lineage recovery.Lineage
	if e, ok := s.entries[prefixLineage+"galera"]; !ok || json.Unmarshal(e.Value, &lineage) != nil {
		return
	}
	var alone *machine
	for _, m := range s.nodes {
		switch {
		case m.up && alone != nil:
			return
		case m.up:
			alone = m
		case m.disk.view == nil || !slices.Contains(lineage.Members, m.name):
			return
		}
	}
	if alone == nil || len(s.nodes) == 1 || alone.busy != "" || alone.run.server == recovery.Primary || alone.disk.empty || alone.disk.torn || alone.run.transfer || alone.disk.saved == nil {
		return
	}
	s.sum.ByHand++
	s.foundByHand(alone)
}

// majority are the machines that can hold the store together: it is gone without them.
func (s *sim) majority() []*machine {
	sides := map[int][]*machine{}
	for _, m := range s.nodes {
		if m.up {
			sides[m.side] = append(sides[m.side], m)
		}
	}
	for side := range 3 {
		if ms := sides[side]; 2*len(ms) > len(s.nodes) {
			return ms
		}
	}
	return nil
}

func (s *sim) reaches(m *machine) bool { return slices.Contains(s.majority(), m) }

func (s *sim) node(name string) *machine {
	i := slices.IndexFunc(s.nodes, func(m *machine) bool { return m.name == name })
	return s.nodes[i]
}

// lead is one look of the leader, as the agent does it. A leader that cannot lead any more is replaced first.
func (s *sim) lead() {
	ms := s.majority()
	if len(ms) == 0 || s.depth > 2 {
		return
	}
	if s.leader == "" || !slices.Contains(ms, s.node(s.leader)) || !s.quiet && s.chance(0.15) {
		s.elect(ms[s.rng.IntN(len(ms))])
	}
	s.depth++
	defer func() { s.depth-- }()
	s.now = s.now.Add(7 * time.Second)
	e := s.engine
	ctx := context.Background()
	last, err := e.Lineage(ctx)
	if err != nil {
		return
	}
	lineage, well := s.healer.Watch(s.cluster, s.observations(), last, s.now)
	if lineage != nil && e.Remember(ctx, lineage) != nil {
		return
	}
	waited := time.Duration(0)
	switch {
	case well:
		s.sick = time.Time{}
	case s.sick.IsZero():
		s.sick = s.now
	default:
		waited = s.now.Sub(s.sick)
	}
	r, m, err := e.Tick(ctx, s.cluster, waited, true)
	s.say("%s (fence %d, epoch %d open %t): %s %s %s: %s [%v]", e.Leader, e.Fence, r.Epoch, r.Open, m.Diagnosis, m.Act, m.Node, m.Reason, err)
}

func (s *sim) elect(m *machine) {
	s.revision++
	s.fence, s.leader, s.sick = store.Fence(s.revision), m.name, time.Time{}
	s.engine = &Engine{Name: "galera", Healer: s.healer, State: s, Agents: s, Lease: "leader", Fence: s.fence, Leader: m.name,
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Now: func() time.Time { return s.now }}
	s.say("%s leads with fence %d", m.name, s.fence)
}

func (s *sim) observations() map[string]service.Observation {
	seen := map[string]service.Observation{}
	for _, m := range s.majority() {
		o := service.Observation{}
		if m.run.server == recovery.Primary && !m.run.frozen {
			o.Serving = true
			o.Facts = map[string]string{"wsrep_cluster_status": "Primary", "wsrep_cluster_state_uuid": m.disk.uuid,
				"wsrep_cluster_conf_id": m.run.ident.ID, "wsrep_cluster_size": strconv.Itoa(len(m.run.ident.Members)), "wsrep_last_committed": strconv.Itoa(len(m.disk.history))}
		}
		if m.disk.aside != nil && m.run.server != recovery.Primary {
			o.Facts = map[string]string{"view_aside": m.disk.aside.ID}
		}
		seen[m.name] = o
	}
	return seen
}

// interrupt lets the world go on in the middle of somebody's work, now and then with another leader.
func (s *sim) interrupt(p float64) {
	if s.quiet || s.depth > 2 {
		return
	}
	for s.chance(p) {
		if ms := s.majority(); len(ms) > 0 && s.chance(0.3) {
			// The one before does not know yet, and goes on where it is.
			s.elect(ms[s.rng.IntN(len(ms))])
			if s.chance(0.2) {
				s.person()
			}
			for range s.rng.IntN(6) {
				s.lead()
			}
			continue
		}
		s.happen()
	}
}

var errAway = errors.New("no answer")

// Get implements State.
func (s *sim) Get(_ context.Context, key string) (store.Entry, error) {
	if len(s.majority()) == 0 {
		return store.Entry{}, store.ErrNoQuorum
	}
	e, ok := s.entries[key]
	if !ok {
		return e, store.ErrNotFound
	}
	return e, nil
}

// PutFenced implements State.
func (s *sim) PutFenced(_ context.Context, _ string, fence store.Fence, key string, value []byte, revision int64) (int64, error) {
	switch {
	case len(s.majority()) == 0:
		return 0, store.ErrNoQuorum
	case fence != s.fence:
		return 0, store.ErrFenced
	case revision != store.Any && s.entries[key].Revision != revision:
		return 0, store.ErrConflict
	}
	s.revision++
	s.entries[key] = store.Entry{Key: key, Value: value, Revision: s.revision}
	return s.revision, nil
}

// Evidence implements Agents.
func (s *sim) Evidence(_ context.Context, c *model.Cluster, _ string, epoch int64) (map[string]json.RawMessage, map[string]string) {
	found, absent := map[string]json.RawMessage{}, map[string]string{}
	for _, n := range c.Nodes {
		s.interrupt(0.04)
		if m := s.node(n.Name); s.reaches(m) && (s.quiet || s.chosen || s.chance(0.97)) {
			found[n.Name] = s.evidence(m, epoch)
		} else {
			absent[n.Name] = "no answer"
		}
	}
	return found, absent
}

// Steps implements Agents.
func (s *sim) Steps(ctx context.Context, steps []StepRequest) error {
	var errs []error
	for _, i := range s.rng.Perm(len(steps)) {
		s.interrupt(0.1)
		errs = append(errs, s.step(ctx, steps[i]))
	}
	return errors.Join(errs...)
}

// Cycle implements Agents.
func (s *sim) Cycle(_ context.Context, req FenceRequest) error {
	s.interrupt(0.1)
	if s.chance(0.3) {
		return errors.New("the BMC does not answer")
	}
	m := s.node(req.Node)
	s.sum.Fenced++
	s.powerCut(m)
	s.interrupt(0.1)
	if s.quiet || s.chance(0.5) { // else it does not come up
		s.boot(m)
	}
	s.check()
	return nil
}

// crashed ends a step whose machine went away in the middle of it.
type crashed struct{}

func (s *sim) step(ctx context.Context, req StepRequest) (err error) {
	m := s.node(req.Step.Node)
	if !s.reaches(m) {
		return errAway
	}
	if m.busy != "" {
		return errors.New("busy")
	}
	m.busy = req.Step.Name
	boot := m.run.invocation
	s.interrupt(0.05)
	defer func() {
		m.busy = ""
		if r := recover(); r != nil {
			if _, ok := r.(crashed); !ok {
				panic(r)
			}
			err = errAway
		}
		s.check()
	}()
	if !m.up || !s.reaches(m) || m.busy == "" {
		return errAway
	}
	_ = boot
	if err := Check(ctx, s, s.fence, req); err != nil {
		s.sum.Stale++
		return err
	}
	s.say("step %s %s (epoch %d)", req.Step.Name, m.name, req.Epoch)
	return s.doStep(m, req)
}

// moment is a point within a step at which anything may happen, to this machine too.
func (s *sim) moment(m *machine) {
	s.interrupt(0.08)
	if !m.up || m.busy == "" {
		panic(crashed{})
	}
}

// doStep does what the agent's step does.
func (s *sim) doStep(m *machine, req StepRequest) error {
	rest := func() error {
		if m.run.server != recovery.Stopped {
			return errors.New("it is not stopped")
		}
		return nil
	}
	switch req.Step.Name {
	case recovery.StepHalt:
		return s.halt(m, req.Epoch)
	case recovery.StepClear:
		if err := rest(); err != nil {
			return err
		}
		m.disk.view, m.disk.aside, m.disk.mark = nil, nil, false
		s.moment(m)
		if m.disk.saved != nil {
			saved := *m.disk.saved
			saved.SafeToBootstrap = false
			m.disk.saved, m.disk.flushed = &saved, &saved
		}
		return nil
	case recovery.StepFound:
		if err := rest(); err != nil {
			return err
		}
		return s.foundStep(m, req)
	case recovery.StepPromote:
		if m.run.server != recovery.NonPrimary || m.run.frozen {
			return errors.New("it is not alive without a Primary")
		}
		if err := s.once(m, req.Epoch); err != nil {
			return err
		}
		s.moment(m)
		if m.run.server == recovery.NonPrimary {
			s.promote(m)
		}
		return nil
	case recovery.StepJoin:
		if err := rest(); err != nil {
			return err
		}
		m.disk.view, m.disk.aside, m.disk.mark = nil, nil, false
		switch {
		case req.Step.Args[recovery.ArgKeep] != "":
			m.disk.empty, m.disk.uuid, m.disk.history, m.disk.saved, m.disk.torn = true, "", nil, nil, false
		case req.Step.Args[recovery.ArgFresh] != "":
			m.disk.saved, m.disk.flushed = nil, nil
		}
		s.moment(m)
		s.sum.Joins++
		s.start(m)
		return nil
	}
	return fmt.Errorf("no step %q", req.Step.Name)
}

func (s *sim) halt(m *machine, epoch int64) error {
	if m.run.server == recovery.Primary && !m.run.frozen {
		return errors.New("it is in a Primary")
	}
	if m.run.server == recovery.Primary {
		s.fail("%s is halted although it is in a Primary, frozen", m.name)
	}
	if m.run.server == recovery.NonPrimary && !m.run.frozen {
		s.stopServer(m)
	} else if m.run.server != recovery.Stopped {
		torn, inv := m.run.transfer, m.run.invocation
		s.off(m)
		m.up, m.run.invocation, m.disk.torn = true, inv, m.disk.torn || torn
		m.busy = recovery.StepHalt
	}
	m.busy = recovery.StepHalt
	s.moment(m)
	x := &note{epoch: epoch, invocation: m.run.invocation, view: m.disk.view}
	if x.view == nil {
		x.view, x.aside = m.disk.aside, m.disk.aside != nil
	}
	if !m.disk.empty {
		x.at = &recovery.Position{UUID: m.disk.uuid, Seqno: int64(len(m.disk.history))}
	}
	m.disk.examined = x
	return nil
}

// once is the node's own memory of epochs, and the check of the promise: one founding in an epoch, on one node.
func (s *sim) once(m *machine, epoch int64) error {
	if m.disk.founded >= epoch {
		return errors.New("it has founded in this epoch")
	}
	m.disk.founded = epoch
	if other := s.foundings[epoch]; other != "" {
		s.fail("two foundings in epoch %d: %s and %s", epoch, other, m.name)
	}
	s.foundings[epoch] = m.name
	if len(s.primaries()) > 0 {
		s.fail("%s founds while there is a Primary", m.name)
	}
	return nil
}

func (s *sim) foundStep(m *machine, req StepRequest) error {
	if x := m.disk.examined; x == nil || x.epoch != req.Epoch || x.at == nil || x.invocation != m.run.invocation {
		return errors.New("it was not read in this epoch")
	}
	if err := s.once(m, req.Epoch); err != nil {
		return err
	}
	// The policy leaves a member behind with whatever it has acknowledged since it was last heard.
	if r, _, err := Load(context.Background(), s, "galera"); err == nil && r.Move.Diagnosis == string(recovery.LeftBehind) {
		s.excused = true
		for _, o := range s.nodes {
			if _, answered := r.Evidence[o.name]; !answered && s.cluster.Fences() && (r.Fenced[o.name].At.IsZero() || r.Fenced[o.name].Error != "" || r.Fenced[o.name].Over) {
				s.fail("%s is left behind, and may be alive", o.name)
			}
		}
	}
	suspect := m.disk.torn || m.disk.saved == nil || m.disk.saved.None()
	if suspect && !s.excused {
		s.fail("%s founds with a suspect copy", m.name)
	}
	s.moment(m)
	uuid := m.disk.uuid
	if req.Step.Args[recovery.ArgRenew] != "" {
		uuid = recovery.ZeroUUID
		s.sum.Renewed++
	}
	m.disk.view, m.disk.aside = nil, nil
	m.disk.saved = &recovery.Saved{Position: recovery.Position{UUID: uuid, Seqno: -1}, SafeToBootstrap: true}
	m.disk.flushed = m.disk.saved
	s.moment(m)
	if m.run.server != recovery.Stopped {
		return errors.New("somebody started it")
	}
	m.disk.mark = true
	s.sum.Foundings++
	s.start(m)
	return nil
}

// promote makes the component of a living member the Primary.
func (s *sim) promote(m *machine) {
	s.sum.Promotions++
	var group []*machine
	for _, o := range s.nodes {
		if o.up && o.side == m.side && !o.run.frozen && o.run.server == recovery.NonPrimary {
			s.apply(o)
			group = append(group, o)
		}
	}
	longest := m
	for _, o := range group {
		if len(o.disk.history) > len(longest.disk.history) {
			longest = o
		}
	}
	for _, o := range group {
		s.catchUp(o, longest)
	}
	s.say("%s is promoted", m.name)
	s.install(group, s.view())
}
