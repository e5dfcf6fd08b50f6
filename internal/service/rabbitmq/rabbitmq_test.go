package rabbitmq

import (
	"testing"

	"nines/internal/model"
	"nines/internal/plan"
	"nines/internal/secret"
	"nines/internal/service"
	"nines/internal/service/servicetest"
)

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
	rs, err := testService().Resources(servicetest.Cluster(), testSecrets())
	if err != nil {
		t.Fatal(err)
	}
	return rs
}

func TestGoldenFiles(t *testing.T) { servicetest.Golden(t, "testdata", "ctl2", testResources(t)) }
