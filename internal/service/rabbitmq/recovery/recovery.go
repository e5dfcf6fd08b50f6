// Package recovery decides how a RabbitMQ cluster that is not whole comes back: what may be started or restarted, who may be
// made to go on without a member that is gone, or why nobody may. It is a pure function from collected evidence to a
// decision with its reason.
//
// Invariants: nobody is forced to boot while a member runs or has not been stopped, while a member answers that went on
// longer, without a person's word, twice in an epoch, or beside the state of another cluster; a member is forgotten only while it holds
// nothing and a majority serves; never two members are restarted at once. A plain start is always allowed: RabbitMQ decides by itself
// whether it may serve. It must never do anything itself.
package recovery

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Broker is what a member's broker does.
type Broker string

// The words of a broker. Silent: its process runs and it serves nobody, because it paused for want of a majority, gave up coming back, or hangs.
const (
	Serving  Broker = "serving"
	Silent   Broker = "silent"
	Starting Broker = "starting" // among them those that wait for their peers
	Stopped  Broker = "stopped"
)

// Evidence is what is known of one member.
type Evidence struct {
	Broker Broker `json:"broker"`
	// For is how long its agent has seen it so: serving, or not.
	For time.Duration `json:"for,omitempty"`
	// Begun is how long ago a starting one was started.
	Begun time.Duration `json:"begun,omitempty"`
	// Running are the members that a serving one sees and has not been apart from since they started, itself included, and Stable for how
	// long they have been these.
	Running []string      `json:"running,omitempty"`
	Stable  time.Duration `json:"stable,omitempty"`
	// Held: so many quorum queues have most of their replicas among Running; -1: not known. Only in the absence of some.
	Held int `json:"held,omitempty"`
	// Members are those of its cluster, by its own word or by what it saved.
	Members []string `json:"members,omitempty"`
	// Last are the members that it knew to run when it was last told of a change, itself included: nodes_running_at_shutdown.
	Last []string `json:"last,omitempty"`
	// Cluster names its cluster: equal for all members, made when the cluster was.
	Cluster string `json:"cluster,omitempty"`
	// Empty: it holds no cluster's state. Khepri: its metadata is not in Mnesia, where alone force_boot means something.
	Empty      bool   `json:"empty,omitempty"`
	Khepri     bool   `json:"khepri,omitempty"`
	SavedError string `json:"saved_error,omitempty"`
	// Forced is the last epoch in which this member was told to boot by force.
	Forced int64 `json:"forced,omitempty"`
	// Busy says which step of a recovery its agent is doing.
	Busy string `json:"busy,omitempty"`
}

// Lineage is what the leader wrote down while a majority served.
type Lineage struct {
	Cluster string    `json:"cluster"`
	Running []string  `json:"running"` // the members that last served together, sorted
	At      time.Time `json:"at"`
}

// Case is all that a decision is made of.
type Case struct {
	Members  []string // as cluster.yaml has them
	Evidence map[string]Evidence
	Lineage  *Lineage
	// Epoch is that of the recovery under way, 0: none. Founder is who was told to boot by force in it.
	Epoch   int64
	Founder string
	// Settled: a member was seen serving in this epoch, so that Choice is used up.
	Settled bool
	// Choice is a person's word.
	Choice string
}

// Diagnosis is what is the matter. The list is closed.
type Diagnosis string

// The diagnoses.
const (
	Whole         Diagnosis = "whole"          // all serve, as one cluster
	Running       Diagnosis = "running"        // enough serve, and whoever does not comes by itself
	NotFormed     Diagnosis = "not-formed"     // never was complete: forming it is apply's work
	Working       Diagnosis = "working"        // a step is under way
	SelfHealing   Diagnosis = "self-healing"   // RabbitMQ may do it by itself
	DownTogether  Diagnosis = "down-together"  // nobody serves, and some are stopped that can be started
	Hanging       Diagnosis = "hanging"        // a member runs and serves nobody, for too long
	Unmet         Diagnosis = "unmet"          // members that were started while they did not reach each other wait for each other
	LastMissing   Diagnosis = "last-missing"   // the last to stop is not known; the others wait for it
	LastEmpty     Diagnosis = "last-empty"     // the last to stop has lost its state; the others wait for it in vain
	TwoClusters   Diagnosis = "two-clusters"   // members hold the states of different clusters
	Stuck         Diagnosis = "stuck"          // nothing is missing, and still nobody serves
	Replaced      Diagnosis = "replaced"       // a member lost its state, and cannot join as long as the others remember it
	Forgotten     Diagnosis = "forgotten"      // a member holds state, and the others do not know it
	Split         Diagnosis = "split"          // members serve that do not see each other
	Chosen        Diagnosis = "chosen"         // by a person
	BadChoice     Diagnosis = "bad-choice"     // a person's choice that cannot be followed
	FoundingBroke Diagnosis = "founding-broke" // whoever was forced to boot does not serve
)

// Act is what follows from a diagnosis.
type Act string

// The acts.
const (
	Nothing Act = "nothing"
	Wait    Act = "wait"
	Start   Act = "start"   // Nodes
	Restart Act = "restart" // Node
	Forget  Act = "forget"  // Node, which the others have to forget before it can join them
	Halt    Act = "halt"    // stop Nodes, before somebody is forced
	Force   Act = "force"   // Node
	Ask     Act = "ask"     // a person
)

// Decision says what is the matter, what is to be done, and why.
type Decision struct {
	Diagnosis Diagnosis `json:"diagnosis"`
	Act       Act       `json:"act"`
	Node      string    `json:"node,omitempty"`
	Nodes     []string  `json:"nodes,omitempty"`
	Reason    string    `json:"reason"`
	Hint      string    `json:"hint,omitempty"`
}

// How long RabbitMQ is left alone before anything is touched.
const (
	// patienceDown: whoever was stopped may just be on the way to be started again by its machine.
	patienceDown = 10 * time.Second
	// patienceSplit: members find each other again within seconds once the network lets them.
	patienceSplit = time.Minute
	// patienceEmpty: an empty member that is welcome has joined by then.
	patienceEmpty = time.Minute
	// patienceSilent: a member that paused looks every second whether it may go on, and needs seconds to do it.
	patienceSilent = 2 * time.Minute
	// patienceMeet: members that reach each other when they start have found each other by then, on a busy machine too.
	patienceMeet = 90 * time.Second
	// patienceWait: a member waits five minutes for its peers before it begins anew.
	patienceWait = 7 * time.Minute
)

const explain = "see 'nines recover rabbitmq --explain'"

// Decide is the diagnosis.
func Decide(c Case) Decision {
	for _, n := range c.known() {
		if busy := c.Evidence[n].Busy; busy != "" {
			return Decision{Diagnosis: Working, Act: Wait, Reason: n + " is at work: " + busy}
		}
	}
	if serving := c.in(Serving); len(serving) > 0 {
		return c.running(serving)
	}
	if !c.formed() {
		return Decision{Diagnosis: NotFormed, Act: Nothing, Reason: "nothing says that all members ever were one cluster", Hint: "'nines apply' forms it"}
	}
	if c.Choice != "" && !c.Settled {
		if d, ok := c.chosen(); ok {
			return d
		}
	}
	return c.down()
}

func (c Case) quorum() int { return len(c.Members)/2 + 1 }

// known are the members of which there is evidence, in cluster.yaml's order.
func (c Case) known() []string {
	return slices.DeleteFunc(slices.Clone(c.Members), func(m string) bool { _, ok := c.Evidence[m]; return !ok })
}

// absent are those of which nothing is known.
func (c Case) absent() []string {
	return slices.DeleteFunc(slices.Clone(c.Members), func(m string) bool { _, ok := c.Evidence[m]; return ok })
}

// in are the members whose broker is in one of the states.
func (c Case) in(states ...Broker) []string {
	return slices.DeleteFunc(c.known(), func(m string) bool { return !slices.Contains(states, c.Evidence[m].Broker) })
}

// formed reports whether all members were one cluster once.
func (c Case) formed() bool {
	if c.Lineage != nil {
		return true
	}
	for _, n := range c.known() {
		if containsAll(c.Evidence[n].Members, c.Members) {
			return true
		}
	}
	return false
}

func containsAll(set, of []string) bool {
	return !slices.ContainsFunc(of, func(x string) bool { return !slices.Contains(set, x) })
}

// running decides where at least one member serves. Nobody is ever forced then.
func (c Case) running(serving []string) Decision {
	if c.divided(serving) {
		return c.split(serving)
	}
	rest := slices.DeleteFunc(c.known(), func(m string) bool { return slices.Contains(serving, m) })
	for _, n := range rest {
		if d, ok := c.straggler(n, serving); ok {
			return d
		}
	}
	if stopped := c.in(Stopped); c.Epoch > 0 && len(stopped) > 0 {
		return Decision{Diagnosis: Running, Act: Start, Nodes: stopped, Reason: c.serve(serving) + "; " + strings.Join(stopped, ", ") + " can join"}
	}
	d := Decision{Diagnosis: Running, Act: Nothing, Reason: c.serve(serving)}
	switch {
	case len(serving) == len(c.Members):
		d.Diagnosis = Whole
	case len(rest) > 0:
		d.Reason += "; " + strings.Join(rest, ", ") + " joins by itself"
	default:
		d.Reason += "; " + strings.Join(c.absent(), ", ") + " does not answer"
	}
	return d
}

func (c Case) serve(serving []string) string {
	return fmt.Sprintf("%d of %d members serve: %s", len(serving), len(c.Members), strings.Join(serving, ", "))
}

// straggler says what keeps a member from joining those who serve, if it does not come by itself.
func (c Case) straggler(n string, serving []string) (Decision, bool) {
	e := c.Evidence[n]
	enough := len(serving) >= c.quorum()
	remembered := slices.ContainsFunc(serving, func(s string) bool { return slices.Contains(c.Evidence[s].Members, n) })
	waits := e.Broker == Starting && e.For >= patienceEmpty
	switch {
	case !enough || e.Broker == Stopped:
		return Decision{}, false // whoever was stopped by hand is not started beside those who serve
	case waits && e.Empty && remembered:
		return Decision{Diagnosis: Replaced, Act: Forget, Node: n,
			Reason: n + " has lost its state, and cannot join as a new member as long as the others remember it as an old one"}, true
	case waits && !e.Empty && !remembered && e.Cluster != "":
		return Decision{Diagnosis: Forgotten, Act: Ask, Node: n,
			Reason: n + " holds state, and is no member of the cluster that serves: it was removed there, or belongs to another one",
			Hint:   "if nothing in it is needed: stop rabbitmq-server on " + n + ", move /var/lib/rabbitmq/mnesia aside, 'nines apply'"}, true
	case e.Broker == Silent && e.For >= patienceSilent:
		return Decision{Diagnosis: Hanging, Act: Restart, Node: n,
			Reason: fmt.Sprintf("%s runs and has served nobody for %s, while the others serve", n, e.For.Round(time.Second))}, true
	}
	return Decision{}, false
}

// apart reports whether two serve that do not see each other.
func (c Case) apart(serving []string) bool {
	return slices.ContainsFunc(serving, func(n string) bool { return !containsAll(c.Evidence[n].Running, serving) })
}

// split has one member of the smaller side restarted, if it is sure which side that is: it then takes up the other's metadata.
// What it holds of quorum queues stays.
func (c Case) split(serving []string) Decision {
	sides, whole := c.sides(serving)
	var told []string
	for _, s := range sides {
		told = append(told, strings.Join(s, "+"))
	}
	d := Decision{Diagnosis: Split, Act: Wait, Reason: "members serve that do not see each other: " + strings.Join(told, " / ")}
	ask := func(why string) Decision {
		d.Act, d.Reason = Ask, d.Reason+"; "+why
		d.Hint = "mend the management network; if it stays, '--choose NODE': it and whom it sees go on, what the others decided meanwhile (queues, bindings, users) is given up"
		return d
	}
	halting := c.halting(serving) // which itself changes who sees whom
	for _, n := range serving {
		if e := c.Evidence[n]; e.Stable < patienceSplit && !halting {
			d.Reason += fmt.Sprintf("; they are given %s more to find each other", (patienceSplit - e.Stable).Round(time.Second))
			return d
		}
	}
	if ids := c.clusters(); len(ids) > 1 {
		d = ask("they are different clusters: " + c.tellClusters())
		d.Hint = "on those whose state is not wanted stop rabbitmq-server, move /var/lib/rabbitmq/mnesia aside, 'nines apply'"
		return d
	}
	if others := c.others(serving); len(others) > 0 {
		return c.side(serving, others)
	}
	if len(serving) < len(c.Members) {
		return ask("not all members serve: " + c.serve(serving))
	}
	i := slices.IndexFunc(sides, func(s []string) bool { return len(s) >= c.quorum() })
	if !whole || i < 0 {
		return ask("no side is a majority whose members all see each other")
	}
	for _, n := range serving {
		e := c.Evidence[n]
		switch {
		case slices.Contains(sides[i], n):
		case !containsAll(e.Members, c.Members):
			return ask(n + " does not take the others for members")
		case e.Held < 0:
			return ask(n + " does not tell which queues it holds")
		case e.Held > 0:
			return ask(fmt.Sprintf("%d queues have most of their replicas on the side of %s", e.Held, n))
		}
	}
	for j, s := range sides {
		if j != i {
			d.Act, d.Node = Restart, s[0]
			d.Reason += fmt.Sprintf("; %s are the majority, %s takes up their state", strings.Join(sides[i], ", "), s[0])
			return d
		}
	}
	return d
}

// others are those who serve and are not of the chosen member's side. Of one side are those of whom everybody sees both or none: those who serve, and
// those who were stopped and wrote down whom they saw until then. One that started beside two that are apart is of no side but its own.
func (c Case) others(serving []string) []string {
	if c.Choice == "" || c.Settled {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(serving), func(x string) bool {
		return x == c.Choice || !slices.ContainsFunc(c.in(Serving, Stopped), func(m string) bool {
			saw := c.Evidence[m].Last
			if c.Evidence[m].Broker == Serving {
				saw = c.Evidence[m].Running
			}
			return slices.Contains(saw, x) != slices.Contains(saw, c.Choice)
		})
	})
}

// divided reports whether there are two histories: two serve that do not see each other, or a person's word in a split was not followed to its end.
func (c Case) divided(serving []string) bool {
	return c.apart(serving) || c.halting(serving)
}

// halting: somebody was stopped for a person's word, and somebody is still to be.
func (c Case) halting(serving []string) bool {
	return slices.Contains(serving, c.Choice) && len(c.in(Stopped)) > 0 && len(c.others(serving)) > 0
}

// side follows a person's word in a split: the chosen member and those of its side go on. Each of the others is stopped before any of
// them starts again: one that starts beside two that are apart takes up the metadata of either, and RabbitMQ forgets that they were apart only when
// nobody of another side is left.
func (c Case) side(serving, others []string) Decision {
	n := c.Choice
	if !slices.Contains(serving, n) {
		return Decision{Diagnosis: BadChoice, Act: Ask, Node: n, Reason: n + " cannot go on: it does not serve, and others do", Hint: "choose one that serves: " + strings.Join(serving, ", ")}
	}
	are, take := "is", "takes"
	if len(others) > 1 {
		are, take = "are", "take"
	}
	return Decision{Diagnosis: Chosen, Act: Halt, Nodes: others[:1],
		Reason: fmt.Sprintf("a person chose %s; %s %s stopped, one at a time, and %s up its metadata with the next start", n, strings.Join(others, ", "), are, take)}
}

// sides groups the members by whom they see. whole: all of a group see just this group.
func (c Case) sides(serving []string) (sides [][]string, whole bool) {
	whole = true
	for _, n := range serving {
		mine := intersect(c.Evidence[n].Running, serving)
		i := slices.IndexFunc(sides, func(s []string) bool { return slices.Contains(s, n) })
		if i < 0 {
			sides = append(sides, mine)
		} else if !slices.Equal(sides[i], mine) {
			whole = false
		}
	}
	seen := map[string]int{}
	for _, s := range sides {
		for _, n := range s {
			seen[n]++
		}
	}
	for _, n := range serving {
		whole = whole && seen[n] == 1
	}
	return sides, whole
}

// intersect keeps b's order.
func intersect(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(b), func(x string) bool { return !slices.Contains(a, x) })
}

// clusters are the names of the clusters whose state the members hold, with the members.
func (c Case) clusters() map[string][]string {
	out := map[string][]string{}
	for _, n := range c.known() {
		if id := c.Evidence[n].Cluster; id != "" && !c.Evidence[n].Empty {
			out[id] = append(out[id], n)
		}
	}
	return out
}

func (c Case) tellClusters() string {
	ids := c.clusters()
	var parts []string
	for _, id := range slices.Sorted(maps.Keys(ids)) {
		parts = append(parts, strings.Join(ids[id], ", ")+": "+id)
	}
	return strings.Join(parts, "; ")
}

// outlived reports whether x went on after n had stopped, or may have. Two that did not see each other go are equals: what the cluster
// decided while both ran is with both.
func (c Case) outlived(x, n string) bool {
	e, known := c.Evidence[x]
	if known && e.Empty {
		return false
	}
	if l := c.Lineage; l != nil && slices.Contains(l.Running, x) && !slices.Contains(l.Running, n) {
		return true
	}
	mine := c.Evidence[n].Last
	if len(mine) == 0 {
		return true // it does not say
	}
	return slices.Contains(mine, x) && !(known && slices.Contains(e.Last, n))
}

// awaited are the members that n waits for, those of the given ones that may have gone on longer.
func (c Case) awaited(n string, among []string) []string {
	return slices.DeleteFunc(slices.Clone(among), func(x string) bool { return x == n || !c.outlived(x, n) })
}

// down decides where nobody serves and no person has chosen.
func (c Case) down() Decision {
	if stopped := c.in(Stopped); len(stopped) > 0 {
		for _, n := range stopped {
			if left := patienceDown - c.Evidence[n].For; left > 0 {
				return Decision{Diagnosis: SelfHealing, Act: Wait, Reason: fmt.Sprintf("nobody serves; %s may be about to be started (%s more)", n, left.Round(time.Second))}
			}
		}
		return Decision{Diagnosis: DownTogether, Act: Start, Nodes: stopped,
			Reason: "nobody serves, and " + strings.Join(stopped, ", ") + " is stopped: RabbitMQ itself knows whether it may go on"}
	}
	if d, ok := c.hanging(); ok {
		return d
	}
	if d, ok := c.lastGone(); ok {
		return d
	}
	if len(c.clusters()) > 1 {
		return Decision{Diagnosis: TwoClusters, Act: Ask, Reason: "the members hold the states of different clusters (" + c.tellClusters() + ")",
			Hint: "decide which one goes on; on the others stop rabbitmq-server, move /var/lib/rabbitmq/mnesia aside, 'nines apply'"}
	}
	if slices.ContainsFunc(c.known(), func(n string) bool { return c.Evidence[n].For < patienceWait }) {
		if d, ok := c.unmet(); ok {
			return d
		}
		return Decision{Diagnosis: SelfHealing, Act: Wait, Reason: "the members that are there wait for each other: " + strings.Join(c.known(), ", ")}
	}
	return Decision{Diagnosis: Stuck, Act: Ask, Reason: "nothing is missing that RabbitMQ could wait for, and still nobody serves",
		Hint: "/var/log/rabbitmq/rabbit@NODE.log on each member says what it waits for"}
}

// unmet has one of those restarted that wait for each other. A member looks for its peers when it starts, and then waits for five minutes: those that started
// while the network between them was cut do not notice that they could meet. It serves nobody, so that a restart costs nobody anything.
func (c Case) unmet() (Decision, bool) {
	waiting := c.in(Starting)
	if len(waiting) < c.quorum() || len(waiting) < len(c.known()) {
		return Decision{}, false
	}
	longest := waiting[0]
	for _, n := range waiting {
		if c.Evidence[n].Begun < patienceMeet {
			return Decision{}, false
		}
		if c.Evidence[n].Begun > c.Evidence[longest].Begun {
			longest = n
		}
	}
	return Decision{Diagnosis: Unmet, Act: Restart, Node: longest,
		Reason: fmt.Sprintf("%s have waited for each other for %s at least: %s looks for them anew", strings.Join(waiting, ", "), patienceMeet, longest)}, true
}

// hanging has a member restarted that serves nobody although enough others are there for it to go on.
func (c Case) hanging() (Decision, bool) {
	if len(c.in(Silent, Starting)) < c.quorum() {
		return Decision{}, false
	}
	for _, n := range c.in(Silent) {
		if e := c.Evidence[n]; e.For >= patienceSilent {
			return Decision{Diagnosis: Hanging, Act: Restart, Node: n,
				Reason: fmt.Sprintf("nobody serves; %s runs and has served nobody for %s, although enough members are there", n, e.For.Round(time.Second))}, true
		}
	}
	return Decision{}, false
}

// lastGone says that the others wait for a member that does not answer, or that has lost what they wait for.
func (c Case) lastGone() (Decision, bool) {
	var absent, empty []string
	for _, n := range c.known() {
		e := c.Evidence[n]
		if e.Empty {
			continue
		}
		if len(c.awaited(n, c.known())) == 0 && len(c.awaited(n, c.absent())) == 0 && !c.awaitsEmpty(n) {
			return Decision{}, false // n may go first, and does
		}
		absent = append(absent, c.awaited(n, c.absent())...)
		for _, x := range c.known() {
			if c.Evidence[x].Empty && slices.Contains(e.Last, x) {
				empty = append(empty, x)
			}
		}
	}
	slices.Sort(absent)
	slices.Sort(empty)
	absent, empty = slices.Compact(absent), slices.Compact(empty)
	switch {
	case len(absent) > 0:
		return Decision{Diagnosis: LastMissing, Act: Wait, Nodes: absent,
			Reason: strings.Join(absent, ", ") + " was still serving when the others stopped" + c.record() + ": they wait for it, because it may have taken more",
			Hint:   "bring " + strings.Join(absent, ", ") + " up; if it is gone for good: " + explain + ", then '--choose NODE'"}, true
	case len(empty) > 0:
		return Decision{Diagnosis: LastEmpty, Act: Ask, Nodes: empty,
			Reason: strings.Join(empty, ", ") + " was serving when the others stopped, and has lost its state since: they wait for it in vain",
			Hint:   "is its old disk to be had? If not: " + explain + ", then '--choose NODE'"}, true
	}
	return Decision{}, false
}

func (c Case) awaitsEmpty(n string) bool {
	return slices.ContainsFunc(c.known(), func(x string) bool { return c.Evidence[x].Empty && slices.Contains(c.Evidence[n].Last, x) })
}

func (c Case) record() string {
	if c.Lineage == nil {
		return ""
	}
	return fmt.Sprintf(" (on record at %s: %s)", c.Lineage.At.UTC().Format(time.TimeOnly), strings.Join(c.Lineage.Running, ", "))
}

// chosen follows a person's word as far as it can be followed. Whoever does not answer is taken for gone: that is what the person said.
// Not ok: nobody has to be forced, because nothing is missing any more.
func (c Case) chosen() (Decision, bool) {
	n := c.Choice
	if len(c.absent()) == 0 && !slices.ContainsFunc(c.known(), func(x string) bool { return c.Evidence[x].Empty }) {
		return Decision{}, false
	}
	if d, ok := c.badChoice(); ok {
		return d, true
	}
	if d, ok := c.used(); ok {
		return d, true
	}
	if len(c.awaited(n, c.absent())) == 0 && !c.awaitsEmpty(n) {
		return Decision{}, false
	}
	if run := c.in(Silent, Starting); len(run) > 0 {
		return Decision{Diagnosis: Chosen, Act: Halt, Nodes: run, Reason: "a person chose " + n + "; whoever runs is stopped first"}, true
	}
	gone := c.awaited(n, c.absent())
	for _, x := range c.known() {
		if c.Evidence[x].Empty && slices.Contains(c.Evidence[n].Last, x) {
			gone = append(gone, x+" (empty)")
		}
	}
	return Decision{Diagnosis: Chosen, Act: Force, Node: n,
		Reason: "a person chose it; given up is what " + strings.Join(gone, ", ") + " took after it had stopped"}, true
}

func (c Case) badChoice() (Decision, bool) {
	n := c.Choice
	e, known := c.Evidence[n]
	bad := func(why, hint string) (Decision, bool) {
		return Decision{Diagnosis: BadChoice, Act: Ask, Node: n, Reason: n + " cannot go first: " + why, Hint: hint}, true
	}
	switch {
	case !slices.Contains(c.Members, n):
		return bad("it is no member", "the members are "+strings.Join(c.Members, ", "))
	case !known:
		return bad("its state is not known", "bring the machine up, or choose another member")
	case e.Khepri:
		return bad("its metadata is in Khepri, which wants a majority and knows no force", "bring a majority up; Khepri's own documentation says what else there is")
	case e.Empty:
		return bad("it holds no state", "choose a member that does")
	case e.SavedError != "" || e.Cluster == "" || len(e.Last) == 0:
		return bad("what it saved does not say which cluster it belongs to, or who served last ("+e.SavedError+")", "choose another member")
	case len(c.clusters()) > 1:
		return bad("the members hold the states of different clusters ("+c.tellClusters()+")",
			"on those whose state is not wanted move /var/lib/rabbitmq/mnesia aside while rabbitmq-server is stopped, then choose again")
	case c.Lineage != nil && c.Lineage.Cluster != "" && c.Lineage.Cluster != e.Cluster:
		return bad("it belongs to "+e.Cluster+", on record is "+c.Lineage.Cluster, "choose another member")
	}
	if later := c.awaited(n, c.known()); len(later) > 0 {
		return bad(strings.Join(later, ", ")+" answers and went on longer", "choose "+later[0])
	}
	return Decision{}, false
}

// used says what became of the force of this epoch.
func (c Case) used() (Decision, bool) {
	for _, x := range c.known() {
		e := c.Evidence[x]
		switch {
		case c.Epoch == 0 || e.Forced != c.Epoch:
		case e.Broker == Stopped || e.For >= patienceWait:
			return Decision{Diagnosis: FoundingBroke, Act: Ask, Node: x, Reason: fmt.Sprintf("%s was forced to boot in epoch %d and does not serve", x, c.Epoch),
				Hint: "look at /var/log/rabbitmq there, then '--choose NODE' again"}, true
		default:
			return Decision{Diagnosis: Working, Act: Wait, Reason: x + " boots by force"}, true
		}
	}
	if c.Founder != "" && c.Founder != c.Choice {
		return Decision{Diagnosis: FoundingBroke, Act: Ask, Node: c.Founder, Reason: fmt.Sprintf("epoch %d is %s's to boot by force in", c.Epoch, c.Founder), Hint: explain + ", then '--choose NODE'"}, true
	}
	return Decision{}, false
}
