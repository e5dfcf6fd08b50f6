// Package supervise decides which daemons are restarted because they are frozen or stuck: they run and do nothing any more. One that
// dies is systemd's matter. It is pure: what the agents saw, what was done so far and the time go in, decisions come out.
//
// Invariants: of the members that carry the cluster's state (a quorum of more than one) at most one is restarted at a time, in the
// whole cluster, and only while all others of its quorum serve; what starts, stops, recovers or is held by a debugger is never
// restarted; nor, for want of an answer, what lacks something it needs, or two daemons of one machine at once; a unit that freezes again and again is restarted ever more seldom, and in the end left alone.
package supervise

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// How long a unit must have been of no use before it is restarted. Whose processes are stopped is frozen for certain; who only
// owes an answer may have much to do, a member that carries state above all; and what knows by itself how to end a member that hangs
// (RabbitMQ's recovery, after two minutes) goes first.
const (
	stoppedFor      = 10 * time.Second
	stuckFor        = 10 * time.Second
	silentFor       = time.Minute
	memberSilentFor = 3 * time.Minute
	// sharedFor is for several daemons of a machine that owe an answer: that has most likely a cause outside of them, and on a machine that is
	// busy starting, to start them all anew keeps it busy (seen after a power cut of a whole site).
	sharedFor = 5 * time.Minute
	shared    = 3
	// unreportedFor is for a daemon that runs and no longer notes that it works: it has lost the broker or the database for good, though both are there
	// (heat-engine, after a start without them). On machines that are busy booting a first note took minutes.
	unreportedFor = 10 * time.Minute
)

// claim is how long a member that was restarted is waited for before another one may be. What is seen in the first moments may be from before it
// stopped.
const (
	claim       = 10 * time.Minute
	claimMoment = 30 * time.Second
)

// settled is how long a unit must have done well since its last restart for its earlier ones to be forgotten.
const settled = 15 * time.Minute

// backOff is how long is waited after each try.
var backOff = []time.Duration{time.Minute, 2 * time.Minute, 5 * time.Minute, 15 * time.Minute}

// Tries is how often a unit is restarted before it is left alone.
func Tries() int { return len(backOff) + 1 }

// Ailing is a unit that does nothing, as the agent of its node sees it.
type Ailing struct {
	Node    string `json:"node"`
	Service string `json:"service"`
	Unit    string `json:"unit"`
	// Stopped: for so long all its processes have been stopped (SIGSTOP). Silent: for so long it has owed an answer.
	Stopped time.Duration `json:"stopped,omitempty"`
	Silent  time.Duration `json:"silent,omitempty"`
	// Unreported: it answers nobody, and has not noted for so long that it works.
	Unreported time.Duration `json:"unreported,omitempty"`
	// Stuck: for so long it has said that it comes back only with a new start, and Why.
	Stuck time.Duration `json:"stuck,omitempty"`
	Why   string        `json:"why,omitempty"`
	// Traced: a debugger holds it.
	Traced bool `json:"traced,omitempty"`
	// Active is systemd's word, Running the time since it began to start.
	Active  string        `json:"active"`
	Running time.Duration `json:"running"`
	// Needed members of its quorum must serve; more than one: they carry the cluster's state. 0: it is no member.
	Needed int `json:"needed,omitempty"`
}

func (a Ailing) key() string { return a.Node + "/" + a.Unit }

// member reports whether it is one of those of which never two are touched at once.
func (a Ailing) member() bool { return a.Needed > 1 }

// Node is a node whose agent answered.
type Node struct {
	// Serving says of each observed service, and each part of one, whether it serves.
	Serving map[string]bool
	// Silent is how many of them owe an answer.
	Silent int
}

// View is the cluster at one moment.
type View struct {
	Now    time.Time
	Ailing []Ailing
	// Nodes that answered. Quorums maps a service to the nodes of its members that carry the cluster's state.
	Nodes   map[string]Node
	Quorums map[string][]string
	// Lacking says of a service what it needs and does not have.
	Lacking map[string]string
	// Recovering are the services of which the leader's recovery holds the members.
	Recovering map[string]bool
	// Busy says why nothing may be restarted now; empty: it may.
	Busy string
}

// Act is what is done about a unit.
type Act string

// The acts.
const (
	Restart Act = "restart"
	Wait    Act = "wait"
	GiveUp  Act = "give-up"
)

// Decision is what is done about a unit, and why.
type Decision struct {
	Node    string `json:"node"`
	Service string `json:"service"`
	Unit    string `json:"unit"`
	Act     Act    `json:"act"`
	// Sign is what is wrong with it, Reason why this is done.
	Sign   string `json:"sign"`
	Reason string `json:"reason"`
	// Try is the number of the restart.
	Try int `json:"try,omitempty"`
}

// Unit is what was done about a unit so far.
type Unit struct {
	Node    string `json:"node"`
	Service string `json:"service"`
	// Member: it carries the cluster's state.
	Member bool        `json:"member,omitempty"`
	Tries  []time.Time `json:"tries"`
	// Well: it was seen to serve since the last of them.
	Well bool `json:"well,omitempty"`
}

func (u Unit) last() time.Time { return u.Tries[len(u.Tries)-1] }

// Record is what must be known of the past, and what was decided last. It is written down before anything is done.
type Record struct {
	// Units that were restarted lately, by "NODE/UNIT".
	Units     map[string]Unit `json:"units,omitempty"`
	Decisions []Decision      `json:"decisions,omitempty"`
}

// Allows reports whether the record tells this restart, so that one which a leader of the past asked for is refused.
func (r Record) Allows(node, unit string, try int) bool {
	return len(r.Units[node+"/"+unit].Tries) == try && slices.ContainsFunc(r.Decisions, func(d Decision) bool {
		return d.Node == node && d.Unit == unit && d.Act == Restart && d.Try == try
	})
}

// Holds reports whether a member that was restarted has yet to serve again: until then nothing else may touch members.
func (r Record) Holds(v View) bool { return r.claimed(v) != "" }

// claimed names the member, and is empty when there is none.
func (r Record) claimed(v View) string {
	for _, key := range slices.Sorted(maps.Keys(r.Units)) {
		u := r.Units[key]
		if u.Member && !u.Well && v.Now.Sub(u.last()) < claim {
			return key
		}
	}
	return ""
}

func (v View) ails(key string) bool {
	return slices.ContainsFunc(v.Ailing, func(a Ailing) bool { return a.key() == key })
}

// Restarts are the decisions to restart.
func (r Record) Restarts() []Decision {
	var out []Decision
	for _, d := range r.Decisions {
		if d.Act == Restart {
			out = append(out, d)
		}
	}
	return out
}

// Next decides, and returns the record that must be written before it is done.
func Next(v View, r Record) Record {
	next := Record{Units: map[string]Unit{}}
	for key, u := range r.Units {
		// Nobody knows how a unit does whose node does not answer.
		n, seen := v.Nodes[u.Node]
		u.Well = u.Well || n.Serving[u.Service] && !v.ails(key) && v.Now.Sub(u.last()) >= claimMoment
		if v.ails(key) || !seen || v.Now.Sub(u.last()) < settled {
			next.Units[key] = u
		}
	}
	ailing := slices.Clone(v.Ailing)
	// Those without state first: they are many people's first need and nobody's risk.
	slices.SortFunc(ailing, func(a, b Ailing) int {
		return cmp.Or(cmp.Compare(a.Needed, b.Needed), cmp.Compare(a.key(), b.key()))
	})
	for _, a := range ailing {
		sign := a.sign()
		if sign == "" {
			continue
		}
		d := Decision{Node: a.Node, Service: a.Service, Unit: a.Unit, Sign: sign}
		d.Act, d.Reason = next.judge(v, a)
		if d.Act == Restart {
			u := next.Units[a.key()]
			u = Unit{Node: a.Node, Service: a.Service, Member: a.member(), Tries: append(slices.Clone(u.Tries), v.Now)}
			next.Units[a.key()] = u
			d.Try = len(u.Tries)
		}
		next.Decisions = append(next.Decisions, d)
	}
	return next
}

// certain reports whether it is of no use whatever the machine has to do.
func (a Ailing) certain() bool { return a.Stopped >= stoppedFor || a.Stuck >= stuckFor }

// sign says what is wrong; nothing yet, or nothing that a restart would mend, is "".
func (a Ailing) sign() string {
	patience := silentFor
	if a.member() {
		patience = memberSilentFor
	}
	switch {
	case a.Active != "active":
		return "" // it starts (crash recovery and state transfers take minutes), stops, or systemd sees to it
	case a.Stopped >= stoppedFor:
		return "its processes are stopped (SIGSTOP)"
	case a.Stuck >= stuckFor:
		return a.Why
	case min(a.Silent, a.Running) >= patience:
		return fmt.Sprintf("it has owed an answer for more than %s", patience)
	case min(a.Unreported, a.Running) >= unreportedFor:
		return fmt.Sprintf("it runs, and has not reported for more than %s", unreportedFor)
	}
	return ""
}

// judge says what is done about a unit that is of no use.
func (r Record) judge(v View, a Ailing) (Act, string) {
	tries := r.Units[a.key()].Tries
	n := v.Nodes[a.Node]
	switch {
	case a.Traced:
		return Wait, "a debugger holds it: whoever debugs it lets it go"
	case v.Recovering[a.Service]:
		return Wait, "the recovery of " + a.Service + " sees to it"
	case !a.certain() && n.Silent*2 > len(n.Serving):
		return Wait, fmt.Sprintf("%d of %d services of %s owe an answer: the machine is overloaded or its disk hangs, and restarts would make it worse", n.Silent, len(n.Serving), a.Node)
	case !a.certain() && v.Lacking[a.Service] != "":
		return Wait, "it cannot answer: " + v.Lacking[a.Service]
	case !a.certain() && v.silentOn(a.Node) >= shared && min(max(a.Silent, a.Unreported), a.Running) < sharedFor:
		return Wait, fmt.Sprintf("%d daemons of %s have owed an answer for so long: it may have a cause that they share, and to start them all anew makes it worse", v.silentOn(a.Node), a.Node)
	case len(tries) >= Tries():
		return GiveUp, fmt.Sprintf("it was restarted %d times and froze or got stuck again each time", len(tries))
	case len(tries) > 0 && v.Now.Before(r.Units[a.key()].last().Add(backOff[len(tries)-1])):
		return Wait, fmt.Sprintf("it was restarted %s and is restarted again at %s", times(len(tries)), r.Units[a.key()].last().Add(backOff[len(tries)-1]).UTC().Format(time.TimeOnly+" MST"))
	case v.Busy != "":
		return Wait, v.Busy
	}
	if other := r.startingOn(v, a); !a.certain() && other != "" {
		return Wait, other + " was restarted and does not serve again yet: one daemon of a machine at a time"
	}
	if !a.member() {
		return Restart, "it holds nothing that others need"
	}
	if other := r.claimed(v); other != "" && other != a.key() {
		return Wait, other + " was restarted and does not serve again yet: never two members at once"
	}
	if missing := missing(v, a); len(missing) > 0 {
		return Wait, fmt.Sprintf("%s must serve first: %s", strings.Join(missing, " and "), "a second member is not taken away")
	}
	return Restart, "all other members serve"
}

// silentOn is how many units of a node have owed an answer for too long.
func (v View) silentOn(node string) (n int) {
	for _, a := range v.Ailing {
		if a.Node == node && !a.certain() && a.sign() != "" {
			n++
		}
	}
	return n
}

// startingOn is another unit of the node that was restarted in the last minute and does not serve yet.
func (r Record) startingOn(v View, a Ailing) string {
	for _, key := range slices.Sorted(maps.Keys(r.Units)) {
		u := r.Units[key]
		if key != a.key() && u.Node == a.Node && !u.Well && v.Now.Sub(u.last()) < silentFor {
			return key
		}
	}
	return ""
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

// missing are the other members of the unit's quorum that do not serve.
func missing(v View, a Ailing) []string {
	var out []string
	for _, node := range v.Quorums[a.Service] {
		if node != a.Node && !v.Nodes[node].Serving[a.Service] {
			out = append(out, a.Service+" on "+node)
		}
	}
	return out
}
