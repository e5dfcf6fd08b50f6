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
	// Packages lists, for each service, the packages it is made of.
	Packages map[string][]string
}

// Releases holds the facts of each release nines deploys to.
var Releases = map[Release]ReleaseFacts{
	Debian13: {
		Suite: "trixie",
		Packages: map[string][]string{
			"base":       {"chrony", "ca-certificates", "curl", "iproute2", "iputils-arping", "procps"},
			"galera":     {"mariadb-server", "mariadb-backup", "galera-4", "socat"},
			"rabbitmq":   {"rabbitmq-server"},
			"memcached":  {"memcached"},
			"haproxy":    {"haproxy"},
			"keepalived": {"keepalived"},
			"keystone":   {"keystone", "python3-openstackclient", "python3-pymysql", "python3-pymemcache"},
		},
	},
}

// Facts returns what is known of the cluster's release.
func (c *Cluster) Facts() ReleaseFacts { return Releases[c.Release] }
