package agent

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"
)

func TestNoLink(t *testing.T) {
	loopback := netip.MustParseAddr("127.0.0.1")
	nic, err := carrier(loopback)
	if err != nil {
		t.Fatal(err)
	}
	for link, want := range map[string]string{"1\n": "", "0\n": nic, "": nic} {
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, nic), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, nic, "carrier"), []byte(link), 0o644); err != nil {
			t.Fatal(err)
		}
		if got := noLink(loopback, dir); got != want {
			t.Errorf("%q: %q, want %q", link, got, want)
		}
	}
	if got := noLink(netip.MustParseAddr("192.0.2.99"), t.TempDir()); got != "" {
		t.Errorf("nobody carries it: %q", got)
	}
}

// Only a controller can be without a link to users, and only where they have an address of their own.
func TestUnpluggedIsOfThePublicAddress(t *testing.T) {
	c := cluster()
	for _, n := range c.Nodes {
		if got := unplugged(c, n.Name); got != "" {
			t.Errorf("%s: %q without a public address", n.Name, got)
		}
	}
}

func TestAsideWithoutALink(t *testing.T) {
	s := newAside()
	s.unplug("eth1")
	if s.forbids() == "" {
		t.Error("a node that users do not reach may hold the VIP")
	}
	<-s.changed
	s.unplug("eth1")
	if len(s.changed) != 0 {
		t.Error("told twice")
	}
	s.unplug("")
	if why := s.forbids(); why != "" || len(s.changed) != 1 {
		t.Errorf("%q", why)
	}
	o := &outside{}
	if len(o.conditions()) != 0 {
		t.Error("a condition without a reason")
	}
	o.set("eth1")
	if got := o.conditions(); len(got) != 1 || got[0].Code != "public-link-down" {
		t.Errorf("%+v", got)
	}
}
