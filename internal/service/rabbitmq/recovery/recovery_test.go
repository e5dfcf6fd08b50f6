package recovery

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"nines/internal/service"
)

const (
	idA = "rabbitmq-cluster-id-aaaaaaaaaaaaaaaaaaaaaa"
	idB = "rabbitmq-cluster-id-bbbbbbbbbbbbbbbbbbbbbb"
)

type step = service.HealStep

var names = []string{"c1", "c2", "c3"}

// at is a member that holds state and has been in this state of its broker for long; last are those that it knew to run.
func at(b Broker, last ...string) Evidence {
	return Evidence{Broker: b, For: time.Hour, Members: names, Last: last, Cluster: idA}
}

// serves is one that sees these members, and has for long.
func serves(running ...string) Evidence {
	return Evidence{Broker: Serving, For: time.Hour, Members: names, Running: running, Stable: time.Hour, Last: running, Cluster: idA}
}

func empty(b Broker) Evidence { return Evidence{Broker: b, For: time.Hour, Empty: true} }

func with(e Evidence, change func(*Evidence)) Evidence {
	change(&e)
	return e
}

func since(e Evidence, d time.Duration) Evidence {
	e.For = d
	return e
}

func stable(e Evidence, d time.Duration) Evidence {
	e.Stable = d
	return e
}

func of(id string, e Evidence) Evidence {
	e.Cluster = id
	return e
}

func three(a, b, c Evidence) map[string]Evidence {
	return map[string]Evidence{"c1": a, "c2": b, "c3": c}
}

func without(m map[string]Evidence, gone ...string) map[string]Evidence {
	for _, n := range gone {
		delete(m, n)
	}
	return m
}

// begun waits since it was started, so long ago.
func begun(ago time.Duration) Evidence {
	e := since(at(Starting, names...), 4*time.Minute)
	e.Begun = ago
	return e
}

// inOrder are three that stopped one after the other: c1, c2, c3.
func inOrder(b Broker) map[string]Evidence {
	return three(at(b, "c1", "c2", "c3"), at(b, "c2", "c3"), at(b, "c3"))
}

// TestDecide has a fixture for each diagnosis, and for what is easily got wrong.
func TestDecide(t *testing.T) {
	record := func(running ...string) *Lineage { return &Lineage{Cluster: idA, Running: running} }
	all := record(names...)
	whole := serves(names...)
	tests := []struct {
		name string
		c    Case
		want Diagnosis
		act  Act
		node string
		says string
	}{
		{"all serve", Case{Evidence: three(whole, whole, whole), Lineage: all}, Whole, Nothing, "", "3 of 3"},
		{"one is away", Case{Evidence: without(three(whole, whole, whole), "c3"), Lineage: all}, Running, Nothing, "", "c3 does not answer"},
		{"one was stopped by hand", Case{Evidence: three(serves("c1", "c2"), serves("c1", "c2"), at(Stopped, names...)), Lineage: all}, Running, Nothing, "", ""},
		{"one was stopped by the recovery", Case{Epoch: 2, Evidence: three(serves("c1"), at(Stopped, "c2", "c3"), at(Stopped, "c3")), Lineage: all}, Running, Start, "", "c2, c3"},
		{"one is starting", Case{Evidence: three(serves("c1", "c2"), serves("c1", "c2"), since(at(Starting, names...), time.Second)), Lineage: all}, Running, Nothing, "", "by itself"},
		{"a choice is void beside one that serves", Case{Epoch: 2, Choice: "c1", Evidence: three(at(Stopped, names...), serves("c2"), at(Stopped, "c3")), Lineage: all}, Running, Start, "", ""},
		{"never was whole", Case{Evidence: three(empty(Starting), empty(Starting), empty(Stopped))}, NotFormed, Nothing, "", ""},
		{"a member's own memory says that it was", Case{Evidence: inOrder(Stopped)}, DownTogether, Start, "", ""},
		{"a step is under way", Case{Evidence: three(at(Stopped, names...), with(at(Stopped), func(e *Evidence) { e.Busy = "halt, epoch 2" }), at(Stopped)), Epoch: 2, Lineage: all}, Working, Wait, "", "halt"},
		{"just stopped", Case{Evidence: three(at(Stopped, names...), since(at(Stopped, "c2", "c3"), time.Second), at(Starting, "c3")), Lineage: all}, SelfHealing, Wait, "", "9s"},
		{"stopped in order", Case{Evidence: inOrder(Stopped), Lineage: record("c3")}, DownTogether, Start, "", "c1, c2, c3"},
		{"the first is started alone", Case{Evidence: three(at(Starting, names...), at(Stopped, "c2", "c3"), at(Stopped, "c3")), Lineage: all}, DownTogether, Start, "", "c2, c3"},
		{"a member paused and does not come back", Case{Evidence: three(at(Starting, names...), at(Starting, "c2", "c3"), at(Silent, "c3")), Lineage: all}, Hanging, Restart, "c3", "1h"},
		{"a paused member without a majority waits rightly", Case{Evidence: without(three(at(Silent, names...), whole, whole), "c2", "c3"), Lineage: all}, LastMissing, Wait, "", "c2, c3"},
		{"a member hangs beside those who serve", Case{Evidence: three(serves("c1", "c2"), serves("c1", "c2"), at(Silent, names...)), Lineage: all}, Hanging, Restart, "c3", ""},
		{"it has just fallen silent", Case{Evidence: three(serves("c1", "c2"), serves("c1", "c2"), since(at(Silent, names...), time.Minute)), Lineage: all}, Running, Nothing, "", ""},
		{"the last is away", Case{Evidence: without(inOrder(Starting), "c3"), Lineage: all}, LastMissing, Wait, "", "c3 was still serving"},
		{"the first is away: the last goes first", Case{Evidence: without(three(whole, since(at(Starting, "c2", "c3"), time.Minute), at(Starting, "c3")), "c1"), Lineage: all}, SelfHealing, Wait, "", "wait for each other"},
		{"the record knows who went on alone", Case{Evidence: without(three(at(Starting, "c1", "c2"), at(Starting, "c1", "c2"), empty(Stopped)), "c3"), Lineage: record("c3")}, LastMissing, Wait, "", "c3"},
		{"all lost their power at once, one stays away", Case{Evidence: without(three(at(Starting, names...), at(Starting, names...), at(Starting, names...)), "c2"), Lineage: all}, LastMissing, Wait, "", "c2"},
		{"the last has lost its state", Case{Evidence: three(at(Starting, names...), at(Starting, "c2", "c3"), empty(Starting)), Lineage: all}, LastEmpty, Ask, "", "c3"},
		{"two histories", Case{Evidence: three(at(Starting, names...), at(Starting, names...), of(idB, at(Starting, names...))), Lineage: all}, TwoClusters, Ask, "", idB},
		{"all were started while they did not reach each other", Case{Evidence: three(begun(2*time.Minute), begun(3*time.Minute), begun(100*time.Second)), Lineage: all}, Unmet, Restart, "c2", "c2 looks for them anew"},
		{"one of them was just restarted for it", Case{Evidence: three(begun(2*time.Minute), begun(time.Second), begun(100*time.Second)), Lineage: all, Epoch: 1}, SelfHealing, Wait, "", ""},
		{"two were, and the third, which may have gone on longer, is away", Case{Evidence: without(three(whole, begun(2*time.Minute), begun(3*time.Minute)), "c1"), Lineage: record("c2", "c3")}, LastMissing, Wait, "", "c1"},
		{"one waits, another is stopped", Case{Evidence: three(begun(2*time.Minute), begun(3*time.Minute), since(at(Stopped, names...), time.Minute)), Lineage: all}, DownTogether, Start, "", "c3"},
		{"nothing is missing", Case{Evidence: three(at(Starting, names...), at(Starting, names...), at(Starting, names...)), Lineage: all}, Stuck, Ask, "", ""},
		{"a new disk", Case{Evidence: three(serves("c1", "c2"), serves("c1", "c2"), empty(Starting)), Lineage: all}, Replaced, Forget, "c3", "lost its state"},
		{"a new disk, and it has only just been started", Case{Evidence: three(serves("c1", "c2"), serves("c1", "c2"), since(empty(Starting), 5*time.Second)), Lineage: all}, Running, Nothing, "", ""},
		{"a member that holds state is not forgotten, however long it takes", Case{Evidence: three(serves("c1", "c2"), serves("c1", "c2"), at(Starting, names...)), Lineage: all}, Running, Nothing, "", ""},
		{"the epoch is another's", Case{Epoch: 3, Choice: "c2", Founder: "c1", Evidence: without(inOrder(Stopped), "c3"), Lineage: all}, FoundingBroke, Ask, "c1", "c1's"},
		{"nobody is forgotten without a majority", Case{Evidence: three(serves("c1"), at(Starting, names...), empty(Starting)), Lineage: all}, Running, Nothing, "", ""},
		{"a forgotten one comes back", Case{Evidence: three(with(serves("c1", "c2"), func(e *Evidence) { e.Members = []string{"c1", "c2"} }),
			with(serves("c1", "c2"), func(e *Evidence) { e.Members = []string{"c1", "c2"} }), at(Starting, names...)), Lineage: all}, Forgotten, Ask, "c3", "no member"},
		{"a fresh split", Case{Evidence: three(serves("c1", "c2"), serves("c1", "c2"), stable(serves("c3"), time.Second)), Lineage: all}, Split, Wait, "", "59s more"},
		{"a split that stays", Case{Evidence: three(serves("c1", "c2"), serves("c1", "c2"), serves("c3")), Lineage: all}, Split, Restart, "c3", "c1, c2 are the majority"},
		{"a split without a majority", Case{Evidence: three(serves("c1"), serves("c2"), serves("c3")), Lineage: all}, Split, Ask, "", "no side"},
		{"a split whose sides are not clear", Case{Evidence: three(serves("c1", "c2"), serves(names...), serves("c2", "c3")), Lineage: all}, Split, Ask, "", "no side"},
		{"the smaller side holds queues alone", Case{Evidence: three(serves("c1", "c2"), serves("c1", "c2"), with(serves("c3"), func(e *Evidence) { e.Held = 1 })), Lineage: all}, Split, Ask, "", "1 queues"},
		{"a second cluster serves", Case{Evidence: three(serves("c1", "c2"), serves("c1", "c2"), of(idB, serves("c3"))), Lineage: all}, Split, Ask, "", "different"},
		{"a split while one is away", Case{Evidence: without(three(serves("c1"), serves("c2"), whole), "c3"), Lineage: all}, Split, Ask, "", "2 of 3"},
		{"a person chooses in a split", Case{Epoch: 3, Choice: "c2", Evidence: three(serves("c1"), serves("c2"), serves("c3")), Lineage: all}, Chosen, Halt, "", "c1, c3 are stopped"},
		{"a person chooses, and one is stopped already", Case{Epoch: 3, Choice: "c2", Evidence: three(at(Stopped, names...), serves("c2"), serves("c3")), Lineage: all}, Chosen, Halt, "", "c3 is stopped"},
		{"a person chooses, and all others are stopped", Case{Epoch: 3, Choice: "c2", Evidence: three(at(Stopped, names...), serves("c2"), at(Stopped, names...)), Lineage: all}, Running, Start, "", "c1, c3 can join"},
		{"a person chooses the smaller side", Case{Epoch: 3, Choice: "c3", Evidence: three(serves("c1", "c2"), serves("c1", "c2"), serves("c3")), Lineage: all}, Chosen, Halt, "", "c1, c2 are stopped"},
		{"whom the chosen one sees goes on with it", Case{Epoch: 3, Choice: "c1", Evidence: three(serves("c1", "c2"), serves("c1", "c2"), serves("c3")), Lineage: all}, Chosen, Halt, "", "c3 is stopped"},
		{"one that started between two that are apart is stopped too", Case{Epoch: 3, Choice: "c2", Evidence: three(serves("c1", "c3"), serves("c2", "c3"), serves(names...)), Lineage: all}, Chosen, Halt, "", "c1, c3 are stopped"},
		{"also when the last of another side is stopped already", Case{Epoch: 3, Choice: "c2", Evidence: three(at(Stopped, "c1", "c3"), stable(serves("c2", "c3"), time.Second), stable(serves("c2", "c3"), time.Second)), Lineage: all}, Chosen, Halt, "", "c3 is stopped"},
		{"one that started between two that are apart goes on alone", Case{Epoch: 3, Choice: "c3", Evidence: three(serves("c1", "c3"), serves("c2", "c3"), serves(names...)), Lineage: all}, Chosen, Halt, "", "c1, c2 are stopped"},
		{"one that does not serve is chosen in a split", Case{Epoch: 3, Choice: "c3", Evidence: three(serves("c1"), serves("c2"), at(Stopped, names...)), Lineage: all}, BadChoice, Ask, "c3", "does not serve"},
		{"a word that was followed does not count in the next split", Case{Epoch: 3, Choice: "c2", Settled: true, Evidence: three(serves("c1"), serves("c2"), serves("c3")), Lineage: all}, Split, Ask, "", "no side"},
		{"chosen, and one still waits", Case{Epoch: 3, Choice: "c2", Evidence: without(inOrder(Starting), "c3"), Lineage: all}, Chosen, Halt, "", "stopped first"},
		{"chosen", Case{Epoch: 3, Choice: "c2", Evidence: without(inOrder(Stopped), "c3"), Lineage: all}, Chosen, Force, "c2", "given up is what c3"},
		{"chosen where the last is empty", Case{Epoch: 3, Choice: "c2", Evidence: three(at(Stopped, names...), at(Stopped, "c2", "c3"), empty(Stopped)), Lineage: all}, Chosen, Force, "c2", "c3 (empty)"},
		{"chosen among equals", Case{Epoch: 3, Choice: "c1", Evidence: without(three(at(Stopped, names...), at(Stopped, names...), whole), "c3"), Lineage: all}, Chosen, Force, "c1", ""},
		{"another answers that went on longer", Case{Epoch: 3, Choice: "c1", Evidence: without(inOrder(Stopped), "c3"), Lineage: all}, BadChoice, Ask, "c1", "c2 answers"},
		{"the last need not be forced", Case{Epoch: 3, Choice: "c3", Evidence: without(inOrder(Stopped), "c1"), Lineage: all}, DownTogether, Start, "", ""},
		{"whoever was missing is back: nobody is forced", Case{Epoch: 3, Choice: "c1", Evidence: inOrder(Stopped), Lineage: all}, DownTogether, Start, "", ""},
		{"chosen beside another cluster", Case{Epoch: 3, Choice: "c2", Evidence: without(three(of(idB, at(Stopped, names...)), at(Stopped, "c2", "c3"), whole), "c3"), Lineage: all}, BadChoice, Ask, "c2", "different"},
		{"chosen from another cluster than the record's", Case{Epoch: 3, Choice: "c2", Evidence: without(three(whole, of(idB, at(Stopped, "c2", "c3")), whole), "c1", "c3"), Lineage: all}, BadChoice, Ask, "c2", "on record"},
		{"an empty one is chosen", Case{Epoch: 3, Choice: "c3", Evidence: three(at(Stopped, names...), at(Stopped, "c2", "c3"), empty(Stopped)), Lineage: all}, BadChoice, Ask, "c3", "no state"},
		{"one that is away is chosen", Case{Epoch: 3, Choice: "c3", Evidence: without(inOrder(Stopped), "c3"), Lineage: all}, BadChoice, Ask, "c3", "not known"},
		{"Khepri", Case{Epoch: 3, Choice: "c2", Evidence: without(three(at(Stopped, names...), with(at(Stopped, "c2", "c3"), func(e *Evidence) { e.Khepri = true }), whole), "c3"), Lineage: all}, BadChoice, Ask, "c2", "Khepri"},
		{"it boots", Case{Epoch: 3, Choice: "c2", Founder: "c2", Evidence: without(three(at(Stopped, names...), with(since(at(Starting, "c2", "c3"), time.Second), func(e *Evidence) { e.Forced = 3 }), whole), "c3"), Lineage: all}, Working, Wait, "", "c2 boots"},
		{"its boot failed", Case{Epoch: 3, Choice: "c2", Founder: "c2", Evidence: without(three(at(Stopped, names...), with(at(Stopped, "c2", "c3"), func(e *Evidence) { e.Forced = 3 }), whole), "c3"), Lineage: all}, FoundingBroke, Ask, "c2", "epoch 3"},
		{"served once, and is down again: an outage of its own", Case{Epoch: 3, Choice: "c2", Founder: "c2", Settled: true, Evidence: without(three(at(Stopped, names...), with(at(Stopped, "c2", "c3"), func(e *Evidence) { e.Forced = 3 }), whole), "c3"), Lineage: all}, DownTogether, Start, "", ""},
	}
	seen := map[Diagnosis]bool{}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.c.Members = names
			d := Decide(tt.c)
			if d.Diagnosis != tt.want || d.Act != tt.act || d.Node != tt.node && tt.node != "" {
				t.Errorf("got %+v, want %s, %s %s", d, tt.want, tt.act, tt.node)
			}
			if text := d.Reason + fmt.Sprint(d.Nodes); !strings.Contains(text, tt.says) {
				t.Errorf("%q does not say %q", text, tt.says)
			}
		})
		seen[tt.want] = true
	}
	for _, d := range []Diagnosis{Whole, Running, NotFormed, Working, SelfHealing, DownTogether, Hanging, Unmet, LastMissing, LastEmpty, TwoClusters, Stuck, Replaced,
		Forgotten, Split, Chosen, BadChoice, FoundingBroke} {
		if !seen[d] {
			t.Errorf("no fixture for %s", d)
		}
	}
}

func anyMembers(t *rapid.T, label string, least int) []string {
	return rapid.SliceOfNDistinct(rapid.SampledFrom(names), least, 3, rapid.ID[string]).Draw(t, label)
}

// anyEvidence draws what a member may be found as, likely or not.
func anyEvidence(t *rapid.T, states []Broker) Evidence {
	e := Evidence{Broker: rapid.SampledFrom(states).Draw(t, "broker"), For: time.Duration(rapid.IntRange(0, 600).Draw(t, "for")) * time.Second, Begun: time.Duration(rapid.IntRange(0, 300).Draw(t, "begun")) * time.Second,
		Forced: rapid.Int64Range(0, 3).Draw(t, "forced"), Khepri: rapid.IntRange(0, 9).Draw(t, "khepri") == 0}
	if rapid.IntRange(0, 5).Draw(t, "empty") == 0 && e.Broker != Serving {
		e.Empty = true
		return e
	}
	e.Members, e.Last = anyMembers(t, "members", 2), anyMembers(t, "last", 0)
	e.Cluster = rapid.SampledFrom([]string{idA, idA, idA, idA, idB, ""}).Draw(t, "cluster")
	if e.Broker == Serving {
		e.Running, e.Stable = anyMembers(t, "running", 1), time.Duration(rapid.IntRange(0, 120).Draw(t, "stable"))*time.Second
		e.Held = rapid.IntRange(0, 1).Draw(t, "held")
	}
	return e
}

// likely moves a drawn case near to those in which something is done: an outage in some order, or a clear split.
func likely(t *rapid.T, c Case) Case {
	order := rapid.Permutation(names).Draw(t, "order")
	switch rapid.SampledFrom([]string{"anything", "outage", "split", "straggler"}).Draw(t, "kind") {
	case "outage":
		for i, n := range order {
			if e, ok := c.Evidence[n]; ok && !e.Empty {
				e.Broker = rapid.SampledFrom([]Broker{Stopped, Stopped, Stopped, Stopped, Stopped, Starting, Silent, Serving}).Draw(t, "in the outage")
				e.Last, e.Cluster, e.Running = order[i:], idA, nil
				if e.Broker == Serving {
					e.Running = order[i : i+1]
				}
				c.Evidence[n] = e
			}
		}
	case "straggler":
		for _, n := range order[1:] {
			c.Evidence[n] = serves(order[1:]...)
		}
	case "split":
		for i, n := range order {
			running := order[:1]
			if i > 0 {
				running = order[1:]
			}
			e := serves(running...)
			e.Held, e.Stable = rapid.IntRange(0, 1).Draw(t, "held alone"), time.Duration(rapid.IntRange(30, 120).Draw(t, "for so long"))*time.Second
			c.Evidence[n] = e
		}
	}
	return c
}

func anyCase(t *rapid.T) Case {
	return likely(t, drawn(t))
}

func drawn(t *rapid.T) Case {
	c := Case{Members: names, Evidence: map[string]Evidence{}, Epoch: rapid.Int64Range(0, 3).Draw(t, "epoch"), Settled: rapid.IntRange(0, 4).Draw(t, "settled") == 0}
	states := rapid.SampledFrom([][]Broker{{Stopped}, {Stopped, Starting}, {Stopped, Starting, Silent}, {Serving}, {Serving, Serving, Silent, Starting, Stopped}}).Draw(t, "states")
	for _, n := range names {
		if rapid.IntRange(0, 4).Draw(t, "answers") > 0 {
			c.Evidence[n] = anyEvidence(t, states)
		}
	}
	if c.Epoch > 0 {
		c.Choice = rapid.SampledFrom([]string{"", "c1", "c2", "c3"}).Draw(t, "choice")
		c.Founder = rapid.SampledFrom([]string{"", "", c.Choice, "c2"}).Draw(t, "founder")
	}
	if rapid.Bool().Draw(t, "record") {
		c.Lineage = &Lineage{Cluster: rapid.SampledFrom([]string{idA, idA, idB, ""}).Draw(t, "record of"), Running: anyMembers(t, "recorded", 1)}
	}
	return c
}

// manyTimes checks a property whose interesting cases are rare.
func manyTimes(t *testing.T, property func(*rapid.T)) {
	for range 30 {
		rapid.Check(t, property)
	}
}

// TestForce: whatever is found, nobody is forced without a person's word, beside one that runs, before one that answers and went
// on longer, across two clusters, or twice in an epoch.
func TestForce(t *testing.T) {
	forced := 0
	manyTimes(t, func(t *rapid.T) {
		c := anyCase(t)
		m := Next(c)
		if m.Act != string(Force) {
			if slices.ContainsFunc(slices.Concat(m.Steps...), func(s step) bool { return s.Name == StepForce }) || m.Founder != "" {
				t.Fatalf("%s, and forces: %+v", m.Act, m)
			}
			return
		}
		forced++
		e := c.Evidence[m.Node]
		switch {
		case c.Epoch == 0 || c.Choice != m.Node || c.Settled:
			t.Fatalf("nobody chose %s (epoch %d, choice %q, settled %t)", m.Node, c.Epoch, c.Choice, c.Settled)
		case c.Founder != "" && c.Founder != m.Node:
			t.Fatalf("the epoch is %s's", c.Founder)
		case len(m.Steps) != 1 || len(m.Steps[0]) != 1 || m.Steps[0][0].Node != m.Node || m.Steps[0][0].Name != StepForce || m.Founder != m.Node || m.Open:
			t.Fatalf("%+v", m)
		case e.Empty || e.Khepri || e.Cluster == "" || len(e.Last) == 0:
			t.Fatalf("forces %+v", e)
		case c.Lineage != nil && c.Lineage.Cluster != "" && c.Lineage.Cluster != e.Cluster:
			t.Fatalf("forces another cluster than the one on record")
		}
		for n, x := range c.Evidence {
			switch {
			case x.Broker != Stopped:
				t.Fatalf("%s is forced, %s is %s", m.Node, n, x.Broker)
			case x.Forced == c.Epoch:
				t.Fatalf("%s was forced in this epoch", n)
			case x.Empty || n == m.Node:
			case x.Cluster != "" && x.Cluster != e.Cluster:
				t.Fatalf("%s belongs to another cluster", n)
			case slices.Contains(e.Last, n) && !slices.Contains(x.Last, m.Node):
				t.Fatalf("%s is forced, %s went on longer", m.Node, n)
			case c.Lineage != nil && slices.Contains(c.Lineage.Running, n) && !slices.Contains(c.Lineage.Running, m.Node):
				t.Fatalf("%s is forced, %s is on record as later", m.Node, n)
			}
		}
	})
	if forced == 0 {
		t.Error("nobody was forced in any case: this test sees nothing")
	}
}

// TestOthersStaySafe: a member that serves is restarted only in a split, alone, and not if it is of a majority; only an empty member is
// forgotten, by one of a majority that serves; one that serves is stopped only in a split, alone, at a person's word for another.
func TestOthersStaySafe(t *testing.T) {
	done := map[string]int{}
	manyTimes(t, func(t *rapid.T) {
		c := anyCase(t)
		m := Next(c)
		done[m.Act]++
		if m.Reason == "" || m.Diagnosis == "" || m.Act == "" || m.Act == string(Ask) && m.Hint == "" {
			t.Fatalf("says too little: %+v", m)
		}
		if m.Open && c.Epoch > 0 {
			t.Fatalf("opens another epoch by itself: %+v", m)
		}
		if m.Rest && m.Act == string(Wait) && m.Diagnosis == string(Split) {
			t.Fatalf("a split that is about to be mended is called mended: %+v", m)
		}
		if m.Done && (len(m.Steps) > 0 || m.Rest || c.Epoch == 0) {
			t.Fatalf("%+v", m)
		}
		all := slices.Concat(m.Steps...)
		for _, s := range all {
			e, ok := c.Evidence[s.Node]
			if !ok {
				t.Fatalf("%s is told something and does not answer", s.Node)
			}
			switch s.Name {
			case StepStart:
				if e.Broker != Stopped {
					t.Fatalf("starts %s, which is %s", s.Node, e.Broker)
				}
			case StepHalt:
				word := c.Choice != "" && !c.Settled && s.Node != c.Choice
				atWork := e.Broker == Serving && s.Args[ArgServing] == "true" && len(all) == 1 && c.divided(c.in(Serving))
				if !word && e.Broker == Serving || e.Broker == Stopped || c.Choice == "" || !atWork && len(c.in(Serving)) > 0 {
					t.Fatalf("halts %s, which is %s", s.Node, e.Broker)
				}
			case StepRestart:
				if len(all) != 1 {
					t.Fatalf("restarts more than one: %+v", m)
				}
				if e.Broker == Starting && (e.Begun < patienceMeet || len(c.in(Starting)) < max(len(c.known()), c.quorum())) {
					t.Fatalf("restarts %s, which may come by itself: %+v", s.Node, c)
				}
				if e.Broker == Serving && (len(c.in(Serving)) < len(names) || len(e.Running) >= c.quorum() || e.Held > 0) {
					t.Fatalf("restarts %s, which serves: %+v", s.Node, c)
				}
			case StepForget:
				x := c.Evidence[s.Args[ArgMember]]
				if e.Broker != Serving || !x.Empty || x.Broker == Serving || len(c.in(Serving)) < c.quorum() || len(all) != 1 {
					t.Fatalf("%s forgets %s: %+v", s.Node, s.Args[ArgMember], c)
				}
			}
		}
	})
	for _, a := range []Act{Start, Halt, Restart, Force, Ask, Wait, Nothing} {
		if done[string(a)] == 0 {
			t.Errorf("%s was never drawn", a)
		}
	}
}

// TestStoppedAreStarted: where nobody serves and nobody is at work, everyone who is stopped is started, whoever else is missing.
func TestStoppedAreStarted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := anyCase(t)
		c.Choice, c.Lineage = "", &Lineage{Running: names}
		for n, e := range c.Evidence {
			if e.Broker == Serving {
				e.Broker = Stopped
			}
			e.For = max(e.For, patienceDown)
			c.Evidence[n] = e
		}
		if len(c.in(Stopped)) == 0 {
			c.Evidence[names[0]] = Evidence{Broker: Stopped, For: patienceDown}
		}
		m := Next(c)
		var told []string
		for _, s := range slices.Concat(m.Steps...) {
			told = append(told, s.Node)
		}
		if m.Act != string(Start) || !slices.Equal(told, c.in(Stopped)) {
			t.Fatalf("%+v, stopped are %v", m, c.in(Stopped))
		}
	})
}

// TestAnyOrder: three that stopped in any order and come back in any order come together without a person, and nobody is forced.
func TestAnyOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		order := rapid.Permutation(names).Draw(t, "stopped")
		ev := map[string]Evidence{}
		for i, n := range order {
			ev[n] = at(Starting, order[i:]...)
		}
		back := rapid.IntRange(1, 3).Draw(t, "back")
		come := rapid.Permutation(names).Draw(t, "come back")
		here := come[:back]
		c := Case{Members: names, Evidence: without(ev, come[back:]...), Lineage: &Lineage{Cluster: idA, Running: names}}
		d := Decide(c)
		last := order[2]
		switch {
		case slices.Contains(here, last) && d.Diagnosis != SelfHealing && d.Diagnosis != Stuck:
			t.Fatalf("%s is there, stopped last: %+v", last, d)
		case !slices.Contains(here, last) && (d.Diagnosis != LastMissing || !slices.Contains(d.Nodes, last)):
			t.Fatalf("%s is away, stopped last: %+v", last, d)
		}
		for n, e := range c.Evidence {
			e.Broker = Stopped
			c.Evidence[n] = e
		}
		// With a person's word: the latest of those who are there, and nobody else, may be forced.
		c.Epoch, c.Choice = 1, rapid.SampledFrom(names).Draw(t, "choice")
		latest := here[0]
		for _, n := range here {
			if slices.Index(order, n) > slices.Index(order, latest) {
				latest = n
			}
		}
		if d := Decide(c); (d.Act == Force) != (c.Choice == latest && latest != last) {
			t.Fatalf("stopped %v, there %v, chosen %s: %+v", order, here, c.Choice, d)
		}
	})
}

// TestAWordInASplit: whoever does not see just what the chosen member sees is stopped, one at a time, before anybody is started.
func TestAWordInASplit(t *testing.T) {
	started := 0
	rapid.Check(t, func(t *rapid.T) {
		all := []string{"c1", "c2", "c3", "c4", "c5"}[:rapid.IntRange(2, 5).Draw(t, "members")]
		apart := map[string]bool{}
		for i, a := range all {
			for _, b := range all[:i] {
				lost := rapid.Bool().Draw(t, a+" and "+b+" are apart")
				apart[a+b], apart[b+a] = lost, lost
			}
		}
		sees := func(n string) []string {
			return slices.DeleteFunc(slices.Clone(all), func(m string) bool { return apart[n+m] })
		}
		c := Case{Members: all, Evidence: map[string]Evidence{}, Epoch: 1, Choice: rapid.SampledFrom(all).Draw(t, "choice"), Lineage: &Lineage{Cluster: idA, Running: all}}
		var toStop []string
		for _, n := range all {
			c.Evidence[n] = serves(sees(n)...)
			if !slices.Equal(sees(n), sees(c.Choice)) {
				toStop = append(toStop, n)
			}
		}
		if len(toStop) == 0 {
			return // no split
		}
		for {
			d := Decide(c)
			switch stopped := c.in(Stopped); {
			case d.Act == Halt && len(d.Nodes) == 1 && slices.Contains(toStop, d.Nodes[0]) && c.Evidence[d.Nodes[0]].Broker == Serving:
				c.Evidence[d.Nodes[0]] = at(Stopped, c.Evidence[d.Nodes[0]].Running...)
				for _, n := range c.in(Serving) {
					c.Evidence[n] = stable(serves(intersect(sees(n), c.in(Serving))...), 0)
				}
			case d.Act == Start && slices.Equal(stopped, toStop) && slices.Equal(d.Nodes, toStop):
				started++
				return
			default:
				t.Fatalf("%s is chosen, %v are to be stopped, %v are: %+v", c.Choice, toStop, stopped, d)
			}
		}
	})
	if started == 0 {
		t.Error("no word was followed: this test sees nothing")
	}
}
