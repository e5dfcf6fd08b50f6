// Package check holds the rules a machine and its network must satisfy before
// nines deploys to it, as pure functions of what was measured.
//
// Invariants: the same measurements give the same conditions; a value that was
// not measured breaks no rule (a machine that could not be measured at all does).
// The package must never measure anything itself.
package check

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"nines/internal/health"
	"nines/internal/model"
)

// The codes of the conditions.
const (
	CodeNotMeasured     = "check-not-measured"
	CodeCores           = "check-cores"
	CodeMemory          = "check-memory"
	CodeDisk            = "check-disk"
	CodeNICs            = "check-nics"
	CodeLatency         = "check-latency"
	CodeUnreachable     = "check-unreachable"
	CodeClock           = "check-clock"
	CodeRelease         = "check-release"
	CodeAddressMissing  = "check-address-missing"
	CodeVIPInterface    = "check-vip-interface"
	CodeNetmask         = "check-netmask"
	CodePortTaken       = "check-port-taken"
	CodeDiskFull        = "check-disk-full"
	CodePackageSource   = "check-package-source"
	CodeOtherCluster    = "check-other-cluster"
	CodeNotRoot         = "check-not-root"
	CodeHostnameDiffers = "check-hostname"
)

// Measured is what one node told about itself. Zero values mean "not measured".
type Measured struct {
	Node string `json:"node"`
	// Failed says why the node could not be measured; the rest is empty then.
	Failed string `json:"failed,omitempty"`
	// Hint says what to do about Failed.
	Hint string `json:"hint,omitempty"`

	model.Hardware
	// Release is ID and VERSION_ID of os-release, joined: "debian13".
	Release  string `json:"release,omitempty"`
	Hostname string `json:"hostname,omitempty"` // as the kernel has it
	// UserID is the user the measuring commands ran as, after sudo.
	UserID int `json:"user_id"`
	// ClusterID is the cluster the node already belongs to; WantClusterID the one it should.
	ClusterID     string `json:"cluster_id,omitempty"`
	WantClusterID string `json:"want_cluster_id,omitempty"`

	// LatencyTo is the round trip to other nodes' management addresses, the
	// median of several, nanoseconds.
	LatencyTo map[string]time.Duration `json:"latency_to,omitempty"`
	// Unanswered are the nodes whose management address did not answer.
	Unanswered []string `json:"unanswered,omitempty"`
	// ClockOffset is the node's clock minus that of the machine that measures, corrected by
	// half of the round trip, nanoseconds. Only differences between nodes matter.
	ClockOffset   time.Duration `json:"clock_offset"`
	ClockMeasured bool          `json:"clock_measured"`

	Interfaces []Interface `json:"interfaces,omitempty"`
	Listeners  []Listener  `json:"listeners,omitempty"`
	// FreeBytes is the space left to root on the file system of each path.
	FreeBytes map[string]uint64 `json:"free_bytes,omitempty"`
	// SourceErrors says for each package source that did not answer as one, why.
	SourceErrors map[string]string `json:"source_errors,omitempty"`
}

// Interface is a network interface with its addresses and their real prefix lengths.
type Interface struct {
	Name      string         `json:"name"`
	Addresses []netip.Prefix `json:"addresses"`
}

// Listener is a listening TCP socket.
type Listener struct {
	Address netip.AddrPort `json:"address"`
	Process string         `json:"process"` // the short name of the kernel; may be empty
}

// The limits that are not a node's size.
const (
	// MaxClockDifference between two nodes: tokens, certificates and logs go wrong beyond.
	MaxClockDifference = 500 * time.Millisecond
	// fullBytes left is a disk on which an installation breaks off half way.
	fullBytes = model.GB / 2
	// tightBytes left is too little for packages, database, broker and logs to live with.
	tightBytes = 5 * model.GB
)

// Rules judges the measurements of a cluster's nodes. Sizes and latency have the severity
// that cluster.yaml asks for; what would make the deployment fail is always critical.
func Rules(c *model.Cluster, ms []Measured) []health.Condition {
	r := &rules{cluster: c, soft: health.Critical, byNode: map[string]Measured{}}
	if c.Checks.Severity == "warning" {
		r.soft = health.Warning
	}
	for _, m := range ms {
		r.byNode[m.Node] = m
	}
	for _, n := range c.Nodes {
		m, ok := r.byNode[n.Name]
		switch {
		case !ok:
			r.add(n, CodeNotMeasured, health.Critical, "it was not measured", "run 'nines check' again")
		case m.Failed != "":
			r.add(n, CodeNotMeasured, health.Critical, "it could not be measured: "+m.Failed, cmp.Or(m.Hint, "see that it is powered on and that ssh to it works"))
		default:
			r.node(n, m)
		}
	}
	r.latency()
	r.clocks()
	health.Sort(r.out)
	return r.out
}

type rules struct {
	cluster *model.Cluster
	soft    health.Severity
	byNode  map[string]Measured
	out     []health.Condition
}

func (r *rules) add(n model.Node, code string, s health.Severity, text, hint string) {
	r.out = append(r.out, health.Condition{Code: code, Severity: s, Node: n.Name, Text: text, Hint: hint})
}

func (r *rules) node(n model.Node, m Measured) {
	r.hardware(n, m)
	r.system(n, m)
	r.addresses(n, m)
	r.ports(n, m)
	r.space(n, m)
}

// hardware compares the node with the largest need of its roles.
func (r *rules) hardware(n model.Node, m Measured) {
	var need model.Hardware
	for _, role := range n.Roles {
		h := model.Needs[role]
		need = model.Hardware{Cores: max(need.Cores, h.Cores), MemoryBytes: max(need.MemoryBytes, h.MemoryBytes),
			DiskBytes: max(need.DiskBytes, h.DiskBytes), NICs: max(need.NICs, h.NICs)}
	}
	hint := "use a larger machine; 'checks: {severity: warning}' in cluster.yaml deploys all the same"
	if m.Cores > 0 && m.Cores < need.Cores {
		r.add(n, CodeCores, r.soft, fmt.Sprintf("%d cores, %d are needed", m.Cores, need.Cores), hint)
	}
	if m.MemoryBytes > 0 && m.MemoryBytes < need.MemoryBytes {
		r.add(n, CodeMemory, r.soft, fmt.Sprintf("%s of memory, %s are needed", gigabytes(m.MemoryBytes), gigabytes(need.MemoryBytes)), hint)
	}
	if m.DiskBytes > 0 && m.DiskBytes < need.DiskBytes {
		r.add(n, CodeDisk, r.soft, fmt.Sprintf("%s of disk, %s are needed", gigabytes(m.DiskBytes), gigabytes(need.DiskBytes)), hint)
	}
	if m.NICs > 0 && m.NICs < need.NICs {
		r.add(n, CodeNICs, r.soft, fmt.Sprintf("%d network interfaces, %d are needed", m.NICs, need.NICs),
			"one cable is one point of failure; 'checks: {severity: warning}' in cluster.yaml deploys all the same")
	}
}

func gigabytes(n uint64) string { return fmt.Sprintf("%.1f GB", float64(n)/model.GB) }

func (r *rules) system(n model.Node, m Measured) {
	if want := string(r.cluster.Release); m.Release != "" && m.Release != want {
		r.add(n, CodeRelease, health.Critical, fmt.Sprintf("it runs %s, cluster.yaml says %s", m.Release, want), "install "+want+" on it")
	}
	if m.UserID != 0 {
		r.add(n, CodeNotRoot, health.Critical, fmt.Sprintf("the SSH user is not root (uid %d) and may not become it", m.UserID),
			"set ssh.user to root, or let the user run sudo without a password")
	}
	if m.Hostname != "" && m.Hostname != n.Name {
		r.add(n, CodeHostnameDiffers, health.Notice, fmt.Sprintf("its host name is %s", m.Hostname), "see that the address is the right machine's; nines uses its own name for it and leaves the host name alone")
	}
	if m.ClusterID != "" && m.WantClusterID != m.ClusterID {
		r.add(n, CodeOtherCluster, health.Critical, "it belongs to another cluster (id "+m.ClusterID+")", "take it out of that cluster first, or correct its address")
	}
	for _, source := range sorted(m.SourceErrors) {
		r.add(n, CodePackageSource, health.Critical, fmt.Sprintf("the package source %s does not answer: %s", source, m.SourceErrors[source]),
			"correct packages.source in cluster.yaml or the node's apt configuration, and look at routes and proxies")
	}
}

// addresses checks that every address of cluster.yaml is on the machine, with its
// network's netmask: the VIP takes it over.
func (r *rules) addresses(n model.Node, m Measured) {
	if len(m.Interfaces) == 0 {
		return
	}
	for _, name := range model.NetworkNames {
		a, has := n.Addresses[name]
		network, known := r.cluster.Networks[name]
		if !has || !known {
			continue
		}
		holds := r.cluster.VIP.On(name) && n.Has(model.RoleController)
		where, bits, found := find(m.Interfaces, a)
		switch {
		case !found && holds && !onNetwork(m.Interfaces, network.CIDR):
			r.add(n, CodeVIPInterface, health.Critical, fmt.Sprintf("no interface has an address in %s (%s): the VIP cannot live here", network.CIDR, name),
				fmt.Sprintf("give an interface the address %s/%d", a, network.CIDR.Bits()))
		case !found && r.cluster.SetsAddress(name):
		case !found:
			r.add(n, CodeAddressMissing, health.Critical, fmt.Sprintf("no interface has its address %s (%s)", a, name),
				fmt.Sprintf("give an interface the address %s/%d, or correct cluster.yaml", a, network.CIDR.Bits()))
		case bits != network.CIDR.Bits():
			text := fmt.Sprintf("%s on %s has the netmask /%d, the network %s has /%d", a, where, bits, name, network.CIDR.Bits())
			if holds {
				text += ": the VIP would attract or lose traffic"
			}
			r.add(n, CodeNetmask, health.Critical, text, "make both the same: the interface's configuration or networks."+string(name)+".cidr")
		}
	}
}

func find(is []Interface, a netip.Addr) (name string, bits int, found bool) {
	for _, i := range is {
		for _, p := range i.Addresses {
			if p.Addr().Unmap() == a {
				return i.Name, p.Bits(), true
			}
		}
	}
	return "", 0, false
}

func onNetwork(is []Interface, cidr netip.Prefix) bool {
	return slices.ContainsFunc(is, func(i Interface) bool {
		return slices.ContainsFunc(i.Addresses, func(p netip.Prefix) bool { return cidr.Contains(p.Addr().Unmap()) })
	})
}

func (r *rules) space(n model.Node, m Measured) {
	for _, path := range sorted(m.FreeBytes) {
		free := m.FreeBytes[path]
		severity := r.soft
		switch {
		case free < fullBytes:
			severity = health.Critical
		case free >= tightBytes:
			continue
		}
		r.add(n, CodeDiskFull, severity, fmt.Sprintf("%s has %s left, %s are needed", path, gigabytes(free), gigabytes(tightBytes)),
			"free space there: 'apt-get clean' and 'journalctl --vacuum-size=200M' are quick")
	}
}
