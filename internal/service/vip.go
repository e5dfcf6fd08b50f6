package service

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"nines/internal/health"
	"nines/internal/host"
	"nines/internal/model"
	"nines/internal/plan"
)

// What the engines of the VIP have in common: who holds it, whether it answers, and that the engine of before has
// let go of it.

// FactHolder is "true" on the node whose interface carries the VIP, else "false".
const FactHolder = "vip-holder"

// Holds reports whether one of the addresses, which an interface of the machine carries, is the VIP.
func Holds(addrs []net.Addr, vip netip.Addr) bool {
	for _, a := range addrs {
		ipnet, ok := a.(*net.IPNet)
		if !ok {
			continue
		}
		if ip, ok := netip.AddrFromSlice(ipnet.IP); ok && ip.Unmap() == vip {
			return true
		}
	}
	return false
}

// JudgeVIP says whether exactly one node holds the VIP. The hints are the engine's: for two holders, and for none.
func JudgeVIP(c *model.Cluster, seen map[string]Observation, two, none string) []health.Condition {
	var holders []string
	unseen := 0
	for _, n := range c.Controllers() {
		o, ok := seen[n.Name]
		if !ok {
			unseen++
		}
		if o.Facts[FactHolder] == "true" {
			holders = append(holders, n.Name)
		}
	}
	switch {
	case len(holders) > 1:
		return []health.Condition{{Code: "vip-two-holders", Severity: health.Critical,
			Text: fmt.Sprintf("%s all hold the VIP %s", strings.Join(holders, ", "), c.VIP.Address.Addr()), Hint: two}}
	case len(holders) == 0:
		text := fmt.Sprintf("no node holds the VIP %s", c.VIP.Address.Addr())
		if unseen > 0 {
			text += fmt.Sprintf(" (%d nodes do not answer)", unseen)
		}
		return []health.Condition{{Code: "vip-no-holder", Severity: health.Critical, Text: text, Hint: none}}
	}
	return nil
}

// Retired are the units of the other engines, stopped on every controller; after names what must be in place before.
// The last of each node's stands for all of them.
func Retired(c *model.Cluster, name string, after []plan.ID) []plan.Resource {
	var out []plan.Resource
	for _, n := range c.Controllers() {
		wait := after
		for _, e := range model.VIPEngines {
			if e == c.VIP.Engine {
				continue
			}
			if e == model.EnginePacemaker {
				r := plan.Resource{ID: plan.Make(name, n.Name, "action", ActionDetach), Service: name, Node: n.Name, After: wait,
					Action: &plan.Action{Name: ActionDetach, Timeout: 30 * time.Second}}
				out, wait = append(out, r), []plan.ID{r.ID}
			}
			for _, unit := range e.Units() {
				r := plan.Resource{ID: plan.Make(name, n.Name, "unit", unit), Service: name, Node: n.Name, After: wait,
					Unit: &plan.Unit{Name: unit}}
				out, wait = append(out, r), []plan.ID{r.ID}
			}
		}
	}
	return out
}

// ActionDetach has Pacemaker stop without stopping what it runs: HAProxy and the VIP stay where they are until the next engine takes the
// VIP. Stopping it the usual way takes them along, moves the VIP from node to node, and has machines switched off for a stop that fails.
const ActionDetach = "detach-pacemaker"

// DetachAction is ActionDetach.
func DetachAction() Action {
	attribute := []string{"crm_attribute", "--type", "crm_config", "--name", "maintenance-mode"}
	return Action{
		Check: func(ctx context.Context, env Env, _ map[string]string) (bool, string, error) {
			u, err := env.Host.Unit(ctx, model.EnginePacemaker.Units()[0])
			if err != nil || u.Active != "active" {
				return err == nil, "", err
			}
			out, err := env.Host.Run(ctx, host.Cmd{Args: append(slices.Clone(attribute), "--query", "--quiet", "--default", "false")})
			if err != nil {
				return false, "Pacemaker does not answer: " + err.Error(), nil
			}
			return strings.TrimSpace(string(out.Stdout)) == "true", "Pacemaker would stop HAProxy and the VIP with itself", nil
		},
		Run: func(ctx context.Context, env Env, _ map[string]string) error {
			_, err := env.Host.Run(ctx, host.Cmd{Args: append(slices.Clone(attribute), "--update", "true")})
			return err
		},
	}
}

// ActionVIPAnswers waits until the VIP answers.
const ActionVIPAnswers = "vip-answers"

// VIPAnswers is ActionVIPAnswers, once for the cluster, after the resources that bring the VIP up.
func VIPAnswers(c *model.Cluster, name string, after []plan.ID, needs ...string) plan.Resource {
	first := c.Controllers()[0].Name
	return plan.Resource{ID: plan.Make(name, first, "action", ActionVIPAnswers), Service: name, Node: first,
		Action: &plan.Action{Name: ActionVIPAnswers, Args: map[string]string{"vip": c.VIP.Address.Addr().String()}, Timeout: time.Minute},
		After:  after, Needs: needs, Provides: []string{CapVIP}}
}

const (
	// dialWait bounds one look at the VIP: a round trip within a site and some patience.
	dialWait = 500 * time.Millisecond
	// answerPause lies between two looks.
	answerPause = 200 * time.Millisecond
)

// AnswersAction is the action of VIPAnswers: a connection to the first listener on the VIP is taken. With no listener at
// all a refused connection shows as well that a machine has the address.
func AnswersAction(listeners func(*model.Cluster) []Listener) Action {
	check := func(ctx context.Context, env Env, _ map[string]string) (bool, string, error) {
		port := 1 // tcpmux: nobody listens
		ls := listeners(env.Cluster)
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
	return Action{Check: check, Run: Await(check, answerPause, "see 'nines status' for the VIP and HAProxy on each controller")}
}

// Await is the Run of an action that only waits until its Check is done: elections take a second or so at first start.
func Await(check func(context.Context, Env, map[string]string) (bool, string, error), pause time.Duration, hint string) func(context.Context, Env, map[string]string) error {
	return func(ctx context.Context, env Env, args map[string]string) error {
		for {
			done, reason, err := check(ctx, env, args)
			if done || err != nil {
				return err
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("%s: %s: %w", reason, hint, ctx.Err())
			case <-time.After(pause):
			}
		}
	}
}
