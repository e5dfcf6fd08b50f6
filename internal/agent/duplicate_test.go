package agent

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"
)

func TestDuplicateIsSureAfterTwoAnswers(t *testing.T) {
	vip := netip.MustParseAddr("198.18.0.10")
	var claim []net.HardwareAddr
	d := &duplicates{others: func(context.Context, netip.Addr) ([]net.HardwareAddr, error) { return claim, nil }}
	ask := func() int {
		if err := d.ask(t.Context(), vip); err != nil {
			t.Fatal(err)
		}
		return len(d.conditions(vip))
	}
	if ask() != 0 {
		t.Error("nobody else has it, and it is said")
	}
	claim = []net.HardwareAddr{{2, 1, 2, 3, 4, 5}}
	if ask() != 0 {
		t.Error("one answer may be that of the last holder")
	}
	if ask() != 1 || !strings.Contains(d.conditions(vip)[0].Text, "02:01:02:03:04:05") {
		t.Errorf("%+v", d.conditions(vip))
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
