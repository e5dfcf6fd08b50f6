package ovn

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"nines/internal/host"
	"nines/internal/model"
	"nines/internal/ovsdb"
	"nines/internal/plan"
	"nines/internal/secret"
	"nines/internal/service"
	"nines/internal/service/servicetest"
)

func TestConforms(t *testing.T) { servicetest.Conform(t, New(), servicetest.Cluster(), secret.Map{}) }

func TestGoldenFiles(t *testing.T) {
	rs, err := New().Resources(servicetest.Cluster(), secret.Map{})
	if err != nil {
		t.Fatal(err)
	}
	servicetest.Golden(t, "testdata/controller", "ctl1", rs)
	servicetest.Golden(t, "testdata/compute", "cmp1", rs)
}

// The first controller founds after all others were made to show what they hold; each of the others joins
// after the one before it.
func TestOrderOfFounding(t *testing.T) {
	rs, err := New().Resources(servicetest.Cluster(), secret.Map{})
	if err != nil {
		t.Fatal(err)
	}
	all := plan.Index(rs)
	for _, d := range databases {
		found := all[id("ctl1", "action", actionDatabase+"-"+d.short)]
		for _, n := range []string{"ctl2", "ctl3"} {
			if !slices.Contains(found.After, id(n, "action", actionStanding+"-"+d.short)) {
				t.Errorf("%s is founded without a look at %s", d.name, n)
			}
		}
		if found.Action.Args["found"] != "true" {
			t.Errorf("nobody founds %s", d.name)
		}
		for n, before := range map[string]string{"ctl2": "ctl1", "ctl3": "ctl2"} {
			join := all[id(n, "action", actionDatabase+"-"+d.short)]
			if join.Action.Args["found"] != "" || !slices.Contains(join.After, id(before, "unit", d.unit)) {
				t.Errorf("%s of %s: %+v", d.name, n, join)
			}
		}
		for _, r := range rs {
			if r.Unit != nil && r.Unit.Name == d.unit && (r.Unit.Member == nil || r.Unit.Member.Needed != 2) {
				t.Errorf("%s may be restarted while another is away", r.ID)
			}
		}
	}
}

// whole is how the sample cluster looks when all is well.
func whole() map[string]service.Observation {
	seen := map[string]service.Observation{"cmp1": {Serving: true, Facts: map[string]string{}}}
	for _, n := range []string{"ctl1", "ctl2", "ctl3"} {
		role, northd := "follower", "standby"
		if n == "ctl2" {
			role, northd = "leader", "active"
		}
		seen[n] = service.Observation{Serving: true, Facts: map[string]string{
			"nb_cluster": "a", "nb_role": role, "sb_cluster": "b", "sb_role": role, FactNorthd: northd, FactChassis: "cmp1,ctl1,ctl2,ctl3"}}
	}
	return seen
}

func TestJudge(t *testing.T) {
	fact := func(node, key, value string) func(map[string]service.Observation) {
		return func(seen map[string]service.Observation) { seen[node].Facts[key] = value }
	}
	for name, tc := range map[string]struct {
		change func(map[string]service.Observation)
		want   string // codes
	}{
		"whole":              {func(map[string]service.Observation) {}, ""},
		"nobody answers":     {func(seen map[string]service.Observation) { clear(seen) }, ""},
		"an agent is silent": {func(seen map[string]service.Observation) { delete(seen, "ctl3") }, ""},
		"a member is down":   {fact("ctl3", "sb_role", ""), "ovn-member-down"},
		"no leader": {func(seen map[string]service.Observation) {
			for _, n := range []string{"ctl1", "ctl2", "ctl3"} {
				seen[n].Facts["nb_role"] = ""
			}
		}, "ovn-member-down ovn-member-down ovn-member-down ovn-no-leader"},
		"two clusters":        {fact("ctl1", "nb_cluster", "other"), "ovn-split"},
		"no northd":           {fact("ctl2", FactNorthd, "standby"), "ovn-northd-idle"},
		"deaf to a good node": {fact("cmp1", FactSilent, "198.18.2.12"), "ovn-tunnel-down"},
		"deaf to a dead node": {func(seen map[string]service.Observation) {
			seen["cmp1"].Facts[FactSilent] = "198.18.2.13"
			delete(seen, "ctl3")
		}, ""},
		"not registered": {func(seen map[string]service.Observation) {
			for _, n := range []string{"ctl1", "ctl2", "ctl3"} {
				seen[n].Facts[FactChassis] = "ctl1,ctl2,ctl3"
			}
		}, "ovn-chassis-missing"},
	} {
		seen := whole()
		tc.change(seen)
		var codes []string
		for _, c := range New().Judge(servicetest.Cluster(), seen) {
			codes = append(codes, c.Code)
			if c.Text == "" || c.Hint == "" || c.Severity == "" {
				t.Errorf("%s: %+v", name, c)
			}
		}
		if got := strings.Join(codes, " "); got != tc.want {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
}

func TestObserve(t *testing.T) {
	good := func() daemons {
		return daemons{
			north.ctl + " cluster/status OVN_Northbound":       quoted(status("leader", "self")),
			south.ctl + " cluster/status OVN_Southbound":       quoted(status("follower", "5c2c")),
			ovnRun + "/ovn-northd.7.ctl status":                quoted("Status: standby\n"),
			south.socket + " transact Chassis":                 table(`{"name":"ctl2"},{"name":"ctl1"}`),
			"/run/openvswitch/ovs-vswitchd.7.ctl version":      quoted("ovs-vswitchd (Open vSwitch) 3.5.0"),
			ovnRun + "/ovn-controller.7.ctl connection-status": quoted("connected\n"),
			ovsdb.SwitchSocket + " transact Interface": table(`{"options":["map",[["remote_ip","198.18.0.12"]]],"bfd_status":["map",[["state","up"]]]},
				{"options":["map",[["remote_ip","198.18.0.13"]]],"bfd_status":["map",[["state","down"]]]},
				{"options":["map",[["remote_ip","198.18.0.21"]]],"bfd_status":["map",[]]}`),
		}
	}
	for name, tc := range map[string]struct {
		node    string
		without string // a prefix of what does not answer
		serving bool
		codes   string
	}{
		"controller":             {"ctl1", "none", true, ""},
		"compute":                {"cmp1", "none", true, ""},
		"member does not run":    {"ctl1", north.ctl, false, ""},
		"northd does not run":    {"ctl1", ovnRun + "/ovn-northd", true, "ovn-northd-down warning"},
		"switch does not run":    {"ctl1", "/run/openvswitch/ovs-vswitchd", false, ""},
		"switch of a compute":    {"cmp1", "/run/openvswitch/ovs-vswitchd", false, ""},
		"switch without its own": {"cmp1", ovsdb.SwitchSocket, false, ""},
		"controller is away":     {"cmp1", ovnRun + "/ovn-controller", false, "ovn-controller-down critical"},
	} {
		e, h := env(tc.node)
		for _, path := range []string{ovsdb.SwitchPID, pidController, pidNorthd} {
			h.PutFile(host.File{Path: path, Mode: 0o644, Owner: "root", Group: "root", Content: []byte("7\n")})
		}
		d := good()
		for key := range d {
			if strings.HasPrefix(key, tc.without) {
				delete(d, key)
			}
		}
		o := (&Service{rpc: d}).Observe(t.Context(), e)
		var codes []string
		for _, c := range o.Conditions {
			codes = append(codes, c.Code+" "+string(c.Severity))
		}
		if o.Serving != tc.serving || strings.Join(codes, ",") != tc.codes || o.Reason == "" {
			t.Errorf("%s: %+v", name, o)
		}
		if name == "controller" && (o.Facts[FactSilent] != "198.18.0.13" || o.Facts[FactNorthd] != "standby" || o.Facts["nb_cluster"] != clusterID ||
			o.Facts[FactChassis] != "ctl1,ctl2" || o.Facts["sb_role"] != "follower") {
			t.Errorf("%v", o.Facts)
		}
	}
}

func TestSwitchIDs(t *testing.T) {
	c := servicetest.Cluster()
	ctl, _ := c.Node("ctl1")
	cmp, _ := c.Node("cmp1")
	ctl.Addresses = map[model.NetworkName]netip.Addr{model.Management: ctl.Address()}
	a, b := New().SwitchIDs(c, ctl, "netdev"), New().SwitchIDs(c, cmp, "system")
	if a["ovn-cms-options"] != "enable-chassis-as-gw" || b["ovn-cms-options"] != "" {
		t.Error("controllers alone are gateways")
	}
	if a["ovn-encap-ip"] != "198.18.0.11" || b["ovn-encap-ip"] != "198.18.2.21" {
		t.Errorf("tunnels end at %s and %s", a["ovn-encap-ip"], b["ovn-encap-ip"])
	}
	if a["ovn-bridge-datapath-type"] != "netdev" || b["ovn-bridge-mappings"] != "external:br-ex" {
		t.Errorf("%v\n%v", a, b)
	}
	c.Neutron.ProviderInterface = ""
	out := New().SwitchIDs(c, ctl, "netdev")
	for _, key := range []string{"ovn-bridge-mappings", "ovn-cms-options"} {
		if value, ok := out[key]; value != "" || !ok {
			t.Errorf("without a way out: %s is %q, %t", key, value, ok)
		}
	}
}
