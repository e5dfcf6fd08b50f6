package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"nines/internal/model"
)

// publicVIP is where users of the core lab come.
const publicVIP = "198.18.1.10"

// ownAddress looks at the way of users, and breaks the holder's link to them: both addresses go where there is one.
func ownAddress(t *testing.T, cluster string) {
	look := func() status {
		return decode[status](t, nines(t, time.Minute, "-c", cluster, "status", "--json").stdout)
	}
	before := look()
	if before.PublicVIP != publicVIP || len(before.VIPHolders) != 1 {
		t.Fatalf("%+v", before)
	}
	holder := before.VIPHolders[0]
	user := "ctl1"
	if holder == user {
		user = "ctl2"
	}
	if !reaches(t, user, model.PortKeystone) {
		t.Error("users do not reach Keystone")
	}
	if reaches(t, user, model.PortMariaDB) {
		t.Error("users reach the database")
	}
	clouds, err := os.ReadFile("/var/lib/nines-lab/" + labName + "/clouds.yaml")
	if err != nil || !strings.Contains(string(clouds), "https://"+publicVIP+":") {
		t.Errorf("clouds.yaml does not lead there (%v)", err)
	}
	out := must(t, time.Minute, "lab", "exec", "--name", labName, "--", "openstack", "endpoint", "list", "-f", "json")
	for _, e := range decode[[]struct{ Interface, URL string }](t, out) {
		if public := strings.HasPrefix(e.URL, "https://"+publicVIP+":"); public != (e.Interface == "public") {
			t.Errorf("%s: %s", e.Interface, e.URL)
		}
	}

	link := func(state string) {
		must(t, time.Minute, "lab", "ssh", "--name", labName, holder, "--", "ip link set ext0 "+state)
	}
	link("down")
	begun := time.Now()
	moved := func() bool {
		st := look()
		return len(st.VIPHolders) == 1 && st.VIPHolders[0] != holder && reaches(t, user, model.PortKeystone)
	}
	for deadline := begun.Add(20 * time.Second); !moved(); {
		if time.Now().After(deadline) {
			link("up")
			t.Fatalf("the VIP stays on %s, which users do not reach", holder)
		}
	}
	t.Logf("users came to another controller after %s at most", time.Since(begun).Round(100*time.Millisecond))
	if !strings.Contains(codes(look()), "public-link-down") {
		t.Error("status does not say that the link is down")
	}
	link("up")
	healthy(t, cluster)
}

func codes(s status) string {
	var out []string
	for _, c := range s.Conditions {
		out = append(out, c.Code)
	}
	return strings.Join(out, " ")
}

// reaches reports whether a port of the address for users takes a connection from a machine in their network.
func reaches(t *testing.T, from string, port int) bool {
	t.Helper()
	return nines(t, time.Minute, "lab", "ssh", "--name", labName, from, "--", fmt.Sprintf("timeout 2 bash -c ': </dev/tcp/%s/%d'", publicVIP, port)).code == 0
}
