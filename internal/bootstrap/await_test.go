package bootstrap

import (
	"crypto/tls"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"nines/internal/model"
	"nines/internal/progress"
	"nines/internal/secret"
)

// agentOf serves what an agent of the cluster would answer, over mutual TLS.
func agentOf(t *testing.T, s *state, answer func() version) string {
	t.Helper()
	pair, err := s.ca.IssueNode(secret.Request{Name: "ctl1", IPs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, text := range map[string][]byte{"ca": s.ca.Pair().Cert, "cert": pair.Cert, "key": pair.Key} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(answer())
	}))
	conf, err := secret.ServerTLS(filepath.Join(dir, "ca"), filepath.Join(dir, "cert"), filepath.Join(dir, "key"))
	if err != nil {
		t.Fatal(err)
	}
	srv.Listener = tls.NewListener(srv.Listener, conf) // StartTLS would show a certificate of its own
	srv.Start()
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://")
}

func TestAwait(t *testing.T) {
	c := testCluster()
	s := open(t, t.TempDir(), time.Now())
	r := &run{Options: Options{Cluster: c, Log: discard(), Emit: progress.Discard, Wait: 400 * time.Millisecond}, state: s}
	var asked atomic.Int32
	for name, tc := range map[string]struct {
		answer func() version
		say    string // empty: ready
	}{
		"ready at the third time": {func() version {
			store := "election"
			if asked.Add(1) >= 3 {
				store = ready
			}
			return version{Node: "ctl1", ClusterID: s.id, Store: store}
		}, ""},
		"never a quorum":  {func() version { return version{Node: "ctl1", ClusterID: s.id, Store: "no leader"} }, "not ready after 400ms: etcd: no leader"},
		"another node":    {func() version { return version{Node: "ctl2", ClusterID: s.id, Store: ready} }, `answers node "ctl2"`},
		"another cluster": {func() version { return version{Node: "ctl1", ClusterID: "f00d", Store: ready} }, "of cluster f00d"},
	} {
		t.Run(name, func(t *testing.T) {
			addr := agentOf(t, s, tc.answer)
			a, err := r.newClient()
			if err != nil {
				t.Fatal(err)
			}
			defer a.close()
			a.addr = func(model.Node) string { return addr }
			err = r.await(t.Context(), a, &machine{node: c.Nodes[0]}, "ready")
			if (err == nil) != (tc.say == "") || (err != nil && !strings.Contains(err.Error(), tc.say)) {
				t.Fatalf("got %v", err)
			}
		})
	}
	if asked.Load() != 3 {
		t.Errorf("asked %d times", asked.Load())
	}
}
