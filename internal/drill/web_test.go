package drill

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// server answers over TLS on loopback and counts its connections.
func server(t *testing.T, h http.HandlerFunc) (url string, conf *tls.Config, connections *atomic.Int64) {
	t.Helper()
	connections = new(atomic.Int64)
	srv := httptest.NewUnstartedServer(h)
	srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			connections.Add(1)
		}
	}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	roots := x509.NewCertPool()
	roots.AddCert(srv.Certificate())
	return srv.URL, &tls.Config{RootCAs: roots}, connections
}

func TestGetProbe(t *testing.T) {
	for name, tc := range map[string]struct {
		kept        bool
		status      int
		connections int64
		failure     string
	}{
		"new connections":  {false, 200, 3, ""},
		"kept connections": {true, 200, 1, ""},
		"refused":          {true, 503, 1, "HTTP 503"},
		"redirected":       {false, 301, 3, "HTTP 301"},
	} {
		t.Run(name, func(t *testing.T) {
			url, conf, connections := server(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Location", "/elsewhere")
				w.WriteHeader(tc.status)
			})
			client := httpClient(conf, tc.kept)
			defer client.CloseIdleConnections()
			send := getProbe(client, url)
			for n := range 3 {
				err := send(t.Context(), n)
				if (err == nil) != (tc.failure == "") || err != nil && err.Error() != tc.failure {
					t.Fatalf("%v, want %q", err, tc.failure)
				}
			}
			if connections.Load() != tc.connections {
				t.Errorf("%d connections, want %d", connections.Load(), tc.connections)
			}
		})
	}
}

func TestGetProbeDistrustsStrangers(t *testing.T) {
	url, _, _ := server(t, func(http.ResponseWriter, *http.Request) {})
	if err := getProbe(httpClient(&tls.Config{RootCAs: x509.NewCertPool()}, false), url)(t.Context(), 0); err == nil {
		t.Error("an unknown authority was trusted")
	}
}

// A frozen server: the kernel takes the connection, nobody answers.
func TestProbesGiveUpInTime(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err = getProbe(httpClient(&tls.Config{}, false), "https://"+l.Addr().String())(ctx, 0)
	if err == nil || err.Error() != "no answer in time" {
		t.Errorf("%v", err)
	}
}

func TestTCPProbe(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	send := tcpProbe(l.Addr().String())
	if err := send(t.Context(), 0); err != nil {
		t.Errorf("open port: %v", err)
	}
	l.Close()
	if err := send(t.Context(), 1); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("closed port: %v", err)
	}
}

func TestTokenProbeValidatesWhatItGot(t *testing.T) {
	for name, tc := range map[string]struct {
		accept  string
		failure string
	}{"valid": {"tok", ""}, "refused afterwards": {"other", "validate: HTTP 401"}} {
		t.Run(name, func(t *testing.T) {
			url, conf, _ := server(t, func(w http.ResponseWriter, r *http.Request) {
				switch {
				case r.Method == http.MethodPost:
					var body map[string]any
					if err := json.NewDecoder(r.Body).Decode(&body); err != nil || body["auth"] == nil {
						t.Errorf("login without credentials: %v", err)
					}
					w.Header().Set("X-Subject-Token", "tok")
					w.WriteHeader(http.StatusCreated)
				case r.Header.Get("X-Auth-Token") != tc.accept || r.Header.Get("X-Subject-Token") != tc.accept:
					w.WriteHeader(http.StatusUnauthorized)
				}
			})
			client := httpClient(conf, true)
			defer client.CloseIdleConnections()
			err := tokenProbe(client, url, "secret")(t.Context(), 0)
			if (err == nil) != (tc.failure == "") || err != nil && err.Error() != tc.failure {
				t.Errorf("%v, want %q", err, tc.failure)
			}
		})
	}
}

func TestAskQueue(t *testing.T) {
	for name, tc := range map[string]struct{ body, want string }{
		"short name": {`{"leader":"rabbit@ctl2"}`, "ctl2"},
		"long name":  {`{"leader":"rabbit@ctl2.example.org"}`, "ctl2"},
		"no leader":  {`{"error":"not found"}`, ""},
		"no JSON":    {`oops`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			url, conf, _ := server(t, func(w http.ResponseWriter, r *http.Request) {
				if user, _, ok := r.BasicAuth(); !ok || user != brokerAdmin {
					t.Errorf("asked as %q", user)
				}
				_, _ = w.Write([]byte(tc.body))
			})
			q, err := askQueue(t.Context(), httpClient(conf, false), url, "pw")
			if got := q.leader(); got != tc.want || (err == nil) != (tc.want != "") {
				t.Errorf("%+v, %v", q, err)
			}
		})
	}
}
