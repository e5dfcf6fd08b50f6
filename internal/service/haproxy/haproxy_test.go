package haproxy

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"nines/internal/model"
	"nines/internal/plan"
	"nines/internal/secret"
	"nines/internal/service"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func testCluster() *model.Cluster {
	node := func(name, last string) model.Node {
		return model.Node{Name: name, Roles: []model.Role{model.RoleController},
			Addresses: map[model.NetworkName]netip.Addr{model.Management: netip.MustParseAddr("198.18.0." + last)}}
	}
	return &model.Cluster{
		Name: "lab", Release: model.Debian13, Services: model.CoreServices,
		Nodes:  []model.Node{node("ctl1", "11"), node("ctl2", "12"), node("ctl3", "13")},
		VIP:    model.VIP{Address: netip.MustParsePrefix("198.18.0.10/24"), Network: model.Management},
		Tuning: model.Tuning{HAProxy: model.HAProxyTuning{Inter: time.Second, FastInter: 250 * time.Millisecond, Fall: 2, Rise: 2}},
	}
}

func testListeners(*model.Cluster) []service.Listener {
	return []service.Listener{
		{Name: "mariadb", Port: 3306, BackendPort: 3306, Health: "galera", SingleWriter: true},
		{Name: "keystone", Port: 5000, BackendPort: 5000, Health: "keystone", HTTP: true, BackendTLS: true},
		{Name: "rabbitmq", Port: 5673, BackendPort: 5671, Health: "rabbitmq", IdleTimeout: time.Minute},
		{Name: "plain", Port: 8080, BackendPort: 8081, Health: "plain", HTTP: true, IdleTimeout: 1500 * time.Millisecond},
	}
}

func testResources(t *testing.T) []plan.Resource {
	t.Helper()
	rs, err := New(testListeners).Resources(testCluster(), secret.Map{SecretStats: "statspw"})
	if err != nil {
		t.Fatal(err)
	}
	return rs
}

func TestGoldenFiles(t *testing.T) {
	for _, r := range testResources(t) {
		if r.File == nil || r.Node != "ctl2" {
			continue
		}
		name := string(r.ID)[strings.LastIndex(string(r.ID), ":")+1:]
		path := filepath.Join("testdata", name+".golden")
		if *update {
			if err := os.WriteFile(path, r.File.Content, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(r.File.Content)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
