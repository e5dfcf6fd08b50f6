package arp

import (
	"net"
	"net/netip"
	"reflect"
	"testing"
)

func TestFrames(t *testing.T) {
	own, other := net.HardwareAddr{2, 1, 1, 1, 1, 1}, net.HardwareAddr{2, 9, 9, 9, 9, 9}
	vip := netip.MustParseAddr("198.18.0.10")
	reply := frame{op: opReply, senderMAC: other, targetMAC: own, sender: vip, target: netip.AddrFrom4([4]byte{})}
	got, ok := decode(reply.encode())
	if !ok || !reflect.DeepEqual(got, reply) {
		t.Fatalf("%+v, want %+v", got, reply)
	}
	for name, tc := range map[string]struct {
		f    frame
		want bool
	}{
		"another answers":       {reply, true},
		"another announces":     {frame{op: opRequest, senderMAC: other, sender: vip, target: vip}, true},
		"our own announcement":  {frame{op: opRequest, senderMAC: own, sender: vip, target: vip}, false},
		"another asks for it":   {frame{op: opRequest, senderMAC: other, sender: netip.MustParseAddr("198.18.0.1"), target: vip}, false},
		"another looks whether": {frame{op: opRequest, senderMAC: other, sender: netip.AddrFrom4([4]byte{}), target: vip}, false},
	} {
		if got := tc.f.claims(vip, own); got != tc.want {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(make([]byte, frameLength))
	f.Add([]byte("short"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if f, ok := decode(b); ok && len(f.encode()) != frameLength {
			t.Fatal("not a frame")
		}
	})
}
