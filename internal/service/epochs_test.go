package service

import (
	"log/slog"
	"testing"

	"nines/internal/host"
	"nines/internal/host/hosttest"
)

// TestANodeGoesFirstOnceInAnEpoch, however often it is told.
func TestANodeGoesFirstOnceInAnEpoch(t *testing.T) {
	h := hosttest.New()
	env := Env{Host: h, Log: slog.New(slog.DiscardHandler)}
	e := Epochs{Folder: "/var/lib/x-evidence", File: "/var/lib/x-epoch"}
	if e.Last(h) != 0 {
		t.Error("a node that never went first remembers an epoch")
	}
	for _, tc := range []struct {
		epoch int64
		ok    bool
	}{{4, true}, {4, false}, {3, false}, {5, true}} {
		if err := e.Once(t.Context(), env, tc.epoch); (err == nil) != tc.ok {
			t.Errorf("epoch %d: %v", tc.epoch, err)
		}
	}
	if e.Last(h) != 5 {
		t.Errorf("last %d", e.Last(h))
	}
}

func TestOldEvidenceIsRemoved(t *testing.T) {
	h := hosttest.New()
	e := Epochs{Folder: "/var/lib/x-evidence"}
	h.Handle("find", func(host.Cmd) (host.Output, error) {
		var out []byte
		for epoch := range int64(7) {
			out = append(out, e.Dir(epoch+1)+"\n"...)
		}
		return host.Output{Stdout: out}, nil
	})
	h.Handle("rm", func(host.Cmd) (host.Output, error) { return host.Output{}, nil })
	e.Prune(t.Context(), Env{Host: h, Log: slog.New(slog.DiscardHandler)})
	calls := h.Calls()
	if last := calls[len(calls)-1]; last != "run rm -r /var/lib/x-evidence/epoch-000001 /var/lib/x-evidence/epoch-000002" {
		t.Errorf("%q", calls)
	}
}
