package rabbitmq

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
		Tuning: model.Tuning{RabbitMQ: model.RabbitMQTuning{NetTickTime: 10 * time.Second}},
	}
}

func testSecrets() secret.Map {
	return secret.Map{SecretCookie: "ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEF", SecretAdmin: "adminpw", SecretProbe: "probepw", "nova/broker": "novapw"}
}

func testService() *Service {
	return New(func(*model.Cluster) []service.BrokerUser {
		return []service.BrokerUser{{Name: "nova", Secret: "nova/broker"}}
	})
}

func testResources(t *testing.T) []plan.Resource {
	t.Helper()
	rs, err := testService().Resources(testCluster(), testSecrets())
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
