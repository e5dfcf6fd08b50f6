package check

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"nines/internal/health"
	"nines/internal/model"
)

// The rules between nodes.

// latency judges each pair of controllers once, by the better of its two directions:
// a round trip is the same from both ends, and a busy machine only makes it longer.
func (r *rules) latency() {
	nodes := r.cluster.Nodes
	for i, a := range nodes {
		for _, other := range r.byNode[a.Name].Unanswered {
			if b, ok := r.cluster.Node(other); ok {
				r.add(a, CodeUnreachable, health.Critical, fmt.Sprintf("%s (%s) does not answer on the management network", b.Name, b.Address()),
					"look at cables, VLANs, netmasks and firewalls between them")
			}
		}
		for _, b := range nodes[i+1:] {
			if !a.Has(model.RoleController) || !b.Has(model.RoleController) {
				continue
			}
			there, ok := r.byNode[a.Name].LatencyTo[b.Name]
			if back, also := r.byNode[b.Name].LatencyTo[a.Name]; also && (!ok || back < there) {
				there, ok = back, true
			}
			if ok && there > model.MaxControllerLatency {
				r.add(a, CodeLatency, r.soft, fmt.Sprintf("the round trip to %s takes %s, at most %s are good", b.Name, there.Round(10*time.Microsecond), model.MaxControllerLatency),
					"each commit of the database waits for it: put the controllers into one site")
			}
		}
	}
}

// clocks compares each clock with the middle one, so that a node that is off is the one named.
func (r *rules) clocks() {
	var known []Measured
	for _, n := range r.cluster.Nodes {
		if m, ok := r.byNode[n.Name]; ok && m.Failed == "" && m.ClockMeasured {
			known = append(known, m)
		}
	}
	if len(known) < 2 {
		return
	}
	order := slices.SortedStableFunc(slices.Values(known), func(a, b Measured) int { return cmp.Compare(a.ClockOffset, b.ClockOffset) })
	middle := order[(len(order)-1)/2]
	for _, m := range known {
		off := m.ClockOffset - middle.ClockOffset
		if off.Abs() <= MaxClockDifference {
			continue
		}
		n, _ := r.cluster.Node(m.Node)
		way := "ahead of"
		if off < 0 {
			way = "behind"
		}
		r.add(n, CodeClock, health.Critical, fmt.Sprintf("its clock is %s %s that of %s, at most %s are good", off.Abs().Round(time.Millisecond), way, middle.Node, MaxClockDifference),
			"set it ('chronyc makestep' once chrony has a source) and see why it was off")
	}
}

// owners says for each port of the core who uses it and the processes that may hold it.
// nines (the agent) and systemd (socket activation) hold nines's own.
var owners = []struct {
	port      int
	service   string
	processes []string
}{
	{model.PortHealth, "base", []string{"nines", "systemd"}},
	{model.PortAgent, "base", []string{"nines", "systemd"}},
	{model.PortEtcdClient, "base", []string{"nines"}},
	{model.PortEtcdPeer, "base", []string{"nines"}},
	{model.PortMariaDB, "galera", []string{"mariadbd", "haproxy"}},
	{model.PortGalera, "galera", []string{"mariadbd", "garbd"}},
	{model.PortGaleraIST, "galera", []string{"mariadbd"}},
	{model.PortGaleraSST, "galera", []string{"mariadbd", "socat"}},
	{model.PortAMQP, "rabbitmq", []string{"beam.smp", "haproxy"}},
	{model.PortRabbitMQDist, "rabbitmq", []string{"beam.smp"}},
	{model.PortRabbitMQAdmin, "rabbitmq", []string{"beam.smp", "haproxy"}},
	{model.PortEPMD, "rabbitmq", []string{"epmd", "systemd"}},
	{model.PortMemcached, "memcached", []string{"memcached"}},
	{model.PortHAProxyStats, "haproxy", []string{"haproxy"}},
	{model.PortKeystone, "keystone", []string{"haproxy", "uwsgi", "uwsgi-core", "uwsgi_python3", "keystone-wsgi-p", "keystone-public", "apache2"}},
}

// ports reports processes of others on the ports that services of the node need.
func (r *rules) ports(n model.Node, m Measured) {
	for _, o := range owners {
		if !r.cluster.Runs(o.service) || o.service != "base" && !n.Has(model.RoleController) {
			continue
		}
		for _, l := range m.Listeners {
			if int(l.Address.Port()) != o.port || !r.conflicts(n, l) || slices.Contains(o.processes, l.Process) {
				continue
			}
			who := l.Process
			if who == "" {
				who = "another process"
			}
			r.add(n, CodePortTaken, health.Critical, fmt.Sprintf("%s listens on %s, which %s needs", who, l.Address, name(o.service)),
				fmt.Sprintf("stop it, or move it to another port ('ss -ltnp sport = :%d' shows it)", o.port))
		}
	}
}

// name is what an operator calls a service.
func name(service string) string {
	if service == "base" {
		return "nines"
	}
	return service
}

// conflicts reports whether a socket is in the way: services listen on the node's
// addresses and on those of the VIP, most not on the loopback.
func (r *rules) conflicts(n model.Node, l Listener) bool {
	a := l.Address.Addr().Unmap()
	if a.IsUnspecified() || r.cluster.VIP.Is(a) {
		return true
	}
	for _, own := range n.Addresses {
		if own == a {
			return true
		}
	}
	return false
}

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
