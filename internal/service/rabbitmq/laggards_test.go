package rabbitmq

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"nines/internal/service"
	"nines/internal/service/servicetest"
)

func TestStands(t *testing.T) {
	row := func(node, state string, applied, committed index) replica {
		return replica{"rabbit@" + node, state, applied, committed}
	}
	for name, tc := range map[string]struct {
		before       lag
		all          []replica
		now          lag
		still, spare bool
	}{
		"up to date":            {lag{7, 8}, []replica{row("ctl1", "follower", 9, 9), row("ctl2", "leader", 9, 9)}, lag{}, false, false},
		"behind for the first":  {lag{}, []replica{row("ctl1", "follower", 7, 7), row("ctl2", "leader", 9, 9)}, lag{7, 9}, false, false},
		"behind and moving":     {lag{7, 9}, []replica{row("ctl1", "follower", 8, 8), row("ctl2", "leader", 12, 12)}, lag{8, 12}, false, false},
		"nothing new to apply":  {lag{7, 9}, []replica{row("ctl1", "follower", 7, 9), row("ctl2", "leader", 9, 9), row("ctl3", "follower", 9, 9)}, lag{7, 9}, false, true},
		"still":                 {lag{7, 9}, []replica{row("ctl1", "await_condition", 7, 12), row("ctl2", "leader", 12, 12), row("ctl3", "follower", 11, 11)}, lag{7, 9}, true, true},
		"still, and another":    {lag{7, 9}, []replica{row("ctl1", "follower", 7, 7), row("ctl2", "leader", 12, 12), row("ctl3", "follower", 8, 8)}, lag{7, 9}, true, false},
		"still, and one silent": {lag{7, 9}, []replica{row("ctl1", "follower", 7, 7), row("ctl2", "leader", 12, 12), row("ctl3", "noproc", -1, -1)}, lag{7, 9}, true, false},
		"still, one of two":     {lag{7, 9}, []replica{row("ctl1", "follower", 7, 7), row("ctl2", "leader", 12, 12)}, lag{7, 9}, true, false},
		"no leader":             {lag{7, 9}, []replica{row("ctl1", "follower", 7, 7), row("ctl2", "candidate", 12, 12), row("ctl3", "follower", 12, 12)}, lag{}, false, false},
		"it says nothing":       {lag{7, 9}, []replica{row("ctl1", "timeout", -1, -1), row("ctl2", "leader", 12, 12), row("ctl3", "follower", 12, 12)}, lag{}, false, false},
	} {
		if now, still, spare := stands(tc.before, tc.all, "rabbit@ctl1"); now != tc.now || still != tc.still || spare != tc.spare {
			t.Errorf("%s: %+v, still %t, spare %t", name, now, still, spare)
		}
	}
}

// raft answers for one queue like the management API.
type raft struct {
	rows  []string // "ctl2 leader 9 9"
	gone  bool
	calls []string
	fails bool // to add
	moves bool // the replica of ctl1, between two questions
}

func (r *raft) RoundTrip(req *http.Request) (*http.Response, error) {
	answer := func(code int, body string) (*http.Response, error) {
		return &http.Response{StatusCode: code, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), Request: req}, nil
	}
	path := req.URL.EscapedPath()
	if path == "/api/queues/quorum/%2F/a%2Fb/status" {
		if r.gone {
			return answer(http.StatusNotFound, "Object Not Found")
		}
		var all []map[string]any
		for i, row := range r.rows {
			f := strings.Fields(row)
			n := map[string]any{"Node Name": "rabbit@" + f[0], "Raft State": f[1], "Last Applied": json.Number(f[2]), "Commit Index": json.Number(f[3])}
			if f[1] == "timeout" {
				n["Last Applied"], n["Commit Index"] = "", ""
			}
			if all = append(all, n); r.moves && f[0] == "ctl1" {
				var applied int
				_, _ = fmt.Sscan(f[2], &applied)
				r.rows[i] = fmt.Sprintf("ctl1 follower %d %d", applied+1, applied+1)
			}
		}
		b, err := json.Marshal(all)
		if err != nil {
			return nil, err
		}
		return answer(http.StatusOK, string(b))
	}
	body := ""
	if req.Body != nil {
		b, _ := io.ReadAll(req.Body)
		body = string(b)
	}
	r.calls = append(r.calls, req.Method+" "+strings.TrimPrefix(path, "/api/queues/quorum/%2F/a%2Fb/replicas/")+" "+body)
	if r.fails && req.Method == http.MethodPost {
		return answer(http.StatusServiceUnavailable, `{"error":"service_unavailable"}`)
	}
	return answer(http.StatusNoContent, "")
}

func TestLaggards(t *testing.T) {
	const renewed = `DELETE delete {"node":"rabbit@ctl1"}, POST add {"node":"rabbit@ctl1"}`
	type look struct {
		rows  string // at this look, after a minute
		calls string
		told  bool
	}
	const first = "ctl1 follower 7 7, ctl2 leader 9 9, ctl3 follower 9 9"
	for name, tc := range map[string]struct {
		raft  raft
		looks []look
	}{
		"well":                 {raft{}, []look{{"ctl1 follower 9 9, ctl2 leader 9 9, ctl3 follower 9 9", "", false}, {"ctl1 follower 9 9, ctl2 leader 12 12, ctl3 follower 12 12", "", false}}},
		"it stands still":      {raft{}, []look{{first, "", false}, {"ctl1 follower 7 7, ctl2 leader 12 12, ctl3 follower 12 12", renewed, false}, {"ctl1 follower 13 13, ctl2 leader 13 13, ctl3 follower 13 13", "", false}}},
		"and again":            {raft{}, []look{{first, "", false}, {"ctl1 follower 7 7, ctl2 leader 12 12, ctl3 follower 12 12", renewed, false}, {"ctl1 follower 7 7, ctl2 leader 13 13, ctl3 follower 13 13", "", false}, {"ctl1 follower 7 7, ctl2 leader 14 14, ctl3 follower 14 14", "", true}}},
		"the third does, too":  {raft{}, []look{{first, "", false}, {"ctl1 follower 7 7, ctl2 leader 12 12, ctl3 follower 7 7", "", true}}},
		"the third is silent":  {raft{}, []look{{first, "", false}, {"ctl1 follower 7 7, ctl2 leader 12 12, ctl3 timeout 0 0", "", true}}},
		"it only looks so":     {raft{moves: true}, []look{{first, "", false}, {"ctl1 follower 7 7, ctl2 leader 12 12, ctl3 follower 12 12", "", false}}},
		"nobody publishes":     {raft{}, []look{{first, "", false}, {first, "", false}, {first, "", false}}},
		"it cannot be renewed": {raft{fails: true}, []look{{first, "", false}, {"ctl1 follower 7 7, ctl2 leader 12 12, ctl3 follower 12 12", renewed, true}}},
		"the queue is no more": {raft{gone: true}, []look{{first, "", false}, {first, "", false}}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				api := &client{http: &http.Client{Transport: &tc.raft}, base: "http://ctl1", password: "adminpw"}
				c := servicetest.Cluster()
				env := service.Env{Cluster: c, Node: c.Nodes[0], Log: slog.New(slog.DiscardHandler)}
				queues := []queue{{Name: "a/b", VHost: "/", Type: "quorum", Leader: "rabbit@ctl2", Members: []string{"rabbit@ctl1", "rabbit@ctl2", "rabbit@ctl3"}},
					{Name: "mine", VHost: "/", Type: "quorum", Leader: "rabbit@ctl1", Members: []string{"rabbit@ctl1", "rabbit@ctl2", "rabbit@ctl3"}},
					{Name: "another's", VHost: "/", Type: "quorum", Leader: "rabbit@ctl2", Members: []string{"rabbit@ctl2", "rabbit@ctl3"}},
					{Name: "fanout", VHost: "/", Type: "stream", Leader: "rabbit@ctl2", Members: []string{"rabbit@ctl1", "rabbit@ctl2", "rabbit@ctl3"}}}
				var g laggards
				for i, l := range tc.looks {
					tc.raft.rows, tc.raft.calls = strings.Split(l.rows, ", "), nil
					if err := g.look(t.Context(), env, api, queues); err != nil {
						t.Fatal(err)
					}
					if got := strings.Join(tc.raft.calls, ", "); got != l.calls {
						t.Errorf("look %d: %q", i+1, got)
					}
					told := g.conditions("ctl1")
					if len(told) > 0 != l.told || l.told && !strings.Contains(told[0].Text, "a/b in /") {
						t.Errorf("look %d: told %+v", i+1, told)
					}
					time.Sleep(replicasEvery)
				}
			})
		})
	}
}

// However many queues there are, a look asks for some of them, and the looks together for all.
func TestLaggardsTakeTurns(t *testing.T) {
	asked := map[string]bool{}
	api := &client{base: "http://ctl1", http: &http.Client{Transport: roundTrip(func(req *http.Request) {
		asked[req.URL.Path] = true
	})}}
	c := servicetest.Cluster()
	env := service.Env{Cluster: c, Node: c.Nodes[0], Log: slog.New(slog.DiscardHandler)}
	var queues []queue
	for i := range 5*laggardsAtOnce/2 + 1 {
		queues = append(queues, queue{Name: fmt.Sprint(i), VHost: "/", Type: "quorum", Leader: "rabbit@ctl2", Members: []string{"rabbit@ctl1", "rabbit@ctl2"}})
	}
	var g laggards
	for i := range 3 {
		before := len(asked)
		if err := g.look(t.Context(), env, api, queues); err != nil {
			t.Fatal(err)
		}
		if n := len(asked) - before; n > laggardsAtOnce {
			t.Errorf("look %d asked for %d queues", i+1, n)
		}
	}
	if len(asked) != len(queues) {
		t.Errorf("%d of %d queues were looked at", len(asked), len(queues))
	}
	g.found[queues[0].path()] = queues[0].String()
	g.next = 0 // this look is about the others
	if err := g.look(t.Context(), env, api, queues); err != nil || len(g.conditions("ctl1")) != 1 {
		t.Errorf("nobody looked, and it is no longer told (%v)", err)
	}
	if err := g.look(t.Context(), env, api, queues[1:]); err != nil || len(g.conditions("ctl1")) != 0 {
		t.Errorf("the queue is no more, and it is still told (%v)", err)
	}
}

type roundTrip func(*http.Request)

func (f roundTrip) RoundTrip(req *http.Request) (*http.Response, error) {
	f(req)
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("[]")), Request: req}, nil
}
