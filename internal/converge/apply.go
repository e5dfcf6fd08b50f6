package converge

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"nines/internal/graph"
	"nines/internal/model"
	"nines/internal/plan"
)

// Request asks for an apply.
type Request struct {
	Spec *model.Cluster `json:"spec"`
	Who  string         `json:"who"`
	// Plan, if not empty, is the PlanHash the operator agreed to: another plan is refused.
	Plan string `json:"plan,omitempty"`
}

// StaleError says that the plan is not the one the operator saw.
type StaleError struct{ Want, Have string }

func (e *StaleError) Error() string {
	return fmt.Sprintf("the plan changed since it was shown (was %s, is %s)", e.Want, e.Have)
}

// Hint says what to do now.
func (e *StaleError) Hint() string { return "look at it again: 'nines plan'" }

// BlockedError says why a plan must not run.
type BlockedError struct{ Blocks []plan.Block }

func (e *BlockedError) Error() string {
	s := e.Blocks[0].Text
	if n := len(e.Blocks) - 1; n > 0 {
		s += fmt.Sprintf(" (and %d more)", n)
	}
	return "nothing was changed: " + s
}

// Hint says what to do now.
func (e *BlockedError) Hint() string { return e.Blocks[0].Hint }

// Apply starts an apply and returns its record; it goes on when ctx ends, until
// Stop. An empty plan is done at once. Errors: *BusyError, *StaleError, *BlockedError.
func (l *Leader) Apply(ctx, life context.Context, req Request) (Record, error) {
	if err := l.reserve(req); err != nil {
		return Record{}, err
	}
	r, err := l.prepare(ctx, req)
	if err != nil || r.State != Converging {
		l.release()
		return r, err
	}
	l.wg.Go(func() { l.run(life, r) })
	return r, nil
}

func (l *Leader) reserve(req Request) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.current != nil {
		return &BusyError{Who: l.current.Who, Since: l.current.Since}
	}
	l.current = &Record{ID: newID(), Who: req.Who, Since: l.now(), Spec: req.Spec, State: Converging}
	return nil
}

// Hold keeps applies from beginning until release is called; ok is false while one is under way. A recovery and an apply
// would start and stop the same members.
func (l *Leader) Hold(who string) (release func(), ok bool) {
	if l.reserve(Request{Who: who}) != nil {
		return nil, false
	}
	return l.release, true
}

func (l *Leader) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.current = nil
}

// prepare plans, compares with what the operator agreed to, and opens the journal.
func (l *Leader) prepare(ctx context.Context, req Request) (Record, error) {
	r := *l.current
	p, err := l.Plan(ctx, req.Spec)
	if err != nil {
		return r, err
	}
	if have := PlanHash(p); req.Plan != "" && req.Plan != have {
		return r, &StaleError{Want: req.Plan, Have: have}
	}
	if len(p.Blocked) > 0 {
		return r, &BlockedError{Blocks: p.Blocked}
	}
	r.Plan = p
	if err := l.rememberSpec(ctx, req.Spec); err != nil {
		return r, err
	}
	if p.Empty() {
		r.State, r.Finished = Converged, l.now()
		return r, l.closeFailed(ctx, r)
	}
	return r, l.save(ctx, KeyApply, r)
}

// closeFailed records an apply that found nothing to do if the one before had failed: what it
// left was mended meanwhile. Otherwise an empty apply leaves no trace.
func (l *Leader) closeFailed(ctx context.Context, r Record) error {
	last, err := Current(ctx, l.store)
	if err != nil || last.State != Failed {
		return nil // nothing to close; an unreadable journal is the next apply's matter
	}
	return l.save(ctx, KeyApply, r)
}

func (l *Leader) rememberSpec(ctx context.Context, c *model.Cluster) error {
	last, err := LastSpec(ctx, l.store)
	if err == nil && SpecHash(last) == SpecHash(c) {
		return nil
	}
	if err != nil && !errors.Is(err, ErrNoApply) {
		return err
	}
	return l.save(ctx, KeySpec, c)
}

// Resume takes over an apply that another leader left unfinished.
func (l *Leader) Resume(ctx context.Context) error {
	r, err := Current(ctx, l.store)
	if errors.Is(err, ErrNoApply) || (err == nil && r.State != Converging) {
		return nil
	}
	if err != nil {
		return err
	}
	l.mu.Lock()
	l.current = &r
	l.mu.Unlock()
	l.log.Info("taking over an unfinished apply", "id", r.ID, "who", r.Who)
	l.wg.Go(func() { l.resume(ctx, r) })
	return nil
}

// resumeWait is how long a new leader waits for nodes that died with the old one.
const resumeWait = 3 * time.Minute

func (l *Leader) resume(ctx context.Context, r Record) {
	deadline := l.now().Add(resumeWait)
	for {
		p, err := l.Plan(ctx, r.Spec)
		if err == nil && len(p.Blocked) == 0 {
			r.Plan, r.Resumed = p, r.Resumed+1
			l.run(ctx, r)
			return
		}
		if err == nil {
			err = &BlockedError{Blocks: p.Blocked}
		}
		if l.now().After(deadline) {
			l.finish(ctx, r, err)
			return
		}
		if !pause(ctx, retryEvery) {
			return
		}
	}
}

// Wait returns when no apply runs any more.
func (l *Leader) Wait() { l.wg.Wait() }

// run walks the plan to its end and closes the journal.
func (l *Leader) run(ctx context.Context, r Record) {
	if err := l.save(ctx, KeyApply, r); err != nil {
		l.finish(ctx, r, err)
		return
	}
	ops := map[string]plan.Op{}
	g := graph.New()
	for _, op := range r.Plan.Ops {
		ops[string(op.ID)] = op
		g.Add(string(op.ID))
		for _, dep := range op.After {
			g.Edge(string(op.ID), string(dep))
		}
	}
	results, err := g.Walk(ctx, func(ctx context.Context, id string) error { return l.op(ctx, r, ops[id]) })
	for _, op := range r.Plan.Ops {
		switch e := results[string(op.ID)]; {
		case errors.Is(e, graph.ErrSkipped):
			l.journal(ctx, r, OpRecord{Op: op, Result: plan.Result{ID: op.ID, Skipped: true}})
		case e != nil && err == nil:
			err = fmt.Errorf("%s on %s: %w", op.Summary, op.Node, e)
		}
	}
	l.finish(ctx, r, err)
}

func (l *Leader) finish(ctx context.Context, r Record, err error) {
	r.State, r.Finished = Converged, l.now()
	if err != nil {
		r.State, r.Error = Failed, err.Error()
	}
	if ctx.Err() != nil { // the next leader resumes it
		l.release()
		return
	}
	old := l.outdated(ctx, r.ID) // listed before the next apply writes its own
	l.end(ctx, r)
	l.prune(ctx, old)
}

// end closes the journal and lets the next apply begin: whoever reads there that this one has ended may begin it.
func (l *Leader) end(ctx context.Context, r Record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.save(ctx, KeyApply, r); err != nil {
		l.log.Warn("cannot close the journal", "id", r.ID, "err", err)
	}
	l.current = nil
}

// op has one op done by the agent of its node. An agent that does not answer may be restarting, one without
// a quorum may wait for an election: the op is sent again until opWait is over.
func (l *Leader) op(ctx context.Context, r Record, op plan.Op) error {
	node, _ := r.Spec.Node(op.Node)
	rec := OpRecord{Op: op, Running: true, Result: plan.Result{ID: op.ID, Started: l.now()}}
	l.journal(ctx, r, rec)
	started := l.now()
	res, err := l.send(ctx, node, OpRequest{Fence: l.fence, Spec: r.Spec, ID: op.ID, Hash: op.Hash})
	rec.Running = false
	rec.Result = res
	rec.Result.ID, rec.Result.Started, rec.Result.Took = op.ID, started, l.now().Sub(started)
	if err != nil {
		rec.Result.Error, rec.Result.Hint = err.Error(), hintOf(err)
	}
	l.journal(ctx, r, rec)
	return err
}

// opWait is how long an op waits for an agent that went away.
const (
	opWait     = 2 * time.Minute
	retryEvery = 500 * time.Millisecond
)

// Passing is implemented by errors that may be over when the same is asked again.
type Passing interface{ Passing() bool }

func (l *Leader) send(ctx context.Context, node model.Node, req OpRequest) (plan.Result, error) {
	var gone time.Time
	for {
		res, err := l.agents.Op(ctx, node, req)
		var p Passing
		if err == nil || !errors.As(err, &p) || !p.Passing() {
			return res, err
		}
		if gone.IsZero() {
			gone = l.now()
		}
		if l.now().Sub(gone) > opWait || !pause(ctx, retryEvery) {
			return res, err
		}
	}
}

func (l *Leader) journal(ctx context.Context, r Record, rec OpRecord) {
	if err := l.save(ctx, prefixOps+r.ID+"/"+string(rec.Op.ID), rec); err != nil && ctx.Err() == nil {
		l.log.Warn("cannot write the journal", "op", rec.Op.ID, "err", err)
	}
}

func hintOf(err error) string {
	var h interface{ Hint() string }
	if errors.As(err, &h) {
		return h.Hint()
	}
	return ""
}

// pause waits, or returns false when ctx ends first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

func newID() string { return rand.Text()[:10] }
