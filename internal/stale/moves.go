package stale

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// watchMoves tells when the virtual address has moved, until ctx ends: this node got or lost it, or the network says that
// another machine has it (a gratuitous ARP changes the neighbour's hardware address). It says true when this node got it.
func watchMoves(ctx context.Context, vip func() netip.Addr, log *slog.Logger) (<-chan bool, error) {
	addresses, neighbours := make(chan netlink.AddrUpdate), make(chan netlink.NeighUpdate)
	failed := func(err error) {
		if ctx.Err() == nil {
			log.Warn("moves of the virtual address may be missed", "err", err)
		}
	}
	err := netlink.AddrSubscribeWithOptions(addresses, ctx.Done(), netlink.AddrSubscribeOptions{ErrorCallback: failed})
	if err != nil {
		return nil, fmt.Errorf("watch this node's addresses: %w", err)
	}
	err = netlink.NeighSubscribeWithOptions(neighbours, ctx.Done(), netlink.NeighSubscribeOptions{ErrorCallback: failed, ListExisting: true})
	if err != nil {
		return nil, fmt.Errorf("watch the neighbours: %w", err)
	}
	out := make(chan bool, 4)
	go func() {
		var at holder
		for addresses != nil || neighbours != nil {
			moved, here := false, false
			select {
			case u, ok := <-addresses:
				if !ok {
					addresses = nil
					continue
				}
				moved = isVIP(u.LinkAddress.IP, vip())
				here = moved && u.NewAddr
			case u, ok := <-neighbours:
				if !ok {
					neighbours = nil
					continue
				}
				moved = isVIP(u.IP, vip()) && u.State&known != 0 && at.moved(u.HardwareAddr)
			}
			if moved {
				select {
				case out <- here:
				default: // moves faster than it can be acted upon: it was said
				}
			}
		}
	}()
	return out, nil
}

// known are the states of a neighbour in which the kernel has its hardware address. While it asks for it, or after it asked
// in vain, the address is zeros.
const known = netlink.NUD_REACHABLE | netlink.NUD_STALE | netlink.NUD_DELAY | netlink.NUD_PROBE | netlink.NUD_PERMANENT

// holder is the hardware address that was last seen to have the virtual one.
type holder string

// moved notes the address and reports whether another had it before. The kernel forgets a neighbour now and
// then; that is no move.
func (h *holder) moved(to net.HardwareAddr) bool {
	if len(to) == 0 {
		return false
	}
	before := *h
	*h = holder(to)
	return before != "" && before != *h
}

func isVIP(ip net.IP, vip netip.Addr) bool {
	a, ok := netip.AddrFromSlice(ip)
	return ok && a.Unmap() == vip
}
