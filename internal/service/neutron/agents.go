package neutron

import (
	"time"

	"nines/internal/model"
	"nines/internal/openstack"
	"nines/internal/plan"
	"nines/internal/service"
)

// The files of the agents, which are what Neutron consists of where OVN is not its backend.
const (
	agentsPath   = "/etc/neutron/nines-agents.conf"
	switchPath   = "/etc/neutron/plugins/ml2/openvswitch_agent.ini"
	l3Path       = "/etc/neutron/l3_agent.ini"
	dhcpPath     = "/etc/neutron/dhcp_agent.ini"
	metadataPath = "/etc/neutron/metadata_agent.ini"

	// datapathScript writes datapathPath before each start of an agent that plugs interfaces into the switch.
	datapathScript = "/usr/local/lib/nines/neutron-datapath"
	datapathPath   = "/run/nines-neutron-datapath.conf"
)

// agentsPackages is the name under which the release lists the packages of this backend.
const agentsPackages = Name + ":ovs"

// The units that others wait for.
const (
	unitRPC   = "neutron-rpc-server.service"
	unitAgent = "neutron-openvswitch-agent.service"
)

// Units of the node's switch.
const (
	unitSwitchDatabase = "ovsdb-server.service"
	unitSwitch         = "ovs-vswitchd.service"
)

func withAgents(c *model.Cluster) bool { return c.Neutron.Agents() }

// agentDownTime is agent_down_time of neutron.conf.
const agentDownTime = 45 * time.Second

// reports is where the agents say that they work.
var reports = openstack.Reports{Database: Name, Limit: agentDownTime,
	Query: "SELECT `binary`, host, TIMESTAMPDIFF(SECOND, heartbeat_timestamp, UTC_TIMESTAMP()), NOT admin_state_up FROM agents"}

// agents are the daemons of this backend. Those that make interfaces and namespaces are root.
func agents() []openstack.Daemon {
	agent := func(role model.Role, name, title, path string) openstack.Daemon {
		return openstack.Daemon{In: withAgents, Role: role, Unit: name + ".service", Description: "OpenStack Neutron " + title, Manual: name + "(1)",
			User: "root", Root: true, Reports: name, Uses: []string{unitSwitchDatabase, unitSwitch},
			Prepare: []string{datapathScript}, Reads: []string{agentsPath, path, datapathScript},
			Command: []string{"/usr/bin/" + name, "--config-file", agentsPath, "--config-file", path, "--config-file", datapathPath}}
	}
	l3 := agent(model.RoleController, "neutron-l3-agent", "L3 agent", l3Path)
	dhcp := agent(model.RoleController, "neutron-dhcp-agent", "DHCP agent", dhcpPath)
	// Routers' keepalived, proxies for metadata, dnsmasq.
	l3.Leaves, dhcp.Leaves = true, true
	metadata := openstack.Daemon{In: withAgents, Role: model.RoleController, Unit: "neutron-metadata-agent.service", Description: "OpenStack Neutron metadata agent",
		Manual: "neutron-metadata-agent(1)", User: Name, Reports: "neutron-metadata-agent", Reads: []string{agentsPath, metadataPath},
		Command: []string{"/usr/bin/neutron-metadata-agent", "--config-file", agentsPath, "--config-file", metadataPath}}
	return []openstack.Daemon{agent("", "neutron-openvswitch-agent", "Open vSwitch agent", switchPath), l3, dhcp, metadata}
}

// agentValues is what the agents' templates need.
type agentValues struct {
	values
	Node           model.Node
	Tunnel, Bridge string
	Datapath       string
}

// agentFiles are the agents' files on a node.
func (s *Service) agentFiles(v values, n model.Node) ([]plan.File, error) {
	a := agentValues{values: v, Node: n, Tunnel: n.TunnelAddress().String(), Bridge: model.BridgeProvider, Datapath: datapathPath}
	wanted := [][2]string{{agentsPath, "agents.conf.tmpl"}, {switchPath, "openvswitch_agent.ini.tmpl"}}
	if n.Has(model.RoleController) {
		wanted = append(wanted, [2]string{l3Path, "l3_agent.ini.tmpl"}, [2]string{dhcpPath, "dhcp_agent.ini.tmpl"}, [2]string{metadataPath, "metadata_agent.ini.tmpl"})
	}
	out, err := s.rendered(wanted, a)
	if err != nil {
		return nil, err
	}
	script, err := openstack.Render(templates, "datapath.sh.tmpl", datapathPath)
	if err != nil {
		return nil, err
	}
	return append(out, plan.File{Path: datapathScript, Mode: 0o755, Owner: "root", Group: "root", Content: script}), nil
}

// orderAgents lets the agents start after who answers them, on a node whose switch forwards.
func (s *Service) orderAgents(c *model.Cluster, rs []plan.Resource) {
	var answer []plan.ID
	for _, n := range c.Controllers() {
		answer = append(answer, s.ID(n.Name, "unit", unitRPC))
	}
	units := map[string]bool{}
	for _, d := range agents() {
		units[d.Unit] = true
	}
	for i, r := range rs {
		if r.Unit == nil || !units[r.Unit.Name] {
			continue
		}
		n, _ := c.Node(r.Node)
		rs[i].Needs = append(rs[i].Needs, service.SwitchOf(n))
		rs[i].After = append(rs[i].After, answer...)
		if r.Unit.Name != unitAgent {
			// It connects the interfaces that the others make.
			rs[i].After = append(rs[i].After, s.ID(r.Node, "unit", unitAgent))
		}
	}
}
