package keepalived

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"time"

	"nines/internal/health"
	"nines/internal/host"
	"nines/internal/model"
	"nines/internal/service"
)

// Interval implements service.Observer.
func (*Service) Interval() time.Duration { return time.Second }

// FactHolder is "true" on the node whose interface carries the VIP, else "false".
const FactHolder = "vip-holder"

// Observe implements service.Observer. keepalived serves while its process runs, holder or not.
func (s *Service) Observe(ctx context.Context, env service.Env) service.Observation {
	holds, err := s.holds(env.Cluster.VIP.Address.Addr())
	if err != nil {
		return service.Observation{Reason: "addresses of the node: " + err.Error()}
	}
	o := service.Observation{Facts: map[string]string{FactHolder: strconv.FormatBool(holds)}, Reason: "stands by"}
	if holds {
		o.Reason = "holds the VIP"
	}
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

// holds reports whether an interface of this machine carries the address.
func (s *Service) holds(vip netip.Addr) (bool, error) {
	addrs, err := s.addresses()
	if err != nil {
		return false, err
	}
	for _, a := range addrs {
		ipnet, ok := a.(*net.IPNet)
		if !ok {
			continue
		}
		if ip, ok := netip.AddrFromSlice(ipnet.IP); ok && ip.Unmap() == vip {
			return true, nil
		}
	}
	return false, nil
}

// Judge implements service.ClusterJudge: exactly one node holds the VIP.
func (*Service) Judge(c *model.Cluster, seen map[string]service.Observation) []health.Condition {
	var out []health.Condition
	var holders []string
	unseen := 0
	for _, n := range c.Controllers() {
		o, ok := seen[n.Name]
		if !ok {
			unseen++
			continue
		}
		if o.Facts[FactHolder] == "true" {
			holders = append(holders, n.Name)
		}
		if !o.Serving {
			out = append(out, health.Condition{Code: "keepalived-down", Severity: health.Warning, Node: n.Name, Service: Name,
				Text: fmt.Sprintf("keepalived on %s does not run: %s", n.Name, o.Reason), Hint: "journalctl -u " + Unit + " on that node"})
		}
	}
	switch {
	case len(holders) > 1:
		out = append(out, health.Condition{Code: "vip-two-holders", Severity: health.Critical, Service: Name,
			Text: fmt.Sprintf("%s all hold the VIP %s", strings.Join(holders, ", "), c.VIP.Address.Addr()),
			Hint: "nodes that do not hear each other, or a frozen keepalived: restart keepalived on the one that should not hold it"})
	case len(holders) == 0:
		text := fmt.Sprintf("no node holds the VIP %s", c.VIP.Address.Addr())
		if unseen > 0 {
			text += fmt.Sprintf(" (%d nodes do not answer)", unseen)
		}
		out = append(out, health.Condition{Code: "vip-no-holder", Severity: health.Critical, Service: Name,
			Text: text, Hint: "a node holds it only in etcd's majority and with a working HAProxy: look at both on each controller"})
	}
	return out
}

// Actions implements service.Actor.
func (s *Service) Actions() map[string]service.Action {
	return map[string]service.Action{
		actionInterface: {Check: interfaceKnown, Run: findInterface},
		actionAnswers:   {Check: s.answers, Run: s.awaitAnswer},
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

// dialWait bounds one look at the VIP: a round trip within a site and some patience.
const dialWait = 500 * time.Millisecond

// answers: a connection to the first listener on the VIP is taken. With no listener at
// all a refused connection shows as well that a machine has the address.
func (s *Service) answers(ctx context.Context, env service.Env, _ map[string]string) (bool, string, error) {
	port := 1 // tcpmux: nobody listens
	ls := s.listeners(env.Cluster)
	if len(ls) > 0 {
		port = ls[0].Port
	}
	target := net.JoinHostPort(env.Cluster.VIP.Address.Addr().String(), strconv.Itoa(port))
	d := net.Dialer{Timeout: dialWait}
	conn, err := d.DialContext(ctx, "tcp", target)
	if err == nil {
		conn.Close()
		return true, "", nil
	}
	if len(ls) == 0 && errors.Is(err, syscall.ECONNREFUSED) {
		return true, "", nil
	}
	return false, "the VIP does not answer: " + err.Error(), nil
}

// answerPause lies between two looks at the VIP.
const answerPause = 200 * time.Millisecond

// awaitAnswer returns when the VIP answers: elections take a second or so at first start.
func (s *Service) awaitAnswer(ctx context.Context, env service.Env, args map[string]string) error {
	for {
		done, reason, err := s.answers(ctx, env, args)
		if done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: see 'nines status' for HAProxy and etcd on each controller: %w", reason, ctx.Err())
		case <-time.After(answerPause):
		}
	}
}
