package pacemaker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"nines/internal/host"
	"nines/internal/service"
)

const (
	// restartFor is how long a daemon may take to be back: it stops, starts, and joins the others.
	restartFor = time.Minute
	// detachedFor is how long Pacemaker manages nothing at most, when whoever asked for it does not take it back. It must be longer than
	// restartFor.
	detachedFor = 90 * time.Second
	// detachedID is the set of options that says so.
	detachedID = "nines-detached"
	// rejoinPause lies between two looks whether the node takes part again.
	rejoinPause = 250 * time.Millisecond
)

// restart restarts a daemon while Pacemaker manages nothing anywhere: HAProxy and the VIP stay where they are. Otherwise its stop moves the
// VIP away and stops HAProxy, which users feel.
func restart(ctx context.Context, env service.Env, unit string) (err error) {
	before, lookErr := look(ctx, env)
	if lookErr != nil || before.outside(env.Node.Name) != "" {
		return env.Host.RestartUnit(ctx, unit) // it runs nothing here
	}
	if err := detach(ctx, env, time.Now()); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, attach(ctx, env)) }()
	if err := env.Host.RestartUnit(ctx, unit); err != nil {
		return err
	}
	// Found again before it is managed again.
	back := func(ctx context.Context, env service.Env, _ map[string]string) (bool, string, error) {
		p, err := look(ctx, env)
		if err != nil {
			return false, err.Error(), nil
		}
		if why := p.outside(env.Node.Name); why != "" {
			return false, why, nil
		}
		return p.runs("vip") || !before.runs("vip"), "Pacemaker has not found the VIP yet", nil
	}
	return service.Await(back, rejoinPause, "'journalctl -u corosync -u pacemaker' on the node")(ctx, env, nil)
}

// detach has Pacemaker manage nothing, anywhere, until attach or until detachedFor after now. That it ends by itself is why this is a rule with a date
// (Pacemaker Explained, "Rules") and not simply the option: nobody takes over from a dead machine meanwhile.
func detach(ctx context.Context, env service.Env, now time.Time) error {
	set := fmt.Sprintf(`<cluster_property_set id="%[1]s" score="1000"><rule id="%[1]s-until" score="INFINITY">`+
		`<date_expression id="%[1]s-until-date" operation="lt" end="%[2]s"/></rule>`+
		`<nvpair id="%[1]s-maintenance-mode" name="maintenance-mode" value="true"/></cluster_property_set>`,
		detachedID, now.Add(detachedFor).UTC().Format("2006-01-02 15:04:05Z"))
	_, err := env.Host.Run(ctx, host.Cmd{Args: []string{"cibadmin", "--modify", "--allow-create", "--scope", "crm_config", "--xml-pipe"}, Stdin: []byte(set)})
	return err
}

// attach has Pacemaker manage everything again. It works beyond the end of ctx.
func attach(ctx context.Context, env service.Env) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if _, err := env.Host.Run(ctx, host.Cmd{Args: []string{"cibadmin", "--delete", "--xml-text", `<cluster_property_set id="` + detachedID + `"/>`}}); err != nil {
		return fmt.Errorf("nothing is managed by Pacemaker for up to %s; 'nines apply' ends that sooner: %w", detachedFor, err)
	}
	return nil
}
