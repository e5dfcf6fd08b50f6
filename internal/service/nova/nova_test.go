package nova

import (
	"bytes"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"nines/internal/model"
	"nines/internal/plan"
	"nines/internal/secret"
	"nines/internal/service"
	"nines/internal/service/servicetest"
)

var secrets = secret.Map{"nova/database": "dbpassword", "nova/user": "userpassword", "nova/broker": "brokerpassword",
	SecretMetadata: "metadatasecret"}

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

// A compute knows no way to a database, and nothing that only controllers need.
func TestComputeHasNoDatabase(t *testing.T) {
	for _, r := range resources(t, servicetest.Cluster()) {
		if r.Node != "cmp1" || r.File == nil {
			continue
		}
		for _, word := range []string{"dbpassword", "mysql", "[database]", "metadatasecret"} {
			if bytes.Contains(r.File.Content, []byte(word)) {
				t.Errorf("%s has %q", r.File.Path, word)
			}
		}
	}
}

// Mappings before the cells' migrations, those before everything that reads them, conductors before computes.
func TestOrder(t *testing.T) {
	c := servicetest.Cluster()
	rs := plan.Index(resources(t, c))
	s := New()
	waits := func(id, before plan.ID) {
		t.Helper()
		if _, ok := rs[before]; !ok || !slices.Contains(rs[id].After, before) {
			t.Errorf("%s does not wait for %s: %v", id, before, rs[id].After)
		}
	}
	cells := s.ID("ctl1", "action", actionCells)
	waits(cells, s.SchemaID(c, databaseAPI))
	waits(s.SchemaID(c, databaseCell0), cells)
	waits(s.SchemaID(c, databaseCell1), s.SchemaID(c, databaseCell0))
	for _, unit := range []string{"nova-api.service", "nova-api-metadata.service", unitConductor, "nova-scheduler.service", consoleUnit} {
		waits(s.ID("ctl3", "unit", unit), s.SchemaID(c, databaseCell1))
		waits(s.ID("ctl3", "unit", unit), cells)
	}
	compute := s.ID("cmp1", "unit", unitCompute)
	waits(compute, s.ID("cmp1", "unit", unitLibvirt))
	waits(compute, s.ID("ctl2", "unit", unitConductor))
	waits(s.ID("ctl1", "action", actionMapCompute+"-cmp1"), compute)
}

func TestConsoleIsPublished(t *testing.T) {
	c := servicetest.Cluster()
	i := slices.IndexFunc(New().Listeners(c), func(l service.Listener) bool { return l.Port == model.PortNovaConsole })
	if i < 0 {
		t.Fatal("no listener for consoles")
	}
	l := New().Listeners(c)[i]
	if part, ok := New().Parts()[strings.TrimPrefix(l.Health, "nova/")]; !ok || part.Unit != consoleUnit {
		t.Errorf("%+v asks for %q, parts are %v", l, l.Health, slices.Sorted(maps.Keys(New().Parts())))
	}
	if l.IdleTimeout != consoleIdle || !l.BackendTLS {
		t.Errorf("%+v", l)
	}
}

// The script is understood by the shell it is for.
func TestScriptParses(t *testing.T) {
	if out, err := exec.Command("sh", "-n", filepath.Join("templates", "virtualization.sh")).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
