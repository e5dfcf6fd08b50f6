package pacemaker

import (
	"slices"
	"testing"

	"nines/internal/model"
	"nines/internal/plan"
	"nines/internal/secret"
	"nines/internal/service/servicetest"
)

// cluster is the sample cluster with this engine; fencing: each controller has a BMC.
func cluster(fencing bool) *model.Cluster {
	c := servicetest.Cluster()
	c.VIP.Engine = model.EnginePacemaker
	c.Services[slices.Index(c.Services, string(model.EngineKeepalived))] = Name
	if fencing {
		c.Fencing = model.FencingOn
		for i, protocol := range []model.BMCProtocol{model.Redfish, model.Redfish, model.IPMI} {
			c.Nodes[i].BMC = model.BMC{Protocol: protocol, Address: "198.51.100.1" + string(rune('1'+i)), User: "nines"}
		}
	}
	return c
}

func resources(t *testing.T, c *model.Cluster) []plan.Resource {
	t.Helper()
	s := secret.Map{SecretKey: "a seed"}
	for _, n := range c.Nodes {
		for _, l := range n.Levels() {
			s[l.PasswordSecret()] = "hunter2 of " + l.Key()
		}
	}
	rs, err := New(nil).Resources(c, s)
	if err != nil {
		t.Fatal(err)
	}
	return rs
}

func TestGoldenFiles(t *testing.T) {
	servicetest.Golden(t, "testdata", "ctl1", resources(t, cluster(true)))
	servicetest.Golden(t, "testdata/alone", "ctl1", resources(t, func() *model.Cluster {
		c := cluster(false)
		for i := range c.Nodes {
			delete(c.Nodes[i].Addresses, model.Tenant)
		}
		return c
	}()))
	servicetest.Golden(t, "testdata/second", "ctl1", resources(t, func() *model.Cluster {
		c := cluster(true)
		for i, n := range c.Controllers()[:2] {
			c.Nodes[i].SecondBMC = model.BMC{Protocol: model.IPMI, Address: n.BMC.Address, User: "nines"}
		}
		return c
	}()))
	servicetest.Golden(t, "testdata/public", "ctl1", resources(t, servicetest.WithPublicVIP(cluster(false))))
}
