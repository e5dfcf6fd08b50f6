package pacemaker

import (
	"context"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"nines/internal/host"
	"nines/internal/host/hosttest"
	"nines/internal/model"
	"nines/internal/plan"
	"nines/internal/secret"
	"nines/internal/service"
	"nines/internal/service/servicetest"
)

func testEnv(h host.Host) service.Env {
	c := cluster(false)
	return service.Env{Host: h, Cluster: c, Node: c.Nodes[0]}
}

// running is a machine where both daemons run and crm_mon says what is in the file.
func running(t *testing.T, report string) *hosttest.Host {
	t.Helper()
	text, err := os.ReadFile("testdata/" + report)
	if err != nil {
		t.Fatal(err)
	}
	h := hosttest.New()
	for _, unit := range []string{Unit, UnitCorosync} {
		h.PutUnit(unit, host.UnitState{Loaded: true, Active: "active"})
	}
	h.Answer("crm_mon", string(text), 0)
	return h
}

func observe(t *testing.T, h host.Host) service.Observation {
	t.Helper()
	s := New(nil)
	s.addresses = func() ([]net.Addr, error) {
		return []net.Addr{&net.IPNet{IP: net.IPv4(198, 18, 0, 10), Mask: net.CIDRMask(24, 32)}}, nil
	}
	return s.Observe(t.Context(), testEnv(h))
}

func TestObserve(t *testing.T) {
	o := observe(t, running(t, "crm_mon-whole.xml"))
	if !o.Serving || o.Facts[service.FactHolder] != "true" || o.Facts[factOnline] != "ctl1 ctl2 ctl3" || o.Facts[factFailed] != "" || o.Reason != "holds the VIP" {
		t.Errorf("%+v", o)
	}
	o = observe(t, running(t, "crm_mon-failed.xml"))
	if !o.Serving || !strings.Contains(o.Facts[factFailed], "haproxy on ctl") || !strings.Contains(o.Facts[factOnline], "ctl") {
		t.Errorf("%+v", o)
	}
	if strings.Contains(o.Facts[factFailed], "ctl1") || strings.Contains(o.Facts[factFailed], "ctl3") {
		t.Errorf("what works again is shown as failed: %s", o.Facts[factFailed])
	}
	o = observe(t, running(t, "crm_mon-minority.xml"))
	if o.Serving || o.Facts[factQuorum] != "false" {
		t.Errorf("%+v", o)
	}
	loose := running(t, "crm_mon-whole.xml")
	text, _ := os.ReadFile("testdata/crm_mon-whole.xml")
	loose.Answer("crm_mon", strings.ReplaceAll(strings.Replace(string(text), `maintenance-mode="false"`, `maintenance-mode="true"`, 1), `maintenance="false"`, `maintenance="true"`), 0)
	if o := observe(t, loose); !o.Serving || o.Facts[factLoose] != "true" || o.Facts[factHeld] != "" {
		t.Errorf("%+v", o)
	}
	down := running(t, "crm_mon-whole.xml")
	down.Halt(UnitCorosync, "failed")
	if o := observe(t, down); o.Serving || len(o.Conditions) != 1 || o.Conditions[0].Code != "pacemaker-down" {
		t.Errorf("%+v", o)
	}
}

func TestLostLinks(t *testing.T) {
	h := running(t, "crm_mon-whole.xml")
	link := func(id, ctl2 string) string {
		return "LINK ID " + id + " udp\n\taddr\t= 198.18.0.11\n\tstatus:\n\t\tnodeid:          1:\tlocalhost\n\t\tnodeid:          2:\t" + ctl2 + "\n\t\tnodeid:          3:\tconnected\n"
	}
	h.Answer("corosync-cfgtool -s", "Local node ID 1, transport knet\n"+link("0", "connected")+link("1", "connected"), 0)
	if o := observe(t, h); len(o.Conditions) != 0 {
		t.Errorf("%+v", o.Conditions)
	}
	h.Answer("corosync-cfgtool -s", link("0", "connected")+link("1", "disconnected"), 0)
	if o := observe(t, h); len(o.Conditions) != 1 || !strings.HasSuffix(o.Conditions[0].Text, "no answer from ctl2 over tenant") || !o.Serving {
		t.Errorf("%+v", o.Conditions)
	}
}

func TestJudge(t *testing.T) {
	node := func(holder, quorum string, more ...string) service.Observation {
		o := service.Observation{Serving: quorum == "true", Facts: map[string]string{service.FactHolder: holder, factQuorum: quorum, factOnline: "ctl1 ctl2 ctl3", factKey: "k"}}
		for i := 0; i < len(more); i += 2 {
			o.Facts[more[i]] = more[i+1]
		}
		return o
	}
	type seen = map[string]service.Observation
	for name, tc := range map[string]struct {
		seen seen
		want []string
	}{
		"whole":   {seen{"ctl1": node("true", "true"), "ctl2": node("false", "true"), "ctl3": node("false", "true")}, nil},
		"two":     {seen{"ctl1": node("true", "true"), "ctl2": node("true", "true")}, []string{"vip-two-holders"}},
		"nobody":  {seen{"ctl1": node("false", "false"), "ctl2": node("false", "false")}, []string{"vip-no-holder", "corosync-no-quorum", "corosync-no-quorum"}},
		"outside": {seen{"ctl1": node("true", "true", factOnline, "ctl1 ctl3"), "ctl2": node("false", "")}, []string{"corosync-not-member"}},
		"key":     {seen{"ctl1": node("true", "true"), "ctl2": node("false", "true", factKey, "other"), "ctl3": node("false", "true")}, []string{"corosync-authkey-differs"}},
		"failed":  {seen{"ctl1": node("true", "true", factFailed, "vip on ctl2: not running")}, []string{"pacemaker-resource-failed"}},
		"loose":   {seen{"ctl1": node("true", "true", factLoose, "true")}, []string{"pacemaker-unmanaged"}},
		"unclean": {seen{"ctl1": node("true", "true", factOff, "ctl3", factHeld, "ctl2")}, []string{"pacemaker-unclean", "pacemaker-held"}},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, c := range New(nil).Judge(cluster(false), tc.seen) {
				got = append(got, c.Code)
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

// The configuration is written once, checked before, and what failed is forgotten then.
func TestTell(t *testing.T) {
	h := running(t, "crm_mon-whole.xml")
	live := `<cib validate-with="pacemaker-4.0" epoch="7"><configuration><crm_config/><nodes/><resources/><constraints/></configuration><status/></cib>`
	h.Handle("cibadmin --query", func(host.Cmd) (host.Output, error) { return host.Output{Stdout: []byte(live)}, nil })
	h.Answer("crm_verify", "", 0)
	h.Handle("cibadmin --replace", func(cmd host.Cmd) (host.Output, error) {
		live = `<cib>` + string(cmd.Stdin) + `</cib>`
		return host.Output{}, nil
	})
	env := testEnv(h)
	done, reason, err := told(t.Context(), env, nil)
	if done || err != nil || !strings.Contains(reason, "vip is missing") {
		t.Fatal(done, reason, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	if err := tell(ctx, env, nil); err != nil {
		t.Fatal(err)
	}
	if done, reason, err := told(t.Context(), env, nil); !done || err != nil {
		t.Fatal(reason, err)
	}
	h.Answer("cibadmin --query", "", 102)
	if done, reason, err := told(t.Context(), env, nil); done || err != nil || !strings.Contains(reason, "does not answer") {
		t.Error(done, reason, err)
	}
}

func TestRefusedByPacemaker(t *testing.T) {
	h := running(t, "crm_mon-whole.xml")
	h.Answer("cibadmin --query", `<cib><configuration/></cib>`, 0)
	h.Answer("crm_verify", "wrong", 78)
	if err := tell(t.Context(), testEnv(h), nil); err == nil || !strings.Contains(err.Error(), "the old one stays") {
		t.Error(err)
	}
}

// What it remembers of a time before is forgotten only where another engine still has the VIP.
func TestStart(t *testing.T) {
	for active, forgets := range map[string]bool{"active": true, "inactive": false} {
		h := running(t, "crm_mon-whole.xml")
		h.Halt(Unit, "inactive")
		h.PutUnit("keepalived.service", host.UnitState{Loaded: true, Active: active})
		forgot := false
		h.Handle("find /var/lib/pacemaker/cib", func(host.Cmd) (host.Output, error) {
			forgot = true
			return host.Output{}, nil
		})
		if err := start(context.Background(), testEnv(h), nil); err != nil || forgot != forgets {
			t.Errorf("keepalived %s: forgot %v, %v", active, forgot, err)
		}
	}
}

func TestReloaded(t *testing.T) {
	h := hosttest.New()
	lines := "totem.token (u32) = 600\ntotem.consensus (u32) = 720\nquorum.expected_votes (u32) = 3\n"
	for i, n := range []string{"11", "12", "13"} {
		lines += "nodelist.node." + string(rune('0'+i)) + ".ring0_addr (str) = 198.18.0." + n + "\nnodelist.node." + string(rune('0'+i)) + ".ring1_addr (str) = 198.18.2." + n + "\n"
	}
	h.Answer("corosync-cmapctl", lines, 0)
	if done, reason, err := reloaded(t.Context(), testEnv(h), nil); !done || err != nil {
		t.Error(reason, err)
	}
	h.Answer("corosync-cmapctl", strings.Replace(lines, "600", "3000", 1), 0)
	if done, reason, _ := reloaded(t.Context(), testEnv(h), nil); done || reason != "runs with totem.token = 3000" {
		t.Error(done, reason)
	}
}

func TestLinks(t *testing.T) {
	c := servicetest.Cluster()
	if got := networks(c); !slices.Equal(got, []model.NetworkName{model.Management, model.Tenant}) {
		t.Error(got)
	}
	delete(c.Nodes[2].Addresses, model.Tenant)
	if got := networks(c); !slices.Equal(got, []model.NetworkName{model.Management}) {
		t.Errorf("a link that one controller lacks: %v", got)
	}
}

func TestPasswordsStandInNoCIB(t *testing.T) {
	for _, r := range resources(t, cluster(true)) {
		if r.File != nil && strings.Contains(string(r.File.Content), "hunter2") && r.File.Mode&0o077 != 0 {
			t.Errorf("%s is readable by others", r.ID)
		}
	}
	if _, err := New(nil).Resources(cluster(true), secret.Map{SecretKey: "x"}); err == nil || !strings.Contains(err.Error(), "nines fence password ctl1") {
		t.Errorf("a missing password: %v", err)
	}
}

func TestResourcesFormAPlan(t *testing.T) {
	rs := resources(t, cluster(true))
	for _, name := range []string{service.CapPackages, service.CapBase, service.CapProxyFiles, service.CapProxy} {
		rs = append(rs, plan.Resource{ID: plan.ID(name), Action: &plan.Action{Name: name}, Provides: []string{name}})
	}
	if _, err := plan.Graph(rs); err != nil {
		t.Fatal(err)
	}
}

// Whoever was switched off is told, with the time, and only by nodes that take part in the majority.
func TestFenced(t *testing.T) {
	text, err := os.ReadFile("testdata/crm_mon-whole.xml")
	if err != nil {
		t.Fatal(err)
	}
	event := func(target, action, status, at string) string {
		return `<fence_event action="` + action + `" target="` + target + `" client="pacemaker-controld.9" origin="ctl1" status="` + status + `" delegate="ctl1" completed="` + at + `"/>`
	}
	h := running(t, "crm_mon-whole.xml")
	h.Answer("crm_mon", strings.Replace(string(text), "</pacemaker-result>", `<fence_history status="0">`+
		event("ctl3", "off", "success", "2026-11-28 19:30:00.250000Z")+event("ctl3", "off", "success", "2026-11-28 18:30:00.000000Z")+
		event("ctl2", "off", "success", "2026-11-28 20:30:00.000000 +01:00")+event("ctl1", "off", "failed", "2026-11-28 19:30:00.000000Z")+
		event("ctl1", "reboot", "success", "2026-11-28 19:30:00.000000Z")+`</fence_history></pacemaker-result>`, 1), 0)
	o := observe(t, h)
	got := New(nil).Fenced(map[string]service.Observation{"ctl1": o, "ctl2": {}, "ctl3": {Facts: map[string]string{factFenced: "ctl1 2026-11-28T19:40:00Z"}}})
	at := time.Date(2026, 11, 28, 19, 30, 0, 0, time.UTC)
	if len(got) != 2 || !got["ctl2"].Equal(at) || !got["ctl3"].Equal(at.Add(250*time.Millisecond)) {
		t.Errorf("%v of %q", got, o.Facts[factFenced])
	}
}
