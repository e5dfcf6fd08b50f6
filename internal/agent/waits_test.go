package agent

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"nines/internal/api"
	"nines/internal/heal"
	"nines/internal/health"
	"nines/internal/model"
	"nines/internal/plan"
	"nines/internal/secret"
	"nines/internal/service"
)

// declared is a service that declares what it is told.
type declared struct {
	name            string
	needs, provides []string
	needed          int
}

func (d declared) Name() string { return d.name }
func (d declared) Resources(c *model.Cluster, _ secret.Source) ([]plan.Resource, error) {
	var rs []plan.Resource
	for _, n := range c.Nodes {
		rs = append(rs, plan.Resource{ID: plan.Make(d.name, n.Name, "unit", d.name), Service: d.name, Node: n.Name, Needs: d.needs, Provides: d.provides,
			Unit: &plan.Unit{Name: d.name + ".service", Running: true, Member: &plan.Member{Quorum: d.name, Size: 3, Needed: d.needed}}})
	}
	return rs, nil
}

func TestDriftOfWhatCannotBeYet(t *testing.T) {
	for id, want := range map[plan.ID]string{
		plan.Make("galera", "ctl1", "unit", "mariadb.service"): "galera", plan.Make("keystone", "ctl1", "action", "issue-token"): "keystone",
		plan.Make("galera", "ctl1", "file", "config"): "", plan.Make("galera", "ctl1", "packages", "mariadb"): "", "nonsense": "",
	} {
		if got := idle(id); got != want {
			t.Errorf("%s follows %q, want %q", id, got, want)
		}
	}
}

func TestStatusSaysWhatWaitsForWhat(t *testing.T) {
	c := cluster()
	c.Services = []string{"db", "address", "identity"}
	for _, name := range []string{"ctl2", "ctl3"} {
		c.Nodes = append(c.Nodes, model.Node{Name: name, Roles: c.Nodes[0].Roles})
	}
	a := &Agent{shapes: &shapes{services: []service.Service{
		declared{name: "db", needed: 2, provides: []string{service.CapSQL}, needs: []string{service.CapBase}},
		declared{name: "address", needed: 1, provides: []string{service.CapVIP}},
		declared{name: "identity", needed: 1, needs: []string{service.CapSQL, service.CapVIP}, provides: []string{service.CapIdentity}},
	}}, secrets: &secrets{}}
	node := func(name string, serves bool) api.NodeStatus {
		o := func(s bool) service.Observation { return service.Observation{Serving: s} }
		return api.NodeStatus{Node: name, Report: &api.NodeReport{Services: map[string]service.Observation{"db": o(serves), "address": o(true), "identity": o(serves)}}}
	}
	down := health.Condition{Code: "identity-down", Service: "identity", Follows: "identity"}
	st := api.Status{VIPHolders: []string{"ctl1"}, Nodes: []api.NodeStatus{node("ctl1", false), node("ctl2", false), {Node: "ctl3", Error: "no answer"}},
		Conditions: []health.Condition{down, {Code: "drift"}}}
	a.foldWaits(c, &st, map[string]heal.Record{"db": {Move: service.Move{Diagnosis: "member-missing", Reason: "the state of ctl3 is not known"}}})
	var got []string
	for _, w := range st.Waits {
		got = append(got, w.Service+":"+strings.Join(w.For, ",")+w.Reason)
	}
	if want := []string{"db:the state of ctl3 is not known", "identity:db"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	shape, err := a.shapes.of(c, a.secrets)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := shape.lacking(st.Nodes), map[string]string{"identity": "db: 0 of 3 members serve, 2 must"}; !maps.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if got := shape.lacking([]api.NodeStatus{node("ctl1", true), node("ctl2", true)}); len(got) > 0 {
		t.Errorf("with a majority of db: %q", got)
	}
	if len(st.Conditions) != 1 || st.Conditions[0].Code != "drift" {
		t.Errorf("conditions %+v", st.Conditions)
	}
	whole := api.Status{Nodes: []api.NodeStatus{node("ctl1", true), node("ctl2", true), node("ctl3", true)}}
	a.foldWaits(c, &whole, nil)
	if len(whole.Waits) != 1 || whole.Waits[0].Service != "identity" || whole.Waits[0].For[0] != "address" {
		t.Errorf("nobody holds the VIP: %+v", whole.Waits)
	}
}
