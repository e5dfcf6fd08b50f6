package api

import (
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nines/internal/secret"
)

// side writes the files of one side of a connection; life is that of its certificate.
func side(t *testing.T, ca *secret.CA, life time.Duration) (caPath, certPath, keyPath string) {
	t.Helper()
	pair, err := ca.IssueNode(secret.Request{Name: "ctl1", DNS: []string{"ctl1"}, IPs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}, TTL: life})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	paths := []string{filepath.Join(dir, "ca.pem"), filepath.Join(dir, "node.pem"), filepath.Join(dir, "node.key")}
	for i, text := range [][]byte{ca.Pair().Cert, pair.Cert, pair.Key} {
		if err := os.WriteFile(paths[i], text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return paths[0], paths[1], paths[2]
}

// An expired certificate on either side is told with its date, and with what to do.
func TestExpiredCertificates(t *testing.T) {
	ca, err := secret.NewCA("test")
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		agent, caller time.Duration
		says          string
		agents        bool // it is the agent's that has expired
	}{
		"the agent's":  {-time.Minute, time.Hour, "its certificate expired on 20", true},
		"the caller's": {time.Hour, -time.Minute, "does not accept the certificate it was asked with", false},
	} {
		t.Run(name, func(t *testing.T) {
			serverTLS, err := secret.ServerTLS(side(t, ca, tc.agent))
			if err != nil {
				t.Fatal(err)
			}
			clientTLS, err := secret.ClientTLS(side(t, ca, tc.caller))
			if err != nil {
				t.Fatal(err)
			}
			addr := serve(t, serverTLS)
			c := NewClient(clientTLS, []string{addr})
			defer c.Close()
			_, err = c.Version(t.Context(), addr)
			var unreachable *UnreachableError
			if !errors.As(err, &unreachable) || !strings.Contains(err.Error(), tc.says) || !strings.Contains(unreachable.Hint(), "nines apply") {
				t.Errorf("got %v, want %q and what to do", err, tc.says)
			}
			if Expired(err) != tc.agents {
				t.Errorf("Expired says %v of %v", !tc.agents, err)
			}
			_, err = c.Status(t.Context(), LookForDrift)
			var nobody *NobodyError
			if !errors.As(err, &nobody) || !strings.Contains(err.Error(), tc.says) || !strings.Contains(nobody.Hint(), "over SSH") {
				t.Errorf("nobody answers: got %v", err)
			}
		})
	}
}

func serve(t *testing.T, conf *tls.Config) (addr string) {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", conf)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.NotFoundHandler(), ErrorLog: log.New(io.Discard, "", 0), ReadHeaderTimeout: time.Second}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return l.Addr().String()
}
