package keepalived

import (
	"testing"

	"nines/internal/model"
	"nines/internal/plan"
	"nines/internal/secret"
	"nines/internal/service"
	"nines/internal/service/servicetest"
)

func testResources(t *testing.T, c *model.Cluster) []plan.Resource {
	t.Helper()
	rs, err := New(func(*model.Cluster) []service.Listener { return nil }).Resources(c, secret.Map{})
	if err != nil {
		t.Fatal(err)
	}
	return rs
}

func TestGoldenFiles(t *testing.T) {
	servicetest.Golden(t, "testdata", "ctl2", testResources(t, servicetest.Cluster()))
	servicetest.Golden(t, "testdata/public", "ctl2", testResources(t, servicetest.WithPublicVIP(servicetest.Cluster())))
}
