package keepalived

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"nines/internal/host"
	"nines/internal/model"
	"nines/internal/plan"
	"nines/internal/service"
	"nines/internal/service/servicetest"
)

func TestGuard(t *testing.T) {
	serving := map[string]service.Observation{"haproxy": {Serving: true}}
	tests := []struct {
		name   string
		quorum bool
		seen   map[string]service.Observation
		want   string
	}{
		{"majority and proxy", true, serving, Allow},
		{"minority", false, serving, Deny},
		{"proxy down", true, map[string]service.Observation{"haproxy": {Reason: "dead"}}, Deny},
		{"proxy not seen yet", true, nil, Deny},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			got, reason := Guard(tc.quorum, tc.seen)
			if got != tc.want || reason == "" {
				t.Errorf("%q (%s), want %q", got, reason, tc.want)
			}
		})
	}
}

// oneUnit is a host that knows the state of one unit.
type oneUnit struct {
	host.Host
	active string
	err    error
}

func (h oneUnit) Unit(context.Context, string) (host.UnitState, error) {
	return host.UnitState{Loaded: true, Active: h.active}, h.err
}

func carrying(prefixes ...string) func() ([]net.Addr, error) {
	return func() ([]net.Addr, error) {
		var out []net.Addr
		for _, p := range prefixes {
			ip, n, err := net.ParseCIDR(p)
			if err != nil {
				return nil, err
			}
			out = append(out, &net.IPNet{IP: ip, Mask: n.Mask})
		}
		return out, nil
	}
}

func TestObserve(t *testing.T) {
	tests := []struct {
		name    string
		addrs   func() ([]net.Addr, error)
		host    oneUnit
		serving bool
		holder  string
	}{
		{"holder", carrying("127.0.0.1/8", "198.18.0.11/24", "198.18.0.10/24"), oneUnit{active: "active"}, true, "true"},
		{"standby", carrying("198.18.0.11/24"), oneUnit{active: "active"}, true, "false"},
		{"dead, address left behind", carrying("198.18.0.10/24"), oneUnit{active: "failed"}, false, "true"},
		{"systemd silent", carrying(), oneUnit{err: errors.New("no bus")}, false, "false"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			s := New(nil)
			s.addresses = tc.addrs
			o := s.Observe(t.Context(), service.Env{Host: tc.host, Cluster: servicetest.Cluster()})
			if o.Serving != tc.serving || o.Facts[service.FactHolder] != tc.holder {
				t.Errorf("serving %v, holder %s (%s)", o.Serving, o.Facts[service.FactHolder], o.Reason)
			}
		})
	}
}

func TestJudge(t *testing.T) {
	node := func(holder string) service.Observation {
		return service.Observation{Serving: true, Facts: map[string]string{service.FactHolder: holder}}
	}
	tests := []struct {
		name string
		seen map[string]service.Observation
		want []string
	}{
		{"one holder", map[string]service.Observation{"ctl1": node("false"), "ctl2": node("true"), "ctl3": node("false")}, nil},
		{"none", map[string]service.Observation{"ctl1": node("false"), "ctl2": node("false")}, []string{"vip-no-holder"}},
		{"two", map[string]service.Observation{"ctl1": node("true"), "ctl2": node("true")}, []string{"vip-two-holders"}},
		{"down", map[string]service.Observation{"ctl1": node("true"), "ctl2": {Facts: map[string]string{service.FactHolder: "false"}}}, []string{"keepalived-down"}},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			var got []string
			for _, c := range New(nil).Judge(servicetest.Cluster(), tc.seen) {
				got = append(got, c.Code)
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestPrioritiesDifferAndFit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 100).Draw(t, "nodes")
		last := 255
		for i := range n {
			p := priority(i, n)
			if p >= last || p < 1 {
				t.Fatalf("node %d of %d: priority %d after %d", i, n, p, last)
			}
			last = p
		}
	})
}

func TestResourcesFormAPlan(t *testing.T) {
	rs := testResources(t, servicetest.Cluster())
	for _, name := range []string{service.CapPackages, service.CapBase, service.CapEngine, service.CapProxy} {
		rs = append(rs, plan.Resource{ID: plan.ID(name), Action: &plan.Action{Name: name}, Provides: []string{name}})
	}
	if _, err := plan.Graph(rs); err != nil {
		t.Fatal(err)
	}
	actions := New(nil).Actions()
	for _, r := range rs {
		if r.Service == Name && r.Action != nil && actions[r.Action.Name].Run == nil {
			t.Errorf("%s: no action %s", r.ID, r.Action.Name)
		}
	}
}

func TestMissingAddress(t *testing.T) {
	c := servicetest.Cluster()
	c.VIP.Network = model.External
	if _, err := New(nil).Resources(c, nil); err == nil {
		t.Error("nodes without an address on the VIP's network are accepted")
	}
}

// The script is the real one; only its pace is not.
func TestWordIsTakenBack(t *testing.T) {
	dir := t.TempDir()
	guard, script := filepath.Join(dir, "guard"), filepath.Join(dir, "revoke.sh")
	content, err := render("revoke.sh", view{RevokeState: dir, GuardFile: guard, Deny: Deny, RevokeMissed: 2, RevokeEvery: 1})
	check(t, err)
	check(t, os.WriteFile(script, content, 0o755))
	speak := func() { check(t, os.WriteFile(guard, []byte(Allow+"\n"), 0o644)) }
	speak()
	c := exec.Command(script)
	check(t, c.Start())
	defer func() {
		c.Process.Kill()
		c.Wait()
	}()
	word := func() string {
		b, err := os.ReadFile(guard)
		check(t, err)
		return strings.TrimSpace(string(b))
	}
	for range 8 { // twice as long as it has patience
		speak()
		time.Sleep(500 * time.Millisecond)
		if word() != Allow {
			t.Fatal("the word of an agent that speaks was taken back")
		}
	}
	for deadline := time.Now().Add(10 * time.Second); word() != Deny; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the word of a silent agent stands")
		}
	}
	speak()
	time.Sleep(1200 * time.Millisecond)
	if word() != Allow {
		t.Error("an agent that speaks again is not heard")
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
