package glance

import (
	"testing"

	"nines/internal/secret"
	"nines/internal/service/servicetest"
)

var secrets = secret.Map{"glance/database": "dbpassword", "glance/user": "userpassword", store.Secret().Name: "marksecret"}

func TestConforms(t *testing.T) { servicetest.Conform(t, New(), servicetest.Cluster(), secrets) }

func TestGoldenFiles(t *testing.T) {
	rs, err := New().Resources(servicetest.Cluster(), secrets)
	if err != nil {
		t.Fatal(err)
	}
	servicetest.Golden(t, "testdata", "ctl1", rs)
}
