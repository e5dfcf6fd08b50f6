package config

import (
	"maps"
	"reflect"
	"slices"
	"strings"

	"nines/internal/model"
)

// field says everything about one key of cluster.yaml. It is the source of the
// parser's checks, of the defaults and of the JSON Schema.
type field struct {
	// doc is what the key means and why its default is what it is. It is shown by
	// editors (JSON Schema) and as a comment in the example.
	doc string
	// fallback is the default as it would be written; empty: none.
	fallback string
	// required: the key must be there.
	required bool
	// enum lists the words the key accepts.
	enum []string
	// min and max bound numbers and durations; empty: unbounded.
	min, max string
	// step: a duration must be a multiple of it.
	step string
	// pattern is a regular expression that text must match; means says it in words.
	pattern, means string
}

const (
	sizePattern = `^[1-9][0-9]*[KMG]$`
	sizeMeans   = "a size like 128M or 1G"

	// IFNAMSIZ of the kernel.
	interfacePattern = `^[A-Za-z0-9][A-Za-z0-9._-]{0,14}$`
	interfaceMeans   = "the name of a network interface"

	bmcPattern     = `^[0-9]{1,3}(\.[0-9]{1,3}){3}(:[0-9]{1,5})?$`
	bmcMeans       = "an IPv4 address, like 192.0.2.61 or 192.0.2.61:8443"
	bmcUserPattern = `^[A-Za-z0-9._@-]{1,64}$`
	bmcUserMeans   = "a user name: letters, digits, '.', '_', '@' and '-'"
)

// fields describes every key by its path; "[]" stands for any element of a list, "*"
// for any name in a map. A test compares it with the model: no key is missing
// and none is too many.
var fields = map[string]field{
	"name": {doc: "Name of the cluster: it stands in prompts, certificates and reports.", required: true, pattern: labelPattern, means: labelMeans},
	"release": {doc: "Operating system release of the nodes; it decides packages and paths.",
		fallback: string(model.Debian13), enum: words(releases())},

	"networks":        {doc: "The networks that nodes have addresses on. management is needed: agents and clustered services talk there.", required: true},
	"networks.*":      {doc: "One network."},
	"networks.*.cidr": {doc: "Its subnet.", required: true},

	"nodes":   {doc: "The machines.", required: true},
	"nodes[]": {doc: "One machine."},
	"nodes[].name": {doc: "Short host name, without a domain: it names the member in every cluster (Galera, RabbitMQ, etcd).", required: true,
		pattern: labelPattern, means: labelMeans},
	"nodes[].roles":       {doc: "What the node is for. Controllers form the quorums: their number is odd.", required: true, enum: words(model.Roles)},
	"nodes[].roles[]":     {doc: "One role.", enum: words(model.Roles)},
	"nodes[].addresses":   {doc: "The node's address on each network; management is needed.", required: true},
	"nodes[].addresses.*": {doc: "The node's address on this network."},
	"nodes[].bmc":         {doc: "The machine's baseboard management controller, through which the cluster may take its power away. Its password is never written here: hand it over with `nines fence password`."},
	"nodes[].bmc.protocol": {doc: "How the BMC is spoken to. redfish wherever the machine has it: its certificate is checked; ipmi (2.0, RMCP+) for older ones.",
		required: true, enum: words(model.BMCProtocols)},
	"nodes[].bmc.address": {doc: "Address of the BMC, with :port where it is not the protocol's own (443, ipmi 623). It must not be an address of the machine itself: that one is silent when it is needed.",
		required: true, pattern: bmcPattern, means: bmcMeans},
	"nodes[].bmc.user": {doc: "The account on the BMC; it needs the right to switch power and no other (Redfish: Operator).",
		required: true, pattern: bmcUserPattern, means: bmcUserMeans},
	"nodes[].second_bmc":          {doc: "Another way to the machine's power, which is tried where the first does not take it: the same BMC over IPMI, or another controller that speaks one of the protocols and manages this machine alone. Its password: `nines fence password NODE --second`."},
	"nodes[].second_bmc.protocol": {doc: "As of the first.", required: true, enum: words(model.BMCProtocols)},
	"nodes[].second_bmc.address":  {doc: "As of the first, and another address or protocol than that.", required: true, pattern: bmcPattern, means: bmcMeans},
	"nodes[].second_bmc.user":     {doc: "As of the first.", required: true, pattern: bmcUserPattern, means: bmcUserMeans},
	"accept_even_controllers": {doc: "Acknowledges an even number of controllers: it survives no more failures than one controller less and costs one machine more.",
		fallback: "false"},

	"vip":                {doc: "The virtual address that clients use; it moves to another controller when its holder fails.", required: true},
	"vip.address":        {doc: "The address with the prefix length of its network: another netmask attracts or loses traffic.", required: true},
	"vip.network":        {doc: "The network the address lives on. Default: the network whose subnet holds the address."},
	"vip.public_address": {doc: "A second address, for users alone, that the same controller holds: the APIs, the dashboard and the consoles answer there too, the database and the broker do not. The catalogue and clouds.yaml send users to it, services go on using vip.address. Without it users come to vip.address."},
	"vip.public_network": {doc: "The network the second address lives on. Default: the network whose subnet holds it."},
	"vip.engine": {doc: "What moves the address. keepalived: a dead holder is replaced in 0.3-0.4 s. pacemaker: Corosync and Pacemaker, which also start and stop HAProxy; within 4 s, but a machine that is not heard of is off first, where fencing is on.",
		fallback: string(model.EngineKeepalived), enum: words(model.VIPEngines)},
	"vip.advert": {doc: "Interval of the holder's advertisements; a dead one is replaced after about three of them. 100ms: no false failover on busy machines, where 30ms had some (measured).",
		// VRRP version 3 counts the interval in hundredths of a second, 12 bits (RFC 5798, 5.2.7).
		fallback: "100ms", min: "10ms", max: "40.95s", step: "10ms"},
	"vip.router_id": {doc: "VRRP virtual router identifier: unique in the subnet. 51 is the number the documentation of keepalived uses; change it if another VRRP group lives there.",
		fallback: "51", min: "1", max: "255"},

	"ssh":             {doc: "How nines reaches a node before its agent runs."},
	"ssh.user":        {doc: "The user; root, or one who may use sudo without a password.", fallback: "root", pattern: `^[a-z_][a-z0-9_-]{0,31}$`, means: "a user name"},
	"ssh.port":        {doc: "The port of sshd.", fallback: "22", min: "1", max: "65535"},
	"ssh.identity":    {doc: "Private key; relative to this file.", fallback: "~/.ssh/id_ed25519"},
	"ssh.known_hosts": {doc: "Known host keys: a node with another key is refused; relative to this file.", fallback: "~/.ssh/known_hosts"},

	"ntp": {doc: "Time: the controllers take it from upstream, the other nodes from the controllers."},
	"ntp.upstreams": {doc: "Upstream time servers; at least four let chrony outvote a wrong one. An empty list: the controllers agree among themselves. Default: the pool that Debian's own chrony.conf uses.",
		fallback: "[0.debian.pool.ntp.org, 1.debian.pool.ntp.org, 2.debian.pool.ntp.org, 3.debian.pool.ntp.org]"},
	"ntp.upstreams[]":   {doc: "Host name or address of a time server.", pattern: `^[A-Za-z0-9]([A-Za-z0-9.:-]*[A-Za-z0-9])?$`, means: "a host name or an address"},
	"ntp.control_clock": {doc: "Whether chronyd may set the clock; false on machines that may not (containers): it then only measures.", fallback: "true"},

	"packages":        {doc: "A package source in addition to the nodes' own apt configuration; without it theirs is used alone."},
	"packages.source": {doc: "Base URL of a Debian repository.", pattern: `^(https?|file)://[^\s]+$`, means: "a URL with http://, https:// or file://"},
	"packages.suite":  {doc: "Distribution within the source. Default, where a source is given: the release's own.", pattern: `^[A-Za-z0-9][A-Za-z0-9./+-]*$`, means: "the name of a suite, like trixie"},
	"packages.key":    {doc: "File with the OpenPGP key the source is signed with; relative to this file."},

	"services":   {doc: "What the cluster runs. Default: all of the core. What Neutron stands on (openvswitch, ovn) follows from neutron.backend and need not be named.", enum: model.KnownServices},
	"services[]": {doc: "One service.", enum: model.KnownServices},

	"fencing": {doc: "on: the cluster may take the power of a machine away through its BMC, where it must be sure that the machine does nothing any more. off: it never does, and waits for a person instead. Default: on where every controller has a bmc, else off.",
		enum: []string{string(model.FencingOn), string(model.FencingOff)}},

	"images": {doc: "Where Glance keeps the content of images."},
	"images.store": {doc: "The kind of place. directory: files in a directory that all controllers share.",
		fallback: string(model.StoreDirectory), enum: words([]model.ImageStore{model.StoreDirectory})},
	"images.directory": {doc: "That directory. Mount the same file system (NFS, CephFS) there on every controller: nines does not mount it, but refuses one that is not shared.",
		fallback: "/srv/images", pattern: `^(/[A-Za-z0-9_][A-Za-z0-9._-]*)+$`, means: "an absolute path of letters, digits, '.', '_' and '-'"},

	"neutron": {doc: "How the networks of instances meet those of the site."},
	"neutron.backend": {doc: "What makes Neutron's networks. ovn: OVN, whose gateways stand in for each other within 3 s. ovs: Neutron's own agents over Open vSwitch, with a router on three controllers (VRRP), DHCP and metadata agents. To be chosen before the first network is made: nothing converts one's networks into the other's.",
		fallback: string(model.BackendOVN), enum: words([]model.NeutronBackend{model.BackendOVN, model.BackendOVS})},
	"neutron.provider_interface": {doc: "The nodes' interface that leads to the networks of floating addresses. A virtual switch takes it over, so it must carry no address of its own. Without it instances have no way out.",
		pattern: interfacePattern, means: interfaceMeans},
	"neutron.physical_network": {doc: "What `openstack network create --provider-physical-network` calls the network behind that interface.",
		fallback: "external", pattern: `^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$`, means: "letters, digits, '_' and '-'"},
	"neutron.tunnel_interface": {doc: "The nodes' interface for the traffic between instances on different nodes; nines gives it the node's tenant address. Needed where the kernel has no openvswitch module (a virtual switch takes it over there); elsewhere only if the address is not configured already.",
		pattern: interfacePattern, means: interfaceMeans},

	"neutron.distributed_floating_ips": {doc: "true: the compute of an instance answers for its floating address, which then does not depend on a gateway; every compute must be connected by provider_interface. false: a gateway (controller) answers, and another after about 3 s when it fails.",
		fallback: "false"},
	"volumes": {doc: "Where Cinder keeps volumes."},
	"volumes.store": {doc: "The kind of place. directory: files in a directory that all controllers and computes share.",
		fallback: string(model.VolumesDirectory), enum: words([]model.VolumeStore{model.VolumesDirectory})},
	"volumes.directory": {doc: "That directory. Mount the same file system (NFS, CephFS) there on every controller and compute: nines does not mount it, but refuses one that is not shared.",
		fallback: "/srv/volumes", pattern: `^(/[A-Za-z0-9_][A-Za-z0-9._-]*)+$`, means: "an absolute path of letters, digits, '.', '_' and '-'"},

	"certificates": {doc: "The certificates of nodes."},
	"certificates.lifetime": {doc: "How long a new certificate is valid; it is renewed when less than a third is left. 8760h (a year): a leader that cannot renew leaves months to find out why.",
		fallback: "8760h", min: "5m", max: "43800h", step: "1m"},
	"certificates.renewed_by": {doc: "Who renews them. leader: the cluster by itself; for that the controllers have the authority's key, so whoever becomes root on a controller can make certificates. operator: the key stays on the operator's machine, and nothing is renewed without nines apply.",
		fallback: string(model.RenewedByLeader), enum: words([]model.Renewer{model.RenewedByLeader, model.RenewedByOperator})},

	"checks": {doc: "The hardware and network rules that `nines check` measures on the nodes."},
	"checks.severity": {doc: "What happens when a node breaks one: error stops a deployment, warning only tells.",
		fallback: "error", enum: []string{"error", "warning"}},

	"tuning": {doc: "Values to change with care: each default was measured or comes from the component's source."},
	"tuning.preset": {doc: "Whose values vip.advert and the failure detectors below have where this file gives none, so that their failover can be compared. nines: the defaults shown here. kolla: those of a deployment with kolla-ansible 2025.1. reference: those of OpenStack's High Availability Guide. Only values change: what nines does beside them stays.",
		fallback: string(model.PresetNines), enum: words(model.Presets)},
	"tuning.galera": {doc: "Failure detector of Galera and sizes of MariaDB. All members must have the same values."},
	"tuning.galera.suspect_timeout": {doc: "Silence after which a member is suspected dead; writes stall for this long and about one join_retrans. 1s stalled 1.4 s, but on starved cores members were silent for up to 1.3 s, and once in 30 power cuts two of them at once lost the quorum (measured); the component's default of 5s stalls 6.2 s.",
		fallback: "1500ms", min: "100ms", max: "10m"},
	"tuning.galera.inactive_timeout": {doc: "Silence after which a member is declared dead by one member's word alone. 15s is the component's default: a short one splits the survivors.",
		fallback: "15s", min: "100ms", max: "10m"},
	"tuning.galera.install_timeout": {doc: "How long members wait for each other's agreement on a new view. 15s (the most inactive_timeout allows): a short one gives up on a busy machine.",
		fallback: "15s", min: "100ms", max: "10m"},
	"tuning.galera.keepalive": {doc: "Silence after which a member says it is alive. 300ms: three of them fit into suspect_timeout.",
		fallback: "300ms", min: "10ms", max: "1m"},
	"tuning.galera.inactive_check": {doc: "How often silence is measured. 300ms: the same as keepalive, finer gains nothing.",
		fallback: "300ms", min: "10ms", max: "1m"},
	"tuning.galera.peer_timeout": {doc: "Silence after which the connection to a peer is made anew. 3s is the component's default; 1s was on the edge under load (measured).",
		fallback: "3s", min: "100ms", max: "10m"},
	"tuning.galera.join_retrans": {doc: "How often members repeat themselves while they regroup. 300ms instead of the component's 1s: it must stay below suspect_timeout, or the survivors declare each other dead (8 of 8 runs), and it shortens the stall.",
		fallback: "300ms", min: "10ms", max: "1m"},
	"tuning.galera.gcache": {doc: "Ring of recent writes a returning member catches up from; when it is too small the whole database is copied instead. 128M is the component's default and holds hours of a small cloud's control plane.",
		fallback: "128M", pattern: sizePattern, means: sizeMeans},
	"tuning.galera.buffer_pool": {doc: "Memory for InnoDB's pages. 128M is the component's default and fits a node of 12 GB and a lab; give a large cloud 1G or more.",
		fallback: "128M", pattern: sizePattern, means: sizeMeans},
	"tuning.galera.missing_member_after": {doc: "How long the recovery of a database that stands still waits for one missing member before it goes on without it, although that may lose acknowledged writes. 0s: for ever, or until a person says so with nines recover.",
		fallback: "0s", min: "0s", max: "168h"},

	"tuning.rabbitmq": {doc: "Failure detector of RabbitMQ."},
	"tuning.rabbitmq.net_tick_time": {doc: "Silence after which a node counts as down (within a quarter of it). 15s instead of the component's 60s: a silent death is noticed in 11-19 s; whole seconds.",
		fallback: "15s", min: "5s", max: "2m", step: "1s"},

	"tuning.haproxy":            {doc: "Health checks of HAProxy."},
	"tuning.haproxy.inter":      {doc: "Interval of the health checks. 1s: they find whose agent says nothing; what agents say counts at once.", fallback: "1s", min: "50ms", max: "1m", step: "1ms"},
	"tuning.haproxy.http_inter": {doc: "The same for servers that speak HTTP. 10s: a request that cannot connect goes to another server and has this one asked at once, so that only servers without requests, whose agents say nothing, wait this long; a check is a TLS handshake, and there are three for each API on each controller.", fallback: "10s", min: "50ms", max: "1m", step: "1ms"},
	"tuning.haproxy.fast_inter": {doc: "Interval after a check or a request failed, until the state is clear. 250ms: the second opinion comes soon.", fallback: "250ms", min: "10ms", max: "1m", step: "1ms"},
	"tuning.haproxy.fall":       {doc: "Failed checks that take a server out, two more for database and broker, whose clients it cuts off. 4: a busy agent may be late with some of them; what it says, and who is dead, is known sooner than by checks.", fallback: "4", min: "1", max: "10"},
	"tuning.haproxy.rise":       {doc: "Good checks that bring a server back. 2: a server that only just starts is not flooded.", fallback: "2", min: "1", max: "10"},

	"tuning.pacemaker": {doc: "Failure detector of Corosync, with vip.engine: pacemaker."},
	"tuning.pacemaker.token": {doc: "How long Corosync waits for its token before a node counts as lost, whatever the number of nodes; the survivors agree for 1.2 times as long. 600ms: the VIP is taken over within 4 s; Corosync's own 3s made 8 s (measured).",
		fallback: "600ms", min: "300ms", max: "1m", step: "1ms"},

	"tuning.keystone": {doc: "Workers and key rotation of Keystone."},
	"tuning.keystone.processes": {doc: "Worker processes on each controller. 2: one keeps answering while the other is busy; about 120 MB each.",
		fallback: "2", min: "1", max: "128"},
	"tuning.keystone.threads":         {doc: "Threads in each process. 2: more wait for the interpreter's lock.", fallback: "2", min: "1", max: "64"},
	"tuning.keystone.fernet_rotation": {doc: "How often the token keys are rotated.", fallback: "24h", min: "10m", max: "8760h", step: "1m"},
	"tuning.keystone.token_lifetime":  {doc: "How long a token is valid; keys are kept until no token needs them.", fallback: "1h", min: "1m", max: "168h", step: "1s"},
}

// hidden are fields of the model that are not keys of cluster.yaml.
var hidden = map[string]bool{
	"packages.key_text": true, // filled in from packages.key
}

// member is one key of a mapping that a struct describes.
type member struct {
	key   string
	index int
}

// members returns the keys of a struct in the order of the model.
func members(t reflect.Type, path string) []member {
	var out []member
	for i := range t.NumField() {
		key, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		if key == "" || key == "-" || hidden[join(path, key)] {
			continue
		}
		out = append(out, member{key, i})
	}
	return out
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

func words[T ~string](in []T) []string {
	out := make([]string, len(in))
	for i, w := range in {
		out[i] = string(w)
	}
	return out
}

// releases returns the releases nines deploys to, oldest name first.
func releases() []model.Release { return slices.Sorted(maps.Keys(model.Releases)) }
