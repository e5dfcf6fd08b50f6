package model

import "net/netip"

// PathAgentConfig holds the AgentConfig of a node as JSON, PathClusterKey the age
// identity that opens the cluster's sealed secrets. Both are 0600.
const (
	PathAgentConfig = PathConfig + "/agent.json"
	PathClusterKey  = PathConfig + "/cluster.key"
	// PathAuthorityKey holds the key of the cluster's authority on controllers, where the leader renews certificates. 0600.
	PathAuthorityKey = PathConfig + "/authority.key"
)

// GroupTLS is the group that may read PathKey.
const GroupTLS = "nines-tls"

// AgentConfig is what an agent must know before it reaches the store: who it is and
// where the quorum is. Bootstrap writes it; it holds no secret.
type AgentConfig struct {
	ClusterName string `json:"cluster_name"`
	// ClusterID is drawn once for each cluster: a node of another cluster is never touched.
	ClusterID string     `json:"cluster_id"`
	Node      string     `json:"node"`
	Address   netip.Addr `json:"address"` // on the management network
	// Members are the controllers, which form etcd, in the order of cluster.yaml.
	Members    []AgentMember `json:"members"`
	Controller bool          `json:"controller"` // this node is one of Members
}

// AgentMember is one member of etcd.
type AgentMember struct {
	Name    string     `json:"name"`
	Address netip.Addr `json:"address"`
}

// AgentConfigFor returns the AgentConfig of a node of the cluster.
func AgentConfigFor(c *Cluster, n Node, clusterID string) AgentConfig {
	conf := AgentConfig{ClusterName: c.Name, ClusterID: clusterID, Node: n.Name, Address: n.Address(), Controller: n.Has(RoleController)}
	for _, m := range c.Controllers() {
		conf.Members = append(conf.Members, AgentMember{Name: m.Name, Address: m.Address()})
	}
	return conf
}
