package drill

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"nines/internal/model"
	"nines/internal/progress"
)

// How long the members that are back may take to say for whom they wait, and for how long they are then seen to wait: longer than
// RabbitMQ's own patience with a peer would be no more telling, because it begins anew each time.
const (
	sayLimit = 4 * time.Minute
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
		Way: ByPower, Site: &Site{Spread: 3 * time.Second, Clean: true, Last: "rabbitmq"}}}
}

// stopInTurn shuts the machines of a site down one after the other.
func (x *run) stopInTurn(ctx context.Context) error {
	for _, node := range x.victims {
		if err := x.Machines.Stop(ctx, node); err != nil {
			return err
		}
		if !pause(ctx, x.drill.Site.Spread) {
			return context.Cause(ctx)
		}
	}
	x.down = time.Since(x.load.start)
	return nil
}

// lastAway switches all machines on but the one that stopped last: the service must wait for it, and say so. Nothing may be
// confirmed meanwhile: what the last one took would be missing.
func (x *run) lastAway(ctx context.Context) error {
	last, svc := x.victims[len(x.victims)-1], x.drill.Site.Last
	for _, node := range x.victims[:len(x.victims)-1] {
		if err := x.Machines.On(ctx, node); err != nil {
			return err
		}
	}
	from := time.Since(x.load.start)
	err := progress.Step(x.Emit, x.name+"/last", fmt.Sprintf("%s must wait for %s, and say so", svc, last), func() error {
		for asked := time.Now(); !x.awaits(ctx, svc, last); {
			if time.Since(asked) > sayLimit {
				x.wound("nothing in status said that " + svc + " waits for " + last)
				return nil
			}
			if !pause(ctx, lookEvery) {
				return context.Cause(ctx)
			}
		}
		x.note(fmt.Sprintf("%s said that it waits for %s %.1f s after the others were on", svc, last, (time.Since(x.load.start) - from).Seconds()))
		if !pause(ctx, seenWait) {
			return context.Cause(ctx)
		}
		if !x.awaits(ctx, svc, last) {
			x.wound(svc + " does not wait for " + last + " any more")
		}
		return nil
	})
	if n := x.load.successes(ProbeBroker, x.down+grace, time.Since(x.load.start)); n > 0 {
		x.wound(fmt.Sprintf("%s: %d messages were confirmed while %s was away", ProbeBroker, n, last))
	}
	return err
}

// awaits reports whether status says that the service waits for the node.
func (x *run) awaits(ctx context.Context, svc, node string) bool {
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	s, err := x.Observer.Snapshot(ctx)
	if err != nil {
		return false
	}
	for _, c := range s.Conditions {
		// "last-missing: ctl2 was still serving when the others stopped"
		words := strings.FieldsFunc(c.Text, func(r rune) bool { return r == ' ' || r == ',' })
		if c.Code == codeStuck && c.Service == svc && slices.Contains(words, node) {
			return true
		}
	}
	return false
}
