package openstack

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"nines/internal/host"
	"nines/internal/model"
	"nines/internal/plan"
	"nines/internal/secret"
	"nines/internal/service"
	"nines/internal/service/servicetest"
)

func prefix(text string) netip.Prefix { return netip.MustParsePrefix(text) }

func testService() *Service {
	return New(Description{Service: "x", Type: "example", Messaging: true,
		APIs: []WSGI{
			{Name: "x-api", Unit: "x-api.service", User: "x", Ini: "/etc/x/api.ini", Port: 9999, Health: "/healthcheck"},
			{Name: "x-data", Unit: "x-data.service", User: "x", Ini: "/etc/x/data.ini", Port: 9998, Health: "/healthcheck"},
		},
		Daemons: []Daemon{
			{Role: model.RoleController, Unit: "x-worker.service", User: "x", Command: []string{"/usr/bin/x-worker"}},
			{Role: model.RoleCompute, Unit: "x-agent.service", User: "x", Command: []string{"/usr/bin/x-agent"}},
		},
		Schemas: []Schema{{Database: "x"}, {Database: "x_data"}},
	})
}

func TestObserve(t *testing.T) {
	for status, serving := range map[int]bool{200: true, 500: false, 503: false} {
		client, env, _ := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/healthcheck" {
				t.Errorf("asked for %s", r.URL.Path)
			}
			w.WriteHeader(status)
		}))
		a := testService()
		a.client = client
		if o := a.Observe(t.Context(), env); o.Serving != serving || (len(o.Conditions) == 0) != serving || o.Reason == "" {
			t.Errorf("%d: %+v", status, o)
		}
	}
}

// Whoever is asked while the application is loaded works all of it off later, though nobody waits any more.
func TestObserveLoading(t *testing.T) {
	asked := 0
	client, env, h := serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked++ }))
	a := testService()
	a.client = client
	h.PutFile(host.File{Path: "/run/nines-x-api/state", Content: []byte("loading")})
	if o := a.Observe(t.Context(), env); o.Serving || asked > 0 || len(o.Conditions) != 1 || o.Reason != Loads {
		t.Errorf("asked %d times: %+v", asked, o)
	}
	h.PutFile(host.File{Path: "/run/nines-x-api/state", Content: []byte("ready")})
	if o := a.Observe(t.Context(), env); !o.Serving || asked != 1 {
		t.Errorf("asked %d times: %+v", asked, o)
	}
}

// A stopped process: the kernel accepts, nobody answers.
func TestObserveFrozen(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, env, _ := serve(t, http.NotFoundHandler())
	a := testService()
	a.client = &Client{Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, l.Addr().String())
	}}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if o := a.Observe(ctx, env); o.Serving || !strings.Contains(o.Reason, "frozen") {
		t.Errorf("%+v", o)
	}
}

func TestJudge(t *testing.T) {
	down, up := service.Observation{}, service.Observation{Serving: true}
	for name, tc := range map[string]struct {
		seen map[string]service.Observation
		bad  bool
	}{
		"nobody was seen": {nil, false},
		"one serves":      {map[string]service.Observation{"ctl1": down, "ctl2": up, "ctl3": down}, false},
		"none serves":     {map[string]service.Observation{"ctl1": down, "ctl3": down}, true},
	} {
		if got := testService().Judge(servicetest.Cluster(), tc.seen); (len(got) > 0) != tc.bad {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// What runs where, what restarts on what, and what waits for what.
func TestResources(t *testing.T) {
	c, x := servicetest.Cluster(), testService()
	secrets, _, err := secret.Complete(secret.Map{}, x.Secrets(c))
	if err != nil {
		t.Fatal(err)
	}
	all, err := x.Resources(c, Configuration{
		After:       []plan.ID{"x/ctl1/action:before"},
		SchemaAfter: map[string][]plan.ID{"x_data": {"x/ctl1/action:cells"}},
		Files: func(n model.Node) ([]plan.File, error) {
			_, err := x.Config(c, secrets)
			return []plan.File{x.ConfigFile("/etc/x/x.conf", []byte(n.Name))}, err
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	rs := plan.Index(all)
	units := map[string][]string{}
	for _, r := range all {
		if r.Unit != nil {
			units[r.Node] = append(units[r.Node], r.Unit.Name)
		}
	}
	controller := []string{"x-api.service", "x-data.service", "x-worker.service"}
	want := map[string][]string{"ctl1": controller, "ctl2": controller, "ctl3": controller, "cmp1": {"x-agent.service"}}
	if d := cmp.Diff(want, units); d != "" {
		t.Error(d)
	}
	for unit, files := range map[plan.ID]int{"x/ctl2/unit:x-api.service": 3, "x/ctl2/unit:x-worker.service": 2, "x/cmp1/unit:x-agent.service": 2} {
		if got := len(rs[unit].Unit.RestartOn); got != files+1 { // and the packages
			t.Errorf("%s restarts on %v", unit, rs[unit].Unit.RestartOn)
		}
	}
	if r := rs["x/ctl3/unit:x-worker.service"]; r.Unit.Member == nil || !slices.Contains(r.After, "x/ctl1/action:before") ||
		!slices.Contains(r.After, x.SchemaID(c, "x_data")) {
		t.Errorf("%+v", r)
	}
	if r := rs["x/cmp1/unit:x-agent.service"]; r.Unit.Member != nil || len(r.After) > 0 {
		t.Errorf("%+v", r)
	}
	if r := rs[x.SchemaID(c, "x_data")]; !slices.Contains(r.After, x.SchemaID(c, "x")) || !slices.Contains(r.After, "x/ctl1/action:cells") {
		t.Errorf("%+v", r)
	}
}

func TestListenersAndParts(t *testing.T) {
	x := testService()
	var health []string
	for _, l := range x.Listeners(nil) {
		health = append(health, l.Name+" "+l.Health)
	}
	if want := []string{"x x", "x-data x/x-data"}; !slices.Equal(health, want) {
		t.Errorf("%v, want %v", health, want)
	}
	if parts := x.Parts(); len(parts) != 1 || parts["x-data"].Unit != "x-data.service" {
		t.Errorf("%v", parts)
	}
}

// A drill hurts a unit where it is.
func TestFaultsNameTheRole(t *testing.T) {
	roles := map[string]model.Role{}
	for _, f := range testService().Faults(servicetest.Cluster()) {
		roles[f.Name+" "+f.Unit] = f.Role
	}
	if len(roles) != 8 || roles["kill x-agent.service"] != model.RoleCompute || roles["freeze x-api.service"] != model.RoleController {
		t.Errorf("%v", roles)
	}
}

func TestObserveCompute(t *testing.T) {
	env, h := testEnv()
	env.Node, _ = env.Cluster.Node("cmp1")
	x := testService()
	if o := x.Observe(t.Context(), env); o.Serving {
		t.Errorf("without the unit: %+v", o)
	}
	h.PutUnit("x-agent.service", host.UnitState{Active: "active"})
	if o := x.Observe(t.Context(), env); !o.Serving {
		t.Errorf("%+v", o)
	}
}
