package config

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"nines/internal/model"
)

// A label is a host name without dots (RFC 1123, 2.1), in lower case: it is
// also an Erlang node name and a certificate's name.
const (
	labelPattern = `^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$`
	labelMeans   = "a short name: lower-case letters, digits and -, first a letter, at most 63 characters, no domain"
)

// rules checks what concerns more than one key.
func (p *decoder) rules() {
	p.networks()
	p.nodes()
	p.controllers()
	p.vip()
	p.fencing()
	p.services()
	p.neutron()
	p.galera()
	p.haproxy()
	p.packages()
}

func (p *decoder) networks() {
	c := p.cluster
	if _, ok := c.Networks[model.Management]; !ok && p.given("networks") && !p.given("networks.management") {
		p.report(p.key("networks"), "the network management is missing", "management: {cidr: ...}: agents and clustered services talk there")
	}
	var before []model.NetworkName
	for _, name := range model.NetworkNames {
		n, ok := c.Networks[name]
		if !ok {
			continue
		}
		path := "networks." + string(name) + ".cidr"
		switch {
		case !n.CIDR.Addr().Is4():
			p.report(p.value(path), "only IPv4 is supported", "an IPv4 subnet, like 192.0.2.0/24")
		case n.CIDR != n.CIDR.Masked():
			p.report(p.value(path), fmt.Sprintf("%s is an address in a subnet, not the subnet", n.CIDR), n.CIDR.Masked().String())
		case n.CIDR.Bits() > 30 || n.CIDR.Bits() < 8:
			p.report(p.value(path), fmt.Sprintf("/%d is no subnet for a cluster", n.CIDR.Bits()), "a prefix length from 8 to 30")
		}
		for _, other := range before {
			if c.Networks[other].CIDR.Overlaps(n.CIDR) {
				p.report(p.value(path), fmt.Sprintf("the networks %s (%s) and %s (%s) overlap", other, c.Networks[other].CIDR, name, n.CIDR),
					"subnets apart from each other: a node could not tell them apart")
			}
		}
		before = append(before, name)
	}
}

func (p *decoder) nodes() {
	names, addresses := map[string]string{}, map[netip.Addr]string{}
	for i, n := range p.cluster.Nodes {
		path := fmt.Sprintf("nodes[%d]", i)
		if n.Name != "" {
			p.nodeName(n.Name, path+".name", names)
		}
		p.roles(n, path)
		if _, ok := n.Addresses[model.Management]; !ok && p.given(path+".addresses") && !p.given(path+".addresses.management") {
			p.report(p.key(path+".addresses"), fmt.Sprintf("%s has no address on management", n.Name), "management: ADDRESS: its agent listens there")
		}
		for _, network := range model.NetworkNames {
			if a, ok := n.Addresses[network]; ok {
				p.nodeAddress(a, network, path+".addresses."+string(network), addresses)
			}
		}
	}
}

func (p *decoder) nodeName(name, path string, seen map[string]string) {
	if name == "localhost" {
		p.report(p.value(path), "localhost is every machine's own name", "the node's host name")
	}
	if first, ok := seen[name]; ok {
		p.report(p.value(path), fmt.Sprintf("two nodes are named %s", name), fmt.Sprintf("another name; the first stands in line %d", p.value(first).line))
		return
	}
	seen[name] = path
}

func (p *decoder) roles(n model.Node, path string) {
	if p.given(path+".roles") && len(n.Roles) == 0 && !p.bad[path+".roles"] {
		p.report(p.value(path+".roles"), fmt.Sprintf("%s has no role", n.Name), "one or more of "+strings.Join(words(model.Roles), ", "))
	}
	for i, r := range n.Roles {
		if r != "" && slices.Contains(n.Roles[:i], r) {
			p.report(p.value(fmt.Sprintf("%s.roles[%d]", path, i)), fmt.Sprintf("%s has the role %s twice", n.Name, r), "name it once")
		}
	}
}

func (p *decoder) nodeAddress(a netip.Addr, network model.NetworkName, path string, seen map[netip.Addr]string) {
	if first, ok := seen[a]; ok {
		p.report(p.value(path), fmt.Sprintf("the address %s is used twice", a), fmt.Sprintf("another address; the first stands in line %d", p.value(first).line))
	} else {
		seen[a] = path
	}
	n, ok := p.cluster.Networks[network]
	switch {
	case !ok:
		if !p.given("networks." + string(network)) {
			p.report(p.key(path), fmt.Sprintf("the network %s is not described", network), fmt.Sprintf("add %s: {cidr: ...} under networks, or remove the address", network))
		}
	case !n.CIDR.Contains(a):
		p.report(p.value(path), fmt.Sprintf("%s is outside of the network %s (%s)", a, network, n.CIDR), "an address in "+n.CIDR.String())
	default:
		p.usable(a, n.CIDR, path)
	}
}

// usable reports the two addresses of a subnet that no machine may have.
func (p *decoder) usable(a netip.Addr, subnet netip.Prefix, path string) {
	if a == subnet.Masked().Addr() {
		p.report(p.value(path), fmt.Sprintf("%s is the address of the network itself", a), "another address in "+subnet.String())
	}
	if a == broadcast(subnet) {
		p.report(p.value(path), fmt.Sprintf("%s is the broadcast address of %s", a, subnet), "another address in "+subnet.String())
	}
}

// broadcast is the last address of an IPv4 subnet; the zero Addr for others.
func broadcast(subnet netip.Prefix) netip.Addr {
	if !subnet.Addr().Is4() || subnet.Bits() < 0 {
		return netip.Addr{}
	}
	b := subnet.Masked().Addr().As4()
	binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])|uint32(uint64(1)<<(32-subnet.Bits())-1))
	return netip.AddrFrom4(b)
}

func (p *decoder) controllers() {
	c, n := p.cluster, len(p.cluster.Controllers())
	if !p.given("nodes") || !p.rolesKnown() {
		return
	}
	at := p.key("nodes")
	switch {
	case n == 0:
		p.report(at, "there is no controller", "three nodes with the role controller")
	case n == 1:
		p.report(at, "one controller alone survives no failure", "three controllers: two of them still agree when one is gone")
	case n%2 == 0 && !c.AcceptEvenControllers:
		p.report(at, fmt.Sprintf("%d controllers survive %s, no more than %d would", n, failures(n), n-1),
			fmt.Sprintf("%s controllers; or acknowledge it with accept_even_controllers: true", odd(n)))
	}
}

// rolesKnown reports whether every node's roles could be read: who is a controller
// is not to be judged before.
func (p *decoder) rolesKnown() bool {
	for i := range p.cluster.Nodes {
		path := fmt.Sprintf("nodes[%d].roles", i)
		if !p.given(path) || p.bad[path] {
			return false
		}
		for j := range p.cluster.Nodes[i].Roles {
			if p.bad[fmt.Sprintf("%s[%d]", path, j)] {
				return false
			}
		}
	}
	return true
}

// odd names the odd numbers beside an even one that survive a failure.
func odd(n int) string {
	if n == 2 {
		return "3"
	}
	return fmt.Sprintf("%d or %d", n-1, n+1)
}

func failures(n int) string {
	lost := n - model.Quorum(n)
	switch lost {
	case 0:
		return "no failure"
	case 1:
		return "one failure"
	}
	return fmt.Sprintf("%d failures", lost)
}

func (p *decoder) vip() {
	c, v := p.cluster, p.cluster.VIP
	if v.Address.IsValid() {
		p.vipAddress("the VIP", model.VIPAddress{Prefix: v.Address, Network: v.Network}, "vip.address", "vip.network")
	}
	if v.Public.IsValid() {
		p.vipAddress("the public VIP", model.VIPAddress{Prefix: v.Public, Network: v.PublicNetwork}, "vip.public_address", "vip.public_network")
		if v.Public.Addr() == v.Address.Addr() {
			p.report(p.value("vip.public_address"), fmt.Sprintf("the public VIP is the VIP (line %d)", p.value("vip.address").line), "another address, or leave vip.public_address out: users come to vip.address then")
		}
	} else if p.given("vip.public_network") && !p.given("vip.public_address") {
		p.report(p.key("vip.public_network"), "the network of a public VIP, but there is none", "vip.public_address: ADDRESS/BITS beside it")
	}
	if n := len(c.Controllers()); v.Engine == model.EnginePacemaker && n < 3 && p.given("nodes") && p.rolesKnown() {
		p.report(p.value("vip.engine"), fmt.Sprintf("pacemaker decides by majority: with %d controllers the VIP would be lost with the first of them", n),
			"three controllers, or engine: keepalived")
	}
}

// vipAddress judges one address of the VIP: what it is called, and the keys of both of its parts.
func (p *decoder) vipAddress(name string, v model.VIPAddress, addressKey, networkKey string) {
	c, a := p.cluster, v.Prefix.Addr()
	for i, n := range c.Nodes {
		for _, network := range model.NetworkNames {
			if n.Addresses[network] == a {
				p.report(p.value(addressKey), fmt.Sprintf("%s %s is the address of %s on %s (line %d)", name, a, n.Name, network,
					p.value(fmt.Sprintf("nodes[%d].addresses.%s", i, network)).line), "an address that no node has: it moves between the controllers")
			}
		}
	}
	network, ok := c.Networks[v.Network]
	if !ok {
		if p.given(networkKey) && v.Network != "" && !p.given("networks."+string(v.Network)) {
			p.report(p.value(networkKey), fmt.Sprintf("the network %s is not described", v.Network), "one of "+strings.Join(p.described(), ", "))
		}
		return
	}
	switch {
	case !network.CIDR.Contains(a):
		p.report(p.value(addressKey), fmt.Sprintf("%s %s is outside of the network %s (%s)", name, a, v.Network, network.CIDR), "a free address in "+network.CIDR.String())
	case v.Prefix.Bits() != network.CIDR.Bits():
		p.report(p.value(addressKey), fmt.Sprintf("%s has the netmask /%d, its network %s has /%d: it would attract or lose traffic", name, v.Prefix.Bits(), v.Network, network.CIDR.Bits()),
			netip.PrefixFrom(a, network.CIDR.Bits()).String())
	default:
		p.usable(a, network.CIDR, addressKey)
	}
	for i, n := range c.Nodes {
		path := fmt.Sprintf("nodes[%d].addresses", i)
		if _, ok := n.Addresses[v.Network]; !ok && v.Network != model.Management && n.Has(model.RoleController) && p.given(path) && !p.given(path+"."+string(v.Network)) {
			p.report(p.key(path), fmt.Sprintf("the controller %s has no address on %s, where %s lives", n.Name, v.Network, name), fmt.Sprintf("%s: ADDRESS", v.Network))
		}
	}
}

// longestIPMIUser is what IPMI 2.0 has room for (22.28, Set User Name).
const longestIPMIUser = 16

func (p *decoder) fencing() {
	seen := map[netip.AddrPort]string{}
	for i, n := range p.cluster.Nodes {
		path := fmt.Sprintf("nodes[%d]", i)
		if !p.given(path + ".bmc") {
			if p.given("fencing") && p.cluster.Fences() && n.Has(model.RoleController) {
				p.report(p.value("fencing"), fmt.Sprintf("fencing is on, but the controller %s has no bmc (line %d)", n.Name, p.key(path).line),
					"bmc: {protocol: redfish, address: ..., user: ...} for it, or fencing: off")
			}
			if p.given(path + ".second_bmc") {
				p.report(p.key(path+".second_bmc"), fmt.Sprintf("%s has a second BMC and no first", n.Name), "bmc: {...} instead, or both")
			}
			continue
		}
		for _, l := range n.Levels() {
			p.bmc(l, path+"."+l.Field(), seen)
		}
	}
}

func (p *decoder) bmc(l model.Level, path string, seen map[netip.AddrPort]string) {
	if l.BMC.Protocol == model.IPMI && len(l.BMC.User) > longestIPMIUser {
		p.report(p.value(path+".user"), fmt.Sprintf("the user %s is longer than %d characters, the most that IPMI has room for", l.BMC.User, longestIPMIUser), "a shorter name, or protocol: redfish")
	}
	if p.given(path+".address") && !p.bad[path+".address"] {
		p.bmcAddress(l, path+".address", seen)
	}
}

func (p *decoder) bmcAddress(l model.Level, path string, seen map[netip.AddrPort]string) {
	at := p.value(path)
	endpoint, err := l.BMC.Endpoint()
	if err != nil {
		p.report(at, fmt.Sprintf("address: %q is not an address", l.BMC.Address), "like 192.0.2.61 or 192.0.2.61:8443")
		return
	}
	a := endpoint.Addr()
	if a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() {
		p.report(at, fmt.Sprintf("%s is no address of a machine", a), "the address of the BMC")
	}
	if p.cluster.VIP.Is(a) {
		p.report(at, fmt.Sprintf("the %s has the address of the VIP", l), "the BMC's own address")
	}
	for i, other := range p.cluster.Nodes {
		for _, network := range model.NetworkNames {
			if other.Addresses[network] == a {
				p.report(at, fmt.Sprintf("%s is the address of %s on %s (line %d): a machine cannot be asked to take its own power away", a, other.Name, network,
					p.value(fmt.Sprintf("nodes[%d].addresses.%s", i, network)).line), "the BMC's own address")
			}
		}
	}
	if first, twice := seen[endpoint]; twice {
		p.report(at, fmt.Sprintf("the BMC %s stands here twice", endpoint), fmt.Sprintf("each machine its own, or the wrong one would lose its power, and a second one of a machine is another; the first stands in line %d", p.value(first).line))
		return
	}
	seen[endpoint] = path
}

// described returns the networks of the file.
func (p *decoder) described() []string {
	var out []string
	for _, n := range model.NetworkNames {
		if _, ok := p.cluster.Networks[n]; ok {
			out = append(out, string(n))
		}
	}
	return out
}

// vipEngine stands for the service that vip.engine names.
const vipEngine = "vip.engine"

// requires says which services another cannot work without. All of the core runs on
// the controllers, so a service has a node as soon as there is a controller.
var requires = map[string][]string{
	"galera":     {"base"},
	"rabbitmq":   {"base"},
	"memcached":  {"base"},
	"haproxy":    {"base"},
	"keepalived": {"base", "haproxy"},
	"pacemaker":  {"base", "haproxy"},
	"keystone":   {"base", "galera", "memcached", "haproxy", vipEngine},
	"placement":  {"keystone"},
	"glance":     {"keystone"},
	"neutron":    {"keystone", "rabbitmq"},
	"cinder":     {"keystone", "glance", "rabbitmq"},
	"horizon":    {"keystone"},
	"heat":       {"keystone", "rabbitmq"},
}

func (p *decoder) services() {
	c := p.cluster
	if p.given("services") && len(c.Services) == 0 && !p.bad["services"] {
		p.report(p.value("services"), "the cluster runs nothing", "name its services, or leave the key out to run all of the core")
	}
	for i, s := range c.Services {
		at := p.value(fmt.Sprintf("services[%d]", i))
		if s != "" && slices.Contains(c.Services[:i], s) {
			p.report(at, fmt.Sprintf("the service %s is here twice", s), "name it once")
			continue
		}
		if s == "ovn" && c.Neutron.Agents() {
			p.report(at, "ovn has nothing to do: neutron.backend is ovs", "remove ovn from services, or set neutron.backend: ovn")
		}
		for _, need := range requires[s] {
			if need == vipEngine {
				need = string(c.VIP.Engine)
			}
			if !c.Runs(need) {
				p.report(at, fmt.Sprintf("%s cannot work without %s", s, need), "add "+need+" to services")
			}
		}
		if p.given("services") && s != "" && s != "base" && p.given("nodes") && p.rolesKnown() && len(c.Controllers()) == 0 {
			p.report(at, fmt.Sprintf("no node runs %s", s), "give nodes the role controller")
		}
	}
}

// neutron checks what one of the backends cannot do.
func (p *decoder) neutron() {
	if n := p.cluster.Neutron; n.Agents() && n.DistributedFloatingIPs {
		p.report(p.value("neutron.distributed_floating_ips"), "distributed_floating_ips is OVN's: with backend ovs the routers on the controllers answer for floating addresses",
			"distributed_floating_ips: false; or backend: ovn")
	}
}

// galera checks what the group communication refuses ("out of range") or survives badly.
// The ranges are those of gcomm's evs_proto.cpp; that join_retrans must stay below
// suspect_timeout was measured: otherwise the survivors declare each other dead.
func (p *decoder) galera() {
	t := p.cluster.Tuning.Galera
	for _, r := range []struct {
		broken bool
		key    string
		text   string
		right  string
	}{
		{t.SuspectTimeout <= t.JoinRetrans, "suspect_timeout",
			fmt.Sprintf("suspect_timeout (%s) is not above join_retrans (%s): the survivors of a failure would declare each other dead", t.SuspectTimeout, t.JoinRetrans),
			fmt.Sprintf("join_retrans: %s", share(t.SuspectTimeout, 3))},
		{t.Keepalive*3 >= t.SuspectTimeout, "keepalive",
			fmt.Sprintf("keepalive (%s) is not below a third of suspect_timeout (%s): the database does not start", t.Keepalive, t.SuspectTimeout),
			fmt.Sprintf("keepalive: %s", share(t.SuspectTimeout*9/10, 3))},
		{t.InactiveCheck*2 > t.SuspectTimeout, "inactive_check",
			fmt.Sprintf("inactive_check (%s) is above half of suspect_timeout (%s): the database does not start", t.InactiveCheck, t.SuspectTimeout),
			fmt.Sprintf("inactive_check: %s", share(t.SuspectTimeout*9/10, 3))},
		{t.InstallTimeout > t.InactiveTimeout, "install_timeout",
			fmt.Sprintf("install_timeout (%s) is above inactive_timeout (%s): the database does not start", t.InstallTimeout, t.InactiveTimeout),
			fmt.Sprintf("install_timeout: %s", t.InactiveTimeout)},
		{t.InstallTimeout < t.Keepalive*2, "install_timeout",
			fmt.Sprintf("install_timeout (%s) is below two keepalives (%s): the database does not start", t.InstallTimeout, t.Keepalive),
			fmt.Sprintf("install_timeout: %s", t.InactiveTimeout)},
		{t.SuspectTimeout > t.InactiveTimeout, "suspect_timeout",
			fmt.Sprintf("suspect_timeout (%s) is above inactive_timeout (%s): one member's word would be enough to expel another", t.SuspectTimeout, t.InactiveTimeout),
			"suspect_timeout below inactive_timeout"},
	} {
		if r.broken {
			p.report(p.tuningAt("galera", r.key), r.text, r.right)
		}
	}
}

// tuningAt is the place of the key, or of its block when another key of it is the cause.
func (p *decoder) tuningAt(service, key string) position {
	return p.value("tuning." + service + "." + key)
}

// share is a part of a duration in whole 10 ms.
func share(d time.Duration, part int64) time.Duration {
	return max((d / time.Duration(part)).Truncate(10*time.Millisecond), 10*time.Millisecond)
}

func (p *decoder) haproxy() {
	t := p.cluster.Tuning.HAProxy
	if t.FastInter > t.Inter {
		p.report(p.tuningAt("haproxy", "fast_inter"), fmt.Sprintf("fast_inter (%s) is slower than inter (%s)", t.FastInter, t.Inter), "fast_inter at most inter")
	}
}

func (p *decoder) packages() {
	k := p.cluster.Packages
	if k.Source != "" && k.Key == "" && !p.given("packages.key") {
		p.report(p.key("packages"), "the package source has no key", "key: FILE with the OpenPGP key it is signed with: unsigned packages are not installed")
	}
	if k.Source == "" && !p.given("packages.source") && (k.Key != "" || p.given("packages.suite")) {
		p.report(p.key("packages"), "there is a key or a suite and no source", "source: URL of the repository")
	}
}
