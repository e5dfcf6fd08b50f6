package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// network is one subnet of the lab: a bridge in the lab's namespace, to which
// every machine has one interface.
type network struct {
	bridge string // name of the bridge, in the lab's namespace
	nic    string // name of the interface inside a machine
	suffix string // NODE-SUFFIX is the bridge's end of it
	prefix netip.Prefix
}

// operator is the address on the bridge itself: where the operator, and the
// lab's package source, are.
func (n network) operator() netip.Addr { return n.prefix.Addr().Next() }

// bridgeMAC is the hardware address of the bridge, derived as those of the machines are.
func (n network) bridgeMAC() net.HardwareAddr {
	ip := n.operator().As4()
	return net.HardwareAddr{0x02, 'b', ip[0], ip[1], ip[2], ip[3]}
}

// RFC 2544 reserves 198.18.0.0/15 for tests of network equipment, so the block
// is nobody's real network. Labs side by side may use the same addresses: each
// is in a namespace of its own.
var (
	managementNetwork = network{bridge: "management", nic: "mgmt0", suffix: "m", prefix: netip.MustParsePrefix("198.18.0.0/24")}
	externalNetwork   = network{bridge: "external", nic: "ext0", suffix: "e", prefix: netip.MustParsePrefix("198.18.1.0/24")}
	tenantNetwork     = network{bridge: "tenant", nic: "tenant0", suffix: "t", prefix: netip.MustParsePrefix("198.18.2.0/24")}

	// providerNetwork is a second way into the external network, for the routers of instances: a virtual switch
	// takes the interface over, and the machine itself has no address on it.
	providerNetwork = network{bridge: externalNetwork.bridge, nic: "provider0", suffix: "p", prefix: externalNetwork.prefix}
)

// bridges are the networks that have a bridge of their own.
var bridges = []network{managementNetwork, externalNetwork, tenantNetwork}

// plug is one interface of a machine.
type plug struct {
	network network
	// address is the one the machine has in the network; it makes the hardware address unique.
	address netip.Prefix
	// bare: the machine does not put the address on the interface.
	bare bool
}

// plugs returns the machine's interfaces. Those for the traffic of instances are there where the machine has an
// address for it.
func (n nodeSpec) plugs() []plug {
	out := []plug{
		{network: managementNetwork, address: within(managementNetwork, n.Management)},
		{network: externalNetwork, address: within(externalNetwork, n.External)},
	}
	if n.Tenant != "" {
		out = append(out, plug{network: tenantNetwork, address: within(tenantNetwork, n.Tenant)},
			plug{network: providerNetwork, address: within(providerNetwork, n.External), bare: true})
	}
	return out
}

func within(n network, address string) netip.Prefix {
	return netip.PrefixFrom(netip.MustParseAddr(address), n.prefix.Bits())
}

// outer is the name of the bridge's end of the interface.
func (p plug) outer(node string) string { return node + "-" + p.network.suffix }

// mac derives the hardware address from the IP address, so that a machine that
// comes back is the same to its neighbours. Two interfaces may have one network.
func (p plug) mac() net.HardwareAddr {
	ip := p.address.Addr().As4()
	return net.HardwareAddr{0x02, p.network.suffix[0], ip[0], ip[1], ip[2], ip[3]}
}

// makeNetwork makes the lab's namespace with its bridges. What is there stays.
func (l *Lab) makeNetwork() error {
	if err := makeNetworkNamespace(l.Netns()); err != nil {
		return err
	}
	return l.withNetlink(func(h *netlink.Handle) error {
		lo, err := h.LinkByName("lo")
		if err != nil {
			return err
		}
		if err := h.LinkSetUp(lo); err != nil {
			return err
		}
		for _, n := range bridges {
			if err := makeBridge(h, n); err != nil {
				return fmt.Errorf("bridge %s: %w", n.bridge, err)
			}
		}
		for _, n := range l.state.Nodes {
			if n.BMC == "" {
				continue
			}
			if err := plugBMCs(h, n, l.bmcMode(n.Name)); err != nil {
				return err
			}
		}
		return nil
	})
}

func makeBridge(h *netlink.Handle, n network) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = n.bridge
	// By itself a bridge takes the lowest address of its ports, and another one when a machine loses its power: the BMCs and the package source,
	// which are on the bridge, were then not reached by who knew the old one (seen: a fence agent that waited for 38 s).
	attrs.HardwareAddr = plug{network: n, address: netip.PrefixFrom(n.operator(), n.prefix.Bits())}.mac()
	snooping := false // there is no multicast querier here: snooping would drop after a while
	if err := h.LinkAdd(&netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &snooping}); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	bridge, err := h.LinkByName(n.bridge)
	if err != nil {
		return err
	}
	// Without one of its own a bridge takes the lowest hardware address of its ports: the loss of that machine
	// would have all others send what is for the operator and the BMCs to nobody, until they ask anew.
	if err := h.LinkSetHardwareAddr(bridge, n.bridgeMAC()); err != nil {
		return err
	}
	addr := &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(n.operator(), n.prefix.Bits()))}
	if err := h.AddrReplace(bridge, addr); err != nil {
		return err
	}
	return h.LinkSetUp(bridge)
}

// plugIn makes the machine's namespace at path and its interfaces: one end
// inside, without an address (the machine configures itself), the other on the bridge.
func (l *Lab) plugIn(node nodeSpec, path string) error {
	if err := makeNetworkNamespace(path); err != nil {
		return err
	}
	inside, err := netns.GetFromPath(path)
	if err != nil {
		return fmt.Errorf("network namespace of %s: %w", node.Name, err)
	}
	defer inside.Close()
	return l.withNetlink(func(h *netlink.Handle) error {
		for _, p := range node.plugs() {
			if err := plugOne(h, node.Name, p, inside); err != nil {
				return fmt.Errorf("interface %s of %s: %w", p.network.nic, node.Name, err)
			}
		}
		return nil
	})
}

func plugOne(h *netlink.Handle, node string, p plug, inside netns.NsHandle) error {
	bridge, err := h.LinkByName(p.network.bridge)
	if err != nil {
		return err
	}
	if old, err := h.LinkByName(p.outer(node)); err == nil {
		if err := h.LinkDel(old); err != nil {
			return err
		}
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = p.outer(node)
	attrs.MasterIndex = bridge.Attrs().Index
	veth := &netlink.Veth{
		LinkAttrs:        attrs,
		PeerName:         p.network.nic,
		PeerHardwareAddr: p.mac(),
		PeerNamespace:    netlink.NsFd(inside),
	}
	if err := h.LinkAdd(veth); err != nil {
		return err
	}
	outer, err := h.LinkByName(p.outer(node))
	if err != nil {
		return err
	}
	return h.LinkSetUp(outer)
}

// silence cuts the machine off: from here on no packet leaves it or reaches
// it. Needed before its processes are killed, because the kernel closes their
// connections politely and a machine without power does not.
func (l *Lab) silence(node nodeSpec) error {
	if !isNetworkNamespace(l.Netns()) {
		return nil
	}
	return l.withNetlink(func(h *netlink.Handle) error {
		for _, p := range node.plugs() {
			err := cable(h, node.Name, p, false)
			var missing netlink.LinkNotFoundError
			if err != nil && !errors.As(err, &missing) {
				return err
			}
		}
		return nil
	})
}

// cable takes the cable out of an interface of a machine, or puts it in. The machine sees the carrier go and come.
func cable(h *netlink.Handle, node string, p plug, in bool) error {
	link, err := h.LinkByName(p.outer(node))
	if err == nil && in {
		err = h.LinkSetUp(link)
	} else if err == nil {
		err = h.LinkSetDown(link)
	}
	if err != nil {
		return fmt.Errorf("cable of %s of %s: %w", p.network.nic, node, err)
	}
	return nil
}

// CableOut takes the machines' cables out of the management network. They run on, and reach nobody there.
func (l *Lab) CableOut(ctx context.Context, nodes ...string) error {
	return l.eachNode(ctx, nodes, func(_ context.Context, n nodeSpec) error { return l.managementCable(n, false) })
}

// CableIn puts the cables in again.
func (l *Lab) CableIn(ctx context.Context, nodes ...string) error {
	return l.eachNode(ctx, nodes, func(_ context.Context, n nodeSpec) error { return l.managementCable(n, true) })
}

func (l *Lab) managementCable(n nodeSpec, in bool) error {
	pid, err := l.initOf(n.Name)
	if err != nil {
		return err
	}
	if pid == 0 {
		return fmt.Errorf("%s is off: it gets its cables with its power", n.Name)
	}
	return l.withNetlink(func(h *netlink.Handle) error { return cable(h, n.Name, n.plugs()[0], in) })
}

// unplug removes the machine's interfaces and its namespace.
func (l *Lab) unplug(node nodeSpec, path string) error {
	err := l.withNetlink(func(h *netlink.Handle) error {
		for _, p := range node.plugs() {
			if link, err := h.LinkByName(p.outer(node.Name)); err == nil {
				if err := h.LinkDel(link); err != nil {
					return fmt.Errorf("remove interface %s: %w", p.outer(node.Name), err)
				}
			}
		}
		return nil
	})
	if isNetworkNamespace(path) {
		err = errors.Join(err, unix.Unmount(path, unix.MNT_DETACH))
	}
	return err
}

// withNetlink runs f with a netlink handle of the lab's namespace.
func (l *Lab) withNetlink(f func(*netlink.Handle) error) error {
	ns, err := netns.GetFromPath(l.Netns())
	if err != nil {
		return fmt.Errorf("network of lab %s (nines lab up --name %s makes it): %w", l.Name(), l.Name(), err)
	}
	defer ns.Close()
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("network of lab %s: %w", l.Name(), err)
	}
	defer h.Close()
	return f(h)
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// networkBatch is the machine's own network configuration: commands for ip -batch.
func (n nodeSpec) networkBatch() string {
	batch := "link set lo up\n"
	for _, p := range n.plugs() {
		if !p.bare {
			batch += fmt.Sprintf("addr replace %s brd + dev %s\n", p.address, p.network.nic)
		}
		batch += fmt.Sprintf("link set %s up\n", p.network.nic)
	}
	return batch
}

// netnsOf is where the machine's network namespace is mounted.
func (l *Lab) netnsOf(node string) string { return filepath.Join(l.nodeRun(node), "netns") }

// removeIfThere removes a file; a missing one is no error.
func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
