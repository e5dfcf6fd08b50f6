package placement

import (
	"slices"
	"testing"

	"nines/internal/plan"
	"nines/internal/secret"
	"nines/internal/service"
	"nines/internal/service/servicetest"
)

var secrets = secret.Map{"placement/database": "dbpassword", "placement/user": "userpassword"}

func TestConforms(t *testing.T) { servicetest.Conform(t, New(), servicetest.Cluster(), secrets) }

func TestGoldenFiles(t *testing.T) {
	rs, err := New().Resources(servicetest.Cluster(), secrets)
	if err != nil {
		t.Fatal(err)
	}
	servicetest.Golden(t, "testdata", "ctl1", rs)
}

// Placement ends when its tables are not there: the first start must wait for them, on every node.
func TestNoAPIBeforeItsSchema(t *testing.T) {
	c := servicetest.Cluster()
	rs, err := New().Resources(c, secrets)
	if err != nil {
		t.Fatal(err)
	}
	schema := New().SchemaID(c, Name)
	units := 0
	for _, r := range rs {
		if r.Unit == nil {
			continue
		}
		units++
		if !slices.Contains(r.After, schema) {
			t.Errorf("%s does not wait for %s", r.ID, schema)
		}
	}
	all := plan.Index(rs)
	if units != 3 || !slices.Contains(all[schema].Needs, service.CapSQL) {
		t.Errorf("%d units, the schema needs %v", units, all[schema].Needs)
	}
}
