package haproxy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"syscall"
	"time"

	"nines/internal/health"
	"nines/internal/model"
	"nines/internal/service"
)

// Interval implements service.Observer: the VIP leaves a node whose HAProxy does not
// answer, so twice a second; one question over a socket.
func (*Service) Interval() time.Duration { return 500 * time.Millisecond }

// Facts of an observation.
const (
	// FactDown lists the servers that are down: "keystone/ctl2=L7STS 503;mariadb/ctl2=L4CON".
	FactDown = "down"
	// FactWriter and the listener's name ("writer.mariadb") name the node that a single-writer listener sends to.
	FactWriter = "writer."
)

// Observe implements service.Observer. An instance serves when its worker answers: a server
// that is down is that server's matter.
func (s *Service) Observe(ctx context.Context, env service.Env) service.Observation {
	answer, err := s.ask(ctx, "show stat -1 4 -1")
	if err != nil {
		return service.Observation{Reason: "HAProxy does not answer on its socket: " + err.Error()}
	}
	servers, err := parseStat(answer)
	if err != nil {
		return service.Observation{Reason: err.Error()}
	}
	var down []string
	for _, v := range servers {
		if !v.up {
			down = append(down, v.listener+"/"+v.name+"="+v.whyDown())
		}
	}
	o := service.Observation{Serving: true, Facts: map[string]string{FactDown: strings.Join(down, ";")},
		Reason: fmt.Sprintf("%d of %d servers up", len(servers)-len(down), len(servers))}
	for _, l := range s.listeners(env.Cluster) {
		if !l.SingleWriter {
			continue
		}
		if w := s.writer(ctx, l.Name, servers); w != "" {
			o.Facts[FactWriter+l.Name] = w
		}
	}
	return o
}

// writer says which server a single-writer listener sends to: the one in its
// table while that is up, else the first that is.
func (s *Service) writer(ctx context.Context, listener string, servers []server) string {
	answer, err := s.ask(ctx, "show table "+listener)
	if err != nil {
		return ""
	}
	key := parseWriter(answer)
	first := ""
	for _, v := range servers {
		if v.listener != listener || !v.up {
			continue
		}
		if v.name == key {
			return key
		}
		if first == "" {
			first = v.name
		}
	}
	return first
}

// PassOver implements service.Balancer: their servers count as down until they have passed checks. Without it, requests go on to a
// dead machine until its checks have failed, and each that does waits for a connection in vain.
func (s *Service) PassOver(ctx context.Context, _ service.Env, nodes []string) error {
	return s.setHealth(ctx, func(v server) (up bool) { return v.up && !slices.Contains(nodes, v.name) })
}

// Heed implements service.Balancer. A server that is down for what was seen of it here, connections that failed, is up again when its agent says anew
// that it serves.
func (s *Service) Heed(ctx context.Context, env service.Env, node string, serving map[string]bool) error {
	behind := s.behind(env.Cluster)
	err := s.setHealth(ctx, func(v server) (up bool) {
		serves, said := serving[behind[v.listener]]
		if !said || v.name != node {
			return v.up
		}
		return serves
	})
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil // no instance here: the next one will be told
	}
	return err
}

// behind says what decides over each listener's servers: listener -> Listener.Health.
func (s *Service) behind(c *model.Cluster) map[string]string {
	out := map[string]string{}
	for _, l := range s.listeners(c) {
		out[l.Name] = l.Health
	}
	return out
}

// setHealth sets the health of the servers that are not as they should be, until their checks find something else.
func (s *Service) setHealth(ctx context.Context, should func(server) (up bool)) error {
	answer, err := s.ask(ctx, "show stat -1 4 -1")
	if err != nil {
		return err
	}
	servers, err := parseStat(answer)
	if err != nil {
		return err
	}
	var commands []string
	for _, v := range servers {
		switch up := should(v); {
		case up == v.up:
		case up:
			commands = append(commands, "set server "+v.listener+"/"+v.name+" health up")
		default:
			commands = append(commands, "set server "+v.listener+"/"+v.name+" health down")
		}
	}
	if len(commands) == 0 {
		return nil
	}
	answer, err = s.ask(ctx, strings.Join(commands, ";"))
	if err != nil {
		return err
	}
	if said := strings.TrimSpace(string(answer)); said != "" { // it says nothing of what it did
		return fmt.Errorf("HAProxy: %s", strings.Join(strings.Fields(said), " "))
	}
	return nil
}

// parseDown undoes FactDown: server -> why.
func parseDown(fact string) map[string]string {
	out := map[string]string{}
	for _, entry := range strings.Split(fact, ";") {
		if name, why, ok := strings.Cut(entry, "="); ok {
			out[name] = why
		}
	}
	return out
}

// Judge implements service.ClusterJudge. Every instance sees every server; each
// server that is down is told once.
func (s *Service) Judge(c *model.Cluster, seen map[string]service.Observation) []health.Condition {
	var out []health.Condition
	views := map[string][]string{} // server -> instances that see it down
	reasons := map[string]string{}
	watching := 0
	for _, n := range c.Controllers() {
		o, ok := seen[n.Name]
		if !ok || !o.Serving {
			out = append(out, instanceDown(n.Name, o, ok))
			continue
		}
		watching++
		for name, why := range parseDown(o.Facts[FactDown]) {
			views[name] = append(views[name], n.Name)
			reasons[name] = why
		}
	}
	dead := map[string]int{} // listener -> servers down everywhere
	behind := s.behind(c)
	for _, name := range slices.Sorted(maps.Keys(views)) {
		listener, node, _ := strings.Cut(name, "/")
		cond := health.Condition{Code: "haproxy-backend-down", Follows: behind[listener], Severity: health.Warning, Node: node, Service: Name,
			Text: fmt.Sprintf("%s on %s gets no requests (%s)", listener, node, reasons[name]),
			Hint: "the health of the service on that node says why: nines status"}
		if len(views[name]) < watching {
			cond.Text += fmt.Sprintf("; only %s see it so: look at the network between", strings.Join(views[name], ", "))
		} else {
			dead[listener]++
		}
		out = append(out, cond)
	}
	for _, listener := range slices.Sorted(maps.Keys(dead)) {
		if dead[listener] == len(c.Controllers()) {
			out = append(out, health.Condition{Code: "haproxy-listener-dead", Follows: behind[listener], Severity: health.Critical, Service: Name,
				Text: listener + " has no server left: clients get errors", Hint: "bring the service back on any controller"})
		}
	}
	return out
}

func instanceDown(node string, o service.Observation, answered bool) health.Condition {
	why := o.Reason
	if !answered {
		why = "the node's agent does not answer"
	}
	return health.Condition{Code: "haproxy-down", Severity: health.Warning, Node: node, Service: Name,
		Text: fmt.Sprintf("HAProxy on %s does not serve: %s", node, why), Hint: "journalctl -u " + Unit + " on that node; the VIP stays elsewhere meanwhile"}
}

// Actions implements service.Actor.
func (s *Service) Actions() map[string]service.Action {
	return map[string]service.Action{
		actionReady: {
			Check: s.ready,
			Run:   func(context.Context, service.Env, map[string]string) error { return nil },
		},
		actionEngine:              {Check: runs, Run: byEngine},
		service.ActionCertificate: service.Certificate(shown, s.loadCertificate),
	}
}

func runs(ctx context.Context, env service.Env, _ map[string]string) (bool, string, error) {
	u, err := env.Host.Unit(ctx, Unit)
	return u.Active == "active", "the unit is " + u.Active, err
}

// byEngine restarts HAProxy, or waits until the VIP's engine has started it.
func byEngine(ctx context.Context, env service.Env, args map[string]string) error {
	if args["restart"] == "true" {
		return env.Host.RestartUnit(ctx, Unit)
	}
	return service.Await(runs, 200*time.Millisecond, "the VIP's engine does not start it here: 'nines status' says why")(ctx, env, args)
}

// ready: the current worker answers and has seen the outcome of a check of each server, or
// at least had the time for it: a reloaded instance that knows nothing yet must not be the
// reason to touch the next one.
func (s *Service) ready(ctx context.Context, env service.Env, _ map[string]string) (bool, string, error) {
	answer, err := s.ask(ctx, "show stat -1 4 -1")
	if err != nil {
		return false, "HAProxy does not answer on its socket", nil
	}
	servers, err := parseStat(answer)
	if err != nil {
		return false, err.Error(), nil
	}
	for _, v := range servers {
		if v.why == "" || strings.HasPrefix(v.why, "INI") {
			return false, v.listener + "/" + v.name + " was not checked yet", nil
		}
	}
	return true, "", nil
}
