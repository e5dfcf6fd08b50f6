package galera

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"nines/internal/model"
	"nines/internal/service/servicetest"
)

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

// The hash is that of SELECT PASSWORD('password') on MariaDB.
func TestNativeHash(t *testing.T) {
	if got, want := nativeHash("password"), "*2470C0C06DEE42FD1618BB99005ADCA2EC9D1E19"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestClientHost(t *testing.T) {
	for cidr, want := range map[string]string{"198.18.0.0/24": "198.18.0.0/255.255.255.0", "10.4.7.9/12": "10.0.0.0/255.240.0.0", "fd00::/64": "%"} {
		c := servicetest.Cluster()
		c.Networks[model.Management] = model.Network{CIDR: netip.MustParsePrefix(cidr)}
		if got := clientHost(c); got != want {
			t.Errorf("%s: %s, want %s", cidr, got, want)
		}
	}
}

func TestDatabaseIsCreatedWithoutItsPassword(t *testing.T) {
	r := newRig(t, "ctl1", fakePeers{})
	r.server.err = nil
	args := map[string]string{"name": "keystone", "secret": "keystone/database"}
	if done, _, err := r.databaseThere(t.Context(), r.env, args); done || err != nil {
		t.Fatalf("nothing is there: %v, %v", done, err)
	}
	if err := r.createDatabase(t.Context(), r.env, args); err != nil {
		t.Fatal(err)
	}
	all := strings.Join(r.server.done, "\n")
	if strings.Contains(all, "secret") {
		t.Errorf("the password is in a statement:\n%s", all)
	}
	for _, want := range []string{"CREATE DATABASE IF NOT EXISTS `keystone`", "REQUIRE SSL", nativeHash("secret"),
		"GRANT ALL PRIVILEGES ON `keystone`.* TO 'keystone'@'198.18.0.0/255.255.255.0'"} {
		if !strings.Contains(all, want) {
			t.Errorf("no %q in:\n%s", want, all)
		}
	}
}

func TestDatabaseDiffers(t *testing.T) {
	const host = "'keystone'@'198.18.0.0/255.255.255.0'"
	grants := [][]string{{"GRANT USAGE ON *.* TO `keystone`@`198.18.0.0/255.255.255.0` IDENTIFIED BY PASSWORD '*X' REQUIRE SSL"},
		{"GRANT ALL PRIVILEGES ON `keystone`.* TO `keystone`@`198.18.0.0/255.255.255.0`"}}
	user := func(hash, ssl string) [][]string { return [][]string{{"mysql_native_password", hash, ssl}} }
	good := nativeHash("secret")
	cases := map[string]struct {
		user, grants [][]string
		reason       string
	}{
		"as it should be":  {user(good, "1"), grants, ""},
		"another password": {user(nativeHash("other"), "1"), grants, "another password"},
		"without TLS":      {user(good, "0"), grants, "without TLS"},
		"no privileges":    {user(good, "1"), grants[:1], "lacks privileges"},
		"no user":          {nil, nil, "does not exist"},
	}
	for name, c := range cases {
		r := newRig(t, "ctl1", fakePeers{})
		r.server.err = nil
		r.server.rows = map[string][][]string{"SCHEMATA": {{"keystone"}}, "global_priv": c.user, "SHOW GRANTS FOR " + host: c.grants}
		done, reason, err := r.databaseThere(t.Context(), r.env, map[string]string{"name": "keystone", "secret": "keystone/database"})
		if err != nil || done != (c.reason == "") || !strings.Contains(reason, c.reason) {
			t.Errorf("%s: %v %q %v", name, done, reason, err)
		}
	}
}

func TestNamesOfSchemas(t *testing.T) {
	r := newRig(t, "ctl1", fakePeers{})
	for _, bad := range []string{"", "a`b", "a b", "A", strings.Repeat("a", 33), "x'; DROP"} {
		if err := r.createDatabase(t.Context(), r.env, map[string]string{"name": bad, "secret": "keystone/database"}); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func TestAStoppedServerIsNotDone(t *testing.T) {
	r := newRig(t, "ctl1", fakePeers{})
	r.server.err = errors.New("connection refused")
	if done, reason, err := r.accountsThere(t.Context(), r.env, nil); done || err != nil || reason == "" {
		t.Errorf("%v %q %v", done, reason, err)
	}
}
