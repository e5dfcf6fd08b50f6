package check_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"nines/internal/check"
	"nines/internal/health"
	"nines/internal/model"
)

func cluster(severity string) *model.Cluster {
	c := &model.Cluster{
		Name: "prod", Release: model.Debian13, Services: model.CoreServices, Checks: model.Checks{Severity: severity},
		Networks: map[model.NetworkName]model.Network{
			model.Management: {CIDR: netip.MustParsePrefix("192.0.2.0/25")},
			model.External:   {CIDR: netip.MustParsePrefix("192.0.2.128/25")},
		},
		VIP: model.VIP{Address: netip.MustParsePrefix("192.0.2.140/25"), Network: model.External},
	}
	for i := range 3 {
		c.Nodes = append(c.Nodes, model.Node{Name: fmt.Sprintf("ctl%d", i+1), Roles: []model.Role{model.RoleController},
			Addresses: map[model.NetworkName]netip.Addr{
				model.Management: netip.AddrFrom4([4]byte{192, 0, 2, byte(11 + i)}),
				model.External:   netip.AddrFrom4([4]byte{192, 0, 2, byte(141 + i)}),
			}})
	}
	return c
}

// sound measures machines that satisfy every rule.
func sound(c *model.Cluster) []check.Measured {
	var out []check.Measured
	for _, n := range c.Nodes {
		m := check.Measured{Node: n.Name, Hardware: model.Needs[model.RoleController], Release: "debian13", Hostname: n.Name,
			ClockMeasured: true, LatencyTo: map[string]time.Duration{},
			FreeBytes: map[string]uint64{"/": 100 * model.GB, "/var": 6 * model.GB},
			Interfaces: []check.Interface{{Name: "lo", Addresses: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/8")}},
				{Name: "eno1", Addresses: []netip.Prefix{netip.PrefixFrom(n.Addresses[model.Management], 25)}},
				{Name: "eno2", Addresses: []netip.Prefix{netip.PrefixFrom(n.Addresses[model.External], 25)}}},
			Listeners: []check.Listener{{netip.MustParseAddrPort("0.0.0.0:22"), "sshd"}, {netip.MustParseAddrPort("127.0.0.1:3306"), "postgres"}},
		}
		for _, o := range c.Nodes {
			if o.Name != n.Name {
				m.LatencyTo[o.Name] = 300 * time.Microsecond
			}
		}
		out = append(out, m)
	}
	return out
}

func TestRules(t *testing.T) {
	for name, c := range map[string]struct {
		severity string
		broken   func(ms []check.Measured)
		want     []string // "code severity node", then words of the text
	}{
		"all is well":       {"error", func([]check.Measured) {}, nil},
		"few cores":         {"error", func(ms []check.Measured) { ms[0].Cores = 2 }, []string{"check-cores critical ctl1: 2 cores, 4"}},
		"few cores in lab":  {"warning", func(ms []check.Measured) { ms[0].Cores = 2 }, []string{"check-cores warning ctl1: 2 cores, 4"}},
		"little memory":     {"error", func(ms []check.Measured) { ms[1].MemoryBytes = 8 * model.GB }, []string{"check-memory critical ctl2: 8.0 GB"}},
		"sold as 12 GB":     {"error", func(ms []check.Measured) { ms[1].MemoryBytes = 12_300_000_000 }, nil},
		"small disk":        {"error", func(ms []check.Measured) { ms[1].DiskBytes = 80 * model.GB }, []string{"check-disk critical ctl2: 80.0 GB"}},
		"one cable":         {"error", func(ms []check.Measured) { ms[2].NICs = 1 }, []string{"check-nics critical ctl3: 1 network"}},
		"not measured":      {"warning", func(ms []check.Measured) { ms[2] = check.Measured{} }, []string{"check-not-measured critical ctl3: not measured"}},
		"no answer":         {"warning", func(ms []check.Measured) { ms[2] = check.Measured{Node: "ctl3", Failed: "connection refused"} }, []string{"check-not-measured critical ctl3: connection refused"}},
		"clock of a minute": {"warning", func(ms []check.Measured) { ms[1].ClockOffset = -time.Minute }, []string{"check-clock critical ctl2: 1m0s behind that of"}},
		"the same for all":  {"error", func(ms []check.Measured) { each(ms, func(m *check.Measured) { m.ClockOffset = time.Hour }) }, nil},
		"clock at limit":    {"error", func(ms []check.Measured) { ms[1].ClockOffset = 500 * time.Millisecond }, nil},
		"clock ahead":       {"error", func(ms []check.Measured) { ms[0].ClockOffset = 501 * time.Millisecond }, []string{"check-clock critical ctl1: 501ms ahead of"}},
		"slow one way":      {"error", func(ms []check.Measured) { ms[0].LatencyTo["ctl2"] = 5 * time.Millisecond }, nil},
		"slow both ways": {"warning", func(ms []check.Measured) {
			ms[0].LatencyTo["ctl2"], ms[1].LatencyTo["ctl1"] = 5*time.Millisecond, 4*time.Millisecond
		}, []string{"check-latency warning ctl1: to ctl2 takes 4ms"}},
		"cut off":          {"warning", func(ms []check.Measured) { ms[0].Unanswered = []string{"ctl3"} }, []string{"check-unreachable critical ctl1: ctl3 (192.0.2.13)"}},
		"wrong release":    {"warning", func(ms []check.Measured) { ms[0].Release = "debian12" }, []string{"check-release critical ctl1: debian12, cluster.yaml says debian13"}},
		"not root":         {"warning", func(ms []check.Measured) { ms[0].UserID = 1000 }, []string{"check-not-root critical ctl1: uid 1000"}},
		"other host name":  {"error", func(ms []check.Measured) { ms[0].Hostname = "web1" }, []string{"check-hostname notice ctl1: web1"}},
		"leftover":         {"error", func(ms []check.Measured) { ms[0].ClusterID = "a1"; ms[0].WantClusterID = "b2" }, []string{"check-other-cluster critical ctl1: a1"}},
		"own cluster":      {"error", func(ms []check.Measured) { ms[0].ClusterID = "a1"; ms[0].WantClusterID = "a1" }, nil},
		"no VIP interface": {"warning", func(ms []check.Measured) { ms[0].Interfaces = ms[0].Interfaces[:2] }, []string{"check-vip-interface critical ctl1: 192.0.2.128/25 (external)"}},
		"another address": {"warning", func(ms []check.Measured) {
			ms[0].Interfaces[1].Addresses = []netip.Prefix{netip.MustParsePrefix("192.0.2.99/25")}
		}, []string{"check-address-missing critical ctl1: 192.0.2.11 (management)"}},
		"VIP netmask": {"warning", func(ms []check.Measured) {
			ms[0].Interfaces[2].Addresses = []netip.Prefix{netip.MustParsePrefix("192.0.2.141/12")}
		}, []string{"check-netmask critical ctl1: on eno2 has the netmask /12, the network external has /25: the VIP would"}},
		"port taken": {"warning", func(ms []check.Measured) {
			ms[0].Listeners = append(ms[0].Listeners, check.Listener{netip.MustParseAddrPort("[::]:3306"), "mysqld_safe"})
		}, []string{"check-port-taken critical ctl1: mysqld_safe listens on [::]:3306, which galera needs"}},
		"own process": {"error", func(ms []check.Measured) {
			ms[0].Listeners = append(ms[0].Listeners, check.Listener{netip.MustParseAddrPort("192.0.2.11:3306"), "mariadbd"}, check.Listener{netip.MustParseAddrPort("192.0.2.140:3306"), "haproxy"})
		}, nil},
		"full disk":  {"warning", func(ms []check.Measured) { ms[0].FreeBytes["/var"] = 1000 }, []string{"check-disk-full critical ctl1: /var has 0.0 GB"}},
		"tight disk": {"warning", func(ms []check.Measured) { ms[0].FreeBytes["/var"] = 2 * model.GB }, []string{"check-disk-full warning ctl1: /var has 2.0 GB"}},
		"package source": {"warning", func(ms []check.Measured) { ms[0].SourceErrors = map[string]string{"http://198.51.100.1": "no route"} },
			[]string{"check-package-source critical ctl1: http://198.51.100.1 does not answer: no route"}},
	} {
		t.Run(name, func(t *testing.T) {
			cl := cluster(c.severity)
			ms := sound(cl)
			c.broken(ms)
			got := check.Rules(cl, ms)
			if len(got) != len(c.want) {
				t.Fatalf("got %+v, want %d conditions", got, len(c.want))
			}
			for i, w := range c.want {
				head, text, _ := strings.Cut(w, ": ")
				if have := fmt.Sprintf("%s %s %s", got[i].Code, got[i].Severity, got[i].Node); have != head {
					t.Errorf("got %s, want %s", have, head)
				}
				if !strings.Contains(got[i].Text, text) {
					t.Errorf("text %q does not hold %q", got[i].Text, text)
				}
				if got[i].Hint == "" {
					t.Errorf("%s has no hint", got[i].Code)
				}
			}
		})
	}
}

// The address for tunnels is the operator's matter only where nines does not put it on an interface itself.
func TestTunnelAddress(t *testing.T) {
	for given, want := range map[string]int{"": 3, "eno3": 0} {
		c := cluster("error")
		c.Networks[model.Tenant] = model.Network{CIDR: netip.MustParsePrefix("198.51.100.0/24")}
		for i := range c.Nodes {
			c.Nodes[i].Addresses[model.Tenant] = netip.AddrFrom4([4]byte{198, 51, 100, byte(11 + i)})
		}
		c.Neutron.TunnelInterface = given
		if got := check.Rules(c, sound(c)); len(got) != want {
			t.Errorf("tunnel interface %q: %+v", given, got)
		}
	}
}

func each(ms []check.Measured, f func(*check.Measured)) {
	for i := range ms {
		f(&ms[i])
	}
}

// A clock that everybody shares, however wrong, is never reported; one that is off alone always is.
func TestOnlyTheOddClockIsNamed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := cluster("error")
		ms := sound(c)
		common := time.Duration(rapid.Int64Range(-1e15, 1e15).Draw(t, "common"))
		each(ms, func(m *check.Measured) {
			m.ClockOffset = common + time.Duration(rapid.Int64Range(0, int64(check.MaxClockDifference)).Draw(t, "jitter"))
		})
		if got := check.Rules(c, ms); len(got) != 0 {
			t.Fatalf("clocks within the limit: %+v", got)
		}
		odd := rapid.IntRange(0, 2).Draw(t, "odd")
		ms[odd].ClockOffset = common + time.Minute
		got := check.Rules(c, ms)
		if !slices.ContainsFunc(got, func(h health.Condition) bool { return h.Code == check.CodeClock && h.Node == c.Nodes[odd].Name }) || len(got) != 1 {
			t.Fatalf("the clock of %s is off: %+v", c.Nodes[odd].Name, got)
		}
	})
}

// Nothing measured means nothing known: no rule is broken but that the node is missing.
func TestUnmeasuredValuesBreakNoRule(t *testing.T) {
	c := cluster("error")
	var ms []check.Measured
	for _, n := range c.Nodes {
		ms = append(ms, check.Measured{Node: n.Name})
	}
	if got := check.Rules(c, ms); len(got) != 0 {
		t.Errorf("got %+v", got)
	}
}
