package keystone

import (
	"strings"
	"testing"
	"time"

	"nines/internal/plan"
	"nines/internal/secret"
	"nines/internal/service"
	"nines/internal/service/servicetest"
)

const (
	keyA = "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE="
	keyB = "QkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkI="
)

func testSecrets() secret.Map {
	ring := `{"keys":{"0":"` + keyA + `","1":"` + keyB + `"}}`
	return secret.Map{SecretDatabase: "dbpassword", SecretAdmin: "adminpassword", SecretFernet: ring, SecretCredential: ring}
}

func resources(t *testing.T, s secret.Source) map[plan.ID]plan.Resource {
	t.Helper()
	rs, err := New().Resources(servicetest.Cluster(), s)
	if err != nil {
		t.Fatal(err)
	}
	all := plan.Index(rs)
	if len(all) != len(rs) {
		t.Fatalf("%d resources, %d IDs", len(rs), len(all))
	}
	return all
}

func TestGoldenFiles(t *testing.T) {
	rs, err := New().Resources(servicetest.Cluster(), testSecrets())
	if err != nil {
		t.Fatal(err)
	}
	servicetest.Golden(t, "testdata", "ctl1", rs)
}

func TestSecretsStayInProtectedFiles(t *testing.T) {
	for _, r := range resources(t, testSecrets()) {
		for name, value := range map[string]string{"database": "dbpassword", "admin": "adminpassword", "key": keyA, "primary": keyB} {
			if r.File != nil && strings.Contains(string(r.File.Content), value) && r.File.Mode&0o007 != 0 {
				t.Errorf("%s: the %s secret is readable by everybody", r.ID, name)
			}
			if r.Action == nil {
				continue
			}
			for k, v := range r.Action.Args {
				if strings.Contains(v, value) {
					t.Errorf("%s: argument %s holds the %s secret", r.ID, k, name)
				}
			}
		}
	}
}

func TestEveryControllerGetsTheSameSharedFiles(t *testing.T) {
	all := resources(t, testSecrets())
	for _, node := range []string{"ctl2", "ctl3"} {
		for _, path := range []string{confPath, "/etc/systemd/system/keystone.service"} {
			if a, b := all[id("ctl1", "file", path)].File, all[id(node, "file", path)].File; string(a.Content) != string(b.Content) {
				t.Errorf("%s differs between ctl1 and %s", path, node)
			}
		}
	}
	ini := string(all[id("ctl2", "file", uwsgiPath)].File.Content)
	if !strings.Contains(ini, "https-socket = 198.18.0.12:5000,") {
		t.Errorf("ctl2 does not bind to its own address:\n%s", ini)
	}
}

func TestResourcesFormAGraph(t *testing.T) {
	rs, err := New().Resources(servicetest.Cluster(), testSecrets())
	if err != nil {
		t.Fatal(err)
	}
	rs = append(rs, plan.Resource{ID: "x/ctl1/action:provider", Service: "x", Node: "ctl1", Action: &plan.Action{Name: "provider"},
		Provides: []string{service.CapPackages, service.CapSQL, service.CapProxy, service.CapVIP}})
	if _, err := plan.Graph(rs); err != nil {
		t.Fatal(err)
	}
	for _, r := range rs {
		if r.Kind() == "" {
			t.Errorf("%s has no kind", r.ID)
		}
		if r.Unit != nil && r.Unit.Ready != nil && New().Actions()[r.Unit.Ready.Name].Check == nil {
			t.Errorf("%s: no action %s", r.ID, r.Unit.Ready.Name)
		}
		if r.Service == Name && r.Action != nil && New().Actions()[r.Action.Name].Run == nil {
			t.Errorf("%s: no action %s", r.ID, r.Action.Name)
		}
	}
}

func TestRedactedRender(t *testing.T) {
	all := resources(t, secret.Redacted{})
	if conf := string(all[id("ctl1", "file", confPath)].File.Content); strings.Contains(conf, "dbpassword") {
		t.Error("a redacted render holds the password")
	}
}

func TestRingChangesTheOpsHash(t *testing.T) {
	before := resources(t, testSecrets())
	s := testSecrets()
	r, err := ParseRing(s[SecretFernet])
	if err != nil {
		t.Fatal(err)
	}
	s[SecretFernet] = r.Rotate(keyA, 4, time.Unix(1, 0)).encode()
	after := resources(t, s)
	fernet, unit := id("ctl1", "action", "fernet-keys"), id("ctl1", "unit", Unit)
	if before[fernet].Hash(before) == after[fernet].Hash(after) {
		t.Error("a rotated ring has the same hash")
	}
	if before[unit].Hash(before) != after[unit].Hash(after) {
		t.Error("rotating keys would restart keystone")
	}
}

func TestClientFiles(t *testing.T) {
	clouds, openrc := ClientFiles(servicetest.Cluster(), "p'w", "/home/me/my ca.pem")
	for _, want := range []string{"clouds:\n  \"lab\":\n", `auth_url: "https://198.18.0.10:5000/v3"`, `cacert: "/home/me/my ca.pem"`} {
		if !strings.Contains(clouds, want) {
			t.Errorf("clouds.yaml lacks %q:\n%s", want, clouds)
		}
	}
	for _, want := range []string{`export OS_PASSWORD='p'\''w'`, "export OS_CACERT='/home/me/my ca.pem'"} {
		if !strings.Contains(openrc, want) {
			t.Errorf("openrc lacks %q:\n%s", want, openrc)
		}
	}
}
