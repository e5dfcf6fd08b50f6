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

// Facts about the VIP.
const (
	// FactHolder is "true" on the node whose interfaces carry all addresses of the VIP, else "false".
	FactHolder = "vip-holder"
	// FactPart names what a node carries that has one of two addresses.
	FactPart = "vip-part"
)

// Holding says what of the VIP a machine holds whose interfaces carry these addresses: as facts, and in words.
func Holding(addrs []net.Addr, v model.VIP) (facts map[string]string, words string) {
	all := v.Addresses()
	var held []string
	for _, want := range all {
		if carries(addrs, want.Prefix.Addr()) {
			held = append(held, want.Prefix.Addr().String())
		}
	}
	facts = map[string]string{FactHolder: strconv.FormatBool(len(held) == len(all))}
	switch len(held) {
	case 0:
		return facts, "stands by"
	case len(all):
		return facts, "holds the VIP"
	}
	facts[FactPart] = held[0]
	return facts, "holds only " + held[0] + " of the VIP"
}

func carries(addrs []net.Addr, vip netip.Addr) bool {
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
	var out []health.Condition
	unseen := 0
	for _, n := range c.Controllers() {
		o, ok := seen[n.Name]
		if !ok {
			unseen++
		}
		if o.Facts[FactHolder] == "true" {
			holders = append(holders, n.Name)
		}
		if part := o.Facts[FactPart]; part != "" {
			out = append(out, health.Condition{Code: "vip-parted", Severity: health.Critical, Node: n.Name,
				Text: fmt.Sprintf("%s holds %s alone: the addresses of the VIP belong together", n.Name, part), Hint: two})
		}
	}
	switch {
	case len(holders) > 1:
		out = append(out, health.Condition{Code: "vip-two-holders", Severity: health.Critical,
			Text: fmt.Sprintf("%s all hold the VIP %s", strings.Join(holders, ", "), c.VIP), Hint: two})
	case len(holders) == 0:
		text := fmt.Sprintf("no node holds the VIP %s", c.VIP)
		if unseen > 0 {
			text += fmt.Sprintf(" (%d nodes do not answer)", unseen)
		}
		out = append(out, health.Condition{Code: "vip-no-holder", Severity: health.Critical, Text: text, Hint: none})
	}
	return out
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
		Action: &plan.Action{Name: ActionVIPAnswers, Args: map[string]string{"vip": c.VIP.String()}, Timeout: time.Minute},
		After:  after, Needs: needs, Provides: []string{CapVIP}}
}

const (
	// dialWait bounds one look at the VIP: a round trip within a site and some patience.
	dialWait = 500 * time.Millisecond
	// answerPause lies between two looks.
	answerPause = 200 * time.Millisecond
)

// AnswersAction is the action of VIPAnswers: on each address a connection to the first listener is taken. With no listener at
// all a refused connection shows as well that a machine has the address.
func AnswersAction(listeners func(*model.Cluster) []Listener) Action {
	check := func(ctx context.Context, env Env, _ map[string]string) (bool, string, error) {
		for i, v := range env.Cluster.VIP.Addresses() {
			ls := listeners(env.Cluster)
			if i > 0 {
				ls = slices.DeleteFunc(slices.Clone(ls), func(l Listener) bool { return !l.Public })
			}
			if err := answers(ctx, v.Prefix.Addr(), ls); err != nil {
				return false, "the VIP does not answer: " + err.Error(), nil
			}
		}
		return true, "", nil
	}
	return Action{Check: check, Run: Await(check, answerPause, "see 'nines status' for the VIP and HAProxy on each controller")}
}

func answers(ctx context.Context, vip netip.Addr, ls []Listener) error {
	port := 1 // tcpmux: nobody listens
	if len(ls) > 0 {
		port = ls[0].Port
	}
	d := net.Dialer{Timeout: dialWait}
	conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(vip.String(), strconv.Itoa(port)))
	if err == nil {
		return conn.Close()
	}
	if len(ls) == 0 && errors.Is(err, syscall.ECONNREFUSED) {
		return nil
	}
	return err
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
