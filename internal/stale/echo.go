package stale

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// echo asks machines whether they are there.
type echo struct {
	four, six *icmp.PacketConn // six is nil where there is no IPv6
	answers   chan answer
	done      chan struct{}
	readers   sync.WaitGroup

	mu       sync.Mutex
	sequence int
	asked    [256]time.Time // when the latest requests were sent, by sequence
}

// answer is a peer's to a request. However late it is read: the peer was there after asked.
type answer struct {
	peer  netip.Addr
	asked time.Time
}

// echoMark tells our answers from those to others on this machine.
var echoMark = []byte("nines")

func listenEcho() (*echo, error) {
	four, err := icmp.ListenPacket("ip4:icmp", "0.0.0.0")
	if err != nil {
		return nil, fmt.Errorf("a socket for echo requests: %w", err)
	}
	// Others' requests, which the kernel answers, need not wake this process. It is looked at again below.
	var only ipv4.ICMPFilter
	only.SetAll(true)
	only.Accept(ipv4.ICMPTypeEchoReply)
	_ = four.IPv4PacketConn().SetICMPFilter(&only)
	e := &echo{four: four, answers: make(chan answer), done: make(chan struct{})}
	e.readers.Go(func() { e.read(four, 1) })
	if six, err := icmp.ListenPacket("ip6:ipv6-icmp", "::"); err == nil {
		var only ipv6.ICMPFilter
		only.SetAll(true)
		only.Accept(ipv6.ICMPTypeEchoReply)
		_ = six.IPv6PacketConn().SetICMPFilter(&only)
		e.six = six
		e.readers.Go(func() { e.read(six, 58) })
	}
	return e, nil
}

func (e *echo) close() {
	close(e.done)
	e.four.Close()
	if e.six != nil {
		e.six.Close()
	}
	e.readers.Wait()
}

// ask sends a request. One that cannot be sent is one without an answer.
func (e *echo) ask(peer netip.Addr) {
	conn, kind := e.four, icmp.Type(ipv4.ICMPTypeEcho)
	if peer.Is6() {
		conn, kind = e.six, ipv6.ICMPTypeEchoRequest
	}
	if conn == nil {
		return
	}
	e.mu.Lock()
	e.sequence++
	sequence := e.sequence & 0xffff
	e.asked[sequence%len(e.asked)] = time.Now()
	e.mu.Unlock()
	m := icmp.Message{Type: kind, Body: &icmp.Echo{ID: os.Getpid() & 0xffff, Seq: sequence, Data: echoMark}}
	packet, err := m.Marshal(nil)
	if err != nil {
		return
	}
	_, _ = conn.WriteTo(packet, &net.IPAddr{IP: peer.AsSlice(), Zone: peer.Zone()})
}

// read passes on who answers, until the socket is closed. protocol is ICMP's number.
func (e *echo) read(conn *icmp.PacketConn, protocol int) {
	buffer := make([]byte, 1500)
	for {
		n, from, err := conn.ReadFrom(buffer)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		peer, sequence, ok := answerOf(buffer[:n], from, protocol)
		if !ok {
			continue
		}
		e.mu.Lock()
		asked := e.asked[sequence%len(e.asked)]
		e.mu.Unlock()
		select {
		case e.answers <- answer{peer, asked}:
		case <-e.done:
			return
		}
	}
}

// answerOf returns whose answer to which request of this process the packet is.
func answerOf(packet []byte, from net.Addr, protocol int) (peer netip.Addr, sequence int, ok bool) {
	m, err := icmp.ParseMessage(protocol, packet)
	if err != nil || m.Type != ipv4.ICMPTypeEchoReply && m.Type != ipv6.ICMPTypeEchoReply {
		return netip.Addr{}, 0, false
	}
	body, ok := m.Body.(*icmp.Echo)
	if !ok || body.ID != os.Getpid()&0xffff || string(body.Data) != string(echoMark) {
		return netip.Addr{}, 0, false
	}
	ip, ok := from.(*net.IPAddr)
	if !ok {
		return netip.Addr{}, 0, false
	}
	peer, ok = netip.AddrFromSlice(ip.IP)
	return peer.Unmap(), body.Seq, ok
}
