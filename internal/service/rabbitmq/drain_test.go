package rabbitmq

import (
	"context"
	"slices"
	"testing"
)

// TestDrainWaitsWhileQueuesNeedTheMember, and does not stop it if that does not end.
func TestDrainWaitsWhileQueuesNeedTheMember(t *testing.T) {
	b, h := &broker{critical: 1}, &units{active: "active"}
	s, env := against(t, b, h, "adminpw")
	if err := s.Drain(t.Context(), env); err != nil || b.critical != 0 || !slices.Equal(h.calls, []string{"stop " + Unit}) {
		t.Errorf("%v, still critical %d times, calls %q", err, b.critical, h.calls)
	}

	h = &units{active: "active"}
	s, env = against(t, &broker{critical: 1 << 30}, h, "adminpw")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Drain(ctx, env); err == nil || len(h.calls) > 0 {
		t.Errorf("%v, calls %q: a needed member must not be stopped", err, h.calls)
	}
}

func TestRestoreWaitsForTheBroker(t *testing.T) {
	h := &units{active: "inactive"}
	s, env := against(t, &broker{peers: allPeers}, h, "adminpw")
	if err := s.Restore(t.Context(), env); err != nil || !slices.Equal(h.calls, []string{"start " + Unit}) {
		t.Errorf("%v, calls %q", err, h.calls)
	}
}
