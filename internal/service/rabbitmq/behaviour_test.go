package rabbitmq

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"nines/internal/host"
	"nines/internal/host/hosttest"
	"nines/internal/model"
	"nines/internal/plan"
	"nines/internal/service"
	"nines/internal/service/servicetest"
)

// units is a host that only knows systemd, and remembers what it was told.
type units struct {
	host.Host
	active string
	calls  []string
	fails  int // how often a start still fails
}

func (u *units) Unit(context.Context, string) (host.UnitState, error) {
	return host.UnitState{Loaded: true, Active: u.active}, nil
}

func (u *units) ReadFile(string) (host.File, error) { return host.File{}, fs.ErrNotExist }

func (u *units) StartUnit(_ context.Context, name string) error {
	u.calls = append(u.calls, "start "+name)
	if u.fails--; u.fails >= 0 {
		return errors.New("failed")
	}
	return nil
}

func (u *units) StopUnit(_ context.Context, name string) error {
	u.calls = append(u.calls, "stop "+name)
	return nil
}

func (u *units) RestartUnit(_ context.Context, name string) error {
	u.calls = append(u.calls, "restart "+name)
	return nil
}

// broker answers like the management API.
type broker struct {
	peers    string
	alarm    string
	critical int // how often the node is still needed
	queues   string
	users    string
	vhosts   string
	perms    string
	loaded   []definitions
	dropped  []string
}

func (b *broker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if _, password, _ := r.BasicAuth(); password != "adminpw" {
		http.Error(w, "no", http.StatusUnauthorized)
		return
	}
	failed := func(reason string) {
		w.WriteHeader(http.StatusServiceUnavailable)
		json.NewEncoder(w).Encode(map[string]string{"status": "failed", "reason": reason})
	}
	switch path := strings.TrimPrefix(r.URL.Path, "/api/"); {
	case path == "nodes":
		w.Write([]byte(b.peers))
	case path == "health/checks/local-alarms" && b.alarm != "":
		failed(b.alarm)
	case path == "health/checks/node-is-quorum-critical" && b.critical > 0:
		b.critical--
		failed("queues would lose quorum")
	case path == "global-parameters/internal_cluster_id":
		w.Write([]byte(`{"name":"internal_cluster_id","value":"` + someCluster + `"}`))
	case path == "queues":
		w.Write([]byte(b.queues))
	case path == "users":
		w.Write([]byte(b.users))
	case path == "vhosts":
		w.Write([]byte(b.vhosts))
	case path == "permissions":
		w.Write([]byte(b.perms))
	case path == "definitions" && r.Method == http.MethodPost:
		var d definitions
		if err := json.NewDecoder(r.Body).Decode(&d); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		b.loaded = append(b.loaded, d)
	case strings.HasPrefix(path, "users/") && r.Method == http.MethodDelete:
		b.dropped = append(b.dropped, strings.TrimPrefix(path, "users/"))
		http.NotFound(w, r)
	default:
		w.Write([]byte(`{"status":"ok"}`))
	}
}

const allPeers = `[{"name":"rabbit@ctl1","running":true},{"name":"rabbit@ctl2","running":true},{"name":"rabbit@ctl3","running":true}]`

// against returns the service and an Env on ctl1 whose broker is b.
func against(t *testing.T, b *broker, h host.Host, password string) (*Service, service.Env) {
	t.Helper()
	srv := httptest.NewServer(b)
	t.Cleanup(srv.Close)
	s := testService()
	s.clients["ctl1"] = &client{http: srv.Client(), base: srv.URL, password: password}
	c := servicetest.Cluster()
	return s, service.Env{Host: h, Cluster: c, Node: c.Nodes[0], Secrets: testSecrets(), Log: slog.New(slog.DiscardHandler)}
}

func TestPasswordHashIsRabbitMQs(t *testing.T) {
	// The salt and password of the example in RabbitMQ's own documentation on credentials.
	got := saltedHash([]byte{0x90, 0x8d, 0xc6, 0x0a}, "test12")
	if want := "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR"; got != want {
		t.Errorf("hash %s, want %s", got, want)
	}
	if a, b := passwordHash("a", "same"), passwordHash("b", "same"); a == b {
		t.Error("two users with one password have one hash")
	}
	if raw, err := base64.StdEncoding.DecodeString(passwordHash("a", "b")); err != nil || len(raw) != 36 {
		t.Errorf("hash has %d bytes (%v), want 36", len(raw), err)
	}
}

func TestObserve(t *testing.T) {
	tests := []struct {
		name     string
		broker   broker
		password string
		serving  bool
		reason   string
		code     string
	}{
		{"whole", broker{peers: allPeers}, "adminpw", true, "running, 3 of 3 members", ""},
		{"one member down", broker{peers: `[{"name":"rabbit@ctl1","running":true},{"name":"rabbit@ctl2","running":false}]`}, "adminpw", true, "running, 1 of 3 members", ""},
		{"itself not running", broker{peers: `[{"name":"rabbit@ctl1","running":false}]`}, "adminpw", false, "starting", ""},
		{"alarm keeps it serving", broker{peers: allPeers, alarm: "disk is full"}, "adminpw", true, "disk is full", "rabbitmq-alarm"},
		{"another cluster's state", broker{peers: allPeers}, "other", false, "another cluster", "rabbitmq-foreign-state"},
		{"nonsense", broker{peers: "<html>"}, "adminpw", false, "does not answer", ""},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			h := hosttest.New()
			h.Answer("df", "Avail\n  312\n", 0)
			s, env := against(t, &tc.broker, h, tc.password)
			o := s.Observe(t.Context(), env)
			if o.Serving != tc.serving || !strings.Contains(o.Reason, tc.reason) {
				t.Errorf("serving %v, %q; want %v, %q", o.Serving, o.Reason, tc.serving, tc.reason)
			}
			code := ""
			if len(o.Conditions) > 0 {
				code = o.Conditions[0].Code
			}
			if code != tc.code {
				t.Errorf("condition %q, want %q", code, tc.code)
			}
			if code == "rabbitmq-alarm" && !strings.Contains(o.Conditions[0].Text, "312 MB are free") {
				t.Errorf("%q does not say how much room there is", o.Conditions[0].Text)
			}
		})
	}
}

// A member that comes back before it was missed is turned away once.
func TestStartIsTriedAgain(t *testing.T) {
	for fails, want := range map[int]bool{0: true, 2: true, 3: false} {
		synctest.Test(t, func(t *testing.T) {
			u := &units{active: "failed", fails: fails}
			err := (&Service{}).start(t.Context(), service.Env{Host: u, Log: slog.New(slog.DiscardHandler)}, nil)
			if (err == nil) != want || len(u.calls) != min(fails+1, 3) {
				t.Errorf("%d failures: %v after %v", fails, err, u.calls)
			}
		})
	}
}

func TestRestartWaitsWhileQueuesNeedTheMember(t *testing.T) {
	b := &broker{critical: 1}
	h := &units{active: "active"}
	s, env := against(t, b, h, "adminpw")
	if err := s.start(t.Context(), env, map[string]string{"restart": "true"}); err != nil {
		t.Fatal(err)
	}
	if b.critical != 0 || !slices.Equal(h.calls, []string{"restart " + Unit}) {
		t.Errorf("still critical %d times, calls %q", b.critical, h.calls)
	}
}

func TestRestartGivesUpWhenNeeded(t *testing.T) {
	h := &units{active: "active"}
	s, env := against(t, &broker{critical: 1 << 30}, h, "adminpw")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.start(ctx, env, map[string]string{"restart": "true"}); err == nil || len(h.calls) > 0 {
		t.Errorf("error %v, calls %q: a needed member must not be restarted", err, h.calls)
	}
}

func TestDefineRepairsUsers(t *testing.T) {
	b := &broker{peers: allPeers, users: `[{"name":"guest","password_hash":"x","hashing_algorithm":"y","tags":"administrator"}]`, vhosts: `[]`, perms: `[]`}
	s, env := against(t, b, nil, "adminpw")
	done, reason, err := s.defined(t.Context(), env, nil)
	if done || err != nil {
		t.Fatalf("done %v, %v: nothing is defined", done, err)
	}
	t.Log(reason)
	if err := s.define(t.Context(), env, nil); err != nil {
		t.Fatal(err)
	}
	if len(b.loaded) != 1 || !slices.Contains(b.dropped, "guest") {
		t.Fatalf("loaded %d times, dropped %q", len(b.loaded), b.dropped)
	}
	put := func(v any) string {
		out, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	b.users, b.vhosts, b.perms = put(b.loaded[0].Users), put(b.loaded[0].VHosts), put(b.loaded[0].Permissions)
	if done, reason, err := s.defined(t.Context(), env, nil); !done || err != nil {
		t.Errorf("after define: not done: %s (%v)", reason, err)
	}
	b.peers = `[{"name":"rabbit@ctl1","running":true},{"name":"rabbit@ctl3","running":true}]`
	if done, reason, _ := s.defined(t.Context(), env, nil); done || !strings.Contains(reason, "ctl2") {
		t.Errorf("with ctl2 missing: done %v, %q", done, reason)
	}
}

func TestJudge(t *testing.T) {
	up := func(running string) service.Observation {
		return service.Observation{Serving: true, Facts: map[string]string{FactRunning: running}}
	}
	tests := []struct {
		name string
		seen map[string]service.Observation
		want []string
	}{
		{"whole", map[string]service.Observation{"ctl1": up("ctl1,ctl2,ctl3"), "ctl2": up("ctl1,ctl2,ctl3"), "ctl3": up("ctl1,ctl2,ctl3")}, nil},
		{"one down", map[string]service.Observation{"ctl1": up("ctl1,ctl2"), "ctl2": up("ctl1,ctl2")}, []string{"rabbitmq-member-down/warning"}},
		{"two down", map[string]service.Observation{"ctl1": up("ctl1"), "ctl2": {Reason: "x"}}, []string{"rabbitmq-member-down/critical", "rabbitmq-member-down/critical"}},
		{"two clusters", map[string]service.Observation{"ctl1": up("ctl1,ctl2"), "ctl2": up("ctl1,ctl2"), "ctl3": up("ctl3")},
			[]string{"rabbitmq-split/critical", "rabbitmq-split/critical", "rabbitmq-split/critical", "rabbitmq-split/critical"}},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			var got []string
			for _, c := range testService().Judge(servicetest.Cluster(), tc.seen) {
				got = append(got, c.Code+"/"+string(c.Severity))
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestErlangAddress(t *testing.T) {
	for in, want := range map[string]string{"198.18.0.11": "{198,18,0,11}", "2001:db8::1": "{8193,3512,0,0,0,0,0,1}"} {
		if got := erlangAddress(netip.MustParseAddr(in)); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

func TestResourcesFormAPlan(t *testing.T) {
	rs := testResources(t)
	for _, name := range []string{service.CapPackages, service.CapBase} {
		rs = append(rs, plan.Resource{ID: plan.ID(name), Action: &plan.Action{Name: name}, Provides: []string{name}})
	}
	if _, err := plan.Graph(rs); err != nil {
		t.Fatal(err)
	}
	actions := testService().Actions()
	for _, r := range rs {
		if r.Service != Name {
			continue
		}
		if r.Action != nil && actions[r.Action.Name].Run == nil {
			t.Errorf("%s: no action %s", r.ID, r.Action.Name)
		}
		if r.Unit != nil && r.Unit.Start != nil && (actions[r.Unit.Start.Name].Run == nil || actions[r.Unit.Ready.Name].Check == nil) {
			t.Errorf("%s: start or ready action missing", r.ID)
		}
		if r.File != nil && r.File.Mode&0o077 != 0 && strings.Contains(string(r.File.Content), "ABCDEFGHIJKLMNOP") {
			t.Errorf("%s: the cookie is readable by others", r.ID)
		}
		if r.File != nil && strings.Contains(string(r.File.Content), "adminpw") {
			t.Errorf("%s: holds a password in clear", r.ID)
		}
	}
}

func TestNetTickIsAtLeastASecond(t *testing.T) {
	c := servicetest.Cluster()
	c.Tuning.RabbitMQ = model.RabbitMQTuning{}
	if v := newView(c, c.Nodes[0]); v.NetTick < 1 {
		t.Errorf("net_ticktime %d", v.NetTick)
	}
}
