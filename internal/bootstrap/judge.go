package bootstrap

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"nines/internal/model"
)

// What a machine must have.
const (
	// maxSkew is the greatest difference of clocks: certificates and the tokens of
	// OpenStack are valid by the clock.
	maxSkew = 30 * time.Second
	// Free space on a new machine, bytes: packages and their data under /var/lib
	// come later, but an agent on a machine without room helps nobody.
	minFreeState  = 1 << 30
	minFreeConfig = 16 << 20
	// architecture is the one that the executable and the packages are made for.
	architecture = "amd64"
)

// expectation is what bootstrap wants to find on a node.
type expectation struct {
	cluster *model.Cluster
	node    model.Node
	id      string // of the cluster
	ca      []byte // its authority's certificate, PEM
	binary  int64  // size of the executable, bytes; 0: it is there already
	// asked and answered are the own clock before and after the machine was asked.
	asked, answered time.Time
}

// judge says everything that stands in the way on one machine.
func judge(x expectation, f facts) []Problem {
	var all []Problem
	for _, rule := range []func(expectation, facts) []Problem{
		checkSystem, checkTools, checkForeign, checkSpace, checkClock, checkAddresses, checkPorts,
	} {
		all = append(all, rule(x, f)...)
	}
	for i := range all {
		all[i].Node = x.node.Name
	}
	return all
}

func checkSystem(x expectation, f facts) []Problem {
	var ps []Problem
	suite := x.cluster.Facts().Suite
	if f.os != "debian" || f.codename != suite {
		have := f.pretty
		if have == "" {
			have = "something unknown"
		}
		ps = append(ps, Problem{Text: fmt.Sprintf("it runs %s; nines deploys to Debian %s", have, suite), Next: "install Debian " + suite + " on it"})
	}
	if f.arch != architecture {
		ps = append(ps, Problem{Text: fmt.Sprintf("its architecture is %s, not %s", f.arch, architecture), Next: "take another machine"})
	}
	if f.init != "systemd" || f.system == "offline" || f.system == "" {
		ps = append(ps, Problem{Text: fmt.Sprintf("systemd does not run it: process 1 is %s, systemctl is-system-running says %q", f.init, f.system),
			Next: "boot it with systemd (Debian's default; a plain container has none)"})
	}
	if f.system == "stopping" || f.system == "maintenance" {
		ps = append(ps, Problem{Text: "systemd is in state " + f.system, Next: "wait until it has booted, or look at its console"})
	}
	return ps
}

// toolPackages are the packages of the tools that are not on every Debian.
var toolPackages = map[string]string{"ip": "iproute2", "ss": "iproute2", "groupadd": "passwd"}

func checkTools(_ expectation, f facts) []Problem {
	if len(f.missing) == 0 {
		return nil
	}
	var packages []string
	for _, t := range f.missing {
		p := toolPackages[t]
		if p == "" {
			p = t
		}
		if !slices.Contains(packages, p) {
			packages = append(packages, p)
		}
	}
	return []Problem{{Text: "it lacks " + strings.Join(f.missing, ", "), Next: "apt-get install " + strings.Join(packages, " ")}}
}

// cleanByHand is how a machine of another cluster becomes free. nines never does it.
const cleanByHand = "if the machine is free: install it anew, or on it run: systemctl disable --now nines-agent nines-health.socket; rm -rf /etc/nines /var/lib/nines; reboot"

// checkForeign refuses what is left of another cluster: the machine may hold the only
// copy of somebody's data.
func checkForeign(x expectation, f facts) []Problem {
	file, ok := f.files[model.PathAgentConfig]
	if !ok {
		// A machine that trusts this cluster's authority is this cluster's.
		if f.store && !bytes.Equal(f.files[model.PathCA].content, x.ca) {
			return []Problem{{Text: "it has data of etcd in " + model.PathState + " but no " + model.PathAgentConfig + ": nobody knows of which cluster", Next: cleanByHand}}
		}
		return nil
	}
	var conf model.AgentConfig
	if err := json.Unmarshal(file.content, &conf); err != nil || conf.ClusterID == "" {
		return []Problem{{Text: model.PathAgentConfig + " is damaged: nobody knows of which cluster the machine is", Next: cleanByHand}}
	}
	if conf.ClusterID != x.id {
		return []Problem{{Text: fmt.Sprintf("it belongs to another cluster: %q, id %s, as node %s (this one is %q, id %s)", conf.ClusterName, conf.ClusterID, conf.Node, x.cluster.Name, x.id),
			Next: "does cluster.yaml name the right machine, and is " + stateDir + " the one it was deployed with? " + cleanByHand}}
	}
	if conf.Node != x.node.Name {
		return []Problem{{Text: fmt.Sprintf("it is node %s of this cluster already, not %s", conf.Node, x.node.Name),
			Next: "put the right name to address " + x.node.Address().String() + " in cluster.yaml, or remove the node first"}}
	}
	return nil
}

// checkSpace asks less of a machine that is in the cluster already: a full disk must
// not keep its agent from being repaired.
func checkSpace(x expectation, f facts) []Problem {
	need := map[string]int64{}
	if x.binary > 0 {
		need["/usr/local"] = x.binary + minFreeConfig
	}
	if _, known := f.files[model.PathAgentConfig]; !known {
		need["/etc"], need["/var/lib"] = minFreeConfig, minFreeState
	}
	var ps []Problem
	for _, dir := range []string{"/usr/local", "/etc", "/var/lib"} {
		if have, ok := f.free[dir]; ok && have < need[dir] {
			ps = append(ps, Problem{Text: fmt.Sprintf("%s has %d MiB free, %d MiB are needed", dir, have>>20, need[dir]>>20), Next: "make room or attach a larger disk"})
		}
	}
	return ps
}

func checkClock(x expectation, f facts) []Problem {
	var skew time.Duration
	switch {
	case f.now.Before(x.asked):
		skew = f.now.Sub(x.asked)
	case f.now.After(x.answered):
		skew = f.now.Sub(x.answered)
	}
	if skew.Abs() <= maxSkew {
		return nil
	}
	way := "ahead of"
	if skew < 0 {
		way = "behind"
	}
	return []Problem{{Text: fmt.Sprintf("its clock is %s %s this machine's; %s are allowed", skew.Abs().Round(time.Second), way, maxSkew),
		Next: "set it (on the machine: date --set=@SECONDS, or start its time service); if this machine's own clock is the wrong one, correct that"}}
}

// checkAddresses wants every address of the node on an interface, and that of the VIP's
// network with the VIP's prefix length: another one attracts or loses traffic.
func checkAddresses(x expectation, f facts) []Problem {
	if slices.Contains(f.missing, "ip") {
		return nil // nothing known; checkTools says so
	}
	var ps []Problem
	for _, network := range model.NetworkNames {
		want, ok := x.node.Addresses[network]
		if !ok {
			continue
		}
		i := slices.IndexFunc(f.addrs, func(a ifaceAddr) bool { return a.prefix.Addr() == want })
		if i < 0 && x.cluster.SetsAddress(network) {
			continue
		}
		if i < 0 {
			ps = append(ps, Problem{Text: fmt.Sprintf("no interface has its %s address %s (there are %s)", network, want, addrList(f.addrs)),
				Next: "configure the interface, or correct cluster.yaml"})
			continue
		}
		for _, vip := range x.cluster.VIP.Addresses() {
			if have := f.addrs[i]; network == vip.Network && x.node.Has(model.RoleController) && have.prefix.Bits() != vip.Prefix.Bits() {
				ps = append(ps, Problem{Text: fmt.Sprintf("interface %s, which is to carry the VIP %s, has the prefix length /%d", have.iface, vip.Prefix, have.prefix.Bits()),
					Next: "give both the same prefix length, on the machine or in cluster.yaml"})
			}
		}
	}
	return ps
}

func addrList(addrs []ifaceAddr) string {
	var out []string
	for _, a := range addrs {
		if !a.prefix.Addr().IsLoopback() && !a.prefix.Addr().IsLinkLocalUnicast() {
			out = append(out, a.prefix.String()+" on "+a.iface)
		}
	}
	if len(out) == 0 {
		return "none"
	}
	return strings.Join(out, ", ")
}

// checkPorts refuses ports that another program holds.
func checkPorts(x expectation, f facts) []Problem {
	var ps []Problem
	for _, l := range f.listen {
		port, addr := int(l.addr.Port()), l.addr.Addr()
		if port < model.PortHealth || port > model.PortEtcdPeer || ours(l, f.socket) {
			continue
		}
		if addr != x.node.Address() && addr != netip.IPv4Unspecified() && addr != netip.IPv6Unspecified() {
			continue
		}
		who := "another program"
		if l.comm != "" {
			who = fmt.Sprintf("%s (pid %d)", l.comm, l.pids[0])
		}
		ps = append(ps, Problem{Text: fmt.Sprintf("port %d, which the agent needs, is taken by %s", port, who), Next: "stop that program or move it to another port"})
	}
	return ps
}

// ours reports whether the agent listens, or systemd for it.
func ours(l listener, socket string) bool {
	if slices.ContainsFunc(l.cgroups, func(c string) bool { return strings.HasSuffix(c, "/nines-agent.service") }) {
		return true
	}
	return int(l.addr.Port()) == model.PortHealth && socket == "active" && slices.Contains(l.pids, 1)
}
