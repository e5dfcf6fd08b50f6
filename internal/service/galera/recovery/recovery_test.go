package recovery

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"nines/internal/service"
)

const (
	uuidA = "aaaaaaaa-e559-11f1-8745-67c4afa31da5"
	uuidB = "bbbbbbbb-e559-11f1-8745-67c4afa31da5"
)

var names = []string{"c1", "c2", "c3"}

func at(uuid string, n int64) *Position { return &Position{UUID: uuid, Seqno: n} }

// crashed, clean, empty and so on are members that were stopped and read.
func crashed(n int64) Evidence {
	return Evidence{Server: Stopped, Saved: &Saved{Position: *at(uuidA, -1)}, Recovered: at(uuidA, n)}
}

func clean(n int64, flag bool) Evidence {
	return Evidence{Server: Stopped, Saved: &Saved{Position: *at(uuidA, n), SafeToBootstrap: flag}, Recovered: at(uuidA, n)}
}

func ofB(e Evidence) Evidence {
	saved, recovered := *e.Saved, *e.Recovered
	saved.UUID, recovered.UUID = uuidB, uuidB
	e.Saved, e.Recovered = &saved, &recovered
	return e
}

func noState(n int64) Evidence { return Evidence{Server: Stopped, Recovered: at(uuidA, n)} }

func zeroState(n int64) Evidence {
	return Evidence{Server: Stopped, Saved: &Saved{Position: *at(ZeroUUID, -1), SafeToBootstrap: true}, Recovered: at(uuidA, n)}
}

func empty() Evidence { return Evidence{Server: Stopped, Empty: true} }

func alive(n int64, size int) Evidence {
	return Evidence{Server: NonPrimary, Size: size, Live: *at(uuidA, n), Saved: &Saved{Position: *at(uuidA, -1)}}
}

// left is one that runs, and goes back to nobody.
func left(n int64) Evidence { return with(alive(n, 1), func(e *Evidence) { e.Left = true }) }

func primary() Evidence { return Evidence{Server: Primary, Synced: true, Size: 3, Live: *at(uuidA, 7)} }

// waiting is a server that was started and finds no Primary; group: its saved view.
func waiting(mine string, group ...string) Evidence {
	e := Evidence{Server: Silent, Starting: true, Saved: &Saved{Position: *at(uuidA, -1)}}
	if len(group) > 0 {
		e.View = &View{Mine: mine, ID: "view", Members: group}
	}
	return e
}

// went is a member that went down in that view.
func went(e Evidence, view string, members ...string) Evidence {
	e.View = &View{Mine: members[0], ID: view, Members: members}
	e.Aside = 2*len(members) <= len(names)
	return e
}

func frozen() Evidence { return Evidence{Server: Silent} }

func with(e Evidence, change func(*Evidence)) Evidence {
	change(&e)
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

// TestDecide has a fixture for each diagnosis, and for what is easily got wrong.
func TestDecide(t *testing.T) {
	record := func(members ...string) *Lineage {
		return &Lineage{UUID: uuidA, View: "7", Members: members, Seqno: map[string]int64{"c1": 90, "c2": 90, "c3": 90}}
	}
	all := record("c1", "c2", "c3")
	later := 2 * time.Minute
	tests := []struct {
		name string
		c    Case
		want Diagnosis
		act  Act
		node string
		says string
	}{
		{"a Primary exists", Case{Evidence: three(crashed(9), primary(), crashed(9)), Lineage: all, Epoch: 1}, HasPrimary, Nothing, "", ""},
		{"never was complete", Case{Evidence: three(clean(3, true), empty(), empty())}, NotFormed, Nothing, "", ""},
		{"known to have been complete by a node's own memory", Case{Evidence: three(with(clean(3, true), func(e *Evidence) { e.Formed = true }), clean(3, false), clean(3, false)), Epoch: 1},
			CleanStop, Found, "c1", ""},
		{"a step is under way", Case{Evidence: three(with(crashed(9), func(e *Evidence) { e.Busy = "found" }), crashed(9), crashed(9)), Lineage: all, Epoch: 1}, Working, Wait, "", "c1"},
		{"all have just booted with the same view", Case{Evidence: three(waiting("1", "1", "2", "3"), waiting("2", "1", "2", "3"), waiting("3", "1", "2", "3")), Lineage: all, Waited: 30 * time.Second},
			SelfHealing, Wait, "", "30s more"},
		{"the same, and Galera had its time", Case{Evidence: three(waiting("1", "1", "2", "3"), waiting("2", "1", "2", "3"), waiting("3", "1", "2", "3")), Lineage: all, Waited: later},
			Unexamined, Halt, "", "c1, c2, c3"},
		{"a view was lost: Galera cannot do it", Case{Evidence: three(waiting("1", "1", "2", "3"), waiting("2"), waiting("3", "1", "2", "3")), Lineage: all, Waited: 20 * time.Second},
			Unexamined, Halt, "", ""},
		{"a machine is still off", Case{Evidence: without(three(waiting("1"), waiting("2"), empty()), "c3"), Lineage: all, Waited: later}, MemberMissing, Wait, "", "c3 had committed 90"},
		{"a machine is still off, and nothing was stopped yet", Case{Evidence: without(three(waiting("1"), waiting("2"), empty()), "c3"), Lineage: all, Waited: later, MissingAfter: time.Hour},
			MemberMissing, Wait, "", ""},
		{"the policy goes on without it", Case{Evidence: without(three(crashed(8), crashed(9), empty()), "c3"), Lineage: all, Epoch: 1, Waited: time.Hour, MissingAfter: time.Hour},
			LeftBehind, Found, "c2", "left behind by policy: c3"},
		{"the policy goes on without it, but it may be alive", Case{Evidence: without(three(crashed(8), crashed(9), empty()), "c3"), Lineage: all, Epoch: 1, Waited: time.Hour, MissingAfter: time.Hour,
			Fenceable: names}, MaybeAlive, Fence, "c3", "taken away before"},
		{"its power is back, and it has time to answer", Case{Evidence: without(three(crashed(8), crashed(9), empty()), "c3"), Lineage: all, Epoch: 1, Waited: 2 * time.Hour, MissingAfter: time.Hour,
			Fenceable: names, Fenced: map[string]service.Fenced{"c3": {Ago: 20 * time.Minute}}}, MemberMissing, Wait, "c3", "for 40m0s more"},
		{"it had its time", Case{Evidence: without(three(crashed(8), crashed(9), empty()), "c3"), Lineage: all, Epoch: 1, Waited: 3 * time.Hour, MissingAfter: time.Hour,
			Fenceable: names, Fenced: map[string]service.Fenced{"c3": {Ago: time.Hour}}}, LeftBehind, Found, "c2", "left behind by policy: c3"},
		{"the power of another one was taken away", Case{Evidence: without(three(crashed(8), crashed(9), empty()), "c3"), Lineage: all, Epoch: 1, Waited: 3 * time.Hour, MissingAfter: time.Hour,
			Fenceable: names, Fenced: map[string]service.Fenced{"c1": {Ago: time.Hour}}}, MaybeAlive, Fence, "c3", ""},
		{"its BMC does not obey", Case{Evidence: without(three(crashed(8), crashed(9), empty()), "c3"), Lineage: all, Epoch: 1, Waited: time.Hour, MissingAfter: time.Hour,
			Fenceable: names, Fenced: map[string]service.Fenced{"c3": {Ago: 30 * time.Second, Error: "no route"}}}, MaybeAlive, Wait, "c3", "no route"},
		{"its BMC did not obey a while ago", Case{Evidence: without(three(crashed(8), crashed(9), empty()), "c3"), Lineage: all, Epoch: 1, Waited: time.Hour, MissingAfter: time.Hour,
			Fenceable: names, Fenced: map[string]service.Fenced{"c3": {Ago: time.Hour, Error: "no route"}}}, MaybeAlive, Fence, "c3", ""},
		{"nobody's power is taken away while all have what is needed", Case{Evidence: without(three(clean(9, true), clean(8, false), empty()), "c3"), Lineage: record("c1"), Epoch: 1, Waited: time.Hour, MissingAfter: time.Hour,
			Fenceable: names}, CleanStop, Found, "c1", "c3 is not needed"},
		{"not if it was all of the last Primary", Case{Evidence: without(three(crashed(8), crashed(9), empty()), "c3"), Lineage: record("c3"), Epoch: 1, Waited: time.Hour, MissingAfter: time.Hour},
			MemberMissing, Wait, "", ""},
		{"two missing are no matter of the policy", Case{Evidence: without(three(crashed(8), empty(), empty()), "c2", "c3"), Lineage: all, Epoch: 1, Waited: time.Hour, MissingAfter: time.Hour},
			MemberMissing, Wait, "", "c2, c3"},
		{"one missing, but another was the last to leave and says so", Case{Evidence: without(three(clean(9, true), clean(8, false), empty()), "c3"), Lineage: record("c1"), Epoch: 1},
			CleanStop, Found, "c1", "c3 is not needed"},
		{"the same, after its machine was started again", Case{Evidence: without(three(
			with(crashed(9), func(e *Evidence) { e.Saved.SafeToBootstrap = true }), clean(8, false), empty()), "c3"), Lineage: record("c1"), Epoch: 1},
			AllCrashed, Found, "c1", "c3 is not needed"},
		{"the flag alone proves nothing", Case{Evidence: without(three(clean(9, true), clean(8, false), empty()), "c3"), Lineage: record("c1", "c3"), Epoch: 1}, MemberMissing, Wait, "", ""},
		{"one missing that was not in the last Primary", Case{Evidence: without(three(
			with(crashed(9), func(e *Evidence) { e.View = &View{Mine: "1", ID: "v", Members: []string{"1", "2"}} }),
			with(crashed(8), func(e *Evidence) { e.View = &View{Mine: "2", ID: "v", Members: []string{"1", "2"}} }), empty()), "c3"), Lineage: record("c1", "c2"), Epoch: 1},
			AllCrashed, Found, "c1", "c3 is not needed"},
		{"a server is frozen", Case{Evidence: three(frozen(), crashed(9), crashed(9)), Lineage: all, Epoch: 1, Waited: later}, Unresponsive, Wait, "c1", "frozen"},
		{"nor does a person's word help against it", Case{Evidence: three(frozen(), crashed(9), crashed(9)), Lineage: all, Epoch: 1, Choice: "c2"}, Unresponsive, Wait, "c1", ""},
		{"all crashed", Case{Evidence: three(crashed(7), crashed(9), crashed(8)), Lineage: all, Epoch: 1}, AllCrashed, Found, "c2", "c1 7, c2 9, c3 8"},
		{"all crashed at the same place", Case{Evidence: three(crashed(9), crashed(9), crashed(9)), Lineage: all, Epoch: 1}, AllCrashed, Found, "c1", ""},
		{"all were stopped, and one says that it was the last", Case{Evidence: three(clean(9, false), clean(9, false), clean(9, true)), Lineage: all, Epoch: 1}, CleanStop, Found, "c3", ""},
		{"all were stopped at once", Case{Evidence: three(clean(9, false), clean(9, false), clean(9, false)), Lineage: all, Epoch: 1}, CleanStop, Found, "c1", ""},
		{"the saved state is from before the last start, with a flag", Case{Evidence: three(
			with(clean(5, true), func(e *Evidence) { e.Recovered = at(uuidA, 8) }), crashed(9), crashed(9)), Lineage: all, Epoch: 1}, AllCrashed, Found, "c2", ""},
		{"the data is older than it once was", Case{Evidence: three(
			with(clean(12, true), func(e *Evidence) { e.Recovered = at(uuidA, 10) }), crashed(9), crashed(9)), Lineage: all, Epoch: 1}, Suspect, Ask, "c1", ""},
		{"the flag is old", Case{Evidence: three(clean(5, true), crashed(9), crashed(9)), Lineage: all, Epoch: 1}, StaleFlag, Ask, "c1", ""},
		{"a flag with a zero UUID is none", Case{Evidence: three(zeroState(5), crashed(9), crashed(9)), Lineage: all, Epoch: 1}, AllCrashed, Found, "c2", ""},
		{"an empty one is no source", Case{Evidence: three(empty(), crashed(1), empty()), Lineage: all, Epoch: 1}, AllCrashed, Found, "c2", ""},
		{"nobody has anything", Case{Evidence: three(empty(), empty(), empty()), Lineage: all, Epoch: 1}, AllEmpty, Ask, "", ""},
		{"grastate.dat is gone on one that is behind", Case{Evidence: three(noState(9), crashed(9), crashed(8)), Lineage: all, Epoch: 1}, AllCrashed, Found, "c2", ""},
		{"grastate.dat is gone on the most advanced", Case{Evidence: three(noState(10), crashed(9), crashed(8)), Lineage: all, Epoch: 1}, Suspect, Ask, "c1", "later than c2"},
		{"a state transfer was not completed", Case{Evidence: three(with(crashed(9), func(e *Evidence) { e.Torn = true }), crashed(8), crashed(8)), Lineage: all, Epoch: 1}, Suspect, Ask, "c1", ""},
		{"all are suspect", Case{Evidence: three(noState(10), zeroState(9), empty()), Lineage: all, Epoch: 1}, Suspect, Ask, "c1", "nobody else"},
		{"its data cannot be read", Case{Evidence: three(Evidence{Server: Stopped, Saved: &Saved{Position: *at(uuidA, -1)}, RecoveredError: "no"}, empty(), empty()), Lineage: all, Epoch: 1}, Suspect, Ask, "c1", ""},
		{"two histories", Case{Evidence: three(with(ofB(crashed(99)), func(e *Evidence) { e.Formed = true }), crashed(9), crashed(8)), Epoch: 1}, SplitHistory, Ask, "", uuidB},
		{"two histories, and the record knows which one lives", Case{Evidence: three(ofB(crashed(99)), crashed(9), crashed(8)), Lineage: record("c2", "c3"), Epoch: 1}, AllCrashed, Found, "c2", ""},
		{"two histories, and one of the last Primary has the other", Case{Evidence: three(ofB(crashed(99)), crashed(9), crashed(8)), Lineage: all, Epoch: 1},
			SplitHistory, Ask, "", "c1 was in the last Primary on record"},
		{"of two histories a person chooses the one on record", Case{Evidence: three(ofB(crashed(99)), crashed(9), crashed(8)), Lineage: all, Epoch: 1, Choice: "c2"},
			Chosen, Found, "c2", "c1 (another cluster"},
		{"one went down in a Primary of its own, beside the others' and of one UUID", Case{Evidence: three(crashed(9), went(crashed(10), "own", "c2"), crashed(8)), Lineage: all, Epoch: 1},
			AllCrashed, Found, "c2", ""}, // nothing shows that the others did not leave it
		{"the same, and the others went down together", Case{Evidence: three(went(crashed(9), "v", "c1", "c2", "c3"), went(crashed(10), "own", "c2"), went(crashed(8), "v", "c1", "c2", "c3")), Lineage: all, Epoch: 1},
			SplitHistory, Ask, "", "c2 went down in a Primary of its own"},
		{"it was alone with right: the record says so", Case{Evidence: three(went(crashed(9), "v", "c1", "c2", "c3"), went(crashed(10), "own", "c2"), went(crashed(8), "v", "c1", "c2", "c3")), Lineage: record("c2"), Epoch: 1},
			AllCrashed, Found, "c2", ""},
		{"it was alone with right: it was told to found", Case{Evidence: three(went(crashed(9), "v", "c1", "c2", "c3"), went(crashed(10), "own", "c2"), went(crashed(8), "v", "c1", "c2", "c3")), Lineage: all, Epoch: 2, Pinned: "c2"},
			AllCrashed, Found, "c2", ""},
		{"others were seen to go on beside it", Case{Evidence: three(crashed(9), went(crashed(10), "own", "c2"), crashed(8)), Epoch: 1,
			Lineage: &Lineage{UUID: uuidA, Members: []string{"c1", "c3"}, PassedOver: []string{"c2"}}}, SplitHistory, Ask, "", "c2 went down"},
		{"a person chooses between two histories of one UUID", Case{Evidence: three(went(crashed(9), "v", "c1", "c2", "c3"), went(crashed(10), "own", "c2"), went(crashed(8), "v", "c1", "c2", "c3")),
			Lineage: all, Epoch: 1, Choice: "c2"}, Chosen, Found, "c2", "c1 (another history of the same cluster)"},
		{"no founder is waited for that does not start by itself", Case{Evidence: three(crashed(9), with(waiting("2", "2"), func(e *Evidence) { e.Founded, e.Aside = 4, true }), crashed(8)), Lineage: all, Epoch: 4, Founder: "c2"},
			Unexamined, Halt, "", "c2"},
		{"nor for long one that was in a Primary since", Case{Evidence: three(crashed(9), with(waiting("2", "2"), func(e *Evidence) { e.Founded = 4 }), crashed(8)), Lineage: all, Epoch: 4, Founder: "c2", Waited: later},
			Unexamined, Halt, "", "c2"},
		{"a choice is no word about who goes away later", Case{Evidence: without(three(empty(), crashed(9), crashed(9)), "c1"), Lineage: all, Epoch: 4, Choice: "c2", Settled: true}, MemberMissing, Wait, "", "c1"},
		{"alive without a Primary, the others are just away", Case{Evidence: three(alive(9, 1), waiting("2"), waiting("3")), Lineage: all, Waited: 20 * time.Second}, SelfHealing, Wait, "", ""},
		{"alive without a Primary, and nothing comes", Case{Evidence: three(alive(9, 3), waiting("2"), waiting("3")), Lineage: all, Waited: later}, Unexamined, Halt, "", "c2, c3"},
		{"alive and the most advanced", Case{Evidence: three(alive(9, 1), crashed(9), crashed(8)), Lineage: all, Epoch: 1, Waited: later}, AliveAhead, Promote, "c1", ""},
		{"alive and behind", Case{Evidence: three(alive(8, 1), crashed(9), crashed(8)), Lineage: all, Epoch: 1, Waited: later}, Unexamined, Halt, "", "c1"},
		{"alive and apart", Case{Evidence: three(alive(9, 1), alive(9, 1), crashed(8)), Lineage: all, Epoch: 1, Waited: later}, Partitioned, Wait, "", ""},
		{"most are alive and hear each other", Case{Evidence: three(alive(8, 1), alive(9, 2), alive(9, 2)), Lineage: all, Waited: 20 * time.Second}, MajorityAlive, Promote, "c2", "c2, c3"},
		{"the same, and they have only just met", Case{Evidence: three(alive(8, 1), alive(9, 2), alive(9, 2)), Lineage: all, Waited: 2 * time.Second}, SelfHealing, Wait, "", "c2, c3 have just lost the Primary"},
		{"the same, and one has yet to notice", Case{Evidence: three(with(primary(), func(e *Evidence) { e.Live.Seqno = 8 }), alive(9, 2), alive(9, 2)), Lineage: all, Waited: later}, MajorityAlive, Promote, "c2", "c2, c3"},
		{"the one that has yet to notice has more", Case{Evidence: three(with(primary(), func(e *Evidence) { e.Live.Seqno = 10 }), alive(9, 2), alive(9, 2)), Lineage: all, Waited: later}, Partitioned, Wait, "", ""},
		{"one is a Primary by itself", Case{Evidence: three(with(primary(), func(e *Evidence) { e.Size = 1 }), alive(9, 2), alive(9, 2)), Lineage: all, Waited: later}, HasPrimary, Nothing, "", "c1"},
		{"two that are each alone prove nothing", Case{Evidence: three(primary(), alive(9, 1), alive(9, 1)), Lineage: all, Waited: later}, HasPrimary, Nothing, "", "c1"},
		{"one that left is not alive: it could not go first", Case{Evidence: three(left(9), crashed(8), crashed(8)), Lineage: all, Waited: later}, Unexamined, Halt, "", "c1"},
		{"most are alive, and one apart has more", Case{Evidence: three(alive(9, 1), alive(8, 2), alive(8, 2)), Lineage: all, Waited: later}, Partitioned, Wait, "", ""},
		{"most are alive, and one is not known", Case{Evidence: without(three(empty(), alive(9, 2), alive(9, 2)), "c1"), Lineage: all, Waited: later}, MemberMissing, Wait, "", ""},
		{"two hear each other, and were not most of the last Primary", Case{Evidence: three(alive(8, 1), alive(9, 2), alive(9, 2)), Lineage: record("c1"), Waited: later}, Partitioned, Wait, "", ""},
		{"the founding of this epoch is used up", Case{Evidence: three(crashed(9), with(crashed(9), func(e *Evidence) { e.Founded = 4 }), crashed(8)), Lineage: all, Epoch: 4, Founder: "c2"},
			FoundingBroke, NewEpoch, "c2", ""},
		{"the founder is still starting", Case{Evidence: three(crashed(9), with(waiting("2"), func(e *Evidence) { e.Founded, e.Founds = 4, true }), crashed(8)), Lineage: all, Epoch: 4, Founder: "c2"}, Working, Wait, "", "c2"},
		{"nor one that was started anew, without founding", Case{Evidence: three(crashed(9), with(waiting("2"), func(e *Evidence) { e.Founded = 4 }), crashed(8)), Lineage: all, Epoch: 4, Founder: "c2"},
			Unexamined, Halt, "", "c2"},
		{"the next epoch is bound to the last founder", Case{Evidence: three(crashed(9), crashed(9), crashed(8)), Lineage: all, Epoch: 5, Pinned: "c2"}, AllCrashed, Found, "c2", ""},
		{"but not if it is behind", Case{Evidence: three(crashed(10), crashed(9), crashed(8)), Lineage: all, Epoch: 5, Pinned: "c2"}, FounderBehind, Ask, "c2", ""},
		{"a founder that never founded and fell behind", Case{Evidence: three(crashed(10), crashed(9), crashed(8)), Lineage: all, Epoch: 5, Founder: "c2"}, FounderBehind, NewEpoch, "c2", "has not"},
		{"a new leader goes on with the founder on record", Case{Evidence: three(crashed(9), crashed(9), crashed(9)), Lineage: all, Epoch: 4, Founder: "c3"}, AllCrashed, Found, "c3", ""},
		{"a person chooses one that is behind", Case{Evidence: three(crashed(9), crashed(4), crashed(9)), Lineage: all, Epoch: 4, Choice: "c2"}, Chosen, Found, "c2", "c1 (5 later transactions)"},
		{"a person chooses a suspect copy", Case{Evidence: three(noState(10), crashed(9), crashed(9)), Lineage: all, Epoch: 4, Choice: "c1"}, Chosen, Found, "c1", ""},
		{"a person goes on without two", Case{Evidence: without(three(crashed(9), empty(), empty()), "c2", "c3"), Lineage: all, Epoch: 4, Choice: "c1"}, Chosen, Found, "c1", "c2 (not known"},
		{"a person chooses an empty one", Case{Evidence: three(empty(), crashed(9), crashed(9)), Lineage: all, Epoch: 4, Choice: "c1"}, BadChoice, Ask, "c1", "no data"},
		{"a person chooses one that is half a copy", Case{Evidence: three(with(crashed(9), func(e *Evidence) { e.Torn = true }), crashed(8), crashed(8)), Lineage: all, Epoch: 4, Choice: "c1"}, BadChoice, Ask, "c1", "not completed"},
		{"a person chooses one that is away", Case{Evidence: without(three(empty(), crashed(9), crashed(9)), "c1"), Lineage: all, Epoch: 4, Choice: "c1"}, BadChoice, Ask, "c1", "not known"},
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
			if d.Act == Ask && d.Hint == "" {
				t.Error("a person is asked, and not told what to do")
			}
		})
		seen[tt.want] = true
	}
	for _, d := range []Diagnosis{HasPrimary, NotFormed, Working, SelfHealing, MemberMissing, Unresponsive, Unexamined, Partitioned, MajorityAlive, AliveAhead, AllCrashed,
		CleanStop, MaybeAlive, LeftBehind, FoundingBroke, FounderBehind, SplitHistory, Suspect, StaleFlag, AllEmpty, Chosen, BadChoice} {
		if !seen[d] {
			t.Errorf("no fixture for %s", d)
		}
	}
}

// anyEvidence draws what a member may be found as, likely or not.
func anyEvidence(t *rapid.T) Evidence {
	seqno := rapid.Int64Range(-1, 5)
	uuid := rapid.SampledFrom([]string{uuidA, uuidA, uuidA, uuidB, ZeroUUID})
	e := Evidence{
		Server:   rapid.SampledFrom([]Server{Stopped, Stopped, Stopped, Stopped, NonPrimary, Silent, Primary}).Draw(t, "server"),
		Starting: rapid.Bool().Draw(t, "starting"), Founds: rapid.Bool().Draw(t, "founds"), Size: rapid.IntRange(1, 3).Draw(t, "size"), Live: *at(uuid.Draw(t, "live"), seqno.Draw(t, "live at")),
		Empty: rapid.IntRange(0, 9).Draw(t, "empty") == 0, Torn: rapid.IntRange(0, 9).Draw(t, "torn") == 0, Founded: rapid.Int64Range(0, 3).Draw(t, "founded"), Formed: rapid.Bool().Draw(t, "formed"),
	}
	e.Left = e.Server == NonPrimary && rapid.Bool().Draw(t, "left")
	if rapid.IntRange(0, 9).Draw(t, "has state") > 0 {
		e.Saved = &Saved{Position: *at(uuid.Draw(t, "saved"), seqno.Draw(t, "saved at")), SafeToBootstrap: rapid.Bool().Draw(t, "flag")}
	}
	if rapid.IntRange(0, 9).Draw(t, "was read") > 0 {
		e.Recovered = at(uuid.Draw(t, "recovered"), seqno.Draw(t, "recovered at"))
	}
	if rapid.Bool().Draw(t, "has view") {
		e.View = &View{Mine: rapid.SampledFrom(names).Draw(t, "mine"), ID: rapid.SampledFrom([]string{"v", "w"}).Draw(t, "view"),
			Members: rapid.SliceOfNDistinct(rapid.SampledFrom(names), 1, 3, rapid.ID[string]).Draw(t, "members")}
	}
	return e
}

func anyCase(t *rapid.T) Case {
	c := Case{Members: names, Evidence: map[string]Evidence{}, Epoch: rapid.Int64Range(0, 3).Draw(t, "epoch"),
		Waited:       time.Duration(rapid.IntRange(0, 120).Draw(t, "waited")) * time.Second,
		MissingAfter: time.Duration(rapid.IntRange(0, 1).Draw(t, "policy")) * time.Minute,
		Founder:      rapid.SampledFrom([]string{"", "", "c1", "c2"}).Draw(t, "founder"),
		Pinned:       rapid.SampledFrom([]string{"", "", "c2", "c3"}).Draw(t, "pinned")}
	for _, n := range names {
		if rapid.Bool().Draw(t, "fenceable") {
			c.Fenceable = append(c.Fenceable, n)
		}
		if rapid.Bool().Draw(t, "fenced") {
			if c.Fenced == nil {
				c.Fenced = map[string]service.Fenced{}
			}
			c.Fenced[n] = service.Fenced{Ago: time.Duration(rapid.IntRange(0, 120).Draw(t, "ago")) * time.Second, Error: rapid.SampledFrom([]string{"", "no route"}).Draw(t, "obeyed")}
		}
		if rapid.IntRange(0, 9).Draw(t, "answers") > 0 {
			c.Evidence[n] = anyEvidence(t)
		}
	}
	if rapid.Bool().Draw(t, "record") {
		c.Lineage = &Lineage{UUID: rapid.SampledFrom([]string{uuidA, uuidB}).Draw(t, "record of"),
			Members: slices.Sorted(slices.Values(rapid.SliceOfNDistinct(rapid.SampledFrom(names), 1, 3, rapid.ID[string]).Draw(t, "last")))}
	}
	return c
}

// TestWhoGoesFirst: whatever is found, and whatever a record says, nobody goes first whose data is not known to be the latest.
func TestWhoGoesFirst(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := anyCase(t)
		d := Decide(c)
		if d.Reason == "" || d.Diagnosis == "" || d.Act == "" {
			t.Fatalf("says nothing: %+v", d)
		}
		if d.Act == Fence && (!slices.Contains(c.Fenceable, d.Node) || slices.Contains(c.known(), d.Node)) {
			t.Fatalf("the power of %s is taken away", d.Node)
		}
		if d.Act != Found && d.Act != Promote {
			return
		}
		if d.Diagnosis == LeftBehind {
			for _, n := range c.absent() {
				if f, tried := c.Fenced[n]; slices.Contains(c.Fenceable, n) && (!tried || f.Error != "") {
					t.Fatalf("%s is left behind, and may be alive", n)
				}
			}
		}
		class, best := Classify(c.Evidence[d.Node])
		if class != ClassCrashed && class != ClassClean && class != ClassAlive {
			t.Fatalf("%s goes first with a copy that is %s", d.Node, class)
		}
		if (d.Act == Promote) != (class == ClassAlive) {
			t.Fatalf("%s: a %s copy", d.Act, class)
		}
		if c.Founder != "" && d.Node != c.Founder {
			t.Fatalf("%s goes first, the epoch is %s's", d.Node, c.Founder)
		}
		uuids := map[string]bool{}
		for n, e := range c.Evidence {
			if e.Server == Primary && e.Size+apart(c) <= len(names) {
				t.Fatalf("%s goes first, %s is in a Primary", d.Node, n)
			}
			if c.Epoch > 0 && e.Founded == c.Epoch {
				t.Fatalf("%s has founded in this epoch", n)
			}
			class, p := Classify(e)
			if class == ClassUnknown {
				t.Fatalf("%s goes first, %s was not read", d.Node, n)
			}
			if p.UUID == best.UUID && p.Seqno > best.Seqno {
				t.Fatalf("%s goes first at %d, %s is at %d", d.Node, best.Seqno, n, p.Seqno)
			}
			if !p.None() {
				uuids[p.UUID] = true
			}
		}
		if len(uuids) > 1 && (c.Lineage == nil || c.Lineage.UUID != best.UUID) {
			t.Fatalf("%s goes first across UUIDs %v", d.Node, uuids)
		}
		if missing := len(names) - len(c.Evidence); missing > 0 && d.Diagnosis != LeftBehind && (c.Lineage == nil || !slices.Contains(c.Lineage.Members, d.Node)) {
			t.Fatalf("%s goes first although %d are missing", d.Node, missing)
		} else if missing > 1 && len(c.Lineage.Members) > len(names)-missing {
			t.Fatalf("%s goes first although %d are missing", d.Node, missing)
		}
		if d.Diagnosis == LeftBehind && !d.Renew {
			t.Fatal("whoever is left behind could come back as if nothing had been")
		}
	})
}

// apart are the members that say that they are in no Primary.
func apart(c Case) (n int) {
	for _, e := range c.Evidence {
		if e.Server == NonPrimary {
			n++
		}
	}
	return n
}

// TestPersonsWord: a person may overrule much, but no Primary, no server of which nothing is known, and not an empty copy.
func TestPersonsWord(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := anyCase(t)
		c.Choice = rapid.SampledFrom(names).Draw(t, "choice")
		d := Decide(c)
		if d.Act != Found && d.Act != Promote {
			return
		}
		if class, p := Classify(c.Evidence[d.Node]); d.Node != c.Choice || class == ClassEmpty || class == ClassUnknown || p.None() {
			t.Fatalf("%s goes first, %s at %s; chosen was %s", d.Node, class, p, c.Choice)
		}
		for n, e := range c.Evidence {
			if e.Server != Stopped {
				t.Fatalf("%s goes first, %s is %s", d.Node, n, e.Server)
			}
			if class, p := Classify(e); class != ClassEmpty && !d.Renew && (p.UUID != c.Evidence[d.Node].Recovered.UUID && !p.None() || p.UUID == c.Evidence[d.Node].Recovered.UUID && p.Seqno > c.Evidence[d.Node].Recovered.Seqno) {
				t.Fatalf("%s is left behind and could come back as if nothing had been", n)
			}
		}
		if len(c.Evidence) < len(names) && !d.Renew {
			t.Fatal("who is missing could come back as if nothing had been")
		}
	})
}

// TestNextIsSafe: the marks of all others are cleared before somebody founds, and nobody does in an epoch that is not open.
func TestNextIsSafe(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := anyCase(t)
		renewed := rapid.Bool().Draw(t, "renewed")
		m := Next(c, renewed)
		makes := 0
		for i, batch := range m.Steps {
			for _, s := range batch {
				if s.Name != StepFound && s.Name != StepPromote {
					continue
				}
				makes++
				if renewed && s.Name == StepFound && s.Args[ArgRenew] == "" {
					t.Fatalf("another history was left behind, and could come back as if nothing had been: %+v", m)
				}
				if s.Node != m.Founder || i != len(m.Steps)-1 || len(batch) != 1 {
					t.Fatalf("%+v", m)
				}
				for n, e := range c.Evidence {
					cleared := len(m.Steps) > 1 && slices.ContainsFunc(m.Steps[0], func(x service.HealStep) bool {
						return x.Node == n && x.Name == StepClear
					})
					if n != s.Node && e.Server == Stopped && !cleared {
						t.Fatalf("%s is not cleared first: %+v", n, m)
					}
				}
			}
		}
		if makes > 1 || makes == 1 && (m.Open || m.Done) && c.Epoch > 0 {
			t.Fatalf("%+v", m)
		}
	})
}

func TestJoin(t *testing.T) {
	tests := []struct {
		name    string
		ev      map[string]Evidence
		renewed bool
		want    string
	}{
		{"the first that is stopped", three(primary(), crashed(5), crashed(6)), false, "join c2 map[]"},
		{"one at a time", three(primary(), waiting("2"), crashed(6)), false, "rests"},
		{"one that left is stopped first", three(primary(), left(5), crashed(6)), false, "halt c2 map[]"},
		{"but not at work", three(primary(), with(left(5), func(e *Evidence) { e.Busy = "halt" }), crashed(6)), false, "rests"},
		{"a suspect copy is replaced", three(primary(), noState(5), primary()), false, "join c2 map[fresh:true]"},
		{"another history stays", three(primary(), ofB(crashed(5)), primary()), false, "done, left [c2]"},
		{"unless the cluster is a new one: then it is kept", three(primary(), ofB(crashed(5)), primary()), true, "join c2 map[keep:true]"},
		{"all are there", three(primary(), primary(), primary()), false, "done, left []"},
		{"one is away", without(three(primary(), primary(), empty()), "c3"), false, "rests"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := Next(Case{Members: names, Evidence: tt.ev, Lineage: &Lineage{UUID: uuidA}, Epoch: 2}, tt.renewed)
			got := "waits"
			switch {
			case m.Done:
				got = fmt.Sprintf("done, left %v", m.Left)
			case m.Rest:
				got = "rests"
			case len(m.Steps) > 0:
				s := m.Steps[0][0]
				got = fmt.Sprintf("%s %s %v", s.Name, s.Node, s.Args)
			}
			if got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

// TestChoicesOfASplit: a person is told who goes first in each history, and chooses between these.
func TestChoicesOfASplit(t *testing.T) {
	d := Decide(Case{Members: names, Evidence: three(ofB(crashed(99)), crashed(8), crashed(9)), Lineage: &Lineage{UUID: uuidA, Members: names}, Epoch: 1})
	want := []service.Choice{{Node: "c3", Members: []string{"c2", "c3"}, Data: uuidA + ":9"}, {Node: "c1", Members: []string{"c1"}, Data: uuidB + ":99"}}
	if diff := cmp.Diff(want, d.Choices); diff != "" {
		t.Error(diff)
	}
	for _, say := range []string{"--choose c3' goes on with what c2, c3", "--choose c1' goes on with what c1"} {
		if !strings.Contains(d.Hint, say) {
			t.Errorf("%q does not say %q", d.Hint, say)
		}
	}
}
