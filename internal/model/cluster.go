// Package model holds the nouns of nines: what an operator asks for (Cluster,
// the spec) and the words every other package shares.
//
// It imports the standard library only and does no I/O, reads no clock, starts
// no goroutine and draws no random number. A Cluster is a value: nobody
// changes one after config has validated it.
package model

import (
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Role says what a node is for.
type Role string

// The roles a node may have.
const (
	RoleController Role = "controller"
	RoleCompute    Role = "compute"
)

// Roles lists every known role.
var Roles = []Role{RoleController, RoleCompute}

// NetworkName names a network that nodes have addresses on.
type NetworkName string

// The networks nines knows; tenant and storage are optional.
const (
	Management NetworkName = "management"
	External   NetworkName = "external"
	Tenant     NetworkName = "tenant"
	Storage    NetworkName = "storage"
)

// NetworkNames lists every known network.
var NetworkNames = []NetworkName{Management, External, Tenant, Storage}

// Cluster is one site as its operator wants it: the content of cluster.yaml
// with every default filled in.
type Cluster struct {
	Name     string                  `json:"name"`
	Release  Release                 `json:"release"`
	Networks map[NetworkName]Network `json:"networks"`
	Nodes    []Node                  `json:"nodes"`
	VIP      VIP                     `json:"vip"`
	SSH      SSH                     `json:"ssh"`
	NTP      NTP                     `json:"ntp"`
	Packages Packages                `json:"packages"`
	Services []string                `json:"services"`
	Images   Images                  `json:"images"`
	Neutron  Neutron                 `json:"neutron"`
	Volumes  Volumes                 `json:"volumes"`
	// Certificates of nodes.
	Certificates Certificates `json:"certificates"`
	Tuning       Tuning       `json:"tuning"`
	Checks       Checks       `json:"checks"`
	// Fencing says whether the cluster may take a machine's power away through its BMC.
	Fencing Fencing `json:"fencing,omitempty"`
	// AcceptEvenControllers acknowledges that an even number of controllers
	// survives no more failures than one controller less.
	AcceptEvenControllers bool `json:"accept_even_controllers,omitempty"`
}

// Network is one subnet that the nodes share.
type Network struct {
	CIDR netip.Prefix `json:"cidr"`
}

// Node is one machine.
type Node struct {
	Name      string                     `json:"name"`
	Roles     []Role                     `json:"roles"`
	Addresses map[NetworkName]netip.Addr `json:"addresses"`
	// BMC switches the machine's power; zero: it has none that the cluster may use.
	BMC BMC `json:"bmc,omitzero"`
	// SecondBMC is another way to its power, for when the first does not do it; zero: there is none.
	SecondBMC BMC `json:"second_bmc,omitzero"`
}

// Has reports whether the node has the role.
func (n Node) Has(r Role) bool { return slices.Contains(n.Roles, r) }

// Address is the node's address on the management network: where its agent
// and every clustered service listen.
func (n Node) Address() netip.Addr { return n.Addresses[Management] }

// VIPEngine names the component that moves the VIP.
type VIPEngine string

// The engines of the VIP.
const (
	EngineKeepalived VIPEngine = "keepalived"
	EnginePacemaker  VIPEngine = "pacemaker"
)

// VIPEngines lists every known engine. Each is a service of that name.
var VIPEngines = []VIPEngine{EngineKeepalived, EnginePacemaker}

// Units are the systemd units of the engine's daemons, in the order in which they are stopped.
func (e VIPEngine) Units() []string {
	if e == EnginePacemaker {
		return []string{"pacemaker.service", "corosync.service"}
	}
	return []string{"nines-vip-guard.service", "keepalived.service"}
}

// VIP is the address that clients use.
type VIP struct {
	// Address carries the prefix length of the interface it lives on: a VIP
	// with another netmask than its subnet attracts or loses traffic.
	Address netip.Prefix `json:"address"`
	Network NetworkName  `json:"network"`
	// Public is a second address, for users alone, which the same controller holds. Invalid: users share Address.
	Public        netip.Prefix  `json:"public_address,omitzero"`
	PublicNetwork NetworkName   `json:"public_network,omitempty"`
	Engine        VIPEngine     `json:"engine"`
	Advert        time.Duration `json:"advert"`
	// RouterID is the VRRP virtual router identifier, 1-255, unique in the subnet.
	RouterID int `json:"router_id"`
}

// VIPAddress is one of the addresses that move together.
type VIPAddress struct {
	Prefix  netip.Prefix
	Network NetworkName
}

// Addresses are what the holder holds: one, or Address and then Public.
func (v VIP) Addresses() []VIPAddress {
	out := []VIPAddress{{v.Address, v.Network}}
	if v.Public.IsValid() {
		out = append(out, VIPAddress{v.Public, v.PublicNetwork})
	}
	return out
}

// On reports whether one of the addresses lives on the network.
func (v VIP) On(network NetworkName) bool {
	return slices.ContainsFunc(v.Addresses(), func(a VIPAddress) bool { return a.Network == network })
}

// Is reports whether a is one of the addresses.
func (v VIP) Is(a netip.Addr) bool {
	return slices.ContainsFunc(v.Addresses(), func(own VIPAddress) bool { return own.Prefix.Addr() == a })
}

// String names the addresses: "192.0.2.10", "192.0.2.10 and 203.0.113.10".
func (v VIP) String() string {
	var out []string
	for _, a := range v.Addresses() {
		out = append(out, a.Prefix.Addr().String())
	}
	return strings.Join(out, " and ")
}

// ForUsers is the address that users come to.
func (v VIP) ForUsers() netip.Addr {
	all := v.Addresses()
	return all[len(all)-1].Prefix.Addr()
}

// SSH is how nines reaches a node before its agent runs.
type SSH struct {
	User       string `json:"user"`
	Port       int    `json:"port"`
	Identity   string `json:"identity"`
	KnownHosts string `json:"known_hosts"`
}

// NTP is where the controllers take their time from; the other nodes take it
// from the controllers.
type NTP struct {
	Upstreams []string `json:"upstreams"`
	// ControlClock is false where the machine may not set its clock
	// (containers): chronyd then only measures.
	ControlClock bool `json:"control_clock"`
}

// Packages is where the nodes take packages from. Without a Source the node's
// own apt configuration is used.
type Packages struct {
	// Source is the base URL of a Debian repository, in addition to the node's own.
	Source string `json:"source,omitempty"`
	// Suite is the distribution within Source.
	Suite string `json:"suite,omitempty"`
	// Key is the path of the file with the OpenPGP key Source is signed with.
	// The CLI reads it; KeyText carries the content from then on.
	Key     string `json:"key,omitempty"`
	KeyText string `json:"key_text,omitempty"`
}

// ImageStore names a kind of place for images.
type ImageStore string

// StoreDirectory keeps images as files in a directory that all controllers share.
const StoreDirectory ImageStore = "directory"

// Images is where Glance keeps the content of images.
type Images struct {
	Store ImageStore `json:"store"`
	// Directory is an absolute path, the same shared file system on every controller. nines does
	// not mount it, but checks that it is one.
	Directory string `json:"directory"`
}

// NeutronBackend names what does for Neutron what its users ask for.
type NeutronBackend string

// The backends of Neutron. Both stand on Open vSwitch.
const (
	// BackendOVN: OVN's databases say what each switch does.
	BackendOVN NeutronBackend = "ovn"
	// BackendOVS: agents of Neutron's own, which the broker tells.
	BackendOVS NeutronBackend = "ovs"
)

// Neutron is how the networks of instances meet those of the site.
type Neutron struct {
	Backend NeutronBackend `json:"backend"`
	// ProviderInterface is the nodes' interface that leads to the site's own networks, where floating
	// addresses live. A virtual switch takes it over. Empty: instances have no way out.
	ProviderInterface string `json:"provider_interface,omitempty"`
	// PhysicalNetwork is what Neutron's users call the network behind ProviderInterface.
	PhysicalNetwork string `json:"physical_network"`
	// TunnelInterface is the nodes' interface for the traffic between instances on different nodes. Empty: an
	// interface that has the tunnel address already.
	TunnelInterface string `json:"tunnel_interface,omitempty"`
	// DistributedFloatingIPs has the node of an instance answer for its floating address, instead of a gateway.
	DistributedFloatingIPs bool `json:"distributed_floating_ips,omitempty"`
}

// SetsAddress reports whether nines puts the nodes' addresses of the network on an interface itself. Those of all
// other networks are the operator's matter.
func (c *Cluster) SetsAddress(network NetworkName) bool {
	return network == Tenant && c.Neutron.TunnelInterface != ""
}

// TunnelNetwork is the network that the traffic between instances on different nodes goes through: the
// tenant network where the node has an address on it, else the management network.
func (n Node) TunnelNetwork() NetworkName {
	if n.Addresses[Tenant].IsValid() {
		return Tenant
	}
	return Management
}

// TunnelAddress is the node's address on that network.
func (n Node) TunnelAddress() netip.Addr { return n.Addresses[n.TunnelNetwork()] }

// VolumeStore names a kind of place for volumes.
type VolumeStore string

// VolumesDirectory keeps volumes as files in a directory that controllers and computes share.
const VolumesDirectory VolumeStore = "directory"

// Volumes is where Cinder keeps volumes.
type Volumes struct {
	Store VolumeStore `json:"store"`
	// Directory is an absolute path, the same shared file system on every controller and compute. nines does
	// not mount it, but checks that it is one.
	Directory string `json:"directory"`
}

// Renewer says who renews the certificates of nodes.
type Renewer string

// The renewers.
const (
	// RenewedByLeader: the controllers have the authority's key, and the leader renews in time by itself.
	RenewedByLeader Renewer = "leader"
	// RenewedByOperator: the key is on the operator's machine alone, and nothing is renewed without an apply.
	RenewedByOperator Renewer = "operator"
)

// Certificates says how long the certificates of nodes live, and who renews them.
type Certificates struct {
	Lifetime  time.Duration `json:"lifetime"`
	RenewedBy Renewer       `json:"renewed_by"`
}

// Checks says what happens when a node breaks a hardware or network rule.
type Checks struct {
	// Severity is "error" (the default) or "warning" (the lab).
	Severity string `json:"severity"`
}

// Preset names a set of defaults for the values that decide how fast a failure is noticed.
type Preset string

// The presets. Their values, and where each comes from, stand in config.
const (
	// PresetNines: what was measured to be fastest without false alarms.
	PresetNines Preset = "nines"
	// PresetKolla: what a deployment with kolla-ansible runs with.
	PresetKolla Preset = "kolla"
	// PresetReference: what OpenStack's High Availability Guide writes down.
	PresetReference Preset = "reference"
)

// Presets lists them, the default first.
var Presets = []Preset{PresetNines, PresetKolla, PresetReference}

// Tuning holds the values an operator may change with care. Each default and
// its reason stands in config.
type Tuning struct {
	// Preset is where the defaults of this cluster's failure detectors came from. Only config reads it.
	Preset    Preset          `json:"preset"`
	Galera    GaleraTuning    `json:"galera"`
	RabbitMQ  RabbitMQTuning  `json:"rabbitmq"`
	HAProxy   HAProxyTuning   `json:"haproxy"`
	Pacemaker PacemakerTuning `json:"pacemaker"`
	Keystone  KeystoneTuning  `json:"keystone"`
}

// GaleraTuning holds the failure detector of Galera (evs.*) and sizes.
type GaleraTuning struct {
	SuspectTimeout  time.Duration `json:"suspect_timeout"`
	InactiveTimeout time.Duration `json:"inactive_timeout"`
	InstallTimeout  time.Duration `json:"install_timeout"`
	Keepalive       time.Duration `json:"keepalive"`
	InactiveCheck   time.Duration `json:"inactive_check"`
	PeerTimeout     time.Duration `json:"peer_timeout"`
	JoinRetrans     time.Duration `json:"join_retrans"`
	GCache          string        `json:"gcache"`
	BufferPool      string        `json:"buffer_pool"`
	// MissingMemberAfter is how long a recovery waits for one member that is missing before it goes on
	// without it, although acknowledged writes may be lost. 0: for ever.
	MissingMemberAfter time.Duration `json:"missing_member_after,omitempty"`
}

// RabbitMQTuning holds what decides how fast RabbitMQ notices a dead node.
type RabbitMQTuning struct {
	NetTickTime time.Duration `json:"net_tick_time"`
}

// HAProxyTuning holds the health check intervals.
type HAProxyTuning struct {
	Inter time.Duration `json:"inter"`
	// HTTPInter is that of servers that speak HTTP: a connection to one that fails has it asked at once. 0, in a spec of before there was this key: Inter.
	HTTPInter time.Duration `json:"http_inter"`
	FastInter time.Duration `json:"fast_inter"`
	Fall      int           `json:"fall"`
	Rise      int           `json:"rise"`
}

// PacemakerTuning holds what decides how fast Corosync notices a dead node.
type PacemakerTuning struct {
	// Token is how long Corosync waits for its token, whatever the number of nodes. 0, in a spec of before there was this key: the default.
	Token time.Duration `json:"token"`
}

// KeystoneTuning holds worker counts and key rotation.
type KeystoneTuning struct {
	Processes      int           `json:"processes"`
	Threads        int           `json:"threads"`
	FernetRotation time.Duration `json:"fernet_rotation"`
	TokenLifetime  time.Duration `json:"token_lifetime"`
}

// Shared returns what all nodes agree on: the cluster without the paths that
// mean something on one operator's machine only.
func (c *Cluster) Shared() *Cluster {
	shared := *c
	shared.SSH, shared.Packages.Key = SSH{}, ""
	return &shared
}

// Node returns the node of that name.
func (c *Cluster) Node(name string) (Node, bool) {
	for _, n := range c.Nodes {
		if n.Name == name {
			return n, true
		}
	}
	return Node{}, false
}

// With returns the nodes that have the role, in the order of cluster.yaml.
func (c *Cluster) With(r Role) []Node {
	var out []Node
	for _, n := range c.Nodes {
		if n.Has(r) {
			out = append(out, n)
		}
	}
	return out
}

// Controllers returns the nodes that form the quorums.
func (c *Cluster) Controllers() []Node { return c.With(RoleController) }

// Runs reports whether the cluster has the service of that name.
func (c *Cluster) Runs(service string) bool { return slices.Contains(c.Services, service) }

// Agents reports whether agents of Neutron's own make its networks, instead of OVN.
func (n Neutron) Agents() bool { return n.Backend == BackendOVS }

// Quorum is how many of n members must agree.
func Quorum(n int) int { return n/2 + 1 }

// JoinAddresses returns the management addresses of the nodes with :port
// (when port is not empty), separated by sep.
func JoinAddresses(nodes []Node, port, sep string) string {
	parts := make([]string, 0, len(nodes))
	for _, n := range nodes {
		a := n.Address().String()
		if port != "" {
			a += ":" + port
		}
		parts = append(parts, a)
	}
	return strings.Join(parts, sep)
}
