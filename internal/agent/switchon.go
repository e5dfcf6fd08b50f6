package agent

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"nines/internal/api"
	"nines/internal/converge"
	"nines/internal/fence"
	"nines/internal/service"
	"nines/internal/store"
)

// Switching machines on again that a service.Fencer has switched off.
const (
	switchOnEvery = 5 * time.Second
	// switchOnAfter is when nobody waits any more for what the machine ran.
	switchOnAfter = 5 * time.Second
	// switchOnWithin is how long after it this is a matter of ours: then somebody will have seen to the machine.
	switchOnWithin = 10 * time.Minute
	// switchOnAgain is when an order that failed is given again.
	switchOnAgain = time.Minute
	switchOnWho   = "the leader, because it was fenced"
)

// switchOn looks for machines that were fenced and are still off, while this node leads. A machine that is
// fenced has failed in a way from which starting anew may help; off, it would help nobody.
func (a *Agent) switchOn(ctx context.Context, s store.Store, lease store.Fence) {
	heard := heard{}
	for pause(ctx, switchOnEvery) {
		if err := a.switchOnFenced(ctx, s, lease, heard); err != nil && ctx.Err() == nil {
			a.Log.Warn("switch on what was fenced", "err", err)
		}
	}
}

// heard is when this leader last heard of each node; of one that was silent from the beginning, when it first asked.
type heard map[string]hearing

type hearing struct {
	at       time.Time
	answered bool // ever
}

func (h heard) note(nodes []api.NodeStatus, now time.Time) {
	for _, n := range nodes {
		if _, asked := h[n.Node]; n.Report != nil || !asked {
			h[n.Node] = hearing{at: now, answered: n.Report != nil}
		}
	}
}

func (a *Agent) switchOnFenced(ctx context.Context, s store.Store, lease store.Fence, h heard) error {
	c, err := converge.LastSpec(ctx, s)
	if errors.Is(err, converge.ErrNoApply) {
		return nil
	}
	if err != nil || !c.Fences() {
		return err
	}
	for _, svc := range a.Services {
		f, ok := svc.(service.Fencer)
		if !ok || !c.Runs(svc.Name()) {
			continue
		}
		asked := time.Now() // a node that answers may be fenced before the last one's answer is there
		nodes := a.lookAtAll(ctx, c, 0)
		h.note(nodes, asked)
		fenced := f.Fenced(observationsOf(nodes)[svc.Name()])
		for _, name := range slices.Sorted(maps.Keys(fenced)) {
			if n, ok := c.Node(name); !ok || !n.HasBMC() {
				continue
			}
			last, _, err := lastOrder(ctx, s)
			if err != nil {
				return err
			}
			if now := time.Now(); mayBeSwitchedOn(name, fenced[name], h[name], last, now) {
				req := api.FenceRequest{ID: "fenced-" + name + "-" + now.UTC().Format(time.RFC3339Nano), Node: name, Action: fence.TurnOn, Who: switchOnWho}
				if _, err := a.order(ctx, s, lease, req); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// mayBeSwitchedOn decides by the time of the fencing, when the node was last heard of, and the latest order. A node that has answered since is
// silent for another reason, and may be about to be fenced for it. Who has ordered a machine off wants it off: it was fenced
// because it was.
func mayBeSwitchedOn(node string, fenced time.Time, h hearing, last fence.Order, now time.Time) bool {
	age := now.Sub(fenced)
	switch {
	case age < switchOnAfter || age > switchOnWithin || last.Open():
		return false
	case now.Sub(h.at) < switchOnAfter || h.answered && h.at.After(fenced):
		return false
	case last.Node != node:
		return true
	case last.Action == fence.TurnOff:
		return false
	case last.Since.After(fenced):
		return last.Error != "" && now.Sub(last.Finished) > switchOnAgain
	}
	return true
}
