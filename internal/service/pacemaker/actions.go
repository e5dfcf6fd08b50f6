package pacemaker

import (
	"context"
	"fmt"
	"strings"
	"time"

	"nines/internal/host"
	"nines/internal/model"
	"nines/internal/service"
)

// Actions implements service.Actor.
func (s *Service) Actions() map[string]service.Action {
	return map[string]service.Action{
		actionStart:              {Check: isMember, Run: start},
		actionCorosync:           {Check: isMember, Run: startCorosync},
		actionMember:             {Check: isMember},
		actionReload:             {Check: reloaded, Run: reload},
		actionCIB:                {Check: told, Run: tell},
		service.ActionVIPAnswers: service.AnswersAction(s.listeners),
	}
}

// start starts Pacemaker. Where another engine still moves the VIP, what Pacemaker remembers of a time before is forgotten: it would start
// the VIP, and HAProxy, at once.
func start(ctx context.Context, env service.Env, args map[string]string) error {
	if args["restart"] == "true" {
		return restart(ctx, env, Unit)
	}
	for _, e := range model.VIPEngines {
		for _, unit := range e.Units() {
			u, err := env.Host.Unit(ctx, unit)
			if err != nil {
				return err
			}
			if e != model.EnginePacemaker && u.Active == "active" {
				if _, err := env.Host.Run(ctx, host.Cmd{Args: []string{"find", "/var/lib/pacemaker/cib", "-type", "f", "-delete"}}); err != nil {
					return err
				}
			}
		}
	}
	return env.Host.StartUnit(ctx, Unit)
}

// startCorosync starts Corosync. Pacemaker is restarted with it.
func startCorosync(ctx context.Context, env service.Env, args map[string]string) error {
	if args["restart"] == "true" {
		return restart(ctx, env, UnitCorosync)
	}
	return env.Host.StartUnit(ctx, UnitCorosync)
}

// isMember: this node takes part in a cluster with the majority.
func isMember(ctx context.Context, env service.Env, _ map[string]string) (bool, string, error) {
	p, err := look(ctx, env)
	if err != nil {
		return false, err.Error(), nil
	}
	why := p.outside(env.Node.Name)
	return why == "", why, nil
}

// reloaded compares what Corosync runs with to what its file should say.
func reloaded(ctx context.Context, env service.Env, _ map[string]string) (bool, string, error) {
	out, err := env.Host.Run(ctx, host.Cmd{Args: []string{"corosync-cmapctl", "totem.", "quorum.", "nodelist."}})
	if err != nil {
		return false, "Corosync does not answer", nil
	}
	have := parseMap(string(out.Stdout))
	t := newTotem(env.Cluster)
	want := map[string]string{"totem.token": fmt.Sprint(t.Token), "totem.consensus": fmt.Sprint(t.Consensus),
		"quorum.expected_votes": fmt.Sprint(len(t.Nodes))}
	for i, n := range t.Nodes {
		for j, a := range n.Addresses {
			want[fmt.Sprintf("nodelist.node.%d.ring%d_addr", i, j)] = a.String()
		}
	}
	for key, value := range want {
		if have[key] != value {
			return false, fmt.Sprintf("runs with %s = %s", key, have[key]), nil
		}
	}
	return true, "", nil
}

// parseMap reads what corosync-cmapctl prints: values by key.
func parseMap(text string) map[string]string {
	out := map[string]string{}
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), " = ") // totem.token (u32) = 600
		key, _, _ = strings.Cut(key, " ")
		if ok {
			out[key] = value
		}
	}
	return out
}

// reload has all nodes' Corosync read their files.
func reload(ctx context.Context, env service.Env, _ map[string]string) error {
	_, err := env.Host.Run(ctx, host.Cmd{Args: []string{"corosync-cfgtool", "-R"}})
	return err
}

// compare returns the live CIB, the wanted one, and how they differ.
func compare(ctx context.Context, env service.Env) (live, want element, diff []string, err error) {
	text, err := render("cib.xml", newCIBView(env.Cluster))
	if err != nil {
		return
	}
	if want, err = parseCIB(text); err != nil {
		return
	}
	out, err := env.Host.Run(ctx, host.Cmd{Args: []string{"cibadmin", "--query"}})
	if err != nil {
		return live, want, nil, err
	}
	if live, err = parseCIB(out.Stdout); err != nil {
		return
	}
	return live, want, differences(live, want), nil
}

// told: the cluster's configuration is the wanted one, and what it runs runs.
func told(ctx context.Context, env service.Env, _ map[string]string) (bool, string, error) {
	_, _, diff, err := compare(ctx, env)
	if err != nil {
		return false, "Pacemaker does not answer: " + err.Error(), nil
	}
	if len(diff) > 0 {
		return false, "Pacemaker's configuration: " + strings.Join(diff, ", "), nil
	}
	p, err := look(ctx, env)
	switch {
	case err != nil:
		return false, err.Error(), nil
	case len(p.failed()) > 0:
		return false, strings.Join(p.failed(), "; "), nil
	case !p.runs("vip"):
		return false, "the VIP is not started", nil
	}
	return true, "", nil
}

// tell puts the wanted configuration in the place of the live one, has the cluster forget failures, and waits until it runs
// what it should.
func tell(ctx context.Context, env service.Env, args map[string]string) error {
	live, want, diff, err := compare(ctx, env)
	if err != nil {
		return err
	}
	if len(diff) > 0 {
		if err := replace(ctx, env, live, want); err != nil {
			return err
		}
	}
	p, err := look(ctx, env)
	if err == nil && len(p.failed()) > 0 {
		_, err = env.Host.Run(ctx, host.Cmd{Args: []string{"crm_resource", "--cleanup"}})
	}
	if err != nil {
		return err
	}
	return service.Await(told, 500*time.Millisecond, "'crm_mon -1rf' on a controller shows what Pacemaker does")(ctx, env, args)
}

func replace(ctx context.Context, env service.Env, live, want element) error {
	conf := merged(live, want)
	text, err := conf.text()
	if err != nil {
		return err
	}
	whole := element{XMLName: live.XMLName, Attrs: live.Attrs, Children: []element{conf, {XMLName: want.child("status").XMLName}}}
	all, err := whole.text()
	if err != nil {
		return err
	}
	if _, err := env.Host.Run(ctx, host.Cmd{Args: []string{"crm_verify", "--xml-pipe"}, Stdin: all}); err != nil {
		return fmt.Errorf("the new configuration is wrong to Pacemaker; the old one stays: %w", err)
	}
	_, err = env.Host.Run(ctx, host.Cmd{Args: []string{"cibadmin", "--replace", "--scope", "configuration", "--xml-pipe"}, Stdin: text})
	return err
}
