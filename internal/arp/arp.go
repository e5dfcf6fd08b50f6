// Package arp speaks ARP (RFC 826) for IPv4 on one interface: it asks who else has an address, as address conflict
// detection does (RFC 5227), and announces one.
//
// Invariants: a question names no address of the asker's, so that nobody's memory of its neighbours changes by it. It
// must never announce an address except when told to.
package arp

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// The frame: Ethernet header and ARP for IPv4 over Ethernet.
const (
	frameLength = 42
	opRequest   = 1
	opReply     = 2
)

// broadcast is every machine's hardware address.
var broadcast = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// frame is what the fields of an ARP packet are.
type frame struct {
	op                   uint16
	senderMAC, targetMAC net.HardwareAddr
	sender, target       netip.Addr
}

// encode writes the frame, to everybody.
func (f frame) encode() []byte {
	out := make([]byte, 0, frameLength)
	out = append(out, broadcast...)
	out = append(out, f.senderMAC...)
	out = binary.BigEndian.AppendUint16(out, unix.ETH_P_ARP)
	out = binary.BigEndian.AppendUint16(out, 1) // Ethernet
	out = binary.BigEndian.AppendUint16(out, unix.ETH_P_IP)
	out = append(out, 6, 4) // lengths of the addresses
	out = binary.BigEndian.AppendUint16(out, f.op)
	out = append(out, f.senderMAC...)
	sender, target := f.sender.As4(), f.target.As4()
	out = append(out, sender[:]...)
	out = append(out, f.targetMAC...)
	return append(out, target[:]...)
}

// decode reads a frame; ok is false for anything but ARP for IPv4.
func decode(b []byte) (f frame, ok bool) {
	if len(b) < frameLength || binary.BigEndian.Uint16(b[12:]) != unix.ETH_P_ARP || binary.BigEndian.Uint16(b[14:]) != 1 ||
		binary.BigEndian.Uint16(b[16:]) != unix.ETH_P_IP || b[18] != 6 || b[19] != 4 {
		return f, false
	}
	f.op = binary.BigEndian.Uint16(b[20:])
	f.senderMAC, f.targetMAC = bytes.Clone(b[22:28]), bytes.Clone(b[32:38])
	f.sender, f.target = netip.AddrFrom4([4]byte(b[28:32])), netip.AddrFrom4([4]byte(b[38:42]))
	return f, true
}

// Others asks on the interface who has the address, and returns the hardware addresses of those who say so within the
// time: machines other than this one. A claim that was not asked for counts too.
func Others(ctx context.Context, nic string, address netip.Addr, within time.Duration) ([]net.HardwareAddr, error) {
	s, err := open(nic)
	if err != nil {
		return nil, err
	}
	defer s.close()
	probe := frame{op: opRequest, senderMAC: s.nic.HardwareAddr, targetMAC: make(net.HardwareAddr, 6), sender: netip.AddrFrom4([4]byte{}), target: address}
	if err := s.send(probe); err != nil {
		return nil, err
	}
	deadline := time.Now().Add(within)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	var out []net.HardwareAddr
	for {
		f, err := s.receive(deadline)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return out, ctx.Err()
		}
		if err != nil {
			return out, err
		}
		if f.claims(address, s.nic.HardwareAddr) && !contains(out, f.senderMAC) {
			out = append(out, f.senderMAC)
		}
	}
}

// claims reports whether somebody else says that the address is its own.
func (f frame) claims(address netip.Addr, own net.HardwareAddr) bool {
	return f.sender == address && !bytes.Equal(f.senderMAC, own)
}

func contains(list []net.HardwareAddr, mac net.HardwareAddr) bool {
	for _, m := range list {
		if bytes.Equal(m, mac) {
			return true
		}
	}
	return false
}

// Announce tells everybody on the interface's network that the address is this machine's.
func Announce(nic string, address netip.Addr) error {
	s, err := open(nic)
	if err != nil {
		return err
	}
	defer s.close()
	for _, op := range []uint16{opRequest, opReply} { // some listen to one of them only
		if err := s.send(frame{op: op, senderMAC: s.nic.HardwareAddr, targetMAC: broadcast, sender: address, target: address}); err != nil {
			return err
		}
	}
	return nil
}

// socket is a raw socket for ARP on one interface.
type socket struct {
	nic  *net.Interface
	file *os.File
}

func open(name string) (*socket, error) {
	nic, err := net.InterfaceByName(name)
	if err != nil {
		return nil, fmt.Errorf("ARP on %s: %w", name, err)
	}
	if len(nic.HardwareAddr) != 6 {
		return nil, fmt.Errorf("ARP on %s: it has no hardware address", name)
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(network(unix.ETH_P_ARP)))
	if err != nil {
		return nil, fmt.Errorf("ARP on %s: %w", name, err)
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: network(unix.ETH_P_ARP), Ifindex: nic.Index}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("ARP on %s: %w", name, err)
	}
	// As a file it is waited for by the runtime's poller: no thread is kept.
	return &socket{nic, os.NewFile(uintptr(fd), "arp")}, nil
}

func (s *socket) close() { s.file.Close() }

func (s *socket) send(f frame) error {
	if _, err := s.file.Write(f.encode()); err != nil {
		return fmt.Errorf("ARP on %s: %w", s.nic.Name, err)
	}
	return nil
}

// receive returns the next ARP frame, or os.ErrDeadlineExceeded.
func (s *socket) receive(deadline time.Time) (frame, error) {
	if err := s.file.SetReadDeadline(deadline); err != nil {
		return frame{}, err
	}
	var b [128]byte
	for {
		n, err := s.file.Read(b[:])
		if err != nil {
			return frame{}, err
		}
		if f, ok := decode(b[:n]); ok {
			return f, nil
		}
	}
}

// network is a number in the network's order of bytes.
func network(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}
