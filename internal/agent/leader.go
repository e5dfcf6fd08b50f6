package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"nines/internal/api"
	"nines/internal/converge"
	"nines/internal/service"
	"nines/internal/store"
)

// campaign stands for leader, leads while the lease is held, and stands again.
func (a *Agent) campaign(ctx context.Context, s store.Store) {
	for ctx.Err() == nil {
		lease, err := s.Campaign(ctx, converge.LeaderLease, a.Config.Node)
		if err != nil {
			if ctx.Err() == nil {
				a.Log.Debug("campaign", "err", err)
				pause(ctx, 500*time.Millisecond)
			}
			continue
		}
		a.lead(ctx, s, lease)
		pause(ctx, abstainFor-time.Since(a.yielded))
	}
}

// lead works as the leader until the lease is lost or ctx ends.
func (a *Agent) lead(ctx context.Context, s store.Store, lease store.Lease) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-lease.Lost():
			cancel()
		case <-ctx.Done():
		}
	}()
	l := converge.NewLeader(converge.Options{Store: s, Services: a.Services, Agents: a.peers,
		Secrets: a.secrets, Fence: lease.Fence(), Log: a.Log})
	a.Log.Info("leading", "fence", int64(lease.Fence()))
	if err := l.Resume(ctx); err != nil {
		a.Log.Warn("cannot tell whether an apply is unfinished", "err", err)
	}
	leading := &leadership{Leader: l, ctx: ctx, fence: lease.Fence()}
	a.leader.Store(leading)
	var duties sync.WaitGroup
	duties.Go(func() { a.heal(ctx, s, l, lease.Fence()) })
	duties.Go(func() { a.renew(ctx, s, l, lease.Fence()) })
	duties.Go(func() { a.careForDisks(ctx, s, l, lease.Fence()) })
	duties.Go(func() { a.watchBMCs(ctx, s, lease.Fence()) })
	duties.Go(func() { a.adoptOrders(ctx, s, leading.fence) })
	duties.Go(func() { a.switchOn(ctx, s, leading.fence) })
	duties.Go(func() { a.yieldToMiddle(ctx, s, cancel) })
	a.rotate(ctx, s, l)
	<-ctx.Done()
	a.leader.Store(nil)
	duties.Wait()
	l.Wait()
	a.Log.Info("no longer leading")
	resign, done := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer done()
	if err := lease.Resign(resign); err != nil {
		a.Log.Debug("resign", "err", err)
	}
}

// leadership is a Leader with the time it may act in.
type leadership struct {
	*converge.Leader
	ctx   context.Context
	fence store.Fence
}

const (
	// rotateEvery is how often the leader asks whether a key is due.
	rotateEvery = time.Minute
	// renewEvery is how often it asks whether a certificate is: by a look that other duties take anyway.
	renewEvery = 20 * time.Second
)

// rotate changes keys on schedule, while the nodes are as last applied. A changed key reaches them by
// an apply of the spec as it stands, with all its order and checks.
func (a *Agent) rotate(ctx context.Context, s store.Store, l *converge.Leader) {
	for ctx.Err() == nil {
		if err := a.rotateDue(ctx, s, l); err != nil && ctx.Err() == nil {
			a.Log.Warn("key rotation", "err", err)
		}
		pause(ctx, rotateEvery)
	}
}

// renew renews certificates in time, while this node leads.
func (a *Agent) renew(ctx context.Context, s store.Store, l *converge.Leader, fence store.Fence) {
	var load loading
	for pause(ctx, renewEvery) {
		if err := a.renewDue(ctx, s, l, fence, &load); err != nil && ctx.Err() == nil {
			a.Log.Warn("certificate renewal", "err", err)
		}
	}
}

func (a *Agent) rotateDue(ctx context.Context, s store.Store, l *converge.Leader) error {
	c, err := converge.LastSpec(ctx, s)
	if errors.Is(err, converge.ErrNoApply) {
		return nil
	}
	if err != nil {
		return err
	}
	record, err := converge.Current(ctx, s)
	if err != nil || record.State != converge.Converged {
		return err // one thing at a time: keys wait for an apply that is under way or failed
	}
	if _, err := a.secrets.refresh(ctx); err != nil {
		return err
	}
	seen := observationsOf(a.lookAtAll(ctx, c, atRest))
	changed := map[string]string{}
	for _, svc := range a.Services {
		r, ok := svc.(service.Rotator)
		if !ok || !c.Runs(svc.Name()) {
			continue
		}
		values, _, err := r.Rotate(c, a.secrets, seen[svc.Name()], time.Now())
		if err != nil {
			return err
		}
		for k, v := range values {
			changed[k] = v
		}
	}
	if len(changed) == 0 {
		return nil
	}
	// The apply below must carry the keys and nothing else: what a person changed by hand, or what is
	// broken, is not mended in passing.
	p, err := l.Plan(ctx, c)
	if err != nil {
		return err
	}
	if !p.Empty() || len(p.Blocked) > 0 {
		return fmt.Errorf("it waits: the nodes are not as last applied (%d steps, see 'nines plan')", len(p.Ops))
	}
	if err := a.secrets.Merge(ctx, changed); err != nil {
		return err
	}
	_, err = l.Apply(ctx, ctx, converge.Request{Spec: c, Who: "key rotation"})
	return err
}

// leaderOrRedirect returns the Leader if this agent is it, else where to ask.
func (a *Agent) leaderOrRedirect(ctx context.Context) (*leadership, error) {
	if l := a.leader.Load(); l != nil {
		return l, nil
	}
	s, err := a.openedStore()
	if err != nil {
		return nil, err
	}
	holder, _, err := s.Holder(ctx, converge.LeaderLease)
	if err != nil || holder == a.Config.Node {
		return nil, &api.Error{Status: 503, Code: api.CodeNoLeader, Text: "no leader yet", Next: hintNoLeader}
	}
	for _, m := range a.Config.Members {
		if m.Name == holder {
			return nil, &api.Error{Status: 421, Code: api.CodeNotLeader, Text: holder + " is the leader", Leader: agentAddr(m.Address)}
		}
	}
	return nil, &api.Error{Status: 503, Code: api.CodeNoLeader, Text: "the leader " + holder + " is not a known member"}
}
