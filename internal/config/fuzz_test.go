package config_test

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	"pgregory.net/rapid"

	"nines/internal/config"
	"nines/internal/model"
)

// FuzzParse: whatever the text, Parse returns a cluster or problems with places; and a
// cluster it accepts, written out, is the same cluster.
func FuzzParse(f *testing.F) {
	f.Add([]byte(small))
	f.Add(config.Example())
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		a, err := txtar.ParseFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(a.Files[0].Data)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := config.Parse("cluster.yaml", text)
		if err == nil {
			sameAfterMarshal(t, c)
			return
		}
		var bad *config.Errors
		if !errors.As(err, &bad) || len(bad.Problems) == 0 {
			t.Fatalf("an error without problems: %v", err)
		}
		for _, p := range bad.Problems {
			if p.Line < 1 || p.Column < 1 || p.Line > strings.Count(string(text), "\n")+strings.Count(string(text), "\r")+1 || p.Text == "" {
				t.Fatalf("a problem without a place: %+v", p)
			}
		}
	})
}

type fataler interface {
	Fatalf(format string, args ...any)
}

func sameAfterMarshal(t fataler, c *model.Cluster) {
	text, err := config.Marshal(c)
	if err != nil {
		t.Fatalf("%v", err)
	}
	again, err := config.Parse("again", text)
	if err != nil {
		t.Fatalf("what Marshal writes is not valid: %v\n%s", err, text)
	}
	if diff := cmp.Diff(c, again, exact); diff != "" {
		t.Fatalf("the cluster changed on its way:\n%s\n%s", diff, text)
	}
}

// FuzzOverride: an edit that succeeds is one that YAML readers see.
func FuzzOverride(f *testing.F) {
	for _, set := range []string{"vip.advert=50ms", "nodes.ctl1.roles=[controller]", "nodes[2].name=x", "tuning.galera.gcache=1G", "services=[base]", "name=\"a b\"", "name=&a b", "ntp.upstreams={"} {
		f.Add([]byte(small), set)
		f.Add(config.Example(), set)
	}
	f.Fuzz(func(_ *testing.T, text []byte, set string) {
		out, err := config.Override(text, []string{set})
		if err == nil {
			_, _ = config.Parse("cluster.yaml", out) // it may be invalid; it must not panic
		}
	})
}

// clusters draws valid clusters.
func clusters() *rapid.Generator[*model.Cluster] {
	return rapid.Custom(func(t *rapid.T) *model.Cluster {
		ms := func(name string, low, high int) time.Duration {
			return time.Duration(rapid.IntRange(low, high).Draw(t, name)) * time.Millisecond
		}
		c, err := config.Parse("small", []byte(small))
		if err != nil {
			t.Fatalf("%v", err)
		}
		c.Name = rapid.StringMatching(`[a-z][a-z0-9-]{0,20}[a-z0-9]`).Draw(t, "name")
		c.Networks[model.External] = model.Network{CIDR: netip.MustParsePrefix("203.0.113.0/24")}
		n := 2*rapid.IntRange(1, 3).Draw(t, "half") + 1
		c.Nodes = nil
		for i := range n + rapid.IntRange(0, 4).Draw(t, "computes") {
			role := model.RoleController
			if i >= n {
				role = model.RoleCompute
			}
			c.Nodes = append(c.Nodes, model.Node{Name: fmt.Sprintf("n%d", i), Roles: []model.Role{role},
				Addresses: map[model.NetworkName]netip.Addr{model.Management: netip.AddrFrom4([4]byte{198, 18, 0, byte(20 + i)}),
					model.External: netip.AddrFrom4([4]byte{203, 0, 113, byte(20 + i)})}})
		}
		for i := range c.Nodes {
			if protocol := rapid.SampledFrom([]model.BMCProtocol{"", model.Redfish, model.IPMI}).Draw(t, "bmc"); protocol != "" {
				c.Nodes[i].BMC = model.BMC{Protocol: protocol, Address: fmt.Sprintf("198.51.100.%d", 20+i), User: rapid.SampledFrom([]string{"nines", "1", "on", "a@b"}).Draw(t, "user")}
			}
		}
		if i := slices.Index(c.Services, string(c.VIP.Engine)); rapid.Bool().Draw(t, "pacemaker") {
			c.VIP.Engine = model.EnginePacemaker
			c.Services[i] = string(c.VIP.Engine)
		}
		c.VIP.Advert = 10 * time.Millisecond * time.Duration(rapid.IntRange(1, 4095).Draw(t, "advert"))
		c.VIP.RouterID = rapid.IntRange(1, 255).Draw(t, "router")
		if rapid.Bool().Draw(t, "public") {
			c.VIP.Public, c.VIP.PublicNetwork = netip.MustParsePrefix("203.0.113.10/24"), model.External
		}
		g := &c.Tuning.Galera
		g.SuspectTimeout = ms("suspect", 400, 10000)
		g.Keepalive = ms("keepalive", 10, int(g.SuspectTimeout.Milliseconds())/3-1)
		g.InactiveCheck = ms("check", 10, int(g.SuspectTimeout.Milliseconds())/2)
		g.JoinRetrans = ms("retrans", 10, int(g.SuspectTimeout.Milliseconds())-1)
		g.InstallTimeout = ms("install", 10000, 15000)
		c.NTP.Upstreams = rapid.SliceOfN(rapid.StringMatching(`[a-z]{1,5}\.example`), 0, 3).Draw(t, "ntp")
		c.NTP.ControlClock = rapid.Bool().Draw(t, "clock")
		c.SSH.Identity = rapid.SampledFrom([]string{"id", "a b/id", "on", "'quoted'", "#x", "- y", "key: value", "1.5", "null", "~/x"}).Draw(t, "identity")
		return c
	})
}

func TestMarshalRoundTrips(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { sameAfterMarshal(t, clusters().Draw(t, "cluster")) })
}

// Breaking the one order of the failure detector that takes clusters down is always found.
func TestSuspectBelowRetransIsRefused(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := clusters().Draw(t, "cluster")
		c.Tuning.Galera.JoinRetrans = c.Tuning.Galera.SuspectTimeout + time.Duration(rapid.IntRange(0, 1000).Draw(t, "more"))*time.Millisecond
		text, err := config.Marshal(c)
		if err != nil {
			t.Fatalf("%v", err)
		}
		_, err = config.Parse("cluster.yaml", text)
		var bad *config.Errors
		if !errors.As(err, &bad) || !slices.ContainsFunc(bad.Problems, func(p config.Problem) bool { return strings.Contains(p.Text, "join_retrans") }) {
			t.Fatalf("got %v", err)
		}
	})
}

func FuzzInventory(f *testing.F) {
	f.Add([]byte(machines))
	f.Add([]byte("10.0.0.1,a,4,16G,300,2\n10.0.0.2;b;4;16384 MB;1.2T;eno1 eno2\n"))
	f.Add([]byte("\"\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		ms, err := config.ReadInventory("inventory.csv", text)
		if err != nil {
			return
		}
		out, err := config.Propose("inventory.csv", ms)
		if err != nil {
			return
		}
		if _, err := config.Parse("cluster.yaml", out); err != nil {
			t.Fatalf("the proposal is not valid: %v\n%s", err, out)
		}
	})
}
