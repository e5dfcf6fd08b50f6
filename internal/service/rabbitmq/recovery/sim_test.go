package recovery

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

var schedules = flag.Int("schedules", 300, "how many random sites TestSimulation runs")

// simNode is a machine with a member, as far as Mnesia's rules go.
type simNode struct {
	on, dead bool // dead: gone for good
	broker   Broker
	since    int
	last     []string
	members  []string // by its own word
	version  int      // of the metadata it holds
	empty    bool
	forced   int64
	force    bool
}

// simWorld is a model of RabbitMQ without a network: members wait for those that they knew to run, a lone one pauses, an empty
// one is turned away while it is remembered. Time is counted in seconds.
type simWorld struct {
	rng     *rand.Rand
	now     int
	nodes   map[string]*simNode
	members []string // whom those who serve remember
	version int
	epoch   int64 // 0: no record is open
	last    int64
	founder string
	settled bool
	choice  string
	lineage *Lineage
	log     []string
}

func newWorld(seed uint64) *simWorld {
	w := &simWorld{rng: rand.New(rand.NewPCG(seed, 1)), nodes: map[string]*simNode{}, members: slices.Clone(names)}
	for _, n := range names {
		w.nodes[n] = &simNode{on: true, broker: Serving, last: slices.Clone(names), members: slices.Clone(names)}
	}
	w.remember()
	return w
}

func (w *simWorld) say(format string, args ...any) {
	w.log = append(w.log, fmt.Sprintf("%4d ", w.now)+fmt.Sprintf(format, args...))
}

func (w *simWorld) in(states ...Broker) (out []string) {
	for _, n := range names {
		if x := w.nodes[n]; x.on && slices.Contains(states, x.broker) {
			out = append(out, n)
		}
	}
	return out
}

func (w *simWorld) set(n string, b Broker) {
	if x := w.nodes[n]; x.broker != b {
		x.broker, x.since = b, w.now
	}
}

// left: those who serve notice that somebody is gone. A change of the metadata waits for all who are taken for running, so that none
// is decided before that.
func (w *simWorld) left() {
	serving := w.in(Serving)
	for _, n := range serving {
		w.nodes[n].last = slices.Clone(serving)
		if len(serving) < 2 {
			w.set(n, Silent)
			w.say("%s pauses", n)
		}
	}
}

// fail does something to the site. Machines whose power is cut together do not see each other go.
func (w *simWorld) fail() {
	some := names[:0:0]
	for _, n := range names {
		if w.rng.IntN(2) == 0 {
			some = append(some, n)
		}
	}
	w.rng.Shuffle(len(some), func(i, j int) { some[i], some[j] = some[j], some[i] })
	kind := w.rng.IntN(4)
	for _, n := range some {
		x := w.nodes[n]
		if x.dead {
			continue
		}
		switch kind {
		case 0, 1: // stopped cleanly, or killed, one after the other
			w.say("%s stops", n)
			w.set(n, Stopped)
			w.left()
		case 2:
			w.say("power of %s is cut", n)
			x.on = false
			w.set(n, Stopped)
		case 3:
			if !x.on {
				x.on = true
				w.say("power of %s is back", n)
				w.set(n, Starting)
			}
		}
	}
	if kind == 2 {
		w.left()
	}
}

// tick is one second of RabbitMQ's own doing.
func (w *simWorld) tick() {
	w.now++
	serving := w.in(Serving)
	if len(serving) >= 2 && w.rng.IntN(3) == 0 { // somebody declares a queue
		w.version++
		for _, n := range serving {
			w.nodes[n].version = w.version
		}
	}
	for _, n := range w.in(Silent) {
		if len(w.in(Serving, Silent, Starting)) >= 2 {
			w.set(n, Starting) // it comes back by its own, with the rules of a start
		}
	}
	for _, n := range w.in(Starting) {
		if w.rng.IntN(3) > 0 {
			continue
		}
		x, serving := w.nodes[n], w.in(Serving)
		switch {
		case x.empty && slices.Contains(w.members, n):
		case len(serving) > 0 && (x.empty || slices.Contains(w.members, n)):
			w.serve(n, w.nodes[serving[0]].version)
		case len(serving) > 0 || x.empty:
		case x.force || w.mayGoFirst(n):
			w.serve(n, x.version)
			w.version = max(w.version, x.version)
		}
	}
}

// mayGoFirst is Mnesia's rule: everybody that it knew to run must be there, and hold something.
func (w *simWorld) mayGoFirst(n string) bool {
	for _, m := range w.nodes[n].last {
		x := w.nodes[m]
		if m != n && (x.empty || !slices.Contains(w.in(Starting, Serving), m) || !slices.Contains(x.last, n)) {
			return false
		}
	}
	return true
}

func (w *simWorld) serve(n string, version int) {
	x := w.nodes[n]
	x.version, x.empty, x.force, x.members = version, false, false, slices.Clone(names)
	if !slices.Contains(w.members, n) {
		w.members = append(w.members, n)
	}
	w.set(n, Serving)
	serving := w.in(Serving)
	for _, m := range serving {
		w.nodes[m].last = slices.Clone(serving)
	}
	w.say("%s serves, at %d", n, version)
}

func (w *simWorld) remember() {
	if s := w.in(Serving); len(s) >= 2 {
		w.lineage = &Lineage{Cluster: idA, Running: s}
	}
}

func (w *simWorld) look() Case {
	c := Case{Members: names, Evidence: map[string]Evidence{}, Lineage: w.lineage, Epoch: w.epoch, Founder: w.founder, Settled: w.settled, Choice: w.choice}
	for _, n := range names {
		x := w.nodes[n]
		if !x.on || w.rng.IntN(20) == 0 { // an agent is slow now and then
			continue
		}
		e := Evidence{Broker: x.broker, For: time.Duration(w.now-x.since) * time.Second, Last: x.last, Members: x.members, Cluster: idA, Forced: x.forced, Empty: x.empty}
		if x.empty {
			e = Evidence{Broker: x.broker, For: e.For, Empty: true, Forced: x.forced}
		}
		if x.broker == Serving {
			e.Running, e.Stable, e.Members = w.in(Serving), e.For, w.members
		}
		c.Evidence[n] = e
	}
	return c
}

// lead does what the leader does at one look.
func (w *simWorld) lead(t *testing.T) {
	w.remember()
	m := Next(w.look())
	if m.Open {
		w.last++
		w.epoch, w.founder, w.settled, w.choice = w.last, "", false, ""
		return
	}
	w.settled = w.settled || m.Settled && w.epoch > 0
	if m.Done {
		w.epoch, w.choice = 0, ""
	}
	if m.Founder != "" {
		if w.founder != "" && w.founder != m.Founder {
			t.Fatalf("two founders in epoch %d", w.epoch)
		}
		w.founder = m.Founder
	}
	for _, batch := range m.Steps {
		for _, s := range batch {
			w.say("epoch %d: %s %s (%s)", w.epoch, s.Name, s.Node, m.Diagnosis)
			w.step(t, s)
		}
	}
}

func (w *simWorld) step(t *testing.T, s step) {
	x := w.nodes[s.Node]
	switch s.Name {
	case StepStart:
		w.set(s.Node, Starting)
	case StepHalt:
		if x.broker == Serving {
			return // the agent looks again
		}
		w.set(s.Node, Stopped)
	case StepRestart:
		w.set(s.Node, Starting)
	case StepForget:
		w.members = slices.DeleteFunc(w.members, func(m string) bool { return m == s.Args[ArgMember] })
	case StepForce:
		for _, n := range strings.Split(s.Args[ArgGone], ",") {
			if y := w.nodes[n]; y != nil && y.on {
				w.say("refused: %s answers", n) // its agent had only been slow
				return
			}
		}
		if x.forced >= w.epoch {
			t.Fatalf("%s is forced twice in epoch %d", s.Node, w.epoch)
		}
		for _, n := range names {
			y := w.nodes[n]
			if y.on && !y.empty && (y.version > x.version || y.broker != Stopped) {
				t.Fatalf("%s is forced at %d, %s is %s at %d\n%s", s.Node, x.version, n, y.broker, y.version, strings.Join(w.log, "\n"))
			}
		}
		x.forced, x.force = w.epoch, true
		w.set(s.Node, Starting)
	}
}

// TestSimulation runs sites that fail in every order. Without a machine that is lost for good everything must come back without a hand, and with
// no decision lost; with one lost, after a person's word for the latest of the others.
func TestSimulation(t *testing.T) {
	forced, byPerson := 0, 0
	for seed := range *schedules {
		w := newWorld(uint64(seed))
		run := func(seconds int) {
			for range seconds {
				w.tick()
				w.lead(t)
			}
		}
		for range 1 + w.rng.IntN(5) {
			w.fail()
			run(w.rng.IntN(40))
		}
		want := w.version
		lost := ""
		switch w.rng.IntN(3) {
		case 0: // a machine is gone for good
			lost = names[w.rng.IntN(3)]
			w.nodes[lost].on, w.nodes[lost].dead = false, true
			w.set(lost, Stopped)
			w.left()
		case 1: // a disk is
			lost = names[w.rng.IntN(3)]
			x := w.nodes[lost]
			w.set(lost, Stopped)
			x.empty, x.last, x.members = true, nil, nil
			w.left()
		}
		for _, n := range names {
			if x := w.nodes[n]; !x.on && !x.dead {
				x.on = true
				w.set(n, Starting)
			}
		}
		run(400)
		fail := func(text string) {
			t.Fatalf("seed %d: %s\n%s", seed, text, strings.Join(w.log, "\n"))
		}
		if len(w.in(Serving)) == 0 {
			c := w.look()
			d := Decide(c)
			if lost == "" {
				fail(fmt.Sprintf("nobody serves, and nobody is lost: %+v", d))
			}
			if d.Diagnosis != LastMissing && d.Diagnosis != LastEmpty && len(c.Evidence) == len(names) {
				fail(fmt.Sprintf("a person is not told: %+v", d))
			}
			byPerson++
			for try := 0; len(w.in(Serving)) == 0 && try < 6; try++ { // a person tries one after the other
				w.last++
				w.epoch, w.founder, w.settled, w.choice = w.last, "", false, names[try%3]
				run(60)
			}
		}
		forced += len(slices.DeleteFunc(slices.Clone(names), func(n string) bool { return w.nodes[n].forced == 0 }))
		for _, n := range w.in(Stopped) { // an apply: whoever was stopped by hand beside others is left to it
			w.set(n, Starting)
		}
		run(200)
		for _, n := range names {
			if x := w.nodes[n]; x.broker != Serving && !x.dead {
				fail(n + " stays " + string(x.broker))
			}
		}
		if lost == "" && w.version < want {
			fail(fmt.Sprintf("decisions are lost: %d of %d", w.version, want))
		}
		if w.epoch != 0 {
			fail("the recovery is never over")
		}
	}
	t.Logf("%d sites, %d needed a person's word, %d members were forced", *schedules, byPerson, forced)
	if forced == 0 {
		t.Error("nobody was forced: this test sees nothing")
	}
}
