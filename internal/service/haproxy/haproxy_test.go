package haproxy

import (
	"testing"
	"time"

	"nines/internal/model"
	"nines/internal/plan"
	"nines/internal/secret"
	"nines/internal/service"
	"nines/internal/service/servicetest"
)

func testListeners(*model.Cluster) []service.Listener {
	return []service.Listener{
		{Name: "mariadb", Port: 3306, BackendPort: 3306, Health: "galera", SingleWriter: true},
		{Name: "keystone", Port: 5000, BackendPort: 5000, Health: "keystone", HTTP: true, Public: true, BackendTLS: true, MaxConn: 4, Repeatable: []string{"/v3/auth/tokens"}},
		{Name: "rabbitmq", Port: 5673, BackendPort: 5671, Health: "rabbitmq", IdleTimeout: time.Minute},
		{Name: "plain", Port: 8080, BackendPort: 8081, Health: "plain", HTTP: true, IdleTimeout: 1500 * time.Millisecond},
	}
}

func testResources(t *testing.T) []plan.Resource { return resourcesOf(t, servicetest.Cluster()) }

func resourcesOf(t *testing.T, c *model.Cluster) []plan.Resource {
	t.Helper()
	rs, err := New(testListeners).Resources(c, secret.Map{SecretStats: "statspw"})
	if err != nil {
		t.Fatal(err)
	}
	return rs
}

func TestGoldenFiles(t *testing.T) {
	servicetest.Golden(t, "testdata", "ctl2", testResources(t))
	servicetest.Golden(t, "testdata/public", "ctl2", resourcesOf(t, servicetest.WithPublicVIP(servicetest.Cluster())))
}
