package smoke

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"nines/internal/model"
)

// poolSize is how many floating addresses an external network gets that the smoke test makes.
const poolSize = 16

// NoWayOutError says that there is no external network and none can be made.
type NoWayOutError struct{ Err error }

func (e *NoWayOutError) Error() string {
	return "there is no external network, and none can be made: " + e.Err.Error()
}
func (e *NoWayOutError) Unwrap() error { return e.Err }

// Hint says what to do now.
func (e *NoWayOutError) Hint() string {
	return "set neutron.provider_interface and networks.external in cluster.yaml, or make an external network with a subnet"
}

// externalSpec is the external network for a cluster that has none: on the interface that leads to floating addresses, with a few
// addresses that no node has.
func externalSpec(c *model.Cluster) (ExternalSpec, error) {
	cidr := c.Networks[model.External].CIDR
	switch {
	case c.Neutron.ProviderInterface == "":
		return ExternalSpec{}, &NoWayOutError{errors.New("neutron.provider_interface is not set")}
	case !cidr.IsValid():
		return ExternalSpec{}, &NoWayOutError{errors.New("networks.external is not set")}
	}
	cidr = cidr.Masked()
	gateway := cidr.Addr().Next()
	taken := []netip.Addr{gateway}
	for _, v := range c.VIP.Addresses() {
		taken = append(taken, v.Prefix.Addr())
	}
	for _, n := range c.Nodes {
		for _, a := range n.Addresses {
			taken = append(taken, a)
		}
	}
	first, last, ok := freePool(cidr, taken)
	if !ok {
		return ExternalSpec{}, &NoWayOutError{fmt.Errorf("%s has no free addresses", cidr)}
	}
	return ExternalSpec{Physical: c.Neutron.PhysicalNetwork, CIDR: cidr, Gateway: gateway, First: first, Last: last}, nil
}

// freePool returns the last poolSize addresses of the largest part of the network that holds none of the taken ones.
func freePool(cidr netip.Prefix, taken []netip.Addr) (first, last netip.Addr, ok bool) {
	edges := []netip.Addr{cidr.Addr(), lastOf(cidr)}
	for _, a := range taken {
		if cidr.Contains(a) {
			edges = append(edges, a)
		}
	}
	slices.SortFunc(edges, netip.Addr.Compare)
	best := uint32(0)
	for i, edge := range edges[1:] {
		if size := number(edge) - number(edges[i]); size >= 2 && size-1 > best {
			best, last = size-1, edge.Prev()
		}
	}
	if best == 0 {
		return first, last, false
	}
	first = last
	for range min(best, poolSize) - 1 {
		first = first.Prev()
	}
	return first, last, true
}

func lastOf(p netip.Prefix) netip.Addr {
	a := p.Masked().Addr().As4()
	n := number(p.Masked().Addr()) | uint32(1<<(32-p.Bits())-1)
	a[0], a[1], a[2], a[3] = byte(n>>24), byte(n>>16), byte(n>>8), byte(n)
	return netip.AddrFrom4(a)
}

func number(a netip.Addr) uint32 {
	b := a.As4()
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
}

// privateCIDR is a network for instances that is none of the cluster's.
func privateCIDR(c *model.Cluster) netip.Prefix {
	candidates := []netip.Prefix{netip.MustParsePrefix("192.168.233.0/24"), netip.MustParsePrefix("10.233.233.0/24"),
		netip.MustParsePrefix("172.31.233.0/24"), netip.MustParsePrefix("100.127.233.0/24")}
	for _, p := range candidates {
		free := true
		for _, n := range c.Networks {
			free = free && !(n.CIDR.IsValid() && n.CIDR.Overlaps(p))
		}
		if free {
			return p
		}
	}
	return candidates[0]
}
