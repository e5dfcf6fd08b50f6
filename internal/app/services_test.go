package app

import (
	"slices"
	"strings"
	"testing"

	"nines/internal/graph"
	"nines/internal/model"
	"nines/internal/plan"
	"nines/internal/service/servicetest"
)

// overAgents is the sample cluster with the other backend of Neutron.
func overAgents() *model.Cluster {
	c := servicetest.Cluster()
	c.Neutron.Backend = model.BackendOVS
	c.Services = slices.DeleteFunc(c.Services, func(s string) bool { return s == "ovn" })
	return c
}

// withPacemaker is the sample cluster with the other engine of the VIP.
func withPacemaker() *model.Cluster {
	c := servicetest.Cluster()
	c.VIP.Engine = model.EnginePacemaker
	c.Services[slices.Index(c.Services, string(model.EngineKeepalived))] = string(model.EnginePacemaker)
	return c
}

func TestServicesConform(t *testing.T) {
	for name, c := range map[string]*model.Cluster{"ovn": servicetest.Cluster(), "ovs": overAgents(), "pacemaker": withPacemaker(),
		"public": servicetest.WithPublicVIP(servicetest.Cluster()), "public pacemaker": servicetest.WithPublicVIP(withPacemaker())} {
		all := Services()
		secrets := servicetest.Secrets(t, c, all...)
		for _, s := range all {
			if c.Runs(s.Name()) {
				t.Run(name+"/"+s.Name(), func(t *testing.T) { servicetest.Conform(t, s, c, secrets) })
			}
		}
	}
}

// Together they form one graph: everything needed is provided, nothing is declared twice.
func TestServicesFitTogether(t *testing.T) {
	fitTogether(t, servicetest.Cluster())
	fitTogether(t, overAgents())
	fitTogether(t, withPacemaker())
	fitTogether(t, servicetest.WithPublicVIP(servicetest.Cluster()))
	fitTogether(t, servicetest.WithPublicVIP(withPacemaker()))
}

// resourcesOf are those of all services that the cluster runs.
func resourcesOf(t *testing.T, c *model.Cluster) []plan.Resource {
	t.Helper()
	all := Services()
	secrets := servicetest.Secrets(t, c, all...)
	var rs []plan.Resource
	for _, s := range all {
		if !c.Runs(s.Name()) {
			continue
		}
		own, err := s.Resources(c, secrets)
		if err != nil {
			t.Fatal(err)
		}
		rs = append(rs, own...)
	}
	return rs
}

func fitTogether(t *testing.T, c *model.Cluster) {
	t.Helper()
	names, files := map[string]bool{}, map[string]plan.ID{}
	for _, s := range Services() {
		if names[s.Name()] || !slices.Contains(model.KnownServices, s.Name()) {
			t.Errorf("the service %s stands there twice or is not in cluster.yaml's vocabulary", s.Name())
		}
		names[s.Name()] = true
	}
	rs := resourcesOf(t, c)
	if _, err := plan.Graph(rs); err != nil {
		t.Error(err)
	}
	for _, r := range rs {
		if r.File == nil {
			continue
		}
		where := r.Node + ":" + r.File.Path
		if other, ok := files[where]; ok {
			t.Errorf("%s and %s both write %s", r.ID, other, where)
		}
		files[where] = r.ID
	}
}

// What status tells after a power cut comes from what the services declare.
func TestServicesDeclareWhatTheyWaitFor(t *testing.T) {
	c := servicetest.Cluster()
	all := Services()
	secrets := servicetest.Secrets(t, c, all...)
	provides, needs := map[string]string{}, map[string][]string{}
	for _, s := range all {
		if !c.Runs(s.Name()) {
			continue
		}
		rs, err := s.Resources(c, secrets)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rs {
			for _, p := range r.Provides {
				provides[p] = s.Name()
			}
			needs[s.Name()] = append(needs[s.Name()], r.Needs...)
		}
	}
	for name, others := range map[string][]string{"keystone": {"galera", "keepalived"}, "glance": {"keystone", "galera"}, "placement": {"keystone", "galera"},
		"nova": {"keystone", "galera", "rabbitmq"}, "neutron": {"keystone", "galera", "rabbitmq"}, "cinder": {"keystone", "galera", "rabbitmq"}, "heat": {"keystone", "galera", "rabbitmq"}} {
		for _, other := range others {
			if !slices.ContainsFunc(needs[name], func(capability string) bool { return provides[capability] == other }) {
				t.Errorf("%s does not declare that it needs %s", name, other)
			}
		}
	}
}

// The engines of the VIP make room for each other: the new one's files first, then the old one lets go, then the new one takes it.
func TestEnginesChangeInOrder(t *testing.T) {
	for name, tc := range map[string]struct {
		c     *model.Cluster
		order []plan.ID
	}{
		"to pacemaker": {withPacemaker(), []plan.ID{"pacemaker/ctl2/packages:pacemaker", "pacemaker/ctl2/unit:corosync.service", "pacemaker/ctl2/unit:pacemaker.service",
			"pacemaker/ctl3/unit:nines-vip-guard.service", "pacemaker/ctl3/unit:keepalived.service", "pacemaker/ctl1/action:cluster-resources", "haproxy/ctl2/unit:haproxy.service", "pacemaker/ctl1/action:vip-answers"}},
		"to keepalived": {servicetest.Cluster(), []plan.ID{"keepalived/ctl1/packages:keepalived", "keepalived/ctl1/file:keepalived.conf",
			"keepalived/ctl2/action:detach-pacemaker", "keepalived/ctl2/unit:pacemaker.service", "keepalived/ctl2/unit:corosync.service", "haproxy/ctl1/unit:haproxy.service", "keepalived/ctl3/unit:keepalived.service", "keepalived/ctl1/action:vip-answers"}},
	} {
		t.Run(name, func(t *testing.T) {
			g, err := plan.Graph(resourcesOf(t, tc.c))
			if err != nil {
				t.Fatal(err)
			}
			for i, later := range tc.order[1:] {
				if before := string(tc.order[i]); !g.Has(before) || !waits(g, string(later), before) {
					t.Errorf("%s does not wait for %s", later, before)
				}
			}
		})
	}
}

// waits reports whether one resource waits for the other, directly or not.
func waits(g *graph.Graph, id, before string) bool {
	for _, a := range g.After(id) {
		if a == before || waits(g, a, before) {
			return true
		}
	}
	return false
}

// No unit of a node waits for itself: systemd would leave one of them out at boot.
func TestUnitsStartInOneOrder(t *testing.T) {
	for name, c := range map[string]*model.Cluster{"ovn": servicetest.Cluster(), "ovs": overAgents(), "pacemaker": withPacemaker(),
		"public": servicetest.WithPublicVIP(servicetest.Cluster()), "public pacemaker": servicetest.WithPublicVIP(withPacemaker())} {
		for _, n := range c.Nodes {
			order, turns := ordersOf(t, c, n.Name)
			if want := n.Has(model.RoleController); turns > 0 != want {
				t.Errorf("%s: %s: %d units take turns", name, n.Name, turns)
			}
			if _, err := order.Order(); err != nil {
				t.Errorf("%s: %s: %v", name, n.Name, err)
			}
		}
	}
}

// ordersOf says after which units each unit of a node is started, by its files, and how many of them take turns.
func ordersOf(t *testing.T, c *model.Cluster, node string) (order *graph.Graph, turns int) {
	t.Helper()
	order = graph.New()
	for _, r := range resourcesOf(t, c) {
		if r.File == nil || r.Node != node || !strings.HasPrefix(r.File.Path, "/etc/systemd/system/") {
			continue
		}
		unit, dropin, _ := strings.Cut(strings.TrimPrefix(r.File.Path, "/etc/systemd/system/"), ".d/")
		if dropin == "nines-turn.conf" {
			turns++
		}
		for line := range strings.Lines(string(r.File.Content)) {
			key, units, _ := strings.Cut(line, "=")
			for _, other := range strings.Fields(units) {
				switch key {
				case "After":
					order.Edge(unit, other)
				case "Before":
					order.Edge(other, unit)
				}
			}
		}
	}
	return order, turns
}

// Of what listens on the VIP users get the APIs, the dashboard and the consoles; not the database, the broker, or what instances ask.
func TestWhatUsersGet(t *testing.T) {
	var public []string
	for _, l := range listeners(Services(), servicetest.Cluster()) {
		if l.Public {
			public = append(public, l.Name)
		}
	}
	if want := []string{"keystone", "placement", "glance", "nova", "nova-console", "neutron", "cinder", "horizon", "heat"}; !slices.Equal(public, want) {
		t.Errorf("%q, want %q", public, want)
	}
}

// What services tell each other leads to the address that computes reach, what they tell users to the other one.
func TestUsersAndServicesGoTheirOwnWays(t *testing.T) {
	c := servicetest.WithPublicVIP(servicetest.Cluster())
	registered := 0
	for _, r := range resourcesOf(t, c) {
		if r.Action != nil && r.Action.Args["public"] != "" {
			registered++
			if !strings.HasPrefix(r.Action.Args["public"], "https://198.18.1.10:") || !strings.HasPrefix(r.Action.Args["url"], "https://198.18.0.10:") {
				t.Errorf("%s: %v", r.ID, r.Action.Args)
			}
		}
		if r.File == nil || r.Service == "haproxy" || r.Service == "keepalived" {
			continue
		}
		for line := range strings.Lines(string(r.File.Content)) {
			if strings.Contains(line, "198.18.1.10") && !strings.HasPrefix(line, "novncproxy_base_url") {
				t.Errorf("%s: %s", r.ID, line)
			}
		}
	}
	if registered < 7 {
		t.Errorf("only %d services are registered", registered)
	}
}
