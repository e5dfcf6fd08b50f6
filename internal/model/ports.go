package model

// The ports of the services on the nodes' management addresses and, where a
// listener exists, on the VIP. They are the numbers of the components' own
// documentation; 7440-7443 are nines's own.
const (
	PortHealth     = 7440 // agents: health of services, asked by HAProxy
	PortAgent      = 7441 // agents: API, mutual TLS
	PortEtcdClient = 7442
	PortEtcdPeer   = 7443

	PortMariaDB       = 3306
	PortGalera        = 4567
	PortGaleraIST     = 4568
	PortGaleraSST     = 4444
	PortAMQP          = 5671 // TLS
	PortRabbitMQDist  = 25672
	PortEPMD          = 4369
	PortRabbitMQAdmin = 15671 // management plugin, TLS
	PortMemcached     = 11211
	PortHAProxyStats  = 1080
	PortHAProxyPeers  = 1024
	PortKeystone      = 5000
	PortPlacement     = 8778
	PortGlance        = 9292
	PortNova          = 8774
	PortNovaMetadata  = 8775
	PortNovaConsole   = 6080
	PortNeutron       = 9696
	PortOVNNorth      = 6641 // northbound database of OVN: what Neutron wants
	PortOVNSouth      = 6642 // southbound: what the nodes' switches are to do
	PortOVNNorthRaft  = 6643 // between the members of each
	PortOVNSouthRaft  = 6644
	PortCinder        = 8776
	PortHeat          = 8004
	PortHTTPS         = 443 // the dashboard on the VIP
	PortHorizon       = 8443
)

// PortsCorosync are the UDP ports of its links, the first one's first.
var PortsCorosync = []uint16{5405, 5406}

// On every node nines keeps these files.
const (
	PathBinary  = "/usr/local/bin/nines"
	PathConfig  = "/etc/nines"         // agent.json, TLS material: root only
	PathState   = "/var/lib/nines"     // etcd data, unit fingerprints: root only
	PathRun     = "/run/nines"         // sockets, VIP guard
	PathVolumes = "/var/lib/openstack" // where Cinder and Nova look for file systems with volumes (nfs_mount_point_base of both)
	PathCA      = PathConfig + "/tls/ca.pem"
	PathCert    = PathConfig + "/tls/node.pem" // certificate of the node, server and client use
	PathKey     = PathConfig + "/tls/node.key"
	PathVIPFile = PathRun + "/vip-guard" // "0": may hold the VIP; "-254": must not
	// PathAcquainted is there once every controller has answered this one since its boot, or had the time to.
	PathAcquainted = PathRun + "/acquainted"
	// PathAside is written anew every few seconds while this node stands aside (package stale).
	PathAside = PathRun + "/aside"
)

// Bridges of the nodes' virtual switches.
const (
	BridgeInt      = "br-int" // instances
	BridgeProvider = "br-ex"  // with the interface to the site's networks
)
