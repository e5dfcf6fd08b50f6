package agent

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net/http/httptest"
	"net/netip"
	"slices"
	"testing"

	"nines/internal/api"
	"nines/internal/health"
	"nines/internal/model"
)

// A controller that boots alone has no majority: what its agent knows is all that there is to see, for as long as it takes.
func TestStatusBeforeEtcdIsThere(t *testing.T) {
	c := cluster()
	c.Nodes[0].Addresses[model.Management] = netip.MustParseAddr("127.0.0.1") // where no agent listens
	a := &Agent{Options: Options{Config: model.AgentConfig{Node: "ctl1"}, Log: slog.New(slog.DiscardHandler)}, cache: &cache{dir: t.TempDir()},
		shapes: &shapes{}, secrets: &secrets{}, peers: api.NewClient(nil, nil)}
	defer a.peers.Close()
	ask := func() (api.Status, error) {
		w := httptest.NewRecorder()
		if err := a.getStatus(w, httptest.NewRequest("GET", api.PathStatus, nil)); err != nil {
			return api.Status{}, err
		}
		var st api.Status
		return st, json.Unmarshal(w.Body.Bytes(), &st)
	}
	var e *api.Error
	if _, err := ask(); !errors.As(err, &e) || !e.Passing() {
		t.Errorf("the node knows nothing yet: %v, want an error that passes", err)
	}
	if err := a.cache.saveSpec(c); err != nil {
		t.Fatal(err)
	}
	st, err := ask()
	if err != nil {
		t.Fatal(err)
	}
	var codes []string
	for _, cond := range st.Conditions {
		codes = append(codes, cond.Code)
	}
	if st.Healthy || len(st.Nodes) != 1 || !slices.Contains(codes, "etcd-starting") || !slices.Contains(codes, "node-unreachable") || slices.Contains(codes, "no-leader") {
		t.Errorf("%q of %+v", codes, st)
	}
	if i := slices.IndexFunc(st.Conditions, func(c health.Condition) bool { return c.Code == "etcd-starting" }); i >= 0 && st.Conditions[i].Node != "ctl1" {
		t.Errorf("%+v", st.Conditions[i])
	}
}
