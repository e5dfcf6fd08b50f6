package pacemaker

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"nines/internal/health"
	"nines/internal/host"
	"nines/internal/model"
	"nines/internal/service"
)

// Interval implements service.Observer: a look costs a process.
func (*Service) Interval() time.Duration { return 2 * time.Second }

// Facts of an observation beside service.FactHolder.
const (
	factQuorum = "quorum"  // "true": this node's side has the majority
	factOnline = "online"  // who takes part, as this node sees it
	factKey    = "authkey" // tells two keys apart, and no more
	factFailed = "failed"  // "vip on ctl1: not running; ..."
	factOff    = "off"     // nodes that must be fenced and are not yet
	factHeld   = "held"    // nodes that somebody has set aside
	factLoose  = "loose"   // "true": Pacemaker manages nothing
	factFenced = "fenced"  // who was switched off, and when: "ctl3 2026-11-28T19:30:00Z; ..."
)

// Observe implements service.Observer. A node serves while it takes part in the majority, holder of the VIP or not.
func (s *Service) Observe(ctx context.Context, env service.Env) service.Observation {
	o := service.Observation{Facts: map[string]string{}, Reason: "stands by"}
	if addrs, err := s.addresses(); err == nil {
		o.Facts, o.Reason = service.Holding(addrs, env.Cluster.VIP)
	}
	if f, err := env.Host.ReadFile(pathKey); err == nil {
		sum := sha256.Sum256(f.Content)
		o.Facts[factKey] = hex.EncodeToString(sum[:4])
	}
	for _, unit := range []string{UnitCorosync, Unit} {
		u, err := env.Host.Unit(ctx, unit)
		if err != nil {
			o.Reason = "systemd: " + err.Error()
			return o
		}
		if u.Active != "active" {
			o.Reason = fmt.Sprintf("the unit %s is %s", unit, u.Active)
			o.Conditions = []health.Condition{{Code: "pacemaker-down", Severity: health.Warning, Text: o.Reason,
				Hint: fmt.Sprintf("journalctl -u %s on the node; 'nines apply' starts it", unit)}}
			return o
		}
	}
	p, err := look(ctx, env)
	if err != nil {
		o.Reason = err.Error()
		return o
	}
	p.facts(o.Facts)
	switch {
	case !slices.Contains(p.online(), env.Node.Name):
		o.Reason = "not a member of the cluster"
	case !p.DC.Quorum:
		o.Reason = "no majority: only " + strings.Join(p.online(), ", ")
	default:
		o.Serving = true
	}
	o.Conditions = append(o.Conditions, s.late.conditions(ctx, env)...)
	if lost := lostLinks(ctx, env, p.online()); len(lost) > 0 {
		o.Conditions = append(o.Conditions, health.Condition{Code: "corosync-link-down", Severity: health.Warning,
			Text: "Corosync has one link less: no answer from " + strings.Join(lost, ", "),
			Hint: "the network between these nodes: cable, switch, UDP 5405 (management) and 5406"})
	}
	return o
}

// lostLinks says which members are not reached over which network; with one link, such a node is no member.
func lostLinks(ctx context.Context, env service.Env, online []string) []string {
	over, nodes := networks(env.Cluster), env.Cluster.Controllers()
	if len(over) < 2 {
		return nil
	}
	links, err := disconnected(ctx, env)
	if err != nil {
		return nil // it has just gone, which is told elsewhere
	}
	var lost []string
	for link, network := range over {
		for _, id := range links[link] {
			if id <= len(nodes) && slices.Contains(online, nodes[id-1].Name) {
				lost = append(lost, fmt.Sprintf("%s over %s", nodes[id-1].Name, network))
			}
		}
	}
	return lost
}

// disconnected are the node IDs (from 1, in the order of the controllers) that do not answer Corosync on a link, by its number.
func disconnected(ctx context.Context, env service.Env) (map[int][]int, error) {
	out, err := env.Host.Run(ctx, host.Cmd{Args: []string{"corosync-cfgtool", "-s"}})
	if err != nil {
		return nil, fmt.Errorf("ask Corosync for its links: %w", err)
	}
	lost := map[int][]int{}
	link := 0
	for line := range strings.Lines(string(out.Stdout)) {
		var id int
		var state string
		line = strings.TrimSpace(line)
		if n, _ := fmt.Sscanf(line, "LINK ID %d", &id); n == 1 {
			link = id
		}
		if n, _ := fmt.Sscanf(line, "nodeid: %d: %s", &id, &state); n == 2 && state == "disconnected" {
			lost[link] = append(lost[link], id)
		}
	}
	return lost, nil
}

func (p picture) facts(out map[string]string) {
	out[factQuorum] = strconv.FormatBool(p.DC.Quorum)
	out[factOnline] = strings.Join(p.online(), " ")
	if f := p.failed(); len(f) > 0 {
		out[factFailed] = strings.Join(f, "; ")
	}
	var off, held []string
	for _, n := range p.Nodes {
		if n.Unclean {
			off = append(off, n.Name)
		}
		if n.Standby || n.Maintenance && !p.Options.Maintenance {
			held = append(held, n.Name)
		}
	}
	if p.Options.Maintenance {
		out[factLoose] = "true"
	}
	out[factOff], out[factHeld] = strings.Join(off, " "), strings.Join(held, " ")
	out[factFenced] = strings.Join(p.fenced(), "; ")
	maps.DeleteFunc(out, func(_, v string) bool { return v == "" })
}

// Judge implements service.ClusterJudge.
func (*Service) Judge(c *model.Cluster, seen map[string]service.Observation) []health.Condition {
	out := service.JudgeVIP(c, seen,
		"an address left behind by a Pacemaker that was killed, or nodes that do not hear each other while fencing is off: restart pacemaker on the one that 'crm_mon -1' does not name",
		"'crm_mon -1rf' on a controller says why: no majority, HAProxy does not answer, or no other controller is reached")
	whole := majority(c, seen)
	for _, n := range c.Controllers() {
		if o, ok := seen[n.Name]; ok {
			out = append(out, judgeNode(n.Name, o, whole)...)
		}
	}
	out = append(out, judgeKeys(c, seen)...)
	if failed := whole[factFailed]; failed != "" {
		out = append(out, health.Condition{Code: "pacemaker-resource-failed", Severity: health.Warning, Text: failed,
			Hint: "mend the cause (the unit's log on that node), then 'nines apply'; by itself Pacemaker tries again, three times a minute"})
	}
	if whole[factLoose] == "true" {
		out = append(out, health.Condition{Code: "pacemaker-unmanaged", Severity: health.Warning,
			Text: "Pacemaker manages nothing (maintenance-mode): what runs goes on, and nobody takes over when it fails",
			Hint: "a restart of Pacemaker by nines needs it for seconds; otherwise 'nines apply' ends it"})
	}
	for _, name := range strings.Fields(whole[factOff]) {
		out = append(out, health.Condition{Code: "pacemaker-unclean", Severity: health.Critical, Node: name,
			Text: "the machine must be switched off before others take over from it, and could not be yet",
			Hint: "does its BMC answer? 'stonith_admin --history " + name + "' on a controller. If it is off for certain: 'stonith_admin --confirm " + name + "'"})
	}
	for _, name := range strings.Fields(whole[factHeld]) {
		out = append(out, health.Condition{Code: "pacemaker-held", Severity: health.Notice, Node: name,
			Text: "set aside (standby or maintenance): Pacemaker starts neither HAProxy nor the VIP there",
			Hint: "when that is over, on a controller: 'crm_standby --node " + name + " --delete', or 'crm_attribute --node " + name + " --name maintenance --delete'"})
	}
	return out
}

// Fenced implements service.Fencer. Only the side with the majority has taken power away. What is about to be fenced anew is left out.
func (*Service) Fenced(seen map[string]service.Observation) map[string]time.Time {
	out := map[string]time.Time{}
	for _, o := range seen {
		if !o.Serving || o.Facts[factFenced] == "" {
			continue
		}
		for _, f := range strings.Split(o.Facts[factFenced], "; ") {
			node, text, _ := strings.Cut(f, " ")
			if at, err := time.Parse(time.RFC3339Nano, text); err == nil && at.After(out[node]) {
				out[node] = at
			}
		}
	}
	for _, o := range seen {
		for _, name := range strings.Fields(o.Facts[factOff]) {
			delete(out, name)
		}
	}
	return out
}

// majority are the facts of a node on the side that has it; nil: none has.
func majority(c *model.Cluster, seen map[string]service.Observation) map[string]string {
	for _, n := range c.Controllers() {
		if o := seen[n.Name]; o.Serving && o.Facts[factQuorum] == "true" {
			return o.Facts
		}
	}
	return nil
}

func judgeNode(name string, o service.Observation, whole map[string]string) []health.Condition {
	switch {
	case o.Facts[factQuorum] == "false":
		return []health.Condition{{Code: "corosync-no-quorum", Severity: health.Critical, Node: name,
			Text: "this node's side has no majority of the controllers and runs nothing: " + o.Reason,
			Hint: "bring controllers back, or repair the network between them (UDP 5405 and 5406)"}}
	case whole != nil && !slices.Contains(strings.Fields(whole[factOnline]), name) && len(o.Conditions) == 0:
		return []health.Condition{{Code: "corosync-not-member", Severity: health.Warning, Node: name,
			Text: "Corosync runs and the others do not count this node among them",
			Hint: "'corosync-cfgtool -s' on the node: does it reach the others (UDP 5405 and 5406), is its authkey theirs? A node that has just booted needs some seconds"}}
	}
	return nil
}

// judgeKeys names the nodes whose key is not that of most.
func judgeKeys(c *model.Cluster, seen map[string]service.Observation) []health.Condition {
	count := map[string]int{}
	for _, o := range seen {
		if key := o.Facts[factKey]; key != "" {
			count[key]++
		}
	}
	if len(count) < 2 {
		return nil
	}
	common := slices.MaxFunc(slices.Sorted(maps.Keys(count)), func(a, b string) int { return count[a] - count[b] })
	var out []health.Condition
	for _, n := range c.Controllers() {
		if key := seen[n.Name].Facts[factKey]; key != "" && key != common {
			out = append(out, health.Condition{Code: "corosync-authkey-differs", Severity: health.Warning, Node: n.Name,
				Text: "Corosync's key is not that of the other nodes: when its Corosync is started again, they will not hear it", Hint: "'nines apply' puts the cluster's key back"})
		}
	}
	return out
}
