package horizon

import (
	"testing"

	"go.uber.org/goleak"

	"nines/internal/model"
	"nines/internal/plan"
	"nines/internal/secret"
	"nines/internal/service/servicetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var secrets = secret.Map{"horizon/database": "dbpassword", "horizon/signing-key": "signingkey"}

func TestConforms(t *testing.T) { servicetest.Conform(t, New(), servicetest.Cluster(), secrets) }

func resources(t *testing.T) []plan.Resource {
	t.Helper()
	rs, err := New().Resources(servicetest.Cluster(), secrets)
	if err != nil {
		t.Fatal(err)
	}
	return rs
}

func TestGoldenFiles(t *testing.T) { servicetest.Golden(t, "testdata", "ctl1", resources(t)) }

// Browsers ask the port of https; the catalogue knows nothing of a dashboard.
func TestPublishedButNotInTheCatalogue(t *testing.T) {
	ls := New().Listeners(servicetest.Cluster())
	if len(ls) != 1 || ls[0].Port != 443 || ls[0].BackendPort != model.PortHorizon {
		t.Errorf("%+v", ls)
	}
	for _, r := range resources(t) {
		if r.Action != nil && r.Action.Name == "register" {
			t.Errorf("%s", r.ID)
		}
	}
	for _, s := range New().Secrets(servicetest.Cluster()) {
		if s.Name == "horizon/user" {
			t.Error("a password for nobody")
		}
	}
}

// A login is good on every controller: what signs and keeps it does not differ.
func TestSettingsAreTheSameOnAllControllers(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range resources(t) {
		if r.File != nil && r.File.Path == settingsPath {
			seen[string(r.File.Content)] = true
		}
	}
	if len(seen) != 1 {
		t.Errorf("%d different settings", len(seen))
	}
}
