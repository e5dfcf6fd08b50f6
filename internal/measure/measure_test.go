package measure

import (
	"net"
	"net/netip"
	"strings"
	"testing"
)

func TestParseSockets(t *testing.T) {
	const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0B0012C6:1D10 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4242 1 0 100 0 0 10 0
   1: 0B0012C6:0016 010012C6:C350 01 00000000:00000000 00:00000000 00000000     0        0 4243 1 0 20 4 30 10 -1
   2: 00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 4244 1 0
   3: broken
   4: zz:zz x 0A a b c d e f g h`
	got := parseSockets(strings.NewReader(table))
	want := map[string]string{"4242": "198.18.0.11:7440", "4244": "[::1]:80"}
	if len(got) != len(want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for inode, addr := range want {
		if got[inode] != netip.MustParseAddrPort(addr) {
			t.Errorf("inode %s: %v, want %s", inode, got[inode], addr)
		}
	}
}

func FuzzParseSockets(f *testing.F) {
	f.Add("   0: 0B0012C6:1D10 00000000:0000 0A 0:0 00:0 0 0 0 4242 1")
	f.Fuzz(func(_ *testing.T, s string) { parseSockets(strings.NewReader(s)) })
}

func TestLocalSeesThisMachine(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	addr := netip.MustParseAddrPort(l.Addr().String())
	closed := netip.MustParseAddrPort("127.0.0.1:1")
	r := Local(t.Context(), Request{Node: "here", Peers: map[string]netip.AddrPort{"up": addr, "down": closed}})
	if r.Cores < 1 || r.MemoryBytes == 0 || r.DiskBytes == 0 || r.Release == "" {
		t.Errorf("not measured: %+v", r)
	}
	if r.LatencyTo["up"] <= 0 || len(r.Unanswered) != 1 || r.Unanswered[0] != "down" {
		t.Errorf("latency %v, unanswered %v", r.LatencyTo, r.Unanswered)
	}
	found := false
	for _, x := range r.Listeners {
		found = found || x.Address == addr && x.Process != ""
	}
	if !found {
		t.Errorf("own listener %v not found with its process", addr)
	}
}
