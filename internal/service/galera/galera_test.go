package galera

import (
	"strings"
	"testing"
	"time"

	"nines/internal/model"
	"nines/internal/plan"
	"nines/internal/secret"
	"nines/internal/service"
	"nines/internal/service/servicetest"
)

func testService() *Service {
	return New(func(*model.Cluster) []service.Database {
		return []service.Database{{Name: "keystone", Secret: "keystone/database"}}
	})
}

func testResources(t *testing.T) []plan.Resource {
	t.Helper()
	rs, err := testService().Resources(servicetest.Cluster(), secret.Redacted{})
	if err != nil {
		t.Fatal(err)
	}
	return rs
}

// The golden files were run on MariaDB 11.8.6 with Galera 26.4.23: three members formed a cluster with them.
func TestGoldenFiles(t *testing.T) { servicetest.Golden(t, "testdata", "ctl2", testResources(t)) }

// graphOf adds what galera needs from elsewhere.
func graphOf(t *testing.T, rs []plan.Resource) map[plan.ID]int {
	t.Helper()
	outside := plan.Resource{ID: "base/x/action:x", Node: "x", Action: &plan.Action{Name: "x"}, Provides: []string{service.CapBase, service.CapPackages}}
	g, err := plan.Graph(append(rs, outside))
	if err != nil {
		t.Fatal(err)
	}
	order, err := g.Order()
	if err != nil {
		t.Fatal(err)
	}
	at := map[plan.ID]int{}
	for i, id := range order {
		at[plan.ID(id)] = i
	}
	return at
}

func TestMembersStartOneAfterTheOther(t *testing.T) {
	at := graphOf(t, testResources(t))
	sequence := []plan.ID{
		"galera/ctl1/file:config", "galera/ctl1/unit:mariadb.service", "galera/ctl1/action:accounts",
		"galera/ctl2/unit:mariadb.service", "galera/ctl3/unit:mariadb.service", "galera/ctl1/action:database-keystone",
	}
	for i := 1; i < len(sequence); i++ {
		if at[sequence[i-1]] >= at[sequence[i]] {
			t.Errorf("%s does not come before %s", sequence[i-1], sequence[i])
		}
	}
}

func TestOnlyTheFirstMayFound(t *testing.T) {
	for _, r := range testResources(t) {
		if r.Unit == nil || r.Unit.Name != unitName {
			continue
		}
		if got, want := r.Unit.Start.Args["bootstrap"] == "true", r.Node == "ctl1"; got != want {
			t.Errorf("%s: bootstrap %v, want %v", r.Node, got, want)
		}
	}
}

func TestDonors(t *testing.T) {
	for node, want := range map[string]string{"ctl1": "ctl3,ctl2,", "ctl2": "ctl3,", "ctl3": "ctl2,"} {
		if got := donors(servicetest.Cluster().Controllers(), node); got != want {
			t.Errorf("%s: %q, want %q", node, got, want)
		}
	}
	if got := donors(servicetest.Cluster().Controllers()[:1], "ctl1"); got != "" {
		t.Errorf("alone: %q", got)
	}
}

func TestDurations(t *testing.T) {
	for d, want := range map[time.Duration]string{
		300 * time.Millisecond: "PT0.3S", time.Second: "PT1S", 1500 * time.Millisecond: "PT1.5S", 15 * time.Second: "PT15S",
	} {
		if got := iso8601(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}

func TestTuningThatBreaksClusters(t *testing.T) {
	cases := map[string]func(*model.GaleraTuning){
		"join_retrans 1s must be below suspect_timeout": func(g *model.GaleraTuning) { g.JoinRetrans = time.Second },
		"must be below a third of suspect_timeout":      func(g *model.GaleraTuning) { g.Keepalive = 400 * time.Millisecond },
		"must not be above inactive_timeout":            func(g *model.GaleraTuning) { g.InstallTimeout = time.Minute },
		"peer_timeout must be greater than zero":        func(g *model.GaleraTuning) { g.PeerTimeout = 0 },
		"gcache and buffer_pool must be set":            func(g *model.GaleraTuning) { g.GCache = "" },
	}
	for want, change := range cases {
		c := servicetest.Cluster()
		change(&c.Tuning.Galera)
		_, err := testService().Resources(c, secret.Redacted{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}
