package memcached

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"nines/internal/model"
	"nines/internal/secret"
	"nines/internal/service"
	"nines/internal/service/servicetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The golden files were run with memcached 1.6.38.
func TestGoldenFiles(t *testing.T) {
	rs, err := New().Resources(servicetest.Cluster(), secret.Map{})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rs {
		if !strings.HasPrefix(r.Node, "ctl") {
			t.Errorf("%s is not on a controller", r.ID)
		}
	}
	servicetest.Golden(t, "testdata", "ctl1", rs)
}

// answering listens on loopback and answers each connection.
func answering(t *testing.T, answer string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(c, answer)
			if answer == "" { // frozen: accept and say nothing
				c.SetDeadline(time.Now().Add(5 * time.Second))
				c.Read(make([]byte, 64)) // the question
				c.Read(make([]byte, 1))  // until the client goes
			}
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().String()
}

func TestObserve(t *testing.T) {
	cases := map[string]struct {
		answer  string
		serving bool
	}{
		"serves":            {"STAT version 1.6.38\r\nSTAT curr_items 7\r\nEND\r\n", true},
		"something else":    {"SSH-2.0-OpenSSH\r\n", false},
		"breaks off":        {"STAT version 1.6.38\r\n", false},
		"frozen: no answer": {"", false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			addr := answering(t, c.answer)
			s := &Service{address: func(model.Node) string { return addr }}
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			o := s.Observe(ctx, service.Env{})
			if o.Serving != c.serving || (len(o.Conditions) == 0) != c.serving || o.Reason == "" {
				t.Errorf("%+v", o)
			}
			if c.serving && (o.Facts["version"] != "1.6.38" || o.Facts["curr_items"] != "7") {
				t.Errorf("facts %v", o.Facts)
			}
		})
	}
}

func FuzzParseStats(f *testing.F) {
	f.Add("STAT pid 1\r\nEND\r\n")
	f.Add("ERROR\r\n")
	f.Fuzz(func(t *testing.T, text string) {
		st, err := parseStats(strings.NewReader(text))
		if err == nil && (st == nil || !strings.Contains(text, "END")) {
			t.Errorf("%q gave %v", text, st)
		}
	})
}
