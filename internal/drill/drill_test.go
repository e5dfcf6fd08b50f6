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
