package config

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"nines/internal/model"
)

// defaults fills in what the file leaves out: the fallbacks of the table and of the preset
// first, then those that depend on the rest of the file.
func (p *decoder) defaults() {
	p.fill(reflect.ValueOf(p.cluster).Elem(), place{})
	c := p.cluster
	if !p.given("vip.network") {
		c.VIP.Network = vipNetwork(c, c.VIP.Address)
	}
	if p.given("vip.public_address") && !p.given("vip.public_network") {
		c.VIP.PublicNetwork = vipNetwork(c, c.VIP.Public)
	}
	if !p.given("services") {
		c.Services = append([]string{}, model.CoreServices...)
	}
	c.Services = withSwitches(c)
	c.Services = withEngine(c)
	if c.Packages.Source != "" && c.Packages.Suite == "" {
		c.Packages.Suite = c.Facts().Suite
	}
	if !p.given("fencing") || p.bad["fencing"] {
		c.Fencing = fencing(c)
	}
	if c.Nodes == nil {
		c.Nodes = []model.Node{}
	}
}

// fencing is what follows from the machines: without a BMC on each controller, the cluster could not
// take away the power of any that it must.
func fencing(c *model.Cluster) model.Fencing {
	controllers := c.Controllers()
	if len(controllers) == 0 || slices.ContainsFunc(controllers, func(n model.Node) bool { return !n.HasBMC() }) {
		return model.FencingOff
	}
	return model.FencingOn
}

// withEngine puts the engine that vip.engine names in the place of any: it alone decides.
func withEngine(c *model.Cluster) []string {
	out := slices.Clone(c.Services)
	for i, s := range out {
		if slices.Contains(model.VIPEngines, model.VIPEngine(s)) {
			out[i] = string(c.VIP.Engine)
		}
	}
	return out
}

// withSwitches adds what Neutron's backend stands on to the services.
func withSwitches(c *model.Cluster) []string {
	out := slices.Clone(c.Services)
	add := func(service string) {
		if !slices.Contains(out, service) {
			out = append(out, service)
		}
	}
	if c.Runs("neutron") && !c.Neutron.Agents() {
		add("ovn")
	}
	if c.Runs("neutron") || c.Runs("ovn") {
		add("openvswitch")
	}
	return out
}

// fill sets the fallback of every field that the file does not give, below
// structs only: elements of lists and maps have no defaults.
func (p *decoder) fill(v reflect.Value, where place) {
	for _, m := range members(v.Type(), where.pattern) {
		sub, dst := where.key(m.key), v.Field(m.index)
		f := p.field(sub.pattern)
		switch {
		case dst.Kind() == reflect.Struct && dst.Type() != typePrefix && dst.Type() != typeAddr:
			p.fill(dst, sub)
		case f.fallback == "" || p.given(sub.path) && !p.bad[sub.path]:
			// A value that does not fit is replaced too: it is reported already, and
			// the rules must not stumble over its zero.
		default:
			if err := fallback(dst, f); err != nil {
				// Only a wrong table gets here; a test sets every fallback.
				p.report(position{1, 1}, fmt.Sprintf("default of %s: %v", sub.path, err), "")
			}
		}
	}
}

// fallback sets the default of a field.
func fallback(dst reflect.Value, f field) error {
	if dst.Kind() == reflect.Slice {
		items := strings.Split(strings.Trim(f.fallback, "[]"), ", ")
		dst.Set(reflect.ValueOf(items).Convert(dst.Type()))
		return nil
	}
	if problem, _ := set(dst, f.fallback, f); problem != "" {
		return fmt.Errorf("%s", problem)
	}
	return nil
}

// vipNetwork is the network whose subnet holds the address; management when there is none.
func vipNetwork(c *model.Cluster, vip netip.Prefix) model.NetworkName {
	for _, name := range model.NetworkNames {
		if n, ok := c.Networks[name]; ok && vip.IsValid() && n.CIDR.Contains(vip.Addr()) {
			return name
		}
	}
	return model.Management
}
