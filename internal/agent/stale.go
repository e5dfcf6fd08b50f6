package agent

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"nines/internal/service"
	"nines/internal/stale"
)

// endStale ends connections to controllers that have died, until ctx ends.
func (a *Agent) endStale(ctx context.Context) {
	o := stale.Options{Connections: stale.Kernel{Host: a.Host}, Log: a.Log, VIP: a.vip, Absent: a.passOver}
	for _, m := range a.Config.Members {
		if m.Address != a.Config.Address {
			o.Peers = append(o.Peers, m.Address)
		}
	}
	for ctx.Err() == nil {
		if err := stale.Run(ctx, o); err != nil {
			a.Log.Warn("connections to dead machines are not ended", "err", err)
			pause(ctx, time.Minute)
		}
	}
}

// vip is the virtual address, the zero value while the spec is not known.
func (a *Agent) vip() netip.Addr {
	if c := a.spec.Load(); c != nil {
		return c.VIP.Address.Addr()
	}
	return netip.Addr{}
}

// passOver has the services of this node that send requests to others leave out those at these addresses.
func (a *Agent) passOver(ctx context.Context, absent []netip.Addr) {
	c := a.spec.Load()
	if c == nil {
		return
	}
	env, err := a.env(c)
	if err != nil {
		return
	}
	var nodes []string
	for _, n := range c.Controllers() {
		if slices.Contains(absent, n.Address()) {
			nodes = append(nodes, n.Name)
		}
	}
	for _, s := range a.Services {
		b, ok := s.(service.Balancer)
		if !ok || !c.Runs(s.Name()) {
			continue
		}
		a.Log.Warn("no answer since the VIP came here: no requests to them", "service", s.Name(), "nodes", nodes)
		if err := b.PassOver(ctx, env, nodes); err != nil {
			a.Log.Warn("cannot pass over absent nodes", "service", s.Name(), "nodes", nodes, "err", err)
		}
	}
}
