package rabbitmq

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"nines/internal/health"
	"nines/internal/host"
	"nines/internal/model"
	"nines/internal/service"
	"nines/internal/service/rabbitmq/recovery"
)

// Interval implements service.Observer: two small requests on a kept connection.
func (*Service) Interval() time.Duration { return 2 * time.Second }

// Facts of an observation.
const (
	// FactRunning lists the running members as the node sees them: "ctl1,ctl2,ctl3".
	FactRunning = "running"
	// FactMembers lists all members of the node's cluster.
	FactMembers = "members"
	// FactCluster is RabbitMQ's own name of the cluster.
	FactCluster = "cluster"
)

// Observe implements service.Observer. A node serves when its broker runs and
// no alarm blocks publishers.
func (s *Service) Observe(ctx context.Context, env service.Env) service.Observation {
	api, err := s.api(env)
	if err != nil {
		return service.Observation{Reason: err.Error()}
	}
	peers, err := api.peers(ctx)
	if err != nil {
		s.remember(env.Node.Name, refused(err), nil)
		s.noteEnd(ctx, env)
		o := service.Observation{Reason: s.unavailable(env, err)}
		if refused(err) {
			o.Conditions = append(o.Conditions, health.Condition{Code: "rabbitmq-foreign-state", Severity: health.Critical,
				Text: o.Reason, Hint: "if this node's queues are worth nothing: stop the unit, move /var/lib/rabbitmq/mnesia away, run 'nines apply'"})
		}
		return o
	}
	running := together(env, peers)
	o := service.Observation{
		Serving: slices.Contains(running, env.Node.Name),
		Reason:  fmt.Sprintf("running, %d of %d members", len(running), len(env.Cluster.Controllers())),
		Facts:   map[string]string{FactRunning: strings.Join(running, ","), FactMembers: strings.Join(names(peers, false), ",")},
	}
	past := s.remember(env.Node.Name, o.Serving, running)
	if o.Serving {
		s.noteLast(ctx, env, recovery.Serving)
	}
	if !o.Serving {
		o.Reason = "the broker is starting"
		return o
	}
	if id, err := s.clusterID(ctx, env, api); err == nil {
		o.Facts[FactCluster] = id
	}
	whole := len(running) == len(env.Cluster.Controllers())
	o.Conditions = s.replicas.note(ctx, env, api, whole && time.Since(past.runningSince) > replicasSettle)
	alarm, err := api.check(ctx, "local-alarms")
	switch {
	case err != nil:
		o.Serving, o.Reason = false, s.unavailable(env, err)
	case alarm != "":
		// The other members block publishers as well: taking this one out helps nobody.
		o.Reason = "alarm: " + alarm
		o.Conditions = append(o.Conditions, health.Condition{Code: "rabbitmq-alarm", Severity: health.Critical,
			Text: "publishers are blocked on all members: " + alarm + space(ctx, env), Hint: "free disk space or memory on this node, or find the queue that nobody consumes"})
	}
	return o
}

// noteEnd sees to lastFile as soon as the broker is seen to be down.
func (s *Service) noteEnd(ctx context.Context, env service.Env) {
	switch unit, err := env.Host.Unit(ctx, Unit); {
	case err != nil:
	case unit.Active == "active":
		s.noteLast(ctx, env, recovery.Silent)
	case unit.Active == "inactive", unit.Active == "failed":
		s.noteLast(ctx, env, recovery.Stopped)
	}
}

// diskLimit is the free space below which publishers are blocked (disk_free_limit in rabbitmq.conf.tmpl).
const diskLimit = "512 MB"

// space says how much room is left where the broker writes.
func space(ctx context.Context, env service.Env) string {
	out, err := env.Host.Run(ctx, host.Cmd{Args: []string{"df", "--block-size=1000000", "--output=avail", dirState}})
	fields := strings.Fields(string(out.Stdout))
	if err != nil || len(fields) != 2 {
		return ""
	}
	return fmt.Sprintf("; %s MB are free in %s, below %s publishers are blocked", fields[1], dirState, diskLimit)
}

// Judge implements service.ClusterJudge.
func (*Service) Judge(c *model.Cluster, seen map[string]service.Observation) []health.Condition {
	var out []health.Condition
	nodes := c.Controllers()
	var serving []string
	for _, n := range nodes {
		if seen[n.Name].Serving {
			serving = append(serving, n.Name)
		}
	}
	for _, n := range nodes {
		o, ok := seen[n.Name]
		if ok && o.Serving {
			continue
		}
		out = append(out, memberDown(n.Name, o, ok, len(serving), len(nodes)))
	}
	for _, n := range serving {
		running := strings.Split(seen[n].Facts[FactRunning], ",")
		for _, other := range serving {
			if !slices.Contains(running, other) {
				out = append(out, health.Condition{Code: "rabbitmq-split", Severity: health.Critical, Node: n, Service: Name,
					Text: fmt.Sprintf("%s and %s both serve, but not as one cluster", n, other),
					Hint: "mend the network; if it stays for a minute, 'nines recover rabbitmq --explain' says what is done, or why nothing is"})
			}
		}
	}
	return out
}

func memberDown(node string, o service.Observation, answered bool, serving, all int) health.Condition {
	c := health.Condition{Code: "rabbitmq-member-down", Follows: Name, Severity: health.Warning, Node: node, Service: Name,
		Hint: "journalctl -u " + Unit + " and /var/log/rabbitmq on that node"}
	if serving < model.Quorum(all) {
		c.Severity = health.Critical
	}
	why := o.Reason
	if !answered {
		why = "the node's agent does not answer"
	}
	c.Text = fmt.Sprintf("the broker on %s does not serve (%s); %d of %d members do", node, why, serving, all)
	return c
}
