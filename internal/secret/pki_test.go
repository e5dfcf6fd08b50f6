package secret

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func testCA(t testing.TB) *CA {
	t.Helper()
	ca, err := NewCA("lab")
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func nodeRequest() Request {
	return Request{Name: "ctl1", DNS: []string{"ctl1", "localhost"}, IPs: []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("198.18.0.11")}}
}

func issue(t testing.TB, ca *CA, r Request) Pair {
	t.Helper()
	p, err := ca.IssueNode(r)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestCASurvivesBeingStored(t *testing.T) {
	ca := testCA(t)
	again, err := ParseCA(ca.Pair())
	if err != nil {
		t.Fatal(err)
	}
	if reason := ca.Stale(issue(t, again, nodeRequest()), nodeRequest(), time.Now()); reason != "" {
		t.Fatal(reason)
	}
	if _, err := ParseCA(issue(t, ca, nodeRequest())); err == nil {
		t.Fatal("a node's certificate was taken as authority")
	}
	if left := time.Until(ca.cert.NotAfter); left < 9*365*24*time.Hour {
		t.Fatalf("valid for %s only", left)
	}
}

func TestNodeCertificate(t *testing.T) {
	ca := testCA(t)
	pair := issue(t, ca, nodeRequest())
	c, err := parseCert(pair.Cert)
	if err != nil {
		t.Fatal(err)
	}
	if key, ok := c.PublicKey.(*ecdsa.PublicKey); !ok || key.Curve != elliptic.P256() {
		t.Error("not ECDSA P-256")
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca.cert)
	for _, use := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		for _, name := range []string{"ctl1", "localhost", "127.0.0.1", "198.18.0.11"} {
			if _, err := c.Verify(x509.VerifyOptions{Roots: roots, DNSName: name, KeyUsages: []x509.ExtKeyUsage{use}}); err != nil {
				t.Error(err)
			}
		}
	}
	if role, name := PeerRole(c); role != RoleNode || name != "ctl1" {
		t.Errorf("role %q, name %q", role, name)
	}
	behind := time.Now().Add(-4 * time.Minute)
	if _, err := c.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: behind}); err != nil {
		t.Errorf("a machine whose clock is 4 minutes behind: %v", err)
	}
	v, err := Validity(pair.Cert)
	if err != nil || v.NotAfter.Sub(time.Now().Add(DefaultTTL)).Abs() > time.Minute {
		t.Errorf("expires %s, %v", v.NotAfter, err)
	}
}

func TestOperatorCertificateIsNoServer(t *testing.T) {
	ca := testCA(t)
	pair, err := ca.IssueOperator("alice", 0)
	if err != nil {
		t.Fatal(err)
	}
	c, err := parseCert(pair.Cert)
	if err != nil {
		t.Fatal(err)
	}
	if role, name := PeerRole(c); role != RoleOperator || name != "alice" {
		t.Errorf("role %q, name %q", role, name)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca.cert)
	if _, err := c.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}); err == nil {
		t.Error("it may serve")
	}
}

func TestSerialsDiffer(t *testing.T) {
	ca := testCA(t)
	seen := map[string]bool{}
	for range 30 {
		c, err := parseCert(issue(t, ca, nodeRequest()).Cert)
		if err != nil {
			t.Fatal(err)
		}
		if s := c.SerialNumber.String(); seen[s] || c.SerialNumber.Sign() <= 0 {
			t.Fatalf("serial %s", s)
		} else {
			seen[s] = true
		}
	}
}

func TestStale(t *testing.T) {
	ca, other := testCA(t), testCA(t)
	now := time.Now()
	good := issue(t, ca, nodeRequest())
	moved := nodeRequest()
	moved.IPs = append(moved.IPs, netip.MustParseAddr("198.18.1.11"))
	renamed := nodeRequest()
	renamed.Name = "ctl2"
	short := nodeRequest()
	short.TTL = 24 * time.Hour
	operator, err := ca.IssueOperator("ctl1", 0)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		have Pair
		want Request
		at   time.Time
		say  string
	}{
		"good":                   {good, nodeRequest(), now, ""},
		"no certificate":         {Pair{}, nodeRequest(), now, "missing"},
		"no key":                 {Pair{Cert: good.Cert}, nodeRequest(), now, "missing"},
		"garbage":                {Pair{Cert: []byte("x"), Key: []byte("y")}, nodeRequest(), now, "damaged"},
		"key of another":         {Pair{Cert: good.Cert, Key: issue(t, ca, nodeRequest()).Key}, nodeRequest(), now, "damaged"},
		"another authority":      {issue(t, other, nodeRequest()), nodeRequest(), now, "issued by another authority"},
		"an address more":        {good, moved, now, "names or addresses have changed"},
		"another name":           {good, renamed, now, "issued for another name"},
		"an operator's":          {operator, nodeRequest(), now, "issued for another name"},
		"short, near its end":    {issue(t, ca, short), nodeRequest(), now.Add(17 * time.Hour), "expires soon"},
		"expired":                {good, nodeRequest(), now.Add(DefaultTTL + time.Hour), "expired"},
		"from the future":        {good, nodeRequest(), now.Add(-time.Hour), "not valid yet"},
		"more than a third left": {good, nodeRequest(), now.Add(DefaultTTL*2/3 - time.Hour), ""},
		"less than a third left": {good, nodeRequest(), now.Add(DefaultTTL*2/3 + time.Hour), "expires soon"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := ca.Stale(tc.have, tc.want, tc.at); got != tc.say {
				t.Errorf("got %q, want %q", got, tc.say)
			}
		})
	}
	if got := ca.StaleOperator(operator, now); got != "" {
		t.Error(got)
	}
	if got := ca.StaleOperator(good, now); got == "" {
		t.Error("a node's certificate passed as an operator's")
	}
}

func TestWhatWasIssuedIsNotStale(t *testing.T) {
	ca := testCA(t)
	rapid.Check(t, func(t *rapid.T) {
		r := Request{Name: rapid.StringMatching(`[a-z][a-z0-9-]{0,20}`).Draw(t, "name"),
			DNS: rapid.SliceOfN(rapid.StringMatching(`[a-z][a-z0-9-]{0,20}`), 0, 4).Draw(t, "dns")}
		for range rapid.IntRange(0, 4).Draw(t, "addresses") {
			b := rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "address")
			a, _ := netip.AddrFromSlice(b)
			if rapid.Bool().Draw(t, "v4") {
				a, _ = netip.AddrFromSlice(b[:4])
			}
			r.IPs = append(r.IPs, a.Unmap())
		}
		pair, err := ca.IssueNode(r)
		if err != nil {
			t.Fatal(err)
		}
		if reason := ca.Stale(pair, r, time.Now()); reason != "" {
			t.Fatal(reason)
		}
	})
}

func TestPeerRoleOfStrangers(t *testing.T) {
	for _, c := range []*x509.Certificate{nil, {}, testCA(t).cert} {
		if role, name := PeerRole(c); role != "" || name != "" {
			t.Errorf("role %q, name %q", role, name)
		}
	}
}

func FuzzValidity(f *testing.F) {
	f.Add(issue(f, testCA(f), nodeRequest()).Cert)
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if v, err := Validity(text); err == nil && v.NotAfter.IsZero() {
			t.Fatal("no end and no error")
		}
	})
}

// files writes the pair and the authority and returns their paths.
func files(t *testing.T, dir string, ca *CA, p Pair) (string, string, string) {
	t.Helper()
	paths := []string{filepath.Join(dir, "ca.pem"), filepath.Join(dir, "node.pem"), filepath.Join(dir, "node.key")}
	for i, text := range [][]byte{ca.Pair().Cert, p.Cert, p.Key} {
		if err := os.WriteFile(paths[i], text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return paths[0], paths[1], paths[2]
}

// shake connects a client to a server in memory and returns what each saw of the other.
func shake(t *testing.T, server, client *tls.Config) (ofServer, ofClient *x509.Certificate, err error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	type seen struct {
		cert *x509.Certificate
		err  error
	}
	done := make(chan seen, 1)
	go func() {
		raw, err := l.Accept()
		if err != nil {
			done <- seen{err: err}
			return
		}
		defer raw.Close()
		c := tls.Server(raw, server)
		if err := c.Handshake(); err != nil {
			done <- seen{err: err}
			return
		}
		done <- seen{cert: c.ConnectionState().PeerCertificates[0]}
	}()
	c, err := tls.Dial("tcp", l.Addr().String(), client)
	if err != nil {
		return nil, nil, err
	}
	defer c.Close()
	s := <-done
	return c.ConnectionState().PeerCertificates[0], s.cert, s.err
}

func TestMutualTLS(t *testing.T) {
	ca, other := testCA(t), testCA(t)
	node := issue(t, ca, nodeRequest())
	server, err := ServerTLS(files(t, t.TempDir(), ca, node))
	if err != nil {
		t.Fatal(err)
	}
	operator, err := ca.IssueOperator("alice", 0)
	if err != nil {
		t.Fatal(err)
	}
	clientOf := func(trust *CA, p Pair) *tls.Config {
		c, err := ClientTLS(files(t, t.TempDir(), trust, p))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	t.Run("an operator is let in and known", func(t *testing.T) {
		_, peer, err := shake(t, server, clientOf(ca, operator))
		if err != nil {
			t.Fatal(err)
		}
		if role, name := PeerRole(peer); role != RoleOperator || name != "alice" {
			t.Errorf("role %q, name %q", role, name)
		}
	})
	for name, client := range map[string]*tls.Config{
		"the certificate of another cluster": clientOf(ca, issue(t, other, nodeRequest())),
		"trust in another cluster":           clientOf(other, operator),
		"no certificate":                     {RootCAs: clientOf(ca, operator).RootCAs},
		"TLS 1.2":                            {RootCAs: clientOf(ca, operator).RootCAs, MaxVersion: tls.VersionTLS12},
	} {
		t.Run("refused: "+name, func(t *testing.T) {
			if _, _, err := shake(t, server, client); err == nil {
				t.Error("let in")
			}
		})
	}
	t.Run("refused: an operator as server", func(t *testing.T) {
		fake, err := ServerTLS(files(t, t.TempDir(), ca, operator))
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := shake(t, fake, clientOf(ca, node)); err == nil {
			t.Error("trusted")
		}
	})
}

func TestRenewedCertificateIsTakenFromDisk(t *testing.T) {
	ca, dir := testCA(t), t.TempDir()
	first, second := issue(t, ca, nodeRequest()), issue(t, ca, nodeRequest())
	caPath, certPath, keyPath := files(t, dir, ca, first)
	server, err := ServerTLS(caPath, certPath, keyPath)
	if err != nil {
		t.Fatal(err)
	}
	client, err := ClientTLS(caPath, certPath, keyPath)
	if err != nil {
		t.Fatal(err)
	}
	expect := func(step string, want Pair) {
		t.Helper()
		s, c, err := shake(t, server, client)
		if err != nil {
			t.Fatalf("%s: %v", step, err)
		}
		w, err := parseCert(want.Cert)
		if err != nil {
			t.Fatal(err)
		}
		if !s.Equal(w) || !c.Equal(w) {
			t.Errorf("%s: another certificate is used", step)
		}
	}
	// write gives each version its own time: a file system's clock may be coarse.
	version := time.Now()
	write := func(path string, text []byte) {
		t.Helper()
		version = version.Add(time.Second)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, version, version); err != nil {
			t.Fatal(err)
		}
	}
	expect("at first", first)
	write(keyPath, second.Key)
	expect("between the two writes", first)
	write(certPath, second.Cert)
	expect("renewed", second)
	third := issue(t, ca, nodeRequest())
	sameTime := func(path string, text []byte) {
		t.Helper()
		write(path+".new", text)
		if err := os.Chtimes(path+".new", time.Unix(0, 0), time.Unix(0, 0)); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	sameTime(keyPath, third.Key)
	sameTime(certPath, third.Cert)
	expect("renewed by rename, with an old time", third)
	sameTime(keyPath, first.Key)
	sameTime(certPath, first.Cert)
	expect("and again with the same time", first)
	second = first
	if err := os.Remove(certPath); err != nil {
		t.Fatal(err)
	}
	expect("file gone", second)
}

func TestTLSNamesTheFileThatIsWrong(t *testing.T) {
	ca := testCA(t)
	caPath, certPath, keyPath := files(t, t.TempDir(), ca, issue(t, ca, nodeRequest()))
	if _, err := ServerTLS(filepath.Join(t.TempDir(), "none"), certPath, keyPath); err == nil {
		t.Error("without an authority")
	}
	if _, err := ServerTLS(keyPath, certPath, keyPath); err == nil {
		t.Error("with a key as authority")
	}
	if _, err := ClientTLS(caPath, caPath, keyPath); err == nil {
		t.Error("with a foreign key")
	}
}
