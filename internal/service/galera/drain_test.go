package galera

import (
	"slices"
	"testing"
)

// TestDrain: the member stops, unless nobody could go on without it, and comes back without any permission to found.
func TestDrain(t *testing.T) {
	r := newRig(t, "ctl1", fakePeers{})
	r.alive("Primary", "4")
	if err := r.Drain(t.Context(), r.env); err == nil || slices.Contains(r.host.Calls(), "stop "+unitName) {
		t.Errorf("a member that is alone was stopped: %v, %q", err, r.host.Calls())
	}
	r.server.status = synced3()
	if err := r.Drain(t.Context(), r.env); err != nil {
		t.Fatal(err)
	}
	if u := r.unit(t); u.Active != "inactive" {
		t.Errorf("the unit is %s", u.Active)
	}
	r.server.err = errNonPrimary // any error: it does not answer
	r.grastate(someUUID, "7", "0")
	if err := r.Restore(t.Context(), r.env); err != nil {
		t.Fatal(err)
	}
	if u := r.unit(t); u.Active != "active" || r.marked {
		t.Errorf("the unit is %s, permission to found: %t", u.Active, r.marked)
	}
	if _, err := r.host.ReadFile(loneFile); err == nil {
		t.Error("it is noted to have been alone")
	}
}
