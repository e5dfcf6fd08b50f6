package neutron

import (
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"nines/internal/model"
	"nines/internal/plan"
	"nines/internal/secret"
	"nines/internal/service"
	"nines/internal/service/servicetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var secrets = secret.Map{"neutron/database": "dbpassword", "neutron/user": "userpassword", "neutron/broker": "brokerpassword",
	"nova/metadata-secret": "metadatasecret"}

// withNova returns the sample cluster with Nova beside Neutron.
func withNova() *model.Cluster {
	c := servicetest.Cluster()
	if !c.Runs(nova) {
		c.Services = append(c.Services, nova)
	}
	return c
}

// overAgents is the same cluster with the other backend.
func overAgents() *model.Cluster {
	c := withNova()
	c.Neutron.Backend = model.BackendOVS
	c.Services = slices.DeleteFunc(c.Services, func(s string) bool { return s == "ovn" })
	return c
}

func TestConforms(t *testing.T) {
	servicetest.Conform(t, New(), withNova(), secrets)
	servicetest.Conform(t, New(), overAgents(), secrets)
}

func TestGoldenFiles(t *testing.T) {
	rs, err := New().Resources(withNova(), secrets)
	if err != nil {
		t.Fatal(err)
	}
	servicetest.Golden(t, "testdata/controller", "ctl1", rs)
	servicetest.Golden(t, "testdata/compute", "cmp1", rs)
	if rs, err = New().Resources(overAgents(), secrets); err != nil {
		t.Fatal(err)
	}
	servicetest.Golden(t, "testdata/ovs/controller", "ctl1", rs)
	servicetest.Golden(t, "testdata/ovs/compute", "cmp1", rs)
}

// Without Nova nobody asks for its secret, and nobody is told of ports.
func TestWithoutNova(t *testing.T) {
	c := servicetest.Cluster()
	c.Services = slices.DeleteFunc(c.Services, func(s string) bool { return s == nova || s == placement })
	c.Neutron.ProviderInterface = ""
	rs, err := New().Resources(c, secret.Map{"neutron/database": "a", "neutron/user": "b", "neutron/broker": "c"})
	if err != nil {
		t.Fatal(err)
	}
	all := plan.Index(rs)
	conf := string(all[New().ID("ctl1", "file", confPath)].File.Content)
	if !strings.Contains(conf, "notify_nova_on_port_status_changes = false") || strings.Contains(conf, "[nova]") || strings.Contains(conf, "[placement]") {
		t.Errorf("neutron.conf:\n%s", conf)
	}
	if ml2 := string(all[New().ID("ctl1", "file", ml2Path)].File.Content); strings.Contains(ml2, "flat_networks") {
		t.Errorf("a way out without an interface:\n%s", ml2)
	}
}

// Computes must not learn passwords of the database, nor, with OVN, that of the broker: agents are told what to do by it.
func TestComputesKnowNoPasswords(t *testing.T) {
	for name, tc := range map[string]struct {
		cluster *model.Cluster
		words   []string
	}{
		"ovn": {withNova(), []string{"dbpassword", "brokerpassword", "userpassword"}},
		"ovs": {overAgents(), []string{"dbpassword", "userpassword", "metadatasecret"}},
	} {
		rs, err := New().Resources(tc.cluster, secrets)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rs {
			if r.Node != "cmp1" || r.File == nil {
				continue
			}
			for _, word := range tc.words {
				if strings.Contains(string(r.File.Content), word) {
					t.Errorf("%s: %s holds %s", name, r.ID, word)
				}
			}
		}
	}
}

// Agents wait for who answers them and for their switch, and are restarted for their own files alone.
func TestAgentsInOrder(t *testing.T) {
	c := overAgents()
	rs, err := New().Resources(c, secrets)
	if err != nil {
		t.Fatal(err)
	}
	all := plan.Index(rs)
	s := New()
	for node, units := range map[string][]string{
		"ctl2": {"neutron-openvswitch-agent", "neutron-l3-agent", "neutron-dhcp-agent", "neutron-metadata-agent"},
		"cmp1": {"neutron-openvswitch-agent"},
	} {
		n, _ := c.Node(node)
		for _, unit := range units {
			r, ok := all[s.ID(node, "unit", unit+".service")]
			if !ok || !slices.Contains(r.After, s.ID("ctl3", "unit", unitRPC)) || !slices.Contains(r.Needs, service.SwitchOf(n)) || slices.Contains(r.Needs, service.CapOverlay) {
				t.Errorf("%s on %s: %+v", unit, node, r)
			}
		}
	}
	l3 := all[s.ID("ctl1", "unit", "neutron-l3-agent.service")]
	if slices.Contains(l3.Unit.RestartOn, s.ID("ctl1", "file", dhcpPath)) || !slices.Contains(l3.Unit.RestartOn, s.ID("ctl1", "file", l3Path)) {
		t.Errorf("restarted for %v", l3.Unit.RestartOn)
	}
	if api := all[s.ID("ctl1", "unit", "neutron-api.service")]; slices.Contains(api.Unit.RestartOn, s.ID("ctl1", "file", l3Path)) {
		t.Errorf("restarted for %v", api.Unit.RestartOn)
	}
	for _, unit := range []string{"neutron-ovn-maintenance-worker.service", "neutron-ovn-metadata-agent.service"} {
		for _, n := range c.Nodes {
			if _, ok := all[s.ID(n.Name, "unit", unit)]; ok {
				t.Errorf("%s on %s", unit, n.Name)
			}
		}
	}
}

// Drills strike what the cluster has.
func TestFaultsFollowTheBackend(t *testing.T) {
	has := func(c *model.Cluster, unit string) bool {
		return slices.ContainsFunc(New().Faults(c), func(f service.Fault) bool { return f.Unit == unit })
	}
	for unit, agents := range map[string]bool{"neutron-l3-agent.service": true, "neutron-openvswitch-agent.service": true, "neutron-rpc-server.service": true,
		"neutron-ovn-metadata-agent.service": false, "neutron-ovn-maintenance-worker.service": false} {
		if has(overAgents(), unit) != agents || has(withNova(), unit) == agents {
			t.Errorf("%s", unit)
		}
	}
}

func TestWaitsForOVN(t *testing.T) {
	rs, err := New().Resources(withNova(), secrets)
	if err != nil {
		t.Fatal(err)
	}
	units := 0
	for _, r := range rs {
		if r.Unit == nil || r.Node == "cmp1" {
			continue
		}
		units++
		if !slices.Contains(r.Needs, service.CapOverlay) || !slices.Contains(r.After, New().SchemaID(withNova(), Name)) {
			t.Errorf("%s needs %v, after %v", r.ID, r.Needs, r.After)
		}
	}
	if units != 9 {
		t.Errorf("%d units on the controllers", units)
	}
}
