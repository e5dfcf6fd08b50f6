package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"nines/internal/arp"
)

// The impostor: a machine of nobody's on the management network, whose kernel has an address that is not its own.
const (
	impostorOuter = "impostor-m"
	impostorNIC   = "impostor0"
)

// impostorMAC is a locally administered address no machine of the lab has.
var impostorMAC = net.HardwareAddr{0x02, 'x', 198, 18, 0, 250}

// How often and how many times the impostor says that the address is its own.
const (
	claims     = 3
	claimEvery = 200 * time.Millisecond
)

// Claim has a foreign machine on the management network claim an address, by ARP, until Mend. Empty: the VIP.
func (l *Lab) Claim(ctx context.Context, address string) error {
	if address == "" {
		address = vipAddress
	}
	a, err := netip.ParseAddr(address)
	if err != nil || !managementNetwork.prefix.Contains(a) {
		return fmt.Errorf("%q is no address of the management network (%s)", address, managementNetwork.prefix)
	}
	err = l.disturb(ctx, func(d *disorder) error {
		if err := l.removeImpostor(); err != nil {
			return err
		}
		d.Impostor = a.String()
		return l.makeImpostor(netip.PrefixFrom(a, managementNetwork.prefix.Bits()))
	})
	if err != nil {
		return err
	}
	return onLabNetwork(l.impostorNetns(), func() error {
		for range claims {
			if err := arp.Announce(impostorNIC, a); err != nil {
				return err
			}
			time.Sleep(claimEvery) // the thread is this goroutine's alone
		}
		return ctx.Err()
	})
}

func (l *Lab) impostorNetns() string { return filepath.Join(l.runDir(), "impostor") }

func (l *Lab) makeImpostor(address netip.Prefix) error {
	if err := makeNetworkNamespace(l.impostorNetns()); err != nil {
		return err
	}
	inside, err := netns.GetFromPath(l.impostorNetns())
	if err != nil {
		return err
	}
	defer inside.Close()
	err = l.withNetlink(func(h *netlink.Handle) error {
		bridge, err := h.LinkByName(managementNetwork.bridge)
		if err != nil {
			return err
		}
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MasterIndex = impostorOuter, bridge.Attrs().Index
		veth := &netlink.Veth{LinkAttrs: attrs, PeerName: impostorNIC, PeerHardwareAddr: impostorMAC, PeerNamespace: netlink.NsFd(inside)}
		if err := h.LinkAdd(veth); err != nil {
			return err
		}
		outer, err := h.LinkByName(impostorOuter)
		if err != nil {
			return err
		}
		return h.LinkSetUp(outer)
	})
	if err != nil {
		return fmt.Errorf("impostor: %w", err)
	}
	h, err := netlink.NewHandleAt(inside, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("impostor: %w", err)
	}
	defer h.Close()
	nic, err := h.LinkByName(impostorNIC)
	if err == nil {
		err = h.AddrReplace(nic, &netlink.Addr{IPNet: ipNet(address)})
	}
	if err == nil {
		err = h.LinkSetUp(nic)
	}
	if err != nil {
		return fmt.Errorf("impostor: %w", err)
	}
	return nil
}

// removeImpostor removes it, if it is there.
func (l *Lab) removeImpostor() error {
	err := l.withNetlink(func(h *netlink.Handle) error {
		link, err := h.LinkByName(impostorOuter)
		var missing netlink.LinkNotFoundError
		if errors.As(err, &missing) {
			return nil
		}
		if err != nil {
			return err
		}
		return h.LinkDel(link)
	})
	if err == nil && isNetworkNamespace(l.impostorNetns()) {
		err = unix.Unmount(l.impostorNetns(), unix.MNT_DETACH)
	}
	if err != nil {
		return fmt.Errorf("remove the impostor: %w", err)
	}
	return removeIfThere(l.impostorNetns())
}
