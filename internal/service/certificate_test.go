package service

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"nines/internal/host"
	"nines/internal/host/hosttest"
	"nines/internal/model"
	"nines/internal/plan"
	"nines/internal/secret"
)

// issuer makes pairs of node ctl1, each with an own life.
type issuer struct {
	t  *testing.T
	ca *secret.CA
}

func newIssuer(t *testing.T) issuer {
	t.Helper()
	ca, err := secret.NewCA("test")
	if err != nil {
		t.Fatal(err)
	}
	return issuer{t, ca}
}

func (i issuer) pair(life time.Duration) secret.Pair {
	i.t.Helper()
	p, err := i.ca.IssueNode(secret.Request{Name: "ctl1", DNS: []string{"ctl1"}, IPs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}, TTL: life})
	if err != nil {
		i.t.Fatal(err)
	}
	return p
}

func der(p secret.Pair) []byte {
	block, _ := pem.Decode(p.Cert)
	return block.Bytes
}

// daemon is a server that loads its certificate once.
type daemon struct {
	shows []byte // nil: it does not run
	disk  *secret.Pair
	loads int
	deaf  bool // it does not do what it is told
}

func (d *daemon) shown(context.Context, Env) ([]byte, error) {
	if d.shows == nil {
		return nil, errors.New("connection refused")
	}
	return d.shows, nil
}

func (d *daemon) load(context.Context, Env) error {
	if d.loads++; !d.deaf {
		d.shows = der(*d.disk)
	}
	return nil
}

func envWith(t *testing.T, p secret.Pair) Env {
	t.Helper()
	h := hosttest.New()
	if err := h.WriteFile(t.Context(), host.File{Path: model.PathCert, Mode: 0o644, Owner: "root", Group: "root", Content: p.Cert}, nil); err != nil {
		t.Fatal(err)
	}
	return Env{Host: h}
}

func TestCertificateAction(t *testing.T) {
	issue := newIssuer(t)
	old, renewed, ended := issue.pair(time.Hour), issue.pair(24*time.Hour), issue.pair(-time.Minute)
	for name, tc := range map[string]struct {
		disk  secret.Pair
		shows []byte
		done  bool
	}{
		"the present one":              {renewed, der(renewed), true},
		"the one before":               {renewed, der(old), false},
		"an expired one":               {renewed, der(ended), false},
		"not running":                  {renewed, nil, true},
		"an expired one is not loaded": {ended, der(old), true},
	} {
		t.Run(name, func(t *testing.T) {
			d := &daemon{shows: tc.shows, disk: &tc.disk}
			a, env := Certificate(d.shown, d.load), envWith(t, tc.disk)
			done, reason, err := a.Check(t.Context(), env, nil)
			if err != nil || done != tc.done || done != (reason == "") {
				t.Fatalf("done %v (%s), %v, want %v", done, reason, err, tc.done)
			}
			if done {
				return
			}
			if err := a.Run(t.Context(), env, nil); err != nil {
				t.Fatal(err)
			}
			if done, reason, err := a.Check(t.Context(), env, nil); !done || err != nil || d.loads != 1 {
				t.Errorf("after %d loads: done %v (%s), %v", d.loads, done, reason, err)
			}
		})
	}
}

func TestDaemonThatKeepsItsCertificateIsTold(t *testing.T) {
	issue := newIssuer(t)
	old, renewed := issue.pair(time.Hour), issue.pair(24*time.Hour)
	d := &daemon{shows: der(old), disk: &renewed, deaf: true}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	err := Certificate(d.shown, d.load).Run(ctx, envWith(t, renewed), nil)
	if err == nil || !strings.Contains(err.Error(), "uses the certificate that ends") {
		t.Errorf("got %v, want an error that says which one it uses", err)
	}
}

func TestShownAt(t *testing.T) {
	ended := newIssuer(t).pair(-time.Minute)
	pair, err := tls.X509KeyPair(ended.Cert, ended.Key)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_ = conn.(*tls.Conn).Handshake() // the other side says whether it went well
			conn.Close()
		}
	}()
	got, err := ShownAt(t.Context(), l.Addr().String())
	if err != nil || string(got) != string(der(ended)) {
		t.Errorf("%d bytes, %v, want the expired certificate", len(got), err)
	}
}

func TestShownAtSilentServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // nobody accepts: as a frozen process
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := ShownAt(ctx, l.Addr().String()); err == nil {
		t.Error("no error")
	}
}

// One node after the other, and no unit before all have theirs.
func TestCertificatesAreLoadedOneByOne(t *testing.T) {
	nodes := []model.Node{{Name: "ctl1"}, {Name: "ctl2"}, {Name: "ctl3"}}
	rs := CertificateResources("galera", nodes)
	for _, n := range nodes {
		rs = append(rs, plan.Resource{ID: plan.Make("galera", n.Name, "unit", "u"), Service: "galera", Node: n.Name,
			Unit: &plan.Unit{Name: "u"}, After: []plan.ID{CertificatesLoaded("galera", nodes)}})
	}
	seen := plan.Observed{Resources: map[plan.ID]plan.Status{}}
	for _, r := range rs {
		seen.Resources[r.ID] = plan.Status{State: plan.Drifted, Change: "restart"}
	}
	p, err := plan.Build("spec", rs, seen)
	if err != nil {
		t.Fatal(err)
	}
	done := map[plan.ID]bool{}
	for _, op := range p.Ops {
		for _, before := range op.After {
			if !done[before] {
				t.Errorf("%s comes before %s", op.ID, before)
			}
		}
		if strings.Contains(string(op.ID), "certificate") && len(done) > 0 && len(op.After) != 1 {
			t.Errorf("%s waits for %v, want the node before it", op.ID, op.After)
		}
		done[op.ID] = true
	}
	if len(p.Ops) != 6 {
		t.Errorf("%d ops", len(p.Ops))
	}
}
