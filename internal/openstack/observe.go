package openstack

import (
	"context"
	"fmt"
	"strings"
	"time"

	"nines/internal/health"
	"nines/internal/host"
	"nines/internal/model"
	"nines/internal/service"
)

// Interval implements service.Observer: a dead or frozen API costs its clients at most this long
// before HAProxy is told.
func (*Service) Interval() time.Duration { return time.Second }

// Observe asks the node's first API; where there is none, whether the daemons run.
func (s *Service) Observe(ctx context.Context, env service.Env) service.Observation {
	if !env.Node.Has(model.RoleController) {
		return s.observeDaemons(ctx, env)
	}
	o := s.observe(ctx, env, s.Desc.APIs[0])
	if s.reporting(env.Cluster) {
		o.Facts = s.reports.seen(ctx, s.now(), *s.Desc.Reports)
	}
	return o
}

// MainUnit implements service.MainUnit: on controllers the first API is observed.
func (s *Service) MainUnit(n model.Node) string {
	if !n.Has(model.RoleController) {
		return ""
	}
	return s.Desc.APIs[0].Unit
}

func (s *Service) observe(ctx context.Context, env service.Env, w WSGI) service.Observation {
	if Loading(env.Host, w.Unit) {
		return s.down(w.Unit, Loads)
	}
	return s.Ask(ctx, env, w.Unit, w.Port, w.Health)
}

// Ask asks a program of the node for a path, over HTTPS.
func (s *Service) Ask(ctx context.Context, env service.Env, unit string, port int, path string) service.Observation {
	start := s.now()
	if err := s.client.Get(ctx, env.Host, "https://"+HostPort(env.Node.Address(), port)+path); err != nil {
		return s.down(unit, Silent(err))
	}
	return service.Observation{Serving: true, Reason: fmt.Sprintf("answered in %d ms", s.now().Sub(start).Milliseconds())}
}

func (s *Service) down(unit, reason string) service.Observation {
	return service.Observation{Reason: reason, Conditions: []health.Condition{{
		Code: "api-down", Follows: s.Desc.Service, Severity: health.Warning, Text: reason,
		Hint: fmt.Sprintf("see 'journalctl -u %s' on the node", unit),
	}}}
}

// observeDaemons looks at the units: their processes answer nobody directly.
func (s *Service) observeDaemons(ctx context.Context, env service.Env) service.Observation {
	var running []string
	for _, d := range s.daemons(env.Cluster) {
		if !d.on(env.Node) {
			continue
		}
		state, err := env.Host.Unit(ctx, d.Unit)
		if err != nil {
			return service.Observation{Reason: oneLine(err)}
		}
		if state.Active != "active" {
			return service.Observation{Reason: d.Unit + " does not run"}
		}
		running = append(running, strings.TrimSuffix(d.Unit, ".service"))
	}
	return service.Observation{Serving: true, Reason: strings.Join(running, ", ") + " runs"}
}

// part observes one of the further APIs.
type part struct {
	*Service
	wsgi WSGI
}

func (p part) Observe(ctx context.Context, env service.Env) service.Observation {
	return p.observe(ctx, env, p.wsgi)
}

// Parts implements service.Composite: the APIs but the first.
func (s *Service) Parts() map[string]service.Part {
	out := map[string]service.Part{}
	for _, w := range s.Desc.APIs[1:] {
		out[w.Name] = service.Part{Unit: w.Unit, Observer: part{s, w}}
	}
	return out
}

// Judge implements service.ClusterJudge.
func (s *Service) Judge(c *model.Cluster, seen map[string]service.Observation) []health.Condition {
	out := s.judgeReports(c, seen)
	answered := 0
	for _, n := range c.Controllers() {
		o, ok := seen[n.Name]
		if o.Serving {
			return out
		}
		if ok {
			answered++
		}
	}
	if answered == 0 {
		return out
	}
	return append(out, health.Condition{Code: "api-unavailable", Follows: s.Desc.Service, Severity: health.Critical, Service: s.Desc.Service,
		Text: fmt.Sprintf("no controller's %s answers", s.Desc.Service),
		Hint: fmt.Sprintf("see 'journalctl -u %s' on the controllers; do the database and Keystone serve?", s.Desc.APIs[0].Unit)})
}

func (s *Service) checkServes(ctx context.Context, env service.Env, args map[string]string) (bool, string, error) {
	for _, w := range s.Desc.APIs {
		if w.Unit != args["unit"] {
			continue
		}
		if err := s.ask(ctx, env.Host, env.Node, w); err != nil {
			return false, oneLine(err), nil
		}
		return true, "", nil
	}
	return false, "", fmt.Errorf("%s has no API %q", s.Desc.Service, args["unit"])
}

func (s *Service) ask(ctx context.Context, h host.Host, n model.Node, w WSGI) error {
	return s.client.Get(ctx, h, "https://"+HostPort(n.Address(), w.Port)+w.Health)
}
