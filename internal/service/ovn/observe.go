package ovn

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"nines/internal/health"
	"nines/internal/model"
	"nines/internal/ovsdb"
	"nines/internal/service"
)

// Facts of an observation. Those of a database are prefixed with its short name and "_".
const (
	FactCluster = "cluster" // ID of its RAFT cluster
	FactRole    = "role"    // "leader", "follower"
	FactMembers = "members" // addresses of all members, as this one knows them
	// FactNorthd is "active" or "standby".
	FactNorthd = "northd"
	// FactChassis lists the nodes whose switches are registered in the southbound database.
	FactChassis = "chassis"
	// FactSilent lists tunnel addresses of nodes that this one does not hear by BFD.
	FactSilent = "silent"
)

// Observe implements service.Observer. A controller serves when both its databases take part in their
// clusters and the switch works; a compute when the switch does.
func (s *Service) Observe(ctx context.Context, env service.Env) service.Observation {
	v := s.look(ctx, env)
	o := service.Observation{Serving: true, Facts: map[string]string{}}
	var words []string
	if env.Node.Has(model.RoleController) {
		words = append(words, v.central(&o)...)
	}
	words = append(words, v.chassis(&o, env.Node)...)
	o.Reason = strings.Join(words, ", ")
	return o
}

// view is what the node's daemons answered. They are asked at the same time: each may hang until its time is up, and
// the observation must say which.
type view struct {
	members [2]member // of databases, in their order
	silent  [2]error
	northd  string
	idle    error
	known   []ovsdb.Row // chassis in the southbound database
	dead    error       // the daemon that forwards
	status  string
	deaf    error // ovn-controller
	tunnels []ovsdb.Row
	mute    error // the switch's database
}

func (s *Service) look(ctx context.Context, env service.Env) view {
	var v view
	var wg sync.WaitGroup
	if env.Node.Has(model.RoleController) {
		for i, d := range databases {
			wg.Go(func() { v.members[i], v.silent[i] = s.status(ctx, d) })
		}
		wg.Go(func() { v.northd, v.idle = s.northd(ctx, env) })
		wg.Go(func() { v.known, _ = ovsdb.Rows(ctx, s.rpc, south.socket, south.name, "Chassis", []string{"name"}) }) // its status says why not
	}
	wg.Go(func() { _, v.dead = ovsdb.Control(ctx, s.rpc, env.Host, ovsdb.SwitchPID, "version") })
	wg.Go(func() { v.status, v.deaf = ovsdb.Control(ctx, s.rpc, env.Host, pidController, "connection-status") })
	wg.Go(func() {
		v.tunnels, v.mute = ovsdb.Rows(ctx, s.rpc, ovsdb.SwitchSocket, ovsdb.SwitchSchema, "Interface", []string{"options", "bfd_status"}, []any{"type", "==", "geneve"})
	})
	wg.Wait()
	return v
}

// central adds what concerns databases and northd.
func (v view) central(o *service.Observation) []string {
	var words []string
	for i, d := range databases {
		if err := v.silent[i]; err != nil {
			o.Serving = false
			words = append(words, d.short+" "+ovsdb.Word(err))
			continue
		}
		m := v.members[i]
		words = append(words, d.short+" "+m.String())
		o.Facts[d.short+"_"+FactCluster], o.Facts[d.short+"_"+FactRole] = m.cluster, m.role
		var members []string
		for _, p := range m.peers {
			members = append(members, p.address)
		}
		o.Facts[d.short+"_"+FactMembers] = joined(members)
		if !m.serving() {
			o.Serving = false
			o.Facts[d.short+"_"+FactRole] = "" // it knows no leader
		}
	}
	if v.idle != nil {
		o.Conditions = append(o.Conditions, health.Condition{Code: "ovn-northd-down", Severity: health.Warning,
			Text: "northd " + ovsdb.Word(v.idle), Hint: hint(UnitNorthd)})
		words = append(words, "northd "+ovsdb.Word(v.idle))
	} else {
		o.Facts[FactNorthd] = v.northd
		words = append(words, "northd "+v.northd)
	}
	var names []string
	for _, r := range v.known {
		names = append(names, r.Text("name"))
	}
	o.Facts[FactChassis] = joined(names)
	return words
}

// chassis adds what concerns the node's part of the tunnels. Of the switch itself its own service speaks.
func (v view) chassis(o *service.Observation, n model.Node) []string {
	problem := ""
	switch {
	case v.dead != nil:
		o.Serving = false
		return []string{"the switch " + ovsdb.Word(v.dead)}
	case v.mute != nil:
		o.Serving = false
		return []string{"the switch's database " + ovsdb.Word(v.mute)}
	case v.deaf != nil:
		problem = "ovn-controller " + ovsdb.Word(v.deaf)
	case v.status != "connected":
		problem = "ovn-controller's connection to the southbound database is " + v.status
	default:
		var silent []string
		for _, r := range v.tunnels {
			if state := r.Pairs("bfd_status")["state"]; state == "down" || state == "init" {
				silent = append(silent, r.Pairs("options")["remote_ip"])
			}
		}
		o.Facts[FactSilent] = joined(silent)
		return []string{fmt.Sprintf("switch connected, %d tunnels", len(v.tunnels))}
	}
	severity := health.Warning
	if n.Has(model.RoleCompute) {
		severity = health.Critical // its instances have nobody else
	}
	o.Serving, o.Conditions = false, append(o.Conditions, health.Condition{Code: "ovn-controller-down", Severity: severity, Text: problem, Hint: hint(UnitController)})
	return []string{problem}
}

func joined(words []string) string {
	slices.Sort(words)
	return strings.Join(words, ",")
}

func hint(unit string) string {
	return "journalctl -u " + unit + " on the node; 'nines apply' starts what is stopped"
}

// Judge implements service.ClusterJudge.
func (*Service) Judge(c *model.Cluster, seen map[string]service.Observation) []health.Condition {
	var out []health.Condition
	for _, d := range databases {
		out = append(out, judgeDatabase(c, seen, d)...)
	}
	return append(append(out, judgeNorthd(c, seen)...), judgeChassis(c, seen)...)
}

func judgeDatabase(c *model.Cluster, seen map[string]service.Observation, d database) []health.Condition {
	var out []health.Condition
	clusters := map[string]string{} // ID -> a node
	serving, answered := 0, 0
	for _, n := range c.Controllers() {
		o, ok := seen[n.Name]
		if !ok {
			continue
		}
		answered++
		if o.Facts[d.short+"_"+FactRole] != "" {
			serving++
		}
		if id := o.Facts[d.short+"_"+FactCluster]; id != "" {
			clusters[id] = n.Name
		}
	}
	size := len(c.Controllers())
	for _, n := range c.Controllers() {
		if o, ok := seen[n.Name]; ok && o.Facts[d.short+"_"+FactRole] == "" {
			out = append(out, health.Condition{Code: "ovn-member-down", Severity: health.Warning, Node: n.Name, Service: Name,
				Text: fmt.Sprintf("%s on %s takes no part (%s); %d of %d members do", d.name, n.Name, o.Reason, serving, size),
				Hint: "journalctl -u " + d.unit + " on that node; 'nines apply' starts what is stopped"})
		}
	}
	if len(clusters) > 1 {
		var nodes []string
		for _, n := range clusters {
			nodes = append(nodes, n)
		}
		slices.Sort(nodes)
		out = append(out, health.Condition{Code: "ovn-split", Severity: health.Critical, Service: Name,
			Text: fmt.Sprintf("%s on %s belongs to different clusters", d.name, strings.Join(nodes, " and ")),
			Hint: "stop " + d.unit + " on the nodes whose content is worth less, move " + d.file + " away there, run 'nines apply'"})
	}
	if answered > 0 && serving == 0 {
		out = append(out, health.Condition{Code: "ovn-no-leader", Severity: health.Critical, Service: Name,
			Text: fmt.Sprintf("%s has no leader: nothing about networks can be changed", d.name),
			Hint: fmt.Sprintf("bring controllers back until %d of %d run %s", model.Quorum(size), size, d.unit)})
	}
	return out
}

func judgeNorthd(c *model.Cluster, seen map[string]service.Observation) []health.Condition {
	answered := false
	for _, n := range c.Controllers() {
		o, ok := seen[n.Name]
		if o.Facts[FactNorthd] == "active" {
			return nil
		}
		answered = answered || ok
	}
	if !answered {
		return nil
	}
	return []health.Condition{{Code: "ovn-northd-idle", Severity: health.Critical, Service: Name,
		Text: "no northd is active: changes of networks do not reach the nodes",
		Hint: "after a failure another takes over within ten seconds; if not: journalctl -u " + UnitNorthd + " on the controllers"}}
}

// judgeChassis compares what nodes say of each other.
func judgeChassis(c *model.Cluster, seen map[string]service.Observation) []health.Condition {
	var out []health.Condition
	ends := map[string]string{} // tunnel address -> a node that does well by itself
	for _, n := range c.Nodes {
		if seen[n.Name].Serving {
			ends[n.TunnelAddress().String()] = n.Name
		}
	}
	for _, n := range c.Nodes {
		o := seen[n.Name]
		for _, address := range strings.Split(o.Facts[FactSilent], ",") {
			if other := ends[address]; other != "" && o.Serving {
				out = append(out, health.Condition{Code: "ovn-tunnel-down", Severity: health.Critical, Node: n.Name, Service: Name,
					Text: fmt.Sprintf("%s does not hear %s (%s) through the tunnel, though both work", n.Name, other, address),
					Hint: "look at the network that tunnels go through: cables, switch ports, MTU, UDP port 6081; 'ovs-appctl bfd/show' on both"})
			}
		}
	}
	for _, n := range c.Controllers() {
		o := seen[n.Name]
		if !o.Serving || o.Facts[FactChassis] == "" {
			continue
		}
		known := strings.Split(o.Facts[FactChassis], ",")
		for _, other := range c.Nodes {
			if seen[other.Name].Serving && !slices.Contains(known, other.Name) {
				out = append(out, health.Condition{Code: "ovn-chassis-missing", Severity: health.Warning, Node: other.Name, Service: Name,
					Text: fmt.Sprintf("the switch of %s works, but is not registered in the southbound database", other.Name),
					Hint: "journalctl -u " + UnitController + " on that node: another chassis may claim its tunnel address"})
			}
		}
		break // all members hold the same
	}
	return out
}
