package smoke

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"strings"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/external"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/layer3/floatingips"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/layer3/routers"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/portsbinding"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/security/groups"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/security/rules"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/networks"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/ports"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/subnets"
)

// networkPaths are the paths of Neutron's kinds below its endpoint.
var networkPaths = map[Kind]string{KindNetwork: "networks", KindRouter: "routers", KindPort: "ports", KindGroup: "security-groups", KindAddress: "floatingips"}

func (o *openStack) makeNetwork(ctx context.Context, name string, s NetworkSpec) (network, subnet string, err error) {
	made, err := networks.Create(ctx, o.network, networks.CreateOpts{Name: name, Description: description}).Extract()
	if err != nil {
		return "", "", err
	}
	sub, err := subnets.Create(ctx, o.network, subnets.CreateOpts{NetworkID: made.ID, Name: name, Description: description,
		IPVersion: gophercloud.IPv4, CIDR: s.CIDR.String()}).Extract()
	subnet, err = id(sub, err, func(v *subnets.Subnet) string { return v.ID })
	return made.ID, subnet, err
}

// flat asks for a network that is a physical one. The library would ask for a list of segments, which is an extension.
type flat struct {
	networks.CreateOptsBuilder
	physical string
}

// ToNetworkCreateMap implements networks.CreateOptsBuilder.
func (f flat) ToNetworkCreateMap() (map[string]any, error) {
	body, err := f.CreateOptsBuilder.ToNetworkCreateMap()
	if err != nil {
		return nil, err
	}
	network, ok := body["network"].(map[string]any)
	if !ok {
		return nil, fmt.Errorf("unexpected request for a network: %v", body)
	}
	network["provider:network_type"], network["provider:physical_network"] = "flat", f.physical
	return body, nil
}

func (o *openStack) makeExternal(ctx context.Context, name string, s ExternalSpec) (network, subnet string, err error) {
	yes, no, gateway := true, false, s.Gateway.String()
	made, err := networks.Create(ctx, o.network, external.CreateOptsExt{External: &yes, CreateOptsBuilder: flat{
		CreateOptsBuilder: networks.CreateOpts{Name: name, Description: description}, physical: s.Physical,
	}}).Extract()
	if err != nil {
		return "", "", err
	}
	sub, err := subnets.Create(ctx, o.network, subnets.CreateOpts{NetworkID: made.ID, Name: name, Description: description,
		IPVersion: gophercloud.IPv4, CIDR: s.CIDR.String(), GatewayIP: &gateway, EnableDHCP: &no,
		AllocationPools: []subnets.AllocationPool{{Start: s.First.String(), End: s.Last.String()}}}).Extract()
	subnet, err = id(sub, err, func(v *subnets.Subnet) string { return v.ID })
	return made.ID, subnet, err
}

func (o *openStack) makeRouter(ctx context.Context, name string, s RouterSpec) (string, error) {
	made, err := routers.Create(ctx, o.network, routers.CreateOpts{Name: name, Description: description,
		GatewayInfo: &routers.GatewayInfo{NetworkID: s.External.ID}}).Extract()
	if err != nil {
		return "", err
	}
	_, err = routers.AddInterface(ctx, o.network, made.ID, routers.AddInterfaceOpts{SubnetID: s.Network.Subnet}).Extract()
	return made.ID, err
}

func (o *openStack) makeGroup(ctx context.Context, name string, s GroupSpec) (string, error) {
	made, err := groups.Create(ctx, o.network, groups.CreateOpts{Name: name, Description: description}).Extract()
	if err != nil {
		return "", err
	}
	rule := rules.CreateOpts{SecGroupID: made.ID, Direction: rules.DirIngress, EtherType: rules.EtherType4}
	var wanted []rules.CreateOpts
	for _, port := range s.TCP {
		tcp := rule
		tcp.Protocol, tcp.PortRangeMin, tcp.PortRangeMax = rules.ProtocolTCP, port, port
		wanted = append(wanted, tcp)
	}
	if s.ICMP {
		icmp := rule
		icmp.Protocol = rules.ProtocolICMP
		wanted = append(wanted, icmp)
	}
	for _, w := range wanted {
		if _, err := rules.Create(ctx, o.network, w).Extract(); err != nil {
			return made.ID, fmt.Errorf("rule for %s: %w", w.Protocol, err)
		}
	}
	return made.ID, nil
}

func (o *openStack) makePort(ctx context.Context, name string, s PortSpec) (string, netip.Addr, error) {
	made, err := ports.Create(ctx, o.network, ports.CreateOpts{Name: name, Description: description, NetworkID: s.Network.ID,
		SecurityGroups: &[]string{s.Group.ID}}).Extract()
	if err != nil {
		return "", netip.Addr{}, err
	}
	if len(made.FixedIPs) == 0 {
		return made.ID, netip.Addr{}, fmt.Errorf("port %s got no address", name)
	}
	address, err := netip.ParseAddr(made.FixedIPs[0].IPAddress)
	return made.ID, address, err
}

func (o *openStack) makeAddress(ctx context.Context, name string, s AddressSpec) (string, netip.Addr, error) {
	// Floating addresses have no name: the description stands for it.
	made, err := floatingips.Create(ctx, o.network, floatingips.CreateOpts{Description: name, FloatingNetworkID: s.External.ID, PortID: s.Port.ID}).Extract()
	if err != nil {
		return "", netip.Addr{}, err
	}
	address, err := netip.ParseAddr(made.FloatingIP)
	return made.ID, address, err
}

// External implements Cloud.
func (o *openStack) External(ctx context.Context) (network Thing, found bool, err error) {
	yes := true
	page, err := networks.List(o.network, external.ListOptsExt{ListOptsBuilder: networks.ListOpts{SortKey: "name", SortDir: "asc"}, External: &yes}).AllPages(ctx)
	if err != nil {
		return Thing{}, false, meaning(err)
	}
	all, err := networks.ExtractNetworks(page)
	if err != nil {
		return Thing{}, false, err
	}
	for _, n := range all {
		if len(n.Subnets) > 0 && n.AdminStateUp {
			return Thing{Kind: KindNetwork, ID: n.ID, Name: n.Name, Subnet: n.Subnets[0]}, true, nil
		}
	}
	return Thing{}, false, nil
}

// Gateway implements Cloud. It is the node that Neutron last saw take the router's outer port, with OVN as with
// routers over VRRP.
func (o *openStack) Gateway(ctx context.Context, router Thing) (node string, err error) {
	page, err := ports.List(o.network, ports.ListOpts{DeviceID: router.ID, DeviceOwner: "network:router_gateway"}).AllPages(ctx)
	if err != nil {
		return "", meaning(err)
	}
	var bound []portsbinding.PortsBindingExt
	if err := ports.ExtractPortsInto(page, &bound); err != nil {
		return "", err
	}
	if len(bound) != 1 || bound[0].HostID == "" {
		return "", fmt.Errorf("router %s has no outer port at a node: 'openstack network agent list' shows whether any can take it", router.Name)
	}
	return bound[0].HostID, nil
}

func (o *openStack) removeNetwork(ctx context.Context, t Thing) error {
	if t.Kind == KindRouter {
		if err := o.emptyRouter(ctx, t); err != nil {
			return err
		}
	}
	path, ok := networkPaths[t.Kind]
	if !ok {
		return fmt.Errorf("unknown kind %s", t.Kind)
	}
	_, err := o.network.Delete(ctx, o.network.ServiceURL(path, t.ID), nil)
	return err
}

// emptyRouter takes a router's interfaces in networks of instances away; it cannot be deleted with them.
func (o *openStack) emptyRouter(ctx context.Context, t Thing) error {
	page, err := ports.List(o.network, ports.ListOpts{DeviceID: t.ID}).AllPages(ctx)
	if err != nil {
		return err
	}
	all, err := ports.ExtractPorts(page)
	if err != nil {
		return err
	}
	for _, p := range all {
		if !strings.HasPrefix(p.DeviceOwner, "network:router_interface") && p.DeviceOwner != "network:ha_router_replicated_interface" {
			continue
		}
		_, err := routers.RemoveInterface(ctx, o.network, t.ID, routers.RemoveInterfaceOpts{PortID: p.ID}).Extract()
		if err != nil && !gophercloud.ResponseCodeIs(err, http.StatusNotFound) {
			return err
		}
	}
	return nil
}

func (o *openStack) listNetwork(ctx context.Context, kind Kind) ([]Thing, error) {
	c, project := o.network, o.project
	switch kind {
	case KindNetwork:
		return named(ctx, networks.List(c, networks.ListOpts{ProjectID: project}), networks.ExtractNetworks,
			func(v networks.Network) Thing { return Thing{Kind: kind, ID: v.ID, Name: v.Name} })
	case KindRouter:
		return named(ctx, routers.List(c, routers.ListOpts{ProjectID: project}), routers.ExtractRouters,
			func(v routers.Router) Thing { return Thing{Kind: kind, ID: v.ID, Name: v.Name} })
	case KindPort:
		return named(ctx, ports.List(c, ports.ListOpts{ProjectID: project}), ports.ExtractPorts,
			func(v ports.Port) Thing { return Thing{Kind: kind, ID: v.ID, Name: v.Name} })
	case KindGroup:
		return named(ctx, groups.List(c, groups.ListOpts{ProjectID: project}), groups.ExtractGroups,
			func(v groups.SecGroup) Thing { return Thing{Kind: kind, ID: v.ID, Name: v.Name} })
	case KindAddress:
		return named(ctx, floatingips.List(c, floatingips.ListOpts{ProjectID: project}), floatingips.ExtractFloatingIPs,
			func(v floatingips.FloatingIP) Thing { return Thing{Kind: kind, ID: v.ID, Name: v.Description} })
	}
	return nil, fmt.Errorf("unknown kind %s", kind)
}
