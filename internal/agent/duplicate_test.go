package agent

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"

	"nines/internal/model"
)

func TestDuplicateIsSureAfterTwoAnswers(t *testing.T) {
	vip, both := netip.MustParseAddr("198.18.0.10"), model.VIP{Address: netip.MustParsePrefix("198.18.0.10/24"), Public: netip.MustParsePrefix("198.18.1.10/24")}
	var claim []net.HardwareAddr
	announced := 0
	d := &duplicates{others: func(context.Context, netip.Addr) ([]net.HardwareAddr, error) { return claim, nil },
		announce: func(netip.Addr) error { announced++; return nil }}
	ask := func() int {
		if err := d.ask(t.Context(), vip); err != nil {
			t.Fatal(err)
		}
		return len(d.conditions(both))
	}
	if ask() != 0 {
		t.Error("nobody else has it, and it is said")
	}
	if announced > 0 {
		t.Error("announced to nobody's good")
	}
	claim = []net.HardwareAddr{{2, 1, 2, 3, 4, 5}}
	if ask() != 0 {
		t.Error("one answer may be that of the last holder")
	}
	if announced != 1 {
		t.Errorf("clients believe another one, announced %d times", announced)
	}
	if ask() != 1 || !strings.Contains(d.conditions(both)[0].Text, "02:01:02:03:04:05") {
		t.Errorf("%+v", d.conditions(both))
	}
	claim = nil
	if ask() != 0 {
		t.Error("it is over, and still said")
	}
}

func TestCarrier(t *testing.T) {
	if nic, err := carrier(netip.MustParseAddr("127.0.0.1")); err != nil || nic == "" {
		t.Errorf("%q, %v", nic, err)
	}
	if nic, err := carrier(netip.MustParseAddr("192.0.2.99")); err != nil || nic != "" {
		t.Errorf("%q, %v", nic, err)
	}
}

// Two controllers may have the address for a moment where nobody makes sure that the one before is off.
func TestWhoAnswersAClaim(t *testing.T) {
	for _, tc := range []struct {
		engine  model.VIPEngine
		fencing model.Fencing
		want    bool
	}{
		{model.EnginePacemaker, model.FencingOn, true},
		{model.EnginePacemaker, "", false},
		{model.EngineKeepalived, model.FencingOn, false},
	} {
		c := &model.Cluster{VIP: model.VIP{Engine: tc.engine}, Fencing: tc.fencing}
		if got := answersClaims(c); got != tc.want {
			t.Errorf("%s, fencing %q: %t", tc.engine, tc.fencing, got)
		}
	}
}
