package plan_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"nines/internal/plan"
)

// site draws resources of up to three quorums on up to four nodes, with
// dependencies that follow a random order, so that they never make a cycle.
func site(r *rapid.T) []plan.Resource {
	nodes := rapid.IntRange(1, 4).Draw(r, "nodes")
	quorums := rapid.IntRange(1, 3).Draw(r, "quorums")
	var rs []plan.Resource
	for q := range quorums {
		for n := range nodes {
			service, node := fmt.Sprintf("svc%d", q), fmt.Sprintf("ctl%d", n)
			file := plan.Make(service, node, "file", "conf")
			rs = append(rs,
				plan.Resource{ID: file, Service: service, Node: node, File: &plan.File{Path: "/etc/conf"}},
				plan.Resource{ID: plan.Make(service, node, "unit", "d"), Service: service, Node: node,
					Unit: &plan.Unit{Name: "d.service", RestartOn: []plan.ID{file}, Member: &plan.Member{Quorum: service, Size: nodes, Needed: nodes/2 + 1}}})
		}
	}
	rank := map[plan.ID]int{}
	for i, r := range rapid.Permutation(rs).Draw(r, "possible order") {
		rank[r.ID] = i
	}
	for _, r := range rs { // units come after their own file
		if r.Unit != nil {
			rank[r.ID] = len(rs) + rank[r.ID]
		}
	}
	for i := range rs {
		for _, dep := range rs {
			if rank[dep.ID] < rank[rs[i].ID] && rapid.IntRange(0, 5).Draw(r, "edge") == 0 {
				rs[i].After = append(rs[i].After, dep.ID)
			}
		}
	}
	return rs
}

func observe(r *rapid.T, rs []plan.Resource) plan.Observed {
	seen := plan.Observed{Resources: map[plan.ID]plan.Status{}, Unreachable: map[string]string{}, Serving: map[string][]string{}}
	for _, res := range rs {
		st := plan.Status{State: rapid.SampledFrom([]plan.State{plan.InSync, plan.Missing, plan.Drifted, plan.Unknown}).Draw(r, "state")}
		if res.Unit != nil {
			if q := res.Unit.Member.Quorum; rapid.Bool().Draw(r, "serving") {
				seen.Serving[q] = append(seen.Serving[q], res.Node)
			}
			if st.State != plan.InSync {
				st.Change = rapid.SampledFrom([]string{"start", "restart", "reload", "enable", "stop"}).Draw(r, "change")
			}
		}
		seen.Resources[res.ID] = st
	}
	if rapid.IntRange(0, 3).Draw(r, "unreachable") == 0 {
		seen.Unreachable["ctl0"] = "no route to host"
	}
	return seen
}

func TestBuildProperties(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		rs := site(r)
		seen := observe(r, rs)
		p, err := plan.Build("spec", rs, seen)
		if err != nil {
			r.Fatal(err)
		}
		again, err := plan.Build("spec", rs, seen)
		if diff := cmp.Diff(p, again); err != nil || diff != "" {
			r.Fatalf("equal input, another plan: %v\n%s", err, diff)
		}
		before := waits(r, p)
		completeness(r, p, rs, seen)
		dependencies(r, p, rs, before)
		quorums(r, p, rs, seen, before)
	})
}

// waits returns, for each op, every op it waits for, directly or not, and
// demands that each of them stands before it in the plan.
func waits(r *rapid.T, p plan.Plan) map[plan.ID]map[plan.ID]bool {
	before := map[plan.ID]map[plan.ID]bool{}
	for _, op := range p.Ops {
		before[op.ID] = map[plan.ID]bool{}
		for _, a := range op.After {
			if before[a] == nil {
				r.Fatalf("%s waits for %s, which does not stand before it", op.ID, a)
			}
			before[op.ID][a] = true
			for b := range before[a] {
				before[op.ID][b] = true
			}
		}
	}
	return before
}

// completeness: there is an op for exactly what is not in sync and can be reached.
func completeness(r *rapid.T, p plan.Plan, rs []plan.Resource, seen plan.Observed) {
	planned := map[plan.ID]int{}
	for _, op := range p.Ops {
		planned[op.ID]++
	}
	for _, res := range rs {
		want := 1
		if _, gone := seen.Unreachable[res.Node]; gone || seen.Resources[res.ID].State == plan.InSync {
			want = 0
		}
		if planned[res.ID] != want {
			r.Fatalf("%s has %d ops, want %d", res.ID, planned[res.ID], want)
		}
	}
	if _, gone := seen.Unreachable["ctl0"]; gone && len(p.Blocked) == 0 {
		r.Fatal("a node does not answer and the plan is not blocked")
	}
}

// dependencies: an op waits for the ops of all that its resource comes after.
func dependencies(r *rapid.T, p plan.Plan, rs []plan.Resource, before map[plan.ID]map[plan.ID]bool) {
	g, err := plan.Graph(rs)
	if err != nil {
		r.Fatal(err)
	}
	var demand func(op, id string)
	demand = func(op, id string) {
		for _, dep := range g.After(id) {
			if before[plan.ID(dep)] != nil && !before[plan.ID(op)][plan.ID(dep)] {
				r.Fatalf("%s does not wait for %s", op, dep)
			}
			demand(op, dep)
		}
	}
	for _, op := range p.Ops {
		demand(string(op.ID), string(op.ID))
	}
}

// quorums: no two ops of one quorum may run side by side when one of them takes
// a member away, and none may run when it would take the majority.
func quorums(r *rapid.T, p plan.Plan, rs []plan.Resource, seen plan.Observed, before map[plan.ID]map[plan.ID]bool) {
	all := plan.Index(rs)
	takesAway := func(id plan.ID) bool {
		c := seen.Resources[id].Change
		return c == "restart" || c == "stop"
	}
	blocked := slices.ContainsFunc(p.Blocked, func(b plan.Block) bool { return b.Code == "quorum" })
	mustBlock := false
	for _, a := range p.Ops {
		if all[a.ID].Unit == nil {
			continue
		}
		m := all[a.ID].Unit.Member
		if (a.Quorum != nil) != takesAway(a.ID) {
			r.Fatalf("%s (%s): quorum is %+v", a.ID, a.Summary, a.Quorum)
		}
		mustBlock = mustBlock || takesAway(a.ID) && m.Size > 2 && slices.Contains(seen.Serving[m.Quorum], a.Node) && len(seen.Serving[m.Quorum])-1 < m.Needed
		for _, b := range p.Ops {
			if a.ID == b.ID || all[b.ID].Unit == nil || all[b.ID].Unit.Member.Quorum != m.Quorum || !takesAway(a.ID) {
				continue
			}
			if !before[a.ID][b.ID] && !before[b.ID][a.ID] {
				r.Fatalf("%s and %s may run side by side", a.ID, b.ID)
			}
		}
	}
	if blocked != mustBlock {
		r.Fatalf("blocked for the quorum is %v, want %v", blocked, mustBlock)
	}
}
