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

func TestConforms(t *testing.T) { servicetest.Conform(t, New(), withNova(), secrets) }

func TestGoldenFiles(t *testing.T) {
	rs, err := New().Resources(withNova(), secrets)
	if err != nil {
		t.Fatal(err)
	}
	servicetest.Golden(t, "testdata/controller", "ctl1", rs)
	servicetest.Golden(t, "testdata/compute", "cmp1", rs)
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

// Computes must not learn passwords of the database or the broker.
func TestComputesKnowNoPasswords(t *testing.T) {
	rs, err := New().Resources(withNova(), secrets)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rs {
		if r.Node != "cmp1" || r.File == nil {
			continue
		}
		for _, word := range []string{"dbpassword", "brokerpassword", "userpassword"} {
			if strings.Contains(string(r.File.Content), word) {
				t.Errorf("%s holds %s", r.ID, word)
			}
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
