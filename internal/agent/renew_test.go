package agent

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"nines/internal/api"
	"nines/internal/host"
	"nines/internal/host/hosttest"
	"nines/internal/model"
	"nines/internal/plan"
	"nines/internal/secret"
)

func TestInstallCertificate(t *testing.T) {
	ca, err := secret.NewCA("test")
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := secret.NewCA("other")
	if err != nil {
		t.Fatal(err)
	}
	issue := func(ca *secret.CA, name string, life time.Duration) secret.Pair {
		p, err := ca.IssueNode(secret.Request{Name: name, IPs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}, TTL: life})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	operator, err := ca.IssueOperator("ctl1", 0)
	if err != nil {
		t.Fatal(err)
	}
	old, good := issue(ca, "ctl1", time.Hour), issue(ca, "ctl1", 2*time.Hour)
	for name, tc := range map[string]struct {
		pair secret.Pair
		says string // "": it is taken
	}{
		"renewed":               {good, ""},
		"another authority's":   {issue(foreign, "ctl1", 2*time.Hour), "verification failure"},
		"another node's":        {issue(ca, "ctl2", 2*time.Hour), "ctl2"},
		"an operator's":         {operator, "operator"},
		"an older one":          {issue(ca, "ctl1", time.Minute), "does not last longer"},
		"another key":           {secret.Pair{Cert: good.Cert, Key: old.Key}, "does not match"},
		"no certificate at all": {secret.Pair{}, "certificate"},
		"one that is over":      {issue(ca, "ctl1", -time.Minute), "not valid now"},
	} {
		t.Run(name, func(t *testing.T) {
			h := hosttest.New()
			h.PutFile(host.File{Path: model.PathCA, Mode: 0o644, Content: ca.Pair().Cert})
			h.PutFile(host.File{Path: model.PathCert, Mode: 0o644, Content: old.Cert})
			h.PutFile(host.File{Path: model.PathKey, Mode: 0o640, Content: old.Key})
			err := installCertificate(t.Context(), h, api.CertificateRequest{Node: "ctl1", Cert: tc.pair.Cert, Key: tc.pair.Key}, time.Now())
			cert, _ := h.ReadFile(model.PathCert)
			key, _ := h.ReadFile(model.PathKey)
			if tc.says == "" {
				if err != nil || string(cert.Content) != string(good.Cert) || string(key.Content) != string(good.Key) || key.Mode != 0o640 || key.Group != model.GroupTLS {
					t.Errorf("%v; key %v %s", err, key.Mode, key.Group)
				}
				// A crash between the two writes, or a second request: the key comes first.
				if calls := h.Calls(); len(calls) != 2 || !strings.HasSuffix(calls[0], model.PathKey) {
					t.Errorf("did %q", calls)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("error %v, want %q", err, tc.says)
			}
			if string(cert.Content) != string(old.Cert) || string(key.Content) != string(old.Key) {
				t.Error("the old pair is gone")
			}
		})
	}
}

func TestWhoIsDue(t *testing.T) {
	now := time.Date(2027, 6, 1, 0, 0, 0, 0, time.UTC)
	const day = 24 * time.Hour
	authority := model.Validity{NotBefore: now.Add(-9 * 365 * day), NotAfter: now.Add(365 * day)}
	node := func(name string, life, left time.Duration) api.NodeStatus {
		v := model.Validity{NotBefore: now.Add(left - life), NotAfter: now.Add(left)}
		return api.NodeStatus{Node: name, Report: &api.NodeReport{Version: api.Version{Certificate: v}}}
	}
	due, newest := dueOf([]api.NodeStatus{node("good", 300*day, 200*day), node("due", 300*day, 99*day), {Node: "away"}, node("expired", 300*day, -day),
		{Node: "unreadable", Report: &api.NodeReport{}}, node("as long as the authority", 4000*day, 365*day)}, authority, now)
	var got []string
	for _, n := range due {
		got = append(got, n.Node)
	}
	if s := strings.Join(got, " "); s != "due expired" {
		t.Errorf("due: %s", s)
	}
	if want := now.Add(-100 * day); !newest.Equal(want) {
		t.Errorf("newest %s, want %s", newest, want)
	}
}

func TestRenewalAppliesNothingElse(t *testing.T) {
	load := plan.Op{ID: plan.Make("haproxy", "ctl1", "action", "certificate"), Kind: "action"}
	edit := plan.Op{ID: plan.Make("haproxy", "ctl1", "file", "config"), Kind: "file", Summary: "write haproxy.cfg"}
	if why := onlyLoads(plan.Plan{Ops: []plan.Op{load, load}}); why != "" {
		t.Errorf("loads alone: %s", why)
	}
	if why := onlyLoads(plan.Plan{Ops: []plan.Op{load, edit}}); !strings.Contains(why, "haproxy.cfg") {
		t.Errorf("something was edited: %q", why)
	}
	if why := onlyLoads(plan.Plan{Ops: []plan.Op{load}, Blocked: []plan.Block{{Text: "ctl2 does not answer"}}}); !strings.Contains(why, "ctl2") {
		t.Errorf("a node is away: %q", why)
	}
}

// Where the operator wants to have the authority's key alone, the controllers forget it.
func TestAuthorityKeyIsDropped(t *testing.T) {
	for by, kept := range map[model.Renewer]bool{model.RenewedByLeader: true, model.RenewedByOperator: false, "": true} {
		h := hosttest.New()
		h.PutFile(host.File{Path: model.PathAuthorityKey, Mode: 0o600, Content: []byte("key")})
		a := &Agent{Options: Options{Host: h}}
		a.dropAuthority(&model.Cluster{Certificates: model.Certificates{RenewedBy: by}})
		if _, err := h.ReadFile(model.PathAuthorityKey); (err == nil) != kept {
			t.Errorf("renewed by %q: %v", by, err)
		}
	}
}

func TestLoadingIsTriedLessAndLess(t *testing.T) {
	issued := time.Date(2027, 6, 1, 0, 0, 0, 0, time.UTC)
	var l loading
	tries := 0
	for now := issued; now.Sub(issued) < time.Hour; now = now.Add(renewEvery) {
		if l.due(issued, now) {
			tries++
			l.tried(false, issued, now) // a node is away
		}
	}
	if tries < 5 || tries > 10 {
		t.Errorf("%d tries in an hour", tries)
	}
	if l.due(issued, issued.Add(2*fresh)) {
		t.Error("it is tried for ever")
	}
	l.tried(true, issued, issued.Add(time.Hour))
	if l.due(issued, issued.Add(2*time.Hour)) {
		t.Error("what is done is tried again")
	}
	if !l.due(issued.Add(time.Hour), issued.Add(time.Hour)) {
		t.Error("a new certificate waits for the failures of an old one")
	}
}
