package plan

import (
	"fmt"
	"slices"
	"strings"

	"nines/internal/graph"
)

// Graph builds the dependency graph of the resources: After, Needs, and the files
// and packages of units. It fails on an unknown ID, an unknown capability, a duplicate or a cycle.
func Graph(rs []Resource) (*graph.Graph, error) {
	g := graph.New()
	providers := map[string][]ID{}
	for _, r := range rs {
		if g.Has(string(r.ID)) {
			return nil, fmt.Errorf("resource %s is declared twice", r.ID)
		}
		g.Add(string(r.ID))
		for _, p := range r.Provides {
			providers[p] = append(providers[p], r.ID)
		}
	}
	for _, r := range rs {
		if err := link(g, r, providers); err != nil {
			return nil, err
		}
	}
	if _, err := g.Order(); err != nil {
		return nil, err
	}
	return g, nil
}

func link(g *graph.Graph, r Resource, providers map[string][]ID) error {
	deps := slices.Clone(r.After)
	if r.Unit != nil {
		deps = append(deps, r.Unit.RestartOn...)
		deps = append(deps, r.Unit.ReloadOn...)
	}
	for _, need := range r.Needs {
		if len(providers[need]) == 0 {
			return fmt.Errorf("resource %s needs %q, which nothing provides", r.ID, need)
		}
		deps = append(deps, providers[need]...)
	}
	for _, d := range deps {
		if !g.Has(string(d)) {
			return fmt.Errorf("resource %s waits for %s, which does not exist", r.ID, d)
		}
		g.Edge(string(r.ID), string(d))
	}
	return nil
}

// serialise orders the ops of a quorum one node after the other when any of them takes
// a serving member away; the units of one node, one member together, are touched at the same time.
// Members that only start for the first time may do so side by side. It goes by order, in which the ops can run anyway (declaration order
// where nothing else is said): edges that all follow one such order cannot make a cycle.
func serialise(ops *graph.Graph, order []string, all map[ID]Resource, seen Observed) {
	risky := map[string]bool{}
	for _, id := range order {
		if m := memberOf(all[ID(id)]); m != nil && takesAway(seen.Resources[ID(id)].Change) {
			risky[m.Quorum] = true
		}
	}
	type turn struct {
		node      string
		ops, last []string // those of this turn and of the one before
	}
	turns := map[string]turn{}
	for _, id := range order {
		r := all[ID(id)]
		m := memberOf(r)
		if m == nil || !risky[m.Quorum] {
			continue
		}
		t := turns[m.Quorum]
		if t.node != r.Node {
			t = turn{node: r.Node, last: t.ops}
		}
		for _, prev := range t.last {
			ops.Edge(id, prev)
		}
		t.ops = append(t.ops, id)
		turns[m.Quorum] = t
	}
}

// takesAway reports whether the change takes a serving member away for a while.
func takesAway(change string) bool { return change == "restart" || change == "stop" }

// Build compares desired resources with what was observed. Resources of
// unreachable nodes get no ops; a Block says so.
func Build(spec string, rs []Resource, seen Observed) (Plan, error) {
	g, err := Graph(rs)
	if err != nil {
		return Plan{}, err
	}
	all := Index(rs)
	needs := func(id string) bool {
		r := all[ID(id)]
		_, gone := seen.Unreachable[r.Node]
		return !gone && seen.Resources[r.ID].State != InSync
	}
	ops := g.Keep(needs)
	order, err := ops.Order()
	if err != nil {
		return Plan{}, err
	}
	serialise(ops, order, all, seen)
	p := Plan{Spec: spec, Ops: make([]Op, 0, len(order)), Blocked: unreachable(seen)}
	// Who serves changes as the plan goes on: a member that it starts is there when the next is restarted. So an
	// interrupted rolling restart, which leaves one member stopped, can be gone on with.
	serving := membersServing(rs, seen.Serving)
	whole := lastOfMembers(order, all)
	for _, id := range order {
		r := all[ID(id)]
		op := opFor(r, all, seen, serving, ops.After(id))
		if breaksQuorum(op, serving) {
			p.Blocked = append(p.Blocked, quorumBlock(op))
		}
		p.Ops = append(p.Ops, op)
		if m := memberOf(r); whole[id] && r.Unit.Running && !slices.Contains(serving[m.Quorum], r.Node) {
			serving[m.Quorum] = append(slices.Clone(serving[m.Quorum]), r.Node)
		}
	}
	return p, nil
}

// lastOfMembers are the ops after which a member is there: the last of its units, all of which make one member.
func lastOfMembers(order []string, all map[ID]Resource) map[string]bool {
	last := map[[2]string]string{}
	for _, id := range order {
		if m := memberOf(all[ID(id)]); m != nil {
			last[[2]string{m.Quorum, all[ID(id)].Node}] = id
		}
	}
	out := map[string]bool{}
	for _, id := range last {
		out[id] = true
	}
	return out
}

// membersServing is who serves of each quorum's members. Nodes may run other parts of the same service, as computes do of Nova.
func membersServing(rs []Resource, serving map[string][]string) map[string][]string {
	out := map[string][]string{}
	for _, r := range rs {
		m := memberOf(r)
		if m != nil && slices.Contains(serving[m.Quorum], r.Node) && !slices.Contains(out[m.Quorum], r.Node) {
			out[m.Quorum] = append(out[m.Quorum], r.Node)
		}
	}
	return out
}

func opFor(r Resource, all map[ID]Resource, seen Observed, serving map[string][]string, after []string) Op {
	st := seen.Resources[r.ID]
	op := Op{ID: r.ID, Node: r.Node, Service: r.Service, Kind: r.Kind(), Hash: r.Hash(all), Reason: st.Reason}
	for _, a := range after {
		op.After = append(op.After, ID(a))
	}
	op.Summary = summary(r, st)
	if r.Unit != nil && st.Change == "restart" {
		op.Restarts = r.Unit.Name
	}
	if m := memberOf(r); m != nil && takesAway(st.Change) {
		op.Quorum = &Quorum{Name: m.Quorum, Size: m.Size, Needed: m.Needed, Left: left(r, serving[m.Quorum])}
	}
	return op
}

func memberOf(r Resource) *Member {
	if r.Unit == nil {
		return nil
	}
	return r.Unit.Member
}

// left is how many members serve while this one is being changed. One that does not
// serve takes nothing away: restarting it may be what brings it back.
func left(r Resource, serving []string) int {
	if slices.Contains(serving, r.Node) {
		return len(serving) - 1
	}
	return len(serving)
}

func summary(r Resource, st Status) string {
	switch {
	case r.Packages != nil:
		return "install " + strings.Join(r.Packages.Names, " ")
	case r.File != nil:
		verb := "write"
		if st.State == Drifted {
			verb = "change"
		}
		return verb + " " + r.File.Path
	case r.Unit != nil:
		change := st.Change
		switch change {
		case "":
			change = "start"
		case "wait": // it runs as it should and does not serve yet
			change = "wait for"
		}
		return change + " " + r.Unit.Name
	default:
		return describe(*r.Action)
	}
}

func describe(a Action) string {
	s := strings.ReplaceAll(a.Name, "-", " ")
	if n := a.Args["name"]; n != "" {
		s += " " + n
	}
	return s
}

// unreachable is a Block for each node that does not answer.
func unreachable(seen Observed) []Block {
	var out []Block
	for _, node := range sortedKeys(seen.Unreachable) {
		out = append(out, Block{Code: "node-unreachable", Text: fmt.Sprintf("%s does not answer: %s", node, seen.Unreachable[node]),
			Hint: "bring the node back, or look at it with 'nines status'"})
	}
	return out
}

// quorumBlock is for a restart or stop that would leave a serving quorum without its majority.
func quorumBlock(op Op) Block {
	return Block{Code: "quorum", Text: fmt.Sprintf("%s on %s: would leave %d of %d members of %s, %d are needed",
		op.Summary, op.Node, op.Quorum.Left, op.Quorum.Size, op.Quorum.Name, op.Quorum.Needed),
		Hint: "bring the missing members back first"}
}

// breaksQuorum reports whether the op takes the majority away from members that have
// it. One or two members have no redundancy to lose: there a restart is an outage
// that was agreed to with the cluster's size.
func breaksQuorum(op Op, serving map[string][]string) bool {
	q := op.Quorum
	return q != nil && q.Size > 2 && q.Left < q.Needed && slices.Contains(serving[q.Name], op.Node)
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
