// Package recovery decides how a Galera cluster without a Primary comes back: which member goes first, or why
// none may. It is a pure function from collected evidence to a decision with its reason.
//
// Invariants: nobody is chosen while a Primary exists, while a member whose data may be the latest is not
// known, across cluster UUIDs that no record tells apart, or from a copy that is empty or of which it is not sure
// that it is consistent; within one epoch at most one member is told to found. What cannot be decided is left to a person, with
// words that say what was seen. It must never do anything itself, and never compare positions of two UUIDs.
package recovery

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"nines/internal/service"
)

// ZeroUUID stands for "no history".
const ZeroUUID = "00000000-0000-0000-0000-000000000000"

// Position is a place in a cluster's history.
type Position struct {
	UUID  string `json:"uuid"`
	Seqno int64  `json:"seqno"` // -1: not known
}

// None reports whether the position belongs to no cluster.
func (p Position) None() bool { return p.UUID == "" || p.UUID == ZeroUUID }

// String is UUID:seqno, as Galera writes it.
func (p Position) String() string { return fmt.Sprintf("%s:%d", p.UUID, p.Seqno) }

// Saved is grastate.dat.
type Saved struct {
	Position
	SafeToBootstrap bool `json:"safe_to_bootstrap"`
}

// View is gvwstate.dat: the last Primary that the member saw, as long as it did not leave it cleanly.
type View struct {
	Mine    string   `json:"mine"` // the member's own name in it
	ID      string   `json:"id"`
	Members []string `json:"members"`
}

// Server is what the member's server says of itself.
type Server string

// The words of a server. Silent: it runs and does not answer, which a joiner does that waits, and a frozen one.
const (
	Primary    Server = "primary"
	NonPrimary Server = "non-primary"
	Silent     Server = "silent"
	Stopped    Server = "stopped"
)

// Evidence is what is known of one member.
type Evidence struct {
	Server Server `json:"server"`
	// Starting: its unit has not become ready since it was started. Such a server serves nobody.
	Starting bool `json:"starting,omitempty"`
	// Founds: the start under way makes a new cluster.
	Founds bool `json:"founds,omitempty"`
	Synced bool `json:"synced,omitempty"`
	// Left: the server runs, and joins nobody without a new start.
	Left bool `json:"left,omitempty"`
	// Size is of the component that a running server is in, Live its position.
	Size int      `json:"size,omitempty"`
	Live Position `json:"live,omitzero"`
	// Saved is grastate.dat, nil if there is none; SavedError says that it cannot be understood.
	Saved      *Saved `json:"saved,omitempty"`
	SavedError string `json:"saved_error,omitempty"`
	View       *View  `json:"view,omitempty"`
	// Aside: the view was not that of a majority, and was set aside when the member started: Galera does not form it again.
	Aside bool `json:"aside,omitempty"`
	// Empty: there is no database in the data directory.
	Empty bool `json:"empty,omitempty"`
	// Torn: a state transfer into it was not completed.
	Torn bool `json:"torn,omitempty"`
	// Recovered is InnoDB's own record, read in this epoch after the server was stopped. nil: not read yet.
	Recovered      *Position `json:"recovered,omitempty"`
	RecoveredError string    `json:"recovered_error,omitempty"`
	// Founded is the last epoch in which this member was told to found.
	Founded int64 `json:"founded,omitempty"`
	// Formed: this node knows that all members had been Synced once.
	Formed bool `json:"formed,omitempty"`
	// Busy says which step of a recovery its agent is doing.
	Busy string `json:"busy,omitempty"`
}

// Lineage is what the leader wrote down while the cluster was well.
type Lineage struct {
	UUID    string           `json:"uuid"`
	View    string           `json:"view"`    // wsrep_cluster_conf_id
	Members []string         `json:"members"` // of the last Primary seen, sorted
	Seqno   map[string]int64 `json:"seqno"`   // last committed, by member
	At      time.Time        `json:"at"`
	// PassedOver are members that were in a small Primary of their own before, and not started since.
	PassedOver []string `json:"passed_over,omitempty"`
}

// Case is all that a decision is made of.
type Case struct {
	Members  []string // as cluster.yaml has them
	Evidence map[string]Evidence
	Lineage  *Lineage
	// Epoch is that of the recovery under way, 0: none. Founder is who was to found in it, if that was written down;
	// Pinned the founder of an epoch before that never became a Primary that anybody saw.
	Epoch   int64
	Founder string
	Pinned  string
	// Settled: a Primary was seen in this epoch. What came after is another outage.
	Settled bool
	// Choice is a person's word.
	Choice string
	// Waited is for how long no Primary has been seen.
	Waited time.Duration
	// MissingAfter is the policy for one missing member: go on without it after that time. 0: never.
	MissingAfter time.Duration
	// Fenceable are the members whose power can be taken away, Fenced those of which that was tried in this outage.
	Fenceable []string
	Fenced    map[string]service.Fenced
}

// Diagnosis is what is the matter. The list is closed.
type Diagnosis string

// The diagnoses.
const (
	HasPrimary    Diagnosis = "primary"        // nothing to recover
	NotFormed     Diagnosis = "not-formed"     // never was complete: founding it is apply's work
	Working       Diagnosis = "working"        // a step is under way
	SelfHealing   Diagnosis = "self-healing"   // Galera may do it by itself
	MemberMissing Diagnosis = "member-missing" // somebody who may have the latest data is not known
	Unresponsive  Diagnosis = "unresponsive"   // a server runs and does not speak: it may be frozen, and in a Primary
	Unexamined    Diagnosis = "unexamined"     // members must be stopped and read first
	Partitioned   Diagnosis = "partitioned"    // members are alive and do not hear each other
	MajorityAlive Diagnosis = "majority-alive" // most of the last Primary are alive and hear each other, without one
	AliveAhead    Diagnosis = "alive-ahead"    // a living member without a Primary has the latest data
	AllCrashed    Diagnosis = "all-crashed"    // nobody left cleanly
	CleanStop     Diagnosis = "clean-stop"     // the member with the latest data was stopped cleanly
	MaybeAlive    Diagnosis = "maybe-alive"    // the policy goes on without it, but it may be alive
	LeftBehind    Diagnosis = "left-behind"    // one is missing, and the policy goes on without it
	FoundingBroke Diagnosis = "founding-broke" // this epoch's founding was used up and there is no Primary
	FounderBehind Diagnosis = "founder-behind" // the one that may have founded is not the most advanced
	SplitHistory  Diagnosis = "split-history"  // more than one UUID
	Suspect       Diagnosis = "suspect"        // the latest data is a copy that may not be consistent
	StaleFlag     Diagnosis = "stale-flag"     // safe_to_bootstrap on a member that is behind
	AllEmpty      Diagnosis = "all-empty"      // there is no data
	Chosen        Diagnosis = "chosen"         // by a person
	BadChoice     Diagnosis = "bad-choice"     // a person's choice that cannot be followed
)

// Act is what follows from a diagnosis.
type Act string

// The acts.
const (
	Nothing  Act = "nothing"
	Wait     Act = "wait"
	Halt     Act = "halt" // stop Nodes, keep copies, read their positions
	Found    Act = "found"
	Promote  Act = "promote" // pc.bootstrap on the living Node
	NewEpoch Act = "new-epoch"
	Fence    Act = "fence" // take Node's power away, and give it back
	Ask      Act = "ask"   // a person
)

// Decision says what is the matter, what is to be done, and why.
type Decision struct {
	Diagnosis Diagnosis `json:"diagnosis"`
	Act       Act       `json:"act"`
	Node      string    `json:"node,omitempty"`  // goes first
	Nodes     []string  `json:"nodes,omitempty"` // are to be halted
	// Renew: the cluster gets a new UUID, because a copy is left behind that may have more than Node: with the
	// same one it would be taken for a part of the same history.
	Renew  bool   `json:"renew,omitempty"`
	Reason string `json:"reason"`
	Hint   string `json:"hint,omitempty"`
	// Choices are the histories that a person has to choose between.
	Choices []service.Choice `json:"choices,omitempty"`
}

// Class is what a stopped member's copy is good for.
type Class string

// The classes.
const (
	ClassEmpty   Class = "empty"
	ClassSuspect Class = "suspect"
	ClassCrashed Class = "crashed"
	ClassClean   Class = "clean"
	ClassAlive   Class = "alive"
	ClassUnknown Class = "unknown" // not read yet
)

// Classify judges a member's copy and says how far it goes.
func Classify(e Evidence) (Class, Position) {
	switch {
	case e.Server == NonPrimary && !e.Left && !e.Live.None() && e.Live.Seqno >= 0:
		return ClassAlive, e.Live
	case e.Server != Stopped:
		return ClassUnknown, Position{}
	case e.Empty:
		return ClassEmpty, Position{}
	case e.Recovered == nil && e.RecoveredError == "":
		return ClassUnknown, Position{}
	case e.Recovered == nil || e.SavedError != "" || e.Torn:
		return ClassSuspect, recovered(e)
	case e.Saved == nil || e.Saved.None():
		// A state transfer that broke off and a schema change under way look like this as well.
		if e.Recovered.None() {
			return ClassEmpty, Position{}
		}
		return ClassSuspect, *e.Recovered
	case e.Saved.UUID != e.Recovered.UUID || e.Recovered.Seqno < 0:
		return ClassSuspect, *e.Recovered
	case e.Saved.Seqno > e.Recovered.Seqno:
		return ClassSuspect, *e.Recovered // it was further once
	case e.Saved.Seqno != e.Recovered.Seqno:
		// None is saved while the server runs. An old one is what a power cut leaves soon after a start: Galera does not flush the file.
		return ClassCrashed, *e.Recovered
	}
	return ClassClean, *e.Recovered
}

func recovered(e Evidence) Position {
	if e.Recovered != nil {
		return *e.Recovered
	}
	return Position{}
}

// How long Galera is left alone before anything is touched.
const (
	// patienceSelf: the saved views are complete, so that pc.recovery can work. It takes seconds once all run.
	patienceSelf = 60 * time.Second
	// patienceAlive: members that are alive come together again when the network does.
	patienceAlive = 30 * time.Second
	// patienceBoot: units that have just been started by the machine's boot must have come so far as to be seen.
	patienceBoot = 10 * time.Second
	// patienceMet: most are alive and hear each other. What Galera makes of that it makes in the same second.
	patienceMet = 3 * time.Second
	// patienceFounder: a founder's InnoDB may have much to recover before it serves.
	patienceFounder = 5 * time.Minute
)

// Decide is the diagnosis.
func Decide(c Case) Decision {
	c.Evidence = c.corrected()
	if d, ok := early(c); ok {
		return d
	}
	if d, ok := c.incomplete(); ok {
		return d
	}
	if d, ok := c.stillRunning(); ok {
		return d
	}
	if d, ok := c.foundingBroke(); ok {
		return d
	}
	if c.Choice != "" {
		return c.chosen()
	}
	return c.choose()
}

// early says what stands before any look at the copies.
func early(c Case) (Decision, bool) {
	formed := c.Lineage != nil
	for _, name := range c.known() {
		e := c.Evidence[name]
		if e.Server == Primary {
			return Decision{Diagnosis: HasPrimary, Act: Nothing, Reason: name + " is in a Primary"}, true
		}
		formed = formed || e.Formed
	}
	if !formed {
		return Decision{Diagnosis: NotFormed, Act: Nothing, Reason: "nothing says that all members were ever Synced",
			Hint: "'nines apply' founds the cluster"}, true
	}
	for _, name := range c.known() {
		if busy := c.Evidence[name].Busy; busy != "" {
			return Decision{Diagnosis: Working, Act: Wait, Reason: name + " is at work: " + busy}, true
		}
	}
	return Decision{}, false
}

// known are the members of which there is evidence, in cluster.yaml's order.
func (c Case) known() []string {
	var out []string
	for _, m := range c.Members {
		if _, ok := c.Evidence[m]; ok {
			out = append(out, m)
		}
	}
	return out
}

// absent are those of which nothing is known.
func (c Case) absent() []string {
	var out []string
	for _, m := range c.Members {
		if _, ok := c.Evidence[m]; !ok {
			out = append(out, m)
		}
	}
	return out
}

// unresponsive are those where a server runs that does not speak: it may be frozen, and a Primary when it goes on.
func (c Case) unresponsive() []string {
	var out []string
	for _, m := range c.known() {
		if e := c.Evidence[m]; e.Server == Silent && !e.Starting {
			out = append(out, m)
		}
	}
	return out
}

func (c Case) incomplete() (Decision, bool) {
	if silent := c.unresponsive(); len(silent) > 0 {
		return Decision{Diagnosis: Unresponsive, Act: Wait, Node: silent[0],
			Reason: "the server on " + strings.Join(silent, ", ") + " runs and does not answer: it may be frozen, and in a Primary when it goes on",
			Hint:   "look at it there: 'systemctl status mariadb'; if it does not come back, 'systemctl kill --signal=KILL mariadb' ends it"}, true
	}
	missing := c.absent()
	// A person answers for those that are missing when the choice is made, not for one that stops answering once there is a Primary, which it may be in.
	if len(missing) == 0 || c.Choice != "" && !c.Settled {
		return Decision{}, false
	}
	if _, why := c.enough(); why != "" {
		return Decision{}, false
	}
	if c.leavesBehind() {
		return c.maybeAlive(missing[0])
	}
	return Decision{Diagnosis: MemberMissing, Act: Wait,
		Reason: "the state of " + strings.Join(missing, ", ") + " is not known: it may have acknowledged writes that nobody else has" + c.record(missing),
		Hint:   "bring the machine up; if it is gone for good, 'nines recover galera --choose NODE' goes on without it"}, true
}

// record says how far the missing members were when that was last written down.
func (c Case) record(missing []string) string {
	if c.Lineage == nil {
		return ""
	}
	var parts []string
	for _, m := range missing {
		if n, ok := c.Lineage.Seqno[m]; ok {
			parts = append(parts, fmt.Sprintf("%s had committed %d at %s", m, n, c.Lineage.At.UTC().Format(time.TimeOnly)))
		}
	}
	if len(parts) == 0 {
		return ""
	}
	return " (" + strings.Join(parts, ", ") + ")"
}

// leavesBehind reports whether the policy goes on without the one missing member. It does not if that one was the whole
// last Primary on record.
func (c Case) leavesBehind() bool {
	missing := c.absent()
	return c.MissingAfter > 0 && c.Waited >= c.MissingAfter && len(missing) == 1 && len(c.Members) >= 3 &&
		c.Lineage != nil && !slices.Equal(c.Lineage.Members, missing)
}

// fenceAgain is when a BMC that did not obey is asked again.
const fenceAgain = time.Minute

// maybeAlive makes sure that a member is dead before the others go on without it: one whose agent does not answer may be in a Primary and
// take writes. Its machine is off for a moment only. Started anew it may well answer, and for that it gets the time once more.
func (c Case) maybeAlive(member string) (Decision, bool) {
	f, tried := c.Fenced[member]
	switch {
	case !slices.Contains(c.Fenceable, member):
		return Decision{}, false
	case !tried, f.Error != "" && f.Ago >= fenceAgain:
		return Decision{Diagnosis: MaybeAlive, Act: Fence, Node: member,
			Reason: member + " does not answer, and may be in a Primary all the same: its power is taken away before the others go on without it, and given back"}, true
	case f.Error != "":
		return Decision{Diagnosis: MaybeAlive, Act: Wait, Node: member,
			Reason: "the power of " + member + " could not be taken away, so that it may be in a Primary: " + f.Error,
			Hint:   "make sure that the machine is off, then 'nines recover galera --choose NODE' goes on without it"}, true
	case f.Ago < c.MissingAfter:
		return Decision{Diagnosis: MemberMissing, Act: Wait, Node: member,
			Reason: fmt.Sprintf("the power of %s was taken away and given back; for %s more it may answer%s", member, (c.MissingAfter - f.Ago).Round(time.Second), c.record([]string{member}))}, true
	}
	return Decision{}, false
}

// enough are the members that had the last Primary among themselves, if that is proved although somebody is missing:
// the record says so, and so does what these members saved. Empty reason: it is not.
func (c Case) enough() (members []string, why string) {
	if c.Lineage == nil || len(c.Lineage.Members) == 0 {
		return nil, ""
	}
	last := c.Lineage.Members
	for _, m := range last {
		if slices.Contains(c.absent(), m) {
			return nil, ""
		}
	}
	if len(last) == 1 {
		// The mark outlives a start that finds no Primary; the position of the clean stop does not.
		e := c.Evidence[last[0]]
		if e.Saved != nil && e.SavedError == "" && e.Saved.SafeToBootstrap && e.Saved.UUID == c.Lineage.UUID {
			return last, last[0] + " was the last one in the Primary: it says so, and so does the record"
		}
	}
	if group := c.savedGroup(); len(group) > 0 && slices.Equal(slices.Sorted(slices.Values(group)), slices.Sorted(slices.Values(last))) {
		return last, "the last Primary had the members " + strings.Join(last, ", ") + ": their saved views say so, and so does the record"
	}
	return nil, ""
}

// savedGroup are the members whose saved view is one and the same and is complete among them: Galera can form it again by itself.
func (c Case) savedGroup() []string {
	for _, name := range c.known() {
		v := c.Evidence[name].View
		if v == nil || len(v.Members) == 0 {
			continue
		}
		var group []string
		for _, member := range v.Members {
			for _, other := range c.known() {
				w := c.Evidence[other].View
				if w != nil && w.Mine == member && w.ID == v.ID && sameSet(w.Members, v.Members) {
					group = append(group, other)
				}
			}
		}
		if len(group) == len(v.Members) {
			return group
		}
	}
	return nil
}

func sameSet(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

// stillRunning has those stopped and read that only wait for a Primary, after Galera had its time.
func (c Case) stillRunning() (Decision, bool) {
	var running, unread, alive []string
	var founding string
	for _, name := range c.known() {
		e := c.Evidence[name]
		class, _ := Classify(e)
		switch {
		case c.Epoch > 0 && e.Founded == c.Epoch && e.Starting && c.Waited < founderPatience(e):
			founding = name
		case class == ClassAlive:
			alive = append(alive, name)
		case e.Server != Stopped:
			running, unread = append(running, name), append(unread, name)
		case class == ClassUnknown:
			unread = append(unread, name)
		}
	}
	if founding != "" {
		return Decision{Diagnosis: Working, Act: Wait, Reason: founding + " is founding the cluster"}, true
	}
	if d, ok := c.patience(running, alive); ok {
		return d, true
	}
	if len(unread) > 0 {
		return Decision{Diagnosis: Unexamined, Act: Halt, Nodes: unread,
			Reason: "no Primary has come by itself: " + strings.Join(unread, ", ") + " must be at rest and read"}, true
	}
	return Decision{}, false
}

// patience says whether Galera is still given time. Once an epoch has begun to stop members, there is nothing left to wait for
// but those that are alive.
func (c Case) patience(running, alive []string) (Decision, bool) {
	limit, why := patienceBoot, "members may only just have been started"
	group := c.savedGroup()
	switch {
	case c.Epoch > 0:
		return Decision{}, false
	case len(c.majority()) > 0:
		limit, why = patienceMet, strings.Join(c.majority(), ", ")+" have just lost the Primary"
	case len(group) > 0 && !c.aside(group) && allIn(group, append(slices.Clone(running), alive...)):
		limit, why = patienceSelf, "the saved views of "+strings.Join(group, ", ")+" are the same and complete: Galera can form the Primary again"
	case len(alive) > 0:
		limit, why = patienceAlive, strings.Join(alive, ", ")+" is alive: it may find the others again"
	}
	if c.Waited >= limit {
		return Decision{}, false
	}
	return Decision{Diagnosis: SelfHealing, Act: Wait,
		Reason: fmt.Sprintf("%s; nothing is touched for %s more", why, (limit - c.Waited).Round(time.Second))}, true
}

func (c Case) aside(group []string) bool {
	return slices.ContainsFunc(group, func(m string) bool { return c.Evidence[m].Aside })
}

func allIn(group, set []string) bool {
	for _, g := range group {
		if !slices.Contains(set, g) {
			return false
		}
	}
	return true
}

// founderPatience is for how long a founder that starts is taken to be founding. It begins without a saved view: one that has such has been in a
// Primary since, and may only form that again; one whose view was set aside does not start. One that was killed and started anew, by systemd or
// by a person, waits for a Primary like any other.
func founderPatience(e Evidence) time.Duration {
	switch {
	case e.Aside:
		return 0
	case e.View != nil:
		return patienceSelf
	case e.Founds:
		return patienceFounder
	}
	return 0
}

// foundingBroke asks for a new epoch once the one founding of this one was used.
func (c Case) foundingBroke() (Decision, bool) {
	for _, name := range c.known() {
		if c.Epoch > 0 && c.Evidence[name].Founded == c.Epoch {
			return Decision{Diagnosis: FoundingBroke, Act: NewEpoch, Node: name,
				Reason: fmt.Sprintf("%s founded in epoch %d, and there is no Primary any more", name, c.Epoch)}, true
		}
	}
	return Decision{}, false
}

// chosen follows a person's word as far as it can be followed.
func (c Case) chosen() Decision {
	e, ok := c.Evidence[c.Choice]
	class, p := Classify(e)
	bad := func(why, hint string) Decision {
		return Decision{Diagnosis: BadChoice, Act: Ask, Node: c.Choice, Reason: c.Choice + " cannot go first: " + why, Hint: hint}
	}
	switch {
	case !slices.Contains(c.Members, c.Choice):
		return bad("it is no member", "the members are "+strings.Join(c.Members, ", "))
	case !ok || class == ClassUnknown:
		return bad("its state is not known", "bring the machine up, or choose another member")
	case class == ClassEmpty:
		return bad("it has no data", "choose a member that has")
	case e.Torn:
		return bad("a state transfer into it was not completed: much of it may be missing", "restore a backup, or choose another member")
	case p.None() || p.Seqno < 0:
		return bad("its data does not say how far it goes", "restore a backup, or choose another member")
	}
	d := Decision{Diagnosis: Chosen, Act: Found, Node: c.Choice, Reason: "a person chose it; it stands at " + p.String()}
	var behind []string
	strayed := c.apartFrom(c.Choice, p.UUID)
	for _, m := range c.Members {
		if m == c.Choice {
			continue
		}
		if slices.Contains(strayed, m) {
			behind = append(behind, m+" (another history of the same cluster)")
		} else if text := c.loses(m, p); text != "" {
			behind = append(behind, text)
		}
	}
	if len(behind) > 0 {
		d.Renew = true
		d.Reason += "; left behind: " + strings.Join(behind, ", ")
	}
	if halt := c.alive(); len(halt) > 0 {
		return Decision{Diagnosis: Unexamined, Act: Halt, Nodes: halt, Reason: "a person chose " + c.Choice + "; whoever runs is stopped first"}
	}
	return d
}

// loses says what of m's copy the cluster would not have if it began at p; "": nothing.
func (c Case) loses(m string, p Position) string {
	class, q := Classify(c.Evidence[m])
	switch {
	case class == ClassUnknown:
		return m + " (not known" + c.record([]string{m}) + ")"
	case q.None():
		return ""
	case q.UUID != p.UUID:
		return m + " (another cluster, " + q.String() + ")"
	case q.Seqno > p.Seqno:
		return fmt.Sprintf("%s (%d later transactions)", m, q.Seqno-p.Seqno)
	}
	return ""
}

// copyOf is a member's copy as choose sees it.
type copyOf struct {
	name  string
	class Class
	at    Position
	flag  bool
}

// choose picks the member that goes first, without a person.
func (c Case) choose() Decision {
	copies := c.copies()
	group, d, ok := c.group(copies)
	if !ok {
		return d
	}
	if sides := c.apart(copies, group, c.pinned()); len(sides) > 0 {
		return split(sides, sides[0][0].name+" went down in a Primary of its own that no record knows, and the others in another one: each may have acknowledged writes that the other has not")
	}
	var sources []copyOf
	var best, suspect copyOf
	best.at.Seqno, suspect.at.Seqno = -1, -1
	for _, x := range copies {
		switch {
		case x.at.UUID != group:
		case x.class == ClassSuspect:
			if x.at.Seqno > suspect.at.Seqno {
				suspect = x
			}
		case x.class != ClassEmpty && x.class != ClassUnknown:
			sources = append(sources, x)
			if x.at.Seqno > best.at.Seqno {
				best = x
			}
		}
	}
	if len(sources) == 0 || suspect.at.Seqno > best.at.Seqno {
		return c.suspicious(suspect, best)
	}
	for _, x := range sources {
		if x.flag && x.at.Seqno < best.at.Seqno {
			return Decision{Diagnosis: StaleFlag, Act: Ask, Node: x.name,
				Reason: fmt.Sprintf("%s says that it was the last to leave, but it is at %d and %s is at %d", x.name, x.at.Seqno, best.name, best.at.Seqno),
				Hint:   "see 'nines recover galera --explain'; '--choose " + best.name + "' goes on from the later one"}
		}
	}
	if pinned := c.pinned(); pinned != "" {
		i := slices.IndexFunc(sources, func(x copyOf) bool { return x.name == pinned })
		if behind := i < 0 || sources[i].at.Seqno < best.at.Seqno; behind && c.neverFounded() {
			return Decision{Diagnosis: FounderBehind, Act: NewEpoch, Node: pinned,
				Reason: fmt.Sprintf("%s was to found in epoch %d and has not; it is not the most advanced any more, %s is at %s", pinned, c.Epoch, best.name, best.at)}
		} else if behind {
			return Decision{Diagnosis: FounderBehind, Act: Ask, Node: pinned,
				Reason: fmt.Sprintf("%s may have founded the cluster and taken writes since, but %s is at %s", pinned, best.name, best.at),
				Hint:   "see 'nines recover galera --explain', then '--choose NODE'"}
		}
	}
	best = first(sources, best.at.Seqno, c.pinned())
	if members, why := c.enough(); len(c.absent()) > 0 && why != "" && !slices.Contains(members, best.name) {
		return Decision{Diagnosis: MemberMissing, Act: Wait, Reason: best.name + " is the most advanced, but was not in the last Primary on record, and " +
			strings.Join(c.absent(), ", ") + " is not known", Hint: "bring the machine up"}
	}
	return c.goFirst(best, sources)
}

func (c Case) pinned() string {
	if c.Founder != "" {
		return c.Founder
	}
	return c.Pinned
}

// neverFounded reports whether this epoch's founder is known not to have founded: it would have noted that first, durably. What it had received
// and not applied may be gone if it lost its power since it was chosen.
func (c Case) neverFounded() bool {
	e, ok := c.Evidence[c.Founder]
	return ok && c.Epoch > 0 && e.Founded < c.Epoch
}

func (c Case) copies() []copyOf {
	var out []copyOf
	for _, name := range c.known() {
		e := c.Evidence[name]
		class, at := Classify(e)
		x := copyOf{name: name, class: class, at: at}
		x.flag = class == ClassClean && e.Saved.SafeToBootstrap
		out = append(out, x)
	}
	return out
}

func (c Case) suspicious(x, best copyOf) Decision {
	reason := x.name + "'s copy may not be consistent (its saved state does not fit what InnoDB says)"
	if best.name != "" {
		reason += fmt.Sprintf(", and it is at %d, later than %s at %d", x.at.Seqno, best.name, best.at.Seqno)
	} else {
		reason += ", and nobody else has a copy of that cluster"
	}
	return Decision{Diagnosis: Suspect, Act: Ask, Node: x.name, Reason: reason,
		Hint: "see 'nines recover galera --explain', then '--choose NODE'"}
}

// first breaks the tie among the most advanced: who is pinned, alive, was the last to leave; then the name.
func first(sources []copyOf, seqno int64, pinned string) copyOf {
	var tied []copyOf
	for _, x := range sources {
		if x.at.Seqno == seqno {
			tied = append(tied, x)
		}
	}
	rank := func(x copyOf) int {
		switch {
		case x.name == pinned:
			return 0
		case x.class == ClassAlive:
			return 1
		case x.flag:
			return 2
		}
		return 3
	}
	return slices.MinFunc(tied, func(a, b copyOf) int {
		if r := rank(a) - rank(b); r != 0 {
			return r
		}
		return strings.Compare(a.name, b.name)
	})
}

// goFirst says how the most advanced member goes first.
func (c Case) goFirst(best copyOf, sources []copyOf) Decision {
	var alive []string
	var told []string
	for _, x := range sources {
		told = append(told, fmt.Sprintf("%s %d", x.name, x.at.Seqno))
		if x.class == ClassAlive {
			alive = append(alive, x.name)
		}
	}
	d := Decision{Act: Found, Node: best.name, Reason: fmt.Sprintf("%s has the latest data of %s (%s)", best.name, best.at.UUID, strings.Join(told, ", "))}
	if missing := c.absent(); len(missing) > 0 {
		if _, why := c.enough(); why != "" {
			d.Reason += "; " + strings.Join(missing, ", ") + " is not needed: " + why
		} else {
			d.Diagnosis, d.Renew = LeftBehind, true
			d.Reason += "; left behind by policy: " + strings.Join(missing, ", ") + c.record(missing)
		}
	}
	switch {
	case best.class == ClassAlive:
		for _, name := range alive {
			if c.Evidence[name].Size != len(alive) {
				if d, ok := c.majorityFirst(best, sources); ok {
					return d
				}
				return Decision{Diagnosis: Partitioned, Act: Wait, Reason: fmt.Sprintf("%s hears %d members, but %s are alive", name, c.Evidence[name].Size, strings.Join(alive, ", ")),
					Hint: "mend the management network: they come together by themselves"}
			}
		}
		d.Act = Promote
		d.set(AliveAhead)
	case len(c.alive()) > 0:
		return Decision{Diagnosis: Unexamined, Act: Halt, Nodes: c.alive(), Reason: d.Reason + "; " + strings.Join(c.alive(), ", ") + " is behind and is stopped first"}
	case best.class == ClassClean:
		d.set(CleanStop)
	default:
		d.set(AllCrashed)
	}
	return d
}

// set names the diagnosis unless a stronger word was said.
func (d *Decision) set(x Diagnosis) {
	if d.Diagnosis == "" {
		d.Diagnosis = x
	}
}
