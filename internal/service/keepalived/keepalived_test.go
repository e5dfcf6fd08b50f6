package keepalived

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
		Nodes: []model.Node{node("ctl1", "11"), node("ctl2", "12"), node("ctl3", "13")},
		VIP: model.VIP{Address: netip.MustParsePrefix("198.18.0.10/24"), Network: model.Management,
			Engine: model.EngineKeepalived, Advert: 100 * time.Millisecond, RouterID: 51},
	}
}

func testResources(t *testing.T, c *model.Cluster) []plan.Resource {
	t.Helper()
	rs, err := New(func(*model.Cluster) []service.Listener { return nil }).Resources(c, secret.Map{})
	if err != nil {
		t.Fatal(err)
	}
	return rs
}

func TestGoldenFiles(t *testing.T) {
	for _, r := range testResources(t, testCluster()) {
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
