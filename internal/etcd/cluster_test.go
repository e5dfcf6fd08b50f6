package etcd

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"
)

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// authority is a certificate authority and one certificate for loopback.
type authority struct {
	ca, cert, key string // files
	tls           *tls.Config
}

func newAuthority(t testing.TB) authority {
	t.Helper()
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	check(t, err)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "ctl"},
		NotBefore: ca.NotBefore, NotAfter: ca.NotAfter, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), caKey)
	check(t, err)
	keyDER, err := x509.MarshalECPrivateKey(key)
	check(t, err)

	dir := t.TempDir()
	file := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		check(t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
		return path
	}
	a := authority{ca: file("ca.pem", "CERTIFICATE", caDER), cert: file("node.pem", "CERTIFICATE", der), key: file("node.key", "EC PRIVATE KEY", keyDER)}
	parsed, err := x509.ParseCertificate(caDER)
	check(t, err)
	roots := x509.NewCertPool()
	roots.AddCert(parsed)
	a.tls = &tls.Config{
		RootCAs: roots, MinVersion: tls.VersionTLS13,
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
	}
	return a
}

// testLog writes to the test's output, until the test ends.
func testLog(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
}

func freeAddr(t testing.TB) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// configs describes n members on loopback, named ctl1, ctl2 ...
func configs(t testing.TB, a authority, n int) []ServerConfig {
	t.Helper()
	dir := t.TempDir()
	members := map[string]string{}
	out := make([]ServerConfig, n)
	for i := range out {
		name := "ctl" + string(rune('1'+i))
		out[i] = ServerConfig{
			Name: name, Dir: filepath.Join(dir, name), ClientAddr: freeAddr(t), PeerAddr: freeAddr(t),
			Members: members, ClusterToken: "lab-0001", CAFile: a.ca, CertFile: a.cert, KeyFile: a.key, Log: testLog(t),
		}
		members[name] = "https://" + out[i].PeerAddr.String()
	}
	return out
}

// startAll starts the members side by side and waits until they serve.
func startAll(t testing.TB, cfgs []ServerConfig) []*Server {
	t.Helper()
	servers := make([]*Server, len(cfgs))
	t.Cleanup(func() { closeAll(servers) })
	for i, cfg := range cfgs {
		s, err := StartServer(context.Background(), cfg)
		check(t, err)
		servers[i] = s
	}
	for _, s := range servers {
		ready(t, s)
	}
	return servers
}

func closeAll(servers []*Server) {
	var wg sync.WaitGroup
	for _, s := range servers {
		if s != nil {
			wg.Go(func() { s.Close() })
		}
	}
	wg.Wait()
}

// noLeaks checks, after everything else has been cleaned up, that no goroutine
// started since stays. The connections of etcd between members end with their read time-out, 5 s.
func noLeaks(t testing.TB) {
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() {
		var err error
		for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
			if err = goleak.Find(before); err == nil { // waits up to half a second itself
				return
			}
		}
		t.Error(err)
	})
}

func ready(t testing.TB, s *Server) {
	t.Helper()
	select {
	case <-s.Ready():
	case <-time.After(20 * time.Second):
		t.Fatal("the member does not get ready")
	}
}

func connect(t testing.TB, a authority, cfgs ...ServerConfig) *Client {
	t.Helper()
	var endpoints []string
	for _, cfg := range cfgs {
		endpoints = append(endpoints, cfg.ClientAddr.String())
	}
	c, err := Connect(ClientConfig{Endpoints: endpoints, TLS: a.tls, Log: testLog(t)})
	check(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

// erasable is a Client whose leases can be taken away.
type erasable struct{ *Client }

func (e erasable) Expire(name string) {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	r, err := e.etcd.Get(ctx, leasesPrefix+name)
	if err == nil && len(r.Kvs) > 0 {
		_, err = e.etcd.Revoke(ctx, clientv3.LeaseID(r.Kvs[0].Lease))
	}
	if err != nil {
		panic(err)
	}
}

// erase empties the store.
func (e erasable) erase(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	_, err := e.etcd.Delete(ctx, "/", clientv3.WithPrefix())
	check(t, err)
}

func contains(t *testing.T, err error, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if err == nil || !strings.Contains(err.Error(), p) {
			t.Errorf("error %v does not say %q", err, p)
		}
	}
}
