package keystone

import (
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"nines/internal/model"
)

func TestOdd(t *testing.T) {
	const h = time.Hour
	for name, tc := range map[string]struct {
		own     time.Duration
		others  map[string]time.Duration
		members int
		off     time.Duration
		with    string
	}{
		"all agree":                      {0, map[string]time.Duration{"b": time.Second, "c": -time.Second}, 3, 0, ""},
		"ahead of both":                  {2 * h, map[string]time.Duration{"b": 0, "c": 0}, 3, 2 * h, "b c"},
		"behind both":                    {-h, map[string]time.Duration{"b": 0, "c": 0}, 3, -h, "b c"},
		"another one is off":             {0, map[string]time.Duration{"b": h, "c": 0}, 3, 0, ""},
		"all three differ":               {0, map[string]time.Duration{"b": h, "c": 2 * h}, 3, 0, ""},
		"one does not answer":            {h, map[string]time.Duration{"b": 0}, 3, 0, ""},
		"of two nobody knows":            {h, map[string]time.Duration{"b": 0}, 2, 0, ""},
		"alone":                          {h, nil, 1, 0, ""},
		"of five, three others agree":    {h, map[string]time.Duration{"b": 0, "c": 0, "d": 0, "e": h}, 5, h, "b c d"},
		"of five, only two others do":    {h, map[string]time.Duration{"b": 0, "c": 0, "d": 2 * h}, 5, 0, ""},
		"the agent's own clock is wrong": {-7 * h, map[string]time.Duration{"b": -7 * h, "c": -7 * h}, 3, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			off, with := odd(tc.own, tc.others, tc.members)
			if off != tc.off || strings.Join(with, " ") != tc.with {
				t.Errorf("off by %v from %q", off, with)
			}
		})
	}
}

// TestWrongClockIsTakenOut: a Keystone whose answers are two hours ahead of the others' gets no requests, after two looks, until it is right again.
func TestWrongClockIsTakenOut(t *testing.T) {
	var ahead atomic.Int64 // of the first node's
	s, env := keystoneServer(t, func(w http.ResponseWriter, r *http.Request) {
		at := time.Now()
		if strings.HasPrefix(r.Host, "127.0.0.1") {
			at = at.Add(time.Duration(ahead.Load()))
		}
		w.Header().Set("Date", at.UTC().Format(http.TimeFormat))
	})
	for i := range env.Cluster.Nodes {
		if n := &env.Cluster.Nodes[i]; n.Name != env.Node.Name {
			n.Addresses = map[model.NetworkName]netip.Addr{model.Management: netip.IPv6Loopback()} // the server's certificate has it
		}
	}
	var skipped atomic.Int64
	s.now = func() time.Time { return time.Now().Add(time.Duration(skipped.Load())) }
	serves := func(want bool) {
		t.Helper()
		for deadline := time.Now().Add(10 * time.Second); ; {
			o := s.Observe(t.Context(), env)
			if o.Serving == want {
				if !want && (!strings.Contains(o.Reason, "ahead of that of ctl2, ctl3") || o.Conditions[0].Code != "clock-skew") {
					t.Errorf("%+v", o)
				}
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("serving %t: %+v", o.Serving, o)
			}
			skipped.Add(int64(clockEvery))
			time.Sleep(20 * time.Millisecond) // for the look in the background
		}
	}
	serves(true)
	ahead.Store(int64(2 * time.Hour))
	serves(false)
	ahead.Store(0)
	serves(true)
	for busy := true; busy; {
		s.clocks.mu.Lock()
		busy = s.clocks.busy
		s.clocks.mu.Unlock()
	}
}
