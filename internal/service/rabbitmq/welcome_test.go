package rabbitmq

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"nines/internal/host"
	"nines/internal/host/hosttest"
	"nines/internal/service"
	"nines/internal/service/servicetest"
)

// direct answers requests without a network; before each it has a look.
type direct struct {
	http.Handler
	before func()
}

func (d direct) RoundTrip(r *http.Request) (*http.Response, error) {
	d.before()
	w := httptest.NewRecorder()
	d.ServeHTTP(w, r)
	return w.Result(), nil
}

const (
	withoutFirst = `[{"name":"rabbit@ctl1","running":false},{"name":"rabbit@ctl2","running":true},{"name":"rabbit@ctl3","running":true}]`
	neverFirst   = `[{"name":"rabbit@ctl2","running":true},{"name":"rabbit@ctl3","running":true}]`
	alone        = `[{"name":"rabbit@ctl1","running":false},{"name":"rabbit@ctl2","running":true},{"name":"rabbit@ctl3","running":false}]`
)

// A member that starts without its state is turned away by the others for ever, if they remember it. They forget it, but only then:
// who has a state, whom nobody remembers, who is waited for by no majority, or who joins meanwhile is left alone.
func TestBeWelcome(t *testing.T) {
	for name, tc := range map[string]struct {
		peers  string // as the others see them
		state  bool   // this member has one
		late   string // what they see from the thirteenth second on; empty: the same
		refuse bool   // the first attempt fails
		starts time.Duration
		want   int // how often it was forgotten
		after  time.Duration
	}{
		"turned away":                         {peers: withoutFirst, starts: 40 * time.Second, want: 1, after: 25 * time.Second},
		"forgetting fails, and is done again": {peers: withoutFirst, refuse: true, starts: time.Minute, want: 2, after: 25 * time.Second},
		"it is soon up":                       {peers: withoutFirst, starts: 24 * time.Second},
		"it joins meanwhile":                  {peers: withoutFirst, late: allPeers, starts: time.Minute},
		"it has its state":                    {peers: withoutFirst, state: true, starts: time.Minute},
		"nobody remembers it":                 {peers: neverFirst, starts: time.Minute},
		"no majority serves":                  {peers: alone, starts: time.Minute},
		"the others do not answer":            {peers: "<html>", starts: time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := hosttest.New()
				b := &broker{peers: tc.peers}
				begun := time.Now()
				s, env := welcomed(b, h, func() {
					if tc.late != "" && time.Since(begun) >= 13*time.Second {
						b.peers = tc.late
					}
				})
				if tc.state {
					h.PutFile(host.File{Path: dataDir("ctl1") + "/schema.DAT", Content: []byte("x")})
				}
				var forgotten []time.Duration
				h.Handle("rabbitmqctl", func(c host.Cmd) (host.Output, error) {
					if at := strings.Join(c.Args, " "); at != "rabbitmqctl --quiet --node rabbit@ctl2 forget_cluster_node rabbit@ctl1" {
						t.Errorf("ran %q", at)
					}
					forgotten = append(forgotten, time.Since(begun))
					if tc.refuse && len(forgotten) == 1 {
						return host.Output{}, &host.ExitError{Args: c.Args, Code: 69, Stderr: "timeout"}
					}
					b.peers = neverFirst
					return host.Output{}, nil
				})
				ctx, cancel := context.WithTimeout(t.Context(), tc.starts)
				defer cancel()
				s.beWelcome(ctx, env)
				if len(forgotten) != tc.want || tc.want > 0 && forgotten[0] != tc.after {
					t.Errorf("forgotten %v, want %d times, first after %s", forgotten, tc.want, tc.after)
				}
				if took := time.Since(begun); took != tc.starts {
					t.Errorf("it went on for %s, the start took %s", took, tc.starts)
				}
			})
		})
	}
}

// welcomed is ctl1 without any state; b answers for the others.
func welcomed(b *broker, h *hosttest.Host, before func()) (*Service, service.Env) {
	s, c := testService(), servicetest.Cluster()
	for _, n := range []string{"ctl2", "ctl3"} {
		s.clients[n] = &client{http: &http.Client{Transport: direct{b, before}}, base: "http://" + n, password: "adminpw"}
	}
	return s, service.Env{Host: h, Cluster: c, Node: c.Nodes[0], Secrets: testSecrets(), Log: slog.New(slog.DiscardHandler)}
}
