package view

import (
	"strings"
	"testing"
	"time"

	"nines/internal/api"
	"nines/internal/health"
	"nines/internal/service"
)

// All that wait for the same stand in one line; what is left out is said.
func TestWaits(t *testing.T) {
	var out strings.Builder
	one := []health.Condition{{Code: "a"}}
	Waits(&out, []health.Wait{{Service: "galera", Reason: "the state of ctl3 is not known", Folded: append(one, one...)},
		{Service: "glance", For: []string{"galera"}}, {Service: "keystone", For: []string{"galera"}, Folded: one}, {Service: "nova", For: []string{"galera", "rabbitmq"}}})
	want := `WAITS     galera waits: the state of ctl3 is not known
          -> left out: 2 lines that would say no more; --json has them
WAITS     glance, keystone wait for galera
          -> left out: 1 line that would say no more; --json has them
WAITS     nova waits for galera and rabbitmq
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}

// The columns stay in line where a node does not answer.
func TestStatusWithAnUnreachableNode(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	node := func(name string, serving bool) api.NodeStatus {
		return api.NodeStatus{Node: name, Report: &api.NodeReport{Version: api.Version{Started: now.Add(-time.Hour)},
			Services: map[string]service.Observation{"galera": {Serving: serving}, "rabbitmq": {Serving: true}}}}
	}
	var out strings.Builder
	Status(&out, api.Status{Cluster: "west", VIP: "192.0.2.10", VIPHolders: []string{"ctl1"}, Leader: "ctl1",
		Nodes: []api.NodeStatus{node("ctl1", true), {Node: "ctl2"}, node("ctl3", false)}}, now)
	want := `NODE  AGENT         ETCD  GALERA  RABBITMQ
ctl1  up 1 h 0 min  -     ok      ok
ctl2  unreachable
ctl3  up 1 h 0 min  -     DOWN    ok
`
	if !strings.HasSuffix(out.String(), want) {
		t.Errorf("got\n%s\nwant it to end with\n%s", out.String(), want)
	}
}
