package cinder

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

var secrets = secret.Map{"cinder/database": "dbpassword", "cinder/user": "userpassword", "cinder/broker": "brokerpassword", "cinder/store-mark": "marksecret"}

func TestConforms(t *testing.T) { servicetest.Conform(t, New(), servicetest.Cluster(), secrets) }

func resources(t *testing.T, c *model.Cluster) []plan.Resource {
	t.Helper()
	rs, err := New().Resources(c, secrets)
	if err != nil {
		t.Fatal(err)
	}
	return rs
}

func TestGoldenFiles(t *testing.T) {
	rs := resources(t, servicetest.Cluster())
	servicetest.Golden(t, "testdata/controller", "ctl1", rs)
	servicetest.Golden(t, "testdata/compute", "cmp1", rs)
}

// Nothing looks for volumes before they are there, and on no node before the first has marked them.
func TestVolumesComeFirst(t *testing.T) {
	c := servicetest.Cluster()
	all := plan.Index(resources(t, c))
	for _, n := range c.Nodes {
		mount := plan.Make(Name, n.Name, "unit", mountUnit())
		if _, ok := all[mount]; !ok {
			t.Fatalf("%s has no volumes", n.Name)
		}
		file := all[plan.Make(Name, n.Name, "file", "/etc/systemd/system/"+mountUnit())]
		if !slices.Contains(file.After, store.ID(n)) {
			t.Errorf("%s: the volumes are mounted before they are looked at", n.Name)
		}
		if unit, ok := all[plan.Make(Name, n.Name, "unit", "cinder-volume.service")]; ok && !slices.Contains(unit.After, mount) {
			t.Errorf("%s does not wait for %s", unit.ID, mount)
		}
	}
}

func TestAMachineOfBothRolesHasOneMount(t *testing.T) {
	c := servicetest.Cluster()
	c.Nodes[0].Roles = append(c.Nodes[0].Roles, model.RoleCompute)
	seen := map[plan.ID]bool{}
	for _, r := range resources(t, c) {
		if seen[r.ID] {
			t.Errorf("%s twice", r.ID)
		}
		seen[r.ID] = true
	}
	if !seen[plan.Make(Name, "ctl1", "unit", keeperUnit)] {
		t.Error("nothing keeps the volumes mounted on a machine of both roles")
	}
}

func TestJudge(t *testing.T) {
	ok := service.Observation{Serving: true, Facts: map[string]string{"reports": "read", "report cinder-volume shared@directory": "90",
		"report cinder-scheduler ctl1": "1", "report cinder-scheduler ctl2": "2", "report cinder-scheduler ctl3": "3"}}
	got := New().Judge(servicetest.Cluster(), map[string]service.Observation{"ctl1": ok, "ctl2": ok})
	if len(got) != 1 || got[0].Code != "daemon-silent" || got[0].Severity != "critical" || !strings.Contains(got[0].Text, "90 s") {
		t.Errorf("%+v", got)
	}
}

// Clients look for one name or the other: both lead to the same place, with one user.
func TestBothTypesAreInTheCatalogue(t *testing.T) {
	types := map[string]string{}
	for _, r := range resources(t, servicetest.Cluster()) {
		if r.Action != nil && r.Action.Name == "register" {
			types[r.Action.Args["type"]] = r.Action.Args["user"] + " " + r.Action.Args["url"]
		}
	}
	want := "cinder https://198.18.0.10:8776/v3"
	if len(types) != 2 || types["block-storage"] != want || types["volumev3"] != want {
		t.Errorf("%v", types)
	}
}

// A cinder-volume that systemd started by itself would be one more.
func TestCinderVolumeRunsUnderTheLeaseAlone(t *testing.T) {
	for _, r := range resources(t, servicetest.Cluster()) {
		if r.File == nil || !strings.HasSuffix(r.File.Path, "/cinder-volume.service") {
			continue
		}
		start := "ExecStart=" + model.PathBinary + " exclusive --lease cinder-volume --holder " + r.Node + " "
		if text := string(r.File.Content); strings.Count(text, "ExecStart=") != 1 || !strings.Contains(text, start) {
			t.Errorf("%s:\n%s", r.ID, text)
		}
	}
}
