package keepalived

import (
	"context"
	"errors"
	"fmt"
	"time"

	"nines/internal/health"
	"nines/internal/host"
	"nines/internal/model"
	"nines/internal/service"
)

// Interval implements service.Observer.
func (*Service) Interval() time.Duration { return time.Second }

// Observe implements service.Observer. keepalived serves while its process runs, holder or not.
func (s *Service) Observe(ctx context.Context, env service.Env) service.Observation {
	addrs, err := s.addresses()
	if err != nil {
		return service.Observation{Reason: "addresses of the node: " + err.Error()}
	}
	var o service.Observation
	o.Facts, o.Reason = service.Holding(addrs, env.Cluster.VIP)
	u, err := env.Host.Unit(ctx, Unit)
	switch {
	case err != nil:
		o.Reason = "systemd: " + err.Error()
	case u.Active != "active" && u.Active != "reloading":
		o.Reason = "the unit is " + u.Active
	default:
		o.Serving = true
	}
	return o
}

// Judge implements service.ClusterJudge: exactly one node holds the VIP.
func (*Service) Judge(c *model.Cluster, seen map[string]service.Observation) []health.Condition {
	var out []health.Condition
	for _, n := range c.Controllers() {
		if o, ok := seen[n.Name]; ok && !o.Serving {
			out = append(out, health.Condition{Code: "keepalived-down", Severity: health.Warning, Node: n.Name, Service: Name,
				Text: fmt.Sprintf("keepalived on %s does not run: %s", n.Name, o.Reason), Hint: "journalctl -u " + Unit + " on that node"})
		}
	}
	return append(out, service.JudgeVIP(c, seen,
		"nodes that do not hear each other, or a frozen keepalived: restart keepalived on the one that should not hold it",
		"a node holds it only in etcd's majority and with a working HAProxy: look at both on each controller")...)
}

// Actions implements service.Actor.
func (s *Service) Actions() map[string]service.Action {
	return map[string]service.Action{
		actionInterface:          {Check: interfaceKnown, Run: findInterface},
		service.ActionDetach:     service.DetachAction(),
		service.ActionVIPAnswers: service.AnswersAction(s.listeners),
	}
}

func interfaceKnown(ctx context.Context, env service.Env, _ map[string]string) (bool, string, error) {
	_, err := env.Host.Run(ctx, host.Cmd{Args: []string{scriptInterface, "check"}})
	var exit *host.ExitError
	if errors.As(err, &exit) {
		return false, "the interface of the VIP is not noted", nil
	}
	if err != nil {
		return false, "the interface cannot be looked for yet", nil // script not there before the first apply
	}
	return true, "", nil
}

func findInterface(ctx context.Context, env service.Env, _ map[string]string) error {
	if _, err := env.Host.Run(ctx, host.Cmd{Args: []string{scriptInterface}}); err != nil {
		return fmt.Errorf("find the interface of the VIP: compare addresses in cluster.yaml with 'ip addr': %w", err)
	}
	return nil
}
