package drill

import (
	"math/rand/v2"
	"testing"

	"nines/internal/model"
	"nines/internal/service"
)

// A unit of the computes is hurt on one of them.
func TestVictimHasTheUnit(t *testing.T) {
	c := testCluster()
	cmp := c.Nodes[0]
	cmp.Name, cmp.Roles = "cmp1", []model.Role{model.RoleCompute}
	c.Nodes = append(c.Nodes, cmp)
	s := &site{vip: "ctl1"}
	r := runnerFor(t, s)
	r.Cluster = c
	x := &run{Runner: r, drill: faultDrill("x-agent", service.Fault{Name: "kill", Unit: "x-agent.service", Role: model.RoleCompute, Signal: 9})}
	x.rng = rand.New(rand.NewPCG(1, 0))
	node, err := x.victim(t.Context())
	if err != nil || node != "cmp1" {
		t.Errorf("%q, %v", node, err)
	}
}

// TestNamed: a drill goes by the name of its unit too.
func TestNamed(t *testing.T) {
	c := testCluster()
	all := Catalogue(c, []service.Service{mariadb{}})
	for name, want := range map[string]string{
		"freeze-galera": "freeze-galera", "freeze-mariadb": "freeze-galera", "freeze-mariadb-of-writer": "freeze-galera-of-writer",
		"site-power-cut": "site-power-cut", "freeze-maria": "", "mariadb": "", "": "",
	} {
		d, ok := Named(all, name)
		if ok != (want != "") || d.Name != want {
			t.Errorf("%s: %s, %t", name, d.Name, ok)
		}
	}
	d, _ := Named(all, "freeze-mariadb-of-writer")
	if d.Target != Writer || d.Title != "freeze (SIGSTOP) mariadb.service on the node that takes the database writes" {
		t.Errorf("%+v", d)
	}
}

// mariadb is the database's service as far as drills know it.
type mariadb struct{ faulty }

func (mariadb) Name() string { return "galera" }
func (mariadb) Faults(*model.Cluster) []service.Fault {
	return []service.Fault{{Name: "freeze", Unit: "mariadb.service", Signal: 19, Heal: 18}}
}
