package model

// Release names the operating system release nines deploys to.
type Release string

// Debian13 is Debian 13 with OpenStack 2025.1: the only release so far.
const Debian13 Release = "debian13"

// ReleaseFacts is everything nines knows that differs from one release to the
// next. A new release is one more value of it.
type ReleaseFacts struct {
	// Suite is the code name of the distribution.
	Suite string
	// Packages lists, for each service, the packages it is made of: on the controllers under its name, on nodes
	// of another role under NAME/ROLE. A service that can be made of others has them under NAME:BACKEND.
	Packages map[string][]string
}

// PackagesOf lists the packages of a service on a node.
func (f ReleaseFacts) PackagesOf(service string, n Node) []string {
	var out []string
	for _, r := range n.Roles {
		key := service
		if r != RoleController {
			key += "/" + string(r)
		}
		out = append(out, f.Packages[key]...)
	}
	return out
}

// Releases holds the facts of each release nines deploys to.
var Releases = map[Release]ReleaseFacts{
	Debian13: {
		Suite: "trixie",
		Packages: map[string][]string{
			"base":       {"chrony", "ca-certificates", "curl", "iproute2", "iputils-arping", "nftables", "procps"},
			"galera":     {"mariadb-server", "mariadb-backup", "galera-4", "socat"},
			"rabbitmq":   {"rabbitmq-server"},
			"memcached":  {"memcached"},
			"haproxy":    {"haproxy"},
			"keepalived": {"keepalived"},
			"keystone":   {"keystone", "python3-openstackclient", "python3-pymysql", "python3-pymemcache"},
			"placement":  {"placement-api", "python3-osc-placement", "python3-pymysql"},
			"glance":     {"glance-api", "python3-glanceclient", "python3-pymysql"},
			"nova":       {"nova-api", "nova-conductor", "nova-scheduler", "nova-consoleproxy", "novnc", "python3-pymysql"},
			// nova-compute-kvm brings the QEMU of the usual processors, which also emulates.
			"nova/compute": {"nova-compute", "nova-compute-kvm", "libvirt-daemon-system", "libvirt-clients"},

			// The VIP's other engine. fping: whom a node reaches is asked of all at once; socat: HAProxy is asked at its socket.
			"keepalived:pacemaker": {"corosync", "pacemaker", "pacemaker-cli-utils", "resource-agents", "fence-agents-redfish", "fence-agents-ipmilan", "fping", "socat"},

			"openvswitch":         {"openvswitch-switch"},
			"openvswitch/compute": {"openvswitch-switch"},

			"ovn":         {"ovn-central", "ovn-host"},
			"ovn/compute": {"ovn-host"},

			"neutron":         {"neutron-api", "neutron-periodic-workers", "neutron-ovn-maintenance-worker", "python3-pymysql"},
			"neutron/compute": {"neutron-ovn-metadata-agent", "haproxy"},
			// ethtool: where userspace forwards, agents switch off with it what nobody would complete.
			"neutron:ovs":         {"neutron-api", "neutron-periodic-workers", "neutron-rpc-server", "neutron-openvswitch-agent", "neutron-l3-agent", "neutron-dhcp-agent", "neutron-metadata-agent", "ethtool", "python3-pymysql"},
			"neutron:ovs/compute": {"neutron-openvswitch-agent", "ethtool"},
			// open-iscsi: else cinder-volume brings tgt, which listens on every address.
			"cinder": {"cinder-api", "cinder-scheduler", "cinder-volume", "open-iscsi", "python3-cinderclient", "python3-pymysql"},
			// media-types: uWSGI tells browsers what a static file is.
			"horizon": {"openstack-dashboard", "uwsgi-plugin-python3", "media-types", "python3-pymysql"},
			"heat":    {"heat-api", "heat-engine", "python3-heatclient", "python3-pymysql"},
		},
	},
}

// Facts returns what is known of the cluster's release.
func (c *Cluster) Facts() ReleaseFacts { return Releases[c.Release] }
