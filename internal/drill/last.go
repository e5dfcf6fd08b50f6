package drill

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"nines/internal/model"
)

const (
	// sayLimit is how long the members that are back may take to say for whom they wait.
	sayLimit = 4 * time.Minute
	// seenWait is for how long they are then seen to wait at least: longer than RabbitMQ's own patience with a peer would be no more telling,
	// because it begins anew each time.
	seenWait = 20 * time.Second
	// lookLimit bounds a look: agents wait for a machine without power before they answer for all.
	lookLimit = 10 * time.Second
)

// lastDrills are about a service whose members wait for the one that stopped last.
func lastDrills(c *model.Cluster) []Drill {
	if !c.Runs("rabbitmq") || len(c.Controllers()) < 3 {
		return nil
	}
	return []Drill{{Name: "rabbitmq-last-node-gone", Title: "shut all controllers down one after the other; the last stays away", Target: Controllers,
		Way: ByPower, Site: &Site{Spread: 3 * time.Second, Clean: true, InTurn: true, Waits: "rabbitmq", Silent: []string{ProbeBroker}}}}
}

// stopInTurn shuts the machines of a site down one after the other.
func (x *run) stopInTurn(ctx context.Context) error {
	for _, node := range x.victims {
		if err := x.shutDown(ctx, node); err != nil {
			return err
		}
		if !pause(ctx, x.drill.Site.Spread) {
			return context.Cause(ctx)
		}
	}
	x.down = time.Since(x.load.start)
	return nil
}

// oneAway switches all machines on but one: the service must wait for it, and say so.
func (x *run) oneAway(ctx context.Context) error {
	svc, away, others := x.drill.Site.Waits, x.victims[0], x.victims[1:]
	if n := len(x.victims) - 1; x.drill.Site.InTurn {
		away, others = x.victims[n], x.victims[:n]
	}
	err := x.step("others", "power on "+strings.Join(others, ", "), func() error {
		if err := x.unplug(ctx, away); err != nil {
			return err
		}
		return x.switchOn(ctx, others)
	})
	if err != nil {
		return err
	}
	return x.step("away", fmt.Sprintf("%s must wait for %s, and say so", svc, away), func() error {
		on := time.Now()
		for !x.awaits(ctx, svc, away) {
			if time.Since(on) > sayLimit {
				x.wound("nothing in status said that " + svc + " waits for " + away)
				return nil
			}
			if !pause(ctx, lookEvery) {
				return context.Cause(ctx)
			}
		}
		said := time.Since(on)
		x.note(fmt.Sprintf("%s said that it waits for %s %.1f s after the others were on", svc, away, said.Seconds()))
		if !pause(ctx, max(seenWait, x.drill.Site.Late-said)) {
			return context.Cause(ctx)
		}
		if !x.awaits(ctx, svc, away) {
			x.wound(svc + " does not wait for " + away + " any more")
		}
		return nil
	})
}

// awaits reports whether status says that the service waits for the node.
func (x *run) awaits(ctx context.Context, svc, node string) bool {
	return x.stuck(ctx, svc, func(text string) bool {
		// "last-missing: ctl2 was still serving when the others stopped"
		words := strings.FieldsFunc(text, func(r rune) bool { return r == ' ' || r == ',' })
		return slices.Contains(words, node)
	})
}

// stuck reports whether status says that the recovery of the service cannot go on, for the reason that is looked for.
func (x *run) stuck(ctx context.Context, svc string, reason func(text string) bool) bool {
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	s, err := x.Observer.Snapshot(ctx)
	if err != nil {
		return false
	}
	for _, c := range s.Conditions {
		if c.Code == codeStuck && c.Service == svc && reason(c.Text) {
			return true
		}
	}
	return false
}
