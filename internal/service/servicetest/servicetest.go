// Package servicetest is the conformance suite of the service seam: a sample cluster, the
// golden files of a service, and what every service must keep to. A service's own tests run it, and app's
// run it over all services. It must never know one service from another.
package servicetest

import (
	"bytes"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"nines/internal/model"
	"nines/internal/plan"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// Cluster returns three controllers and a compute node that run everything (with keepalived for the VIP), with every value set that
// a service reads. Each call returns a new one: tests may change it.
func Cluster() *model.Cluster {
	node := func(name, last string, role model.Role) model.Node {
		return model.Node{Name: name, Roles: []model.Role{role},
			Addresses: map[model.NetworkName]netip.Addr{model.Management: netip.MustParseAddr("198.18.0." + last),
				model.Tenant: netip.MustParseAddr("198.18.2." + last)}}
	}
	const ms = time.Millisecond
	return &model.Cluster{
		Name: "lab", Release: model.Debian13, Services: slices.Concat(model.CoreServices, model.CloudServices),
		Networks: map[model.NetworkName]model.Network{model.Management: {CIDR: netip.MustParsePrefix("198.18.0.0/24")},
			model.Tenant: {CIDR: netip.MustParsePrefix("198.18.2.0/24")}},
		Nodes: []model.Node{node("ctl1", "11", model.RoleController), node("ctl2", "12", model.RoleController),
			node("ctl3", "13", model.RoleController), node("cmp1", "21", model.RoleCompute)},
		VIP: model.VIP{Address: netip.MustParsePrefix("198.18.0.10/24"), Network: model.Management,
			Engine: model.EngineKeepalived, Advert: 100 * ms, RouterID: 51},
		NTP:      model.NTP{Upstreams: []string{"ntp1.example.org", "192.0.2.1"}, ControlClock: true},
		Neutron:  model.Neutron{Backend: model.BackendOVN, ProviderInterface: "provider0", PhysicalNetwork: "external", TunnelInterface: "tenant0"},
		Images:   model.Images{Store: model.StoreDirectory, Directory: "/srv/images"},
		Volumes:  model.Volumes{Store: model.VolumesDirectory, Directory: "/srv/volumes"},
		Packages: model.Packages{Source: "http://198.18.0.1:8080", Suite: "trixie", KeyText: "-----BEGIN PGP PUBLIC KEY BLOCK-----\n"},
		Tuning: model.Tuning{
			Galera: model.GaleraTuning{
				SuspectTimeout: 1000 * ms, InactiveTimeout: 15000 * ms, InstallTimeout: 15000 * ms, Keepalive: 300 * ms,
				InactiveCheck: 300 * ms, PeerTimeout: 3000 * ms, JoinRetrans: 300 * ms, GCache: "128M", BufferPool: "128M",
			},
			RabbitMQ: model.RabbitMQTuning{NetTickTime: 10 * time.Second},
			HAProxy:  model.HAProxyTuning{Inter: time.Second, HTTPInter: 10 * time.Second, FastInter: 250 * ms, Fall: 4, Rise: 2},
			Keystone: model.KeystoneTuning{Processes: 2, Threads: 4, FernetRotation: 24 * time.Hour, TokenLifetime: time.Hour},
		},
	}
}

// Golden compares the files that rs put on the node with dir/NAME.golden, NAME being the last part of the
// resource's name. A golden file that belongs to no file any more fails too. With -update it writes them.
func Golden(t *testing.T, dir, node string, rs []plan.Resource) {
	t.Helper()
	known := map[string]bool{}
	for _, r := range rs {
		if r.File == nil || r.Node != node {
			continue
		}
		id := string(r.ID)
		path := filepath.Join(dir, filepath.Base(id[strings.LastIndex(id, ":")+1:])+".golden")
		if known[path] {
			t.Errorf("%s: two files of %s would share %s", id, node, path)
		}
		known[path] = true
		if *update {
			write(t, path, r.File.Content)
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(string(want), string(r.File.Content)); d != "" {
			t.Errorf("%s of %s (-want +got; run with -update after review):\n%s", r.File.Path, node, d)
		}
	}
	there, err := filepath.Glob(filepath.Join(dir, "*.golden"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range there {
		if !known[path] {
			t.Errorf("%s belongs to no file of %s", path, node)
		}
	}
}

func write(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, bytes.Clone(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// WithPublicVIP gives the cluster an external network, with an address for users.
func WithPublicVIP(c *model.Cluster) *model.Cluster {
	c.Networks[model.External] = model.Network{CIDR: netip.MustParsePrefix("198.18.1.0/24")}
	for i, n := range c.Nodes {
		last := n.Address().As4()[3]
		c.Nodes[i].Addresses[model.External] = netip.AddrFrom4([4]byte{198, 18, 1, last})
	}
	c.VIP.Public, c.VIP.PublicNetwork = netip.MustParsePrefix("198.18.1.10/24"), model.External
	return c
}
