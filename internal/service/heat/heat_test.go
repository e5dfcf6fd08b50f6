package heat

import (
	"testing"

	"nines/internal/secret"
	"nines/internal/service/servicetest"
)

var secrets = secret.Map{"heat/database": "dbpassword", "heat/user": "userpassword", "heat/broker": "brokerpassword", secretKey: "encryptionkey"}

func TestConforms(t *testing.T) { servicetest.Conform(t, New(), servicetest.Cluster(), secrets) }

func TestGoldenFiles(t *testing.T) {
	rs, err := New().Resources(servicetest.Cluster(), secrets)
	if err != nil {
		t.Fatal(err)
	}
	servicetest.Golden(t, "testdata", "ctl1", rs)
}
