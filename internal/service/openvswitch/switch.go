package openvswitch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"nines/internal/host"
	"nines/internal/model"
	"nines/internal/ovsdb"
	"nines/internal/service"
)

// bridgeTunnel has the interface that tunnels go through, and its address: where userspace forwards.
const bridgeTunnel = "br-tunnel"

// managerTarget is nova's and other programs' way into the switch's database on a compute.
const managerTarget = "ptcp:6640:127.0.0.1"

// settings are what the switch of a node should be like.
type settings struct {
	datapath string
	external map[string]string // external_ids; an empty value: the key must not be there
	other    map[string]string // other_config, likewise
	managers []string
	bridges  []bridge
}

// bridge is a bridge with the physical interface that it has taken over, if any.
type bridge struct {
	name     string
	failMode string // empty: it forwards by itself what nobody told it to
	port     string
}

const failSecure = "secure" // it forwards only what it was told to

// desired computes the settings of the node.
func (s *Service) desired(env service.Env, path string) settings {
	c, n := env.Cluster, env.Node
	out := settings{datapath: path,
		external: map[string]string{"system-id": n.Name, "hostname": n.Name},
		other:    map[string]string{"userspace-tso-enable": ""},
		bridges:  []bridge{{name: model.BridgeInt, failMode: failSecure}},
	}
	maps.Copy(out.external, s.ids(c, n, path))
	if p := c.Neutron.ProviderInterface; p != "" {
		ex := bridge{name: model.BridgeProvider, port: p}
		if c.Neutron.Agents() {
			ex.failMode = failSecure // Neutron's agent programs it; otherwise it learns addresses by itself
		}
		out.bridges = append(out.bridges, ex)
	}
	if path == datapathUser {
		// Without it segments of instances leave with a checksum that nobody completes: ping works, TCP does not.
		out.other["userspace-tso-enable"] = "true"
		out.bridges = append(out.bridges, bridge{name: bridgeTunnel, port: tunnelInterface(c, n)})
	}
	if n.Has(model.RoleCompute) {
		out.managers = []string{managerTarget}
	}
	return out
}

// tunnelInterface is the interface that nines gives the tunnel address to; none where that is the node's own address.
func tunnelInterface(c *model.Cluster, n model.Node) string {
	if n.TunnelNetwork() == model.Management {
		return ""
	}
	return c.Neutron.TunnelInterface
}

// prefixed is the tunnel address with the prefix length of its network.
func prefixed(c *model.Cluster, n model.Node) string {
	return fmt.Sprintf("%s/%d", n.TunnelAddress(), c.Networks[n.TunnelNetwork()].CIDR.Bits())
}

// actual is what the switch's database holds.
type actual struct {
	external, other map[string]string
	managers        []string
	bridges         map[string]bridgeRow
}

type bridgeRow struct {
	datapath, failMode string
	ports              []string
}

// read asks the switch's database.
func (s *Service) read(ctx context.Context) (actual, error) {
	out := actual{bridges: map[string]bridgeRow{}}
	get := func(table string, columns ...string) ([]ovsdb.Row, error) {
		return ovsdb.Rows(ctx, s.rpc, ovsdb.SwitchSocket, ovsdb.SwitchSchema, table, columns)
	}
	root, err := get("Open_vSwitch", "external_ids", "other_config")
	if err != nil {
		return actual{}, err
	}
	if len(root) != 1 {
		return actual{}, errors.New("the switch's database is empty")
	}
	out.external, out.other = root[0].Pairs("external_ids"), root[0].Pairs("other_config")
	managers, err := get("Manager", "target")
	if err != nil {
		return actual{}, err
	}
	for _, m := range managers {
		out.managers = append(out.managers, m.Text("target"))
	}
	ports, err := get("Port", "_uuid", "name")
	if err != nil {
		return actual{}, err
	}
	names := map[string]string{}
	for _, p := range ports {
		for _, id := range p.Refs("_uuid") {
			names[id] = p.Text("name")
		}
	}
	all, err := get("Bridge", "name", "datapath_type", "fail_mode", "ports")
	if err != nil {
		return actual{}, err
	}
	for _, b := range all {
		r := bridgeRow{datapath: b.Text("datapath_type"), failMode: b.Text("fail_mode")}
		for _, id := range b.Refs("ports") {
			r.ports = append(r.ports, names[id])
		}
		out.bridges[b.Text("name")] = r
	}
	return out, nil
}

// differences says in what the switch is not as desired.
func differences(want settings, have actual) []string {
	var out []string
	compare := func(column string, want, have map[string]string) {
		for _, key := range slices.Sorted(maps.Keys(want)) {
			if have[key] != want[key] {
				out = append(out, fmt.Sprintf("%s:%s is %q, not %q", column, key, have[key], want[key]))
			}
		}
	}
	compare("external_ids", want.external, have.external)
	compare("other_config", want.other, have.other)
	for _, m := range want.managers {
		if !slices.Contains(have.managers, m) {
			out = append(out, "no manager "+m)
		}
	}
	for _, b := range want.bridges {
		is, ok := have.bridges[b.name]
		path := is.datapath
		if path == "" {
			path = datapathKernel // what an empty column means
		}
		switch {
		case !ok:
			out = append(out, "no bridge "+b.name)
		case path != want.datapath:
			out = append(out, fmt.Sprintf("%s is of datapath %s, not %s", b.name, path, want.datapath))
		case is.failMode != b.failMode:
			out = append(out, fmt.Sprintf("%s has fail mode %q", b.name, is.failMode))
		case b.port != "" && !slices.Contains(is.ports, b.port):
			out = append(out, b.port+" is no port of "+b.name)
		}
	}
	if _, ok := have.bridges[bridgeTunnel]; ok && want.datapath == datapathKernel {
		out = append(out, bridgeTunnel+" is there, and the kernel forwards")
	}
	return out
}

// switchSet: the switch's database is as desired.
func (s *Service) switchSet(ctx context.Context, env service.Env, _ map[string]string) (bool, string, error) {
	path, err := datapath(ctx, env)
	if err != nil {
		return false, "", err
	}
	have, err := s.read(ctx)
	if err != nil {
		return false, ovsdb.Word(err), nil
	}
	if diff := differences(s.desired(env, path), have); len(diff) > 0 {
		return false, strings.Join(diff, "; "), nil
	}
	u, err := env.Host.Unit(ctx, UnitSwitch)
	if err != nil || u.Active != "active" {
		return err == nil, "", err // interfaces are there once it has started
	}
	why, err := s.tunnelEnd(ctx, env)
	return why == "" && err == nil, why, err
}

// setSwitch brings the switch's database into the desired state, in one transaction.
func (s *Service) setSwitch(ctx context.Context, env service.Env, _ map[string]string) error {
	path, err := datapath(ctx, env)
	if err != nil {
		return err
	}
	want := s.desired(env, path)
	if path == datapathUser && tunnelInterface(env.Cluster, env.Node) == "" {
		return fmt.Errorf("the kernel has no module %s, and forwarding in userspace needs an interface of its own for tunnels: set neutron.tunnel_interface and the node's tenant address in cluster.yaml, or install a kernel that has them", strings.Join(modules(env.Cluster), " or "))
	}
	have, err := s.read(ctx)
	if err != nil {
		return fmt.Errorf("the switch's database: %w", err)
	}
	for _, b := range want.bridges {
		if b.port == "" || slices.Contains(have.bridges[b.name].ports, b.port) {
			continue
		}
		if err := unaddressed(ctx, env, b.port); err != nil {
			return err
		}
	}
	return s.apply(ctx, env, want, have)
}

// apply sets the switch up and, where it runs, its interfaces.
func (s *Service) apply(ctx context.Context, env service.Env, want settings, have actual) error {
	u, err := env.Host.Unit(ctx, UnitSwitch)
	if err != nil {
		return err
	}
	runs := u.Active == "active"
	// What the daemon reads only when it starts is changed while it does not run: a crash between leaves it
	// stopped, which is seen.
	again := runs && have.other["userspace-tso-enable"] != want.other["userspace-tso-enable"]
	if again {
		if err := env.Host.StopUnit(ctx, UnitSwitch); err != nil {
			return err
		}
	}
	command := []string{"ovs-vsctl", "--timeout=20"}
	if again || !runs {
		command = append(command, "--no-wait")
	}
	if _, err := env.Host.Run(ctx, host.Cmd{Args: append(command, changes(want)...)}); err != nil {
		return fmt.Errorf("set the switch up: %w", err)
	}
	switch {
	case again:
		return env.Host.StartUnit(ctx, UnitSwitch) // sets its interfaces up itself
	case runs:
		if _, err := env.Host.Run(ctx, host.Cmd{Args: []string{linksPath}}); err != nil {
			return fmt.Errorf("set the switch's interfaces up: %w", err)
		}
	}
	return nil
}

// changes are the words of ovs-vsctl that lead to the desired state from any other.
func changes(want settings) []string {
	var out []string
	set := func(column string, values map[string]string) {
		for _, key := range slices.Sorted(maps.Keys(values)) {
			if values[key] == "" {
				out = append(out, "--", "remove", "Open_vSwitch", ".", column, key)
			} else {
				out = append(out, "--", "set", "Open_vSwitch", ".", fmt.Sprintf("%s:%s=%q", column, key, values[key]))
			}
		}
	}
	set("external_ids", want.external)
	set("other_config", want.other)
	for _, b := range want.bridges {
		out = append(out, "--", "--may-exist", "add-br", b.name, "--", "set", "Bridge", b.name, "datapath_type="+want.datapath)
		if b.failMode != "" {
			out = append(out, "fail_mode="+b.failMode)
		} else {
			out = append(out, "--", "clear", "Bridge", b.name, "fail_mode")
		}
		if b.port != "" {
			out = append(out, "--", "--may-exist", "add-port", b.name, b.port)
		}
	}
	if want.datapath == datapathKernel {
		out = append(out, "--", "--if-exists", "del-br", bridgeTunnel)
	}
	if len(want.managers) > 0 {
		out = append(append(out, "--", "set-manager"), want.managers...)
	}
	return out[1:]
}

// unaddressed refuses an interface that carries an address other than the tunnel's: it may be the node's only way.
func unaddressed(ctx context.Context, env service.Env, name string) error {
	have, err := addresses(ctx, env.Host, name)
	if err != nil {
		return fmt.Errorf("interface %s (is its name right in cluster.yaml?): %w", name, err)
	}
	for _, a := range have {
		if a != env.Node.TunnelAddress().String() || a == env.Node.Address().String() {
			return fmt.Errorf("interface %s carries the address %s: a switch that takes it over would cut the node off there; give it an interface of its own in cluster.yaml (neutron)", name, a)
		}
	}
	return nil
}

// addresses of an interface; those that the kernel gives itself (link-local) do not count.
func addresses(ctx context.Context, h host.Host, name string) ([]string, error) {
	out, err := h.Run(ctx, host.Cmd{Args: []string{"ip", "-json", "address", "show", "dev", name}})
	if err != nil {
		return nil, err
	}
	var links []struct {
		Addresses []struct {
			Local string `json:"local"`
			Scope string `json:"scope"`
		} `json:"addr_info"`
	}
	if err := json.Unmarshal(out.Stdout, &links); err != nil {
		return nil, fmt.Errorf("addresses of %s: %w", name, err)
	}
	var found []string
	for _, l := range links {
		for _, a := range l.Addresses {
			if a.Scope != "link" {
				found = append(found, a.Local)
			}
		}
	}
	return found, nil
}
