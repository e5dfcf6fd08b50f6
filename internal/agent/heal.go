package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"nines/internal/api"
	"nines/internal/converge"
	"nines/internal/fence"
	"nines/internal/heal"
	"nines/internal/health"
	"nines/internal/model"
	"nines/internal/service"
	"nines/internal/store"
)

// How often the leader looks whether a service has to be recovered, and how often while one is: what is looked for is given ten seconds
// at least to mend itself.
const (
	lookAgain = 5 * time.Second
	tickAgain = time.Second
	// What has just fallen ill is looked at more often: most of the waiting for a recovery would be for the next look.
	illAgain = 2 * time.Second
	illFor   = 30 * time.Second
)

// healers are the services of the cluster that can be recovered.
func (a *Agent) healers(c *model.Cluster) map[string]service.Healer {
	out := map[string]service.Healer{}
	for _, s := range a.Services {
		if h, ok := s.(service.Healer); ok && c.Runs(s.Name()) {
			out[s.Name()] = h
		}
	}
	return out
}

func (a *Agent) engine(s heal.State, name string, h service.Healer, fence store.Fence) *heal.Engine {
	return &heal.Engine{Name: name, Healer: h, State: s, Agents: healing{a}, Lease: converge.LeaderLease, Fence: fence,
		Leader: a.Config.Node, Log: a.Log, Now: time.Now}
}

// heal recovers services while this node leads, each by itself: one must not wait for a step of another. It has frozen daemons restarted too.
func (a *Agent) heal(ctx context.Context, s store.Store, l *converge.Leader, fence store.Fence) {
	apart := &noApply{leader: l, by: map[string]bool{}}
	var wg sync.WaitGroup
	for _, svc := range a.Services {
		if h, ok := svc.(service.Healer); ok {
			wg.Go(func() { a.healOne(ctx, s, a.engine(s, svc.Name(), h, fence), apart) })
		}
	}
	wg.Go(func() { a.supervise(ctx, s, fence, apart) })
	wg.Wait()
}

// noApply keeps applies away while any service is recovered: both start and stop members.
type noApply struct {
	leader *converge.Leader

	mu      sync.Mutex
	by      map[string]bool // the services that are being recovered
	release func()
}

// hold reports whether no apply is under way, and none begins until the service lets go.
func (n *noApply) hold(name string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.by) == 0 {
		release, ok := n.leader.Hold("the recovery of " + name)
		if !ok {
			return false
		}
		n.release = release
	}
	n.by[name] = true
	return true
}

func (n *noApply) held(name string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.by[name]
}

func (n *noApply) letGo(name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.by[name] {
		if delete(n.by, name); len(n.by) == 0 {
			n.release()
		}
	}
}

func (a *Agent) healOne(ctx context.Context, s store.Store, e *heal.Engine, apart *noApply) {
	defer apart.letGo(e.Name)
	var sick time.Time // since when it is not well
	for wait := time.Duration(0); pause(ctx, wait); {
		wait = lookAgain
		c, err := converge.LastSpec(ctx, s)
		if err != nil || !c.Runs(e.Name) {
			continue // nothing applied yet, or etcd is away: the next look tells
		}
		busy, err := a.tick(ctx, c, e, &sick, apart)
		if err != nil && ctx.Err() == nil {
			a.Log.Warn("recovery", "service", e.Name, "err", err)
		}
		switch {
		case err != nil:
		case busy:
			wait = tickAgain
		case !sick.IsZero() && time.Since(sick) < illFor:
			wait = illAgain
		}
	}
}

// tick looks at one service and does what is next. busy: there is more to do soon.
func (a *Agent) tick(ctx context.Context, c *model.Cluster, e *heal.Engine, sick *time.Time, apart *noApply) (busy bool, err error) {
	record, _, err := heal.Load(ctx, e.State, e.Name)
	if err != nil {
		return false, err
	}
	old := atRest
	if !sick.IsZero() || apart.held(e.Name) {
		old = 0
	}
	well, err := a.watchLineage(ctx, c, e, old)
	if err != nil {
		return false, err
	}
	if well {
		*sick = time.Time{}
	} else if sick.IsZero() {
		*sick = time.Now()
	}
	if well && !record.Open && record.Move.Diagnosis == "" {
		return false, nil
	}
	waited := time.Duration(0)
	if !sick.IsZero() {
		waited = time.Since(*sick)
	}
	if !apart.held(e.Name) {
		// Only to see whether there is something to do: whoever wants to apply is not kept waiting by a look.
		record, m, err := e.Tick(ctx, c, waited, false)
		if err != nil || m.Rest || !record.Open && !m.Open && len(m.Steps) == 0 {
			return false, err
		}
		if !apart.hold(e.Name) {
			a.Log.Info("the recovery waits for the apply under way", "service", e.Name)
			return false, nil
		}
	}
	record, m, err := e.Tick(ctx, c, waited, true)
	if err == nil && (!record.Open || m.Rest) {
		apart.letGo(e.Name)
	}
	if err != nil && !errors.Is(err, store.ErrConflict) && !errors.Is(err, store.ErrFenced) {
		err = errors.Join(err, e.Failed(ctx, err))
	}
	return record.Open && !m.Rest, err
}

// watchLineage writes down what must be known of the service on the day when it is down. old is how old what it goes by may be.
func (a *Agent) watchLineage(ctx context.Context, c *model.Cluster, e *heal.Engine, old time.Duration) (well bool, err error) {
	last, err := e.Lineage(ctx)
	if err != nil {
		return false, err
	}
	seen := observationsOf(a.lookAtAll(ctx, c, old))
	lineage, well := e.Healer.Watch(c, seen[e.Name], last, time.Now())
	if lineage != nil {
		err = e.Remember(ctx, lineage)
	}
	return well, err
}

// healing is heal.Agents over the network.
type healing struct{ *Agent }

// evidenceTimeout bounds the answer of one agent.
const evidenceTimeout = 5 * time.Second

// Evidence implements heal.Agents.
func (a healing) Evidence(ctx context.Context, c *model.Cluster, svc string, epoch int64) (map[string]json.RawMessage, map[string]string) {
	found, absent := map[string]json.RawMessage{}, map[string]string{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, n := range c.Controllers() {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, evidenceTimeout)
			defer cancel()
			e, err := a.peers.Evidence(ctx, n, api.EvidenceRequest{Spec: c, Service: svc, Epoch: epoch})
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				absent[n.Name] = err.Error()
				return
			}
			found[n.Name] = e
		})
	}
	wg.Wait()
	return found, absent
}

// Steps implements heal.Agents.
func (a healing) Steps(ctx context.Context, steps []heal.StepRequest) error {
	errs := make([]error, len(steps))
	var wg sync.WaitGroup
	for i, req := range steps {
		wg.Go(func() {
			n, _ := req.Spec.Node(req.Step.Node)
			if err := a.peers.Step(ctx, n, req); err != nil {
				errs[i] = fmt.Errorf("%s on %s: %w", req.Step.Name, req.Step.Node, err)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Cycle implements heal.Agents.
func (a healing) Cycle(ctx context.Context, req heal.FenceRequest) error {
	s, err := a.openedStore()
	if err != nil {
		return err
	}
	return a.cycle(ctx, s, req.Fence, api.FenceRequest{ID: req.ID, Node: req.Node, Action: fence.Cycle, Who: req.Who})
}

// healer returns a service that can be recovered.
func (a *Agent) healer(name string) (service.Healer, error) {
	for _, s := range a.Services {
		if h, ok := s.(service.Healer); ok && s.Name() == name {
			return h, nil
		}
	}
	return nil, &api.Error{Status: http.StatusBadRequest, Code: api.CodeInvalid, Text: fmt.Sprintf("%q is no service that nines can recover", name), Next: "'nines recover --help' names those it can"}
}

// healerHere is what a request about this node's member of a service needs.
func (a *Agent) healerHere(name string, c *model.Cluster) (service.Healer, service.Env, error) {
	h, err := a.healer(name)
	if err != nil {
		return nil, service.Env{}, err
	}
	env, err := a.env(c)
	return h, env, err
}

func (a *Agent) postEvidence(w http.ResponseWriter, r *http.Request) error {
	var req api.EvidenceRequest
	if err := decode(w, r, &req); err != nil {
		return err
	}
	h, env, err := a.healerHere(req.Service, req.Spec)
	if err != nil {
		return err
	}
	e, err := h.Evidence(r.Context(), env, req.Epoch)
	if err != nil {
		return err
	}
	api.WriteJSON(w, e)
	return nil
}

// stepTimeout bounds a step: a founder's InnoDB may have much to recover, a joiner to copy the whole database.
const stepTimeout = 20 * time.Minute

// postStep does a step if it belongs to the present epoch of the present leader. Once begun, it goes on when the leader
// that asked for it goes away: half a step helps nobody, and the next leader sees that it is under way.
func (a *Agent) postStep(w http.ResponseWriter, r *http.Request) error {
	var req heal.StepRequest
	if err := decode(w, r, &req); err != nil {
		return err
	}
	h, env, err := a.healerHere(req.Service, req.Spec)
	if err != nil {
		return err
	}
	if req.Step.Node != a.Config.Node {
		return &api.Error{Status: http.StatusBadRequest, Code: api.CodeInvalid, Text: "the step is for " + req.Step.Node}
	}
	s, err := a.openedStore()
	if err != nil {
		return err
	}
	allowed := func(ctx context.Context) error {
		fence, err := leadersFence(ctx, s)
		if err != nil {
			return err
		}
		return heal.Check(ctx, s, fence, req)
	}
	done := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(a.life, stepTimeout)
		defer cancel()
		a.Log.Warn("recovery", "service", req.Service, "step", req.Step.Name, "epoch", req.Epoch)
		err := h.Step(ctx, env, req.Epoch, req.Step, allowed)
		if err != nil {
			a.Log.Warn("recovery", "service", req.Service, "step", req.Step.Name, "err", err)
		}
		done <- err
	}()
	select {
	case err = <-done:
	case <-r.Context().Done():
		return r.Context().Err()
	}
	if errors.Is(err, heal.ErrStale) {
		return &api.Error{Status: http.StatusConflict, Code: api.CodeFenced, Text: err.Error()}
	}
	if err != nil {
		return err
	}
	api.WriteJSON(w, struct{}{})
	return nil
}

func (a *Agent) getRecovery(w http.ResponseWriter, r *http.Request) error {
	e, c, err := a.leadersEngine(r.Context(), r.URL.Query().Get("service"))
	if err != nil {
		return err
	}
	lineage, err := e.Lineage(r.Context())
	if err != nil {
		return err
	}
	stored, _, err := heal.Load(r.Context(), e.State, e.Name)
	if err != nil {
		return err
	}
	seen, now, err := e.Look(r.Context(), c, 0)
	if err != nil {
		return err
	}
	if stored.Move.Diagnosis == now.Diagnosis && stored.Fence == e.Fence {
		now.Reason = stored.Move.Reason // it knows for how long this has been so
	}
	api.WriteJSON(w, api.Recovery{Record: stored, Now: now, Evidence: seen.Evidence, Absent: seen.Absent, Lineage: lineage})
	return nil
}

func (a *Agent) postRecovery(w http.ResponseWriter, r *http.Request) error {
	var req api.RecoveryRequest
	if err := decode(w, r, &req); err != nil {
		return err
	}
	e, c, err := a.leadersEngine(r.Context(), req.Service)
	if err != nil {
		return err
	}
	if n, ok := c.Node(req.Choose); req.Choose != "" && (!ok || !slices.Contains(n.Roles, model.RoleController)) {
		return &api.Error{Status: http.StatusBadRequest, Code: api.CodeInvalid, Text: req.Choose + " is no controller of the cluster", Next: "choose one that 'nines recover " + req.Service + " --explain' lists"}
	}
	record, err := e.Begin(r.Context(), c, req.Choose, req.Who)
	if errors.Is(err, heal.ErrNothing) {
		return &api.Error{Status: http.StatusConflict, Code: api.CodeInvalid, Text: err.Error(), Next: "'nines status' shows how the cluster is"}
	}
	if err != nil {
		return err
	}
	api.WriteJSON(w, record)
	return nil
}

// leadersEngine is the engine of a service, if this node leads.
func (a *Agent) leadersEngine(ctx context.Context, name string) (*heal.Engine, *model.Cluster, error) {
	h, err := a.healer(name)
	if err != nil {
		return nil, nil, err
	}
	l, err := a.leaderOrRedirect(ctx)
	if err != nil {
		return nil, nil, err
	}
	s, err := a.openedStore()
	if err != nil {
		return nil, nil, err
	}
	c, err := converge.LastSpec(ctx, s)
	if errors.Is(err, converge.ErrNoApply) {
		return nil, nil, &api.Error{Status: http.StatusNotFound, Code: api.CodeInvalid, Text: errNotObserved.Error(), Next: "run 'nines apply'"}
	}
	if err != nil {
		return nil, nil, err
	}
	return a.engine(s, name, h, l.fence), c, nil
}

// recoveries are what was written down of the recovery of each service.
func (a *Agent) recoveries(ctx context.Context, c *model.Cluster, s store.Reader) map[string]heal.Record {
	out := map[string]heal.Record{}
	for name := range a.healers(c) {
		r, _, err := heal.Load(ctx, s, name)
		if err != nil {
			a.Log.Debug("recovery", "service", name, "err", err)
			continue
		}
		out[name] = r
	}
	return out
}

// recovering says in status what recoveries do and wait for.
func recovering(recoveries map[string]heal.Record) []health.Condition {
	var out []health.Condition
	for _, name := range slices.Sorted(maps.Keys(recoveries)) {
		out = append(out, recoveryConditions(recoveries[name])...)
	}
	return out
}

func recoveryConditions(r heal.Record) []health.Condition {
	var out []health.Condition
	m := r.Move
	if r.Open || m.Diagnosis != "" {
		cond := health.Condition{Code: "recovery-under-way", Severity: health.Warning, Service: r.Service,
			Text: fmt.Sprintf("%s: %s", m.Diagnosis, m.Reason), Hint: "wait, or see 'nines recover " + r.Service + " --explain'"}
		if m.Hint != "" && (m.Act == "ask" || m.Act == "wait") {
			cond.Code, cond.Severity, cond.Hint = "recovery-stuck", health.Critical, m.Hint
			if m.Rest { // others do the work
				cond.Severity = health.Warning
			}
		}
		out = append(out, cond)
	}
	for _, n := range m.Left {
		out = append(out, health.Condition{Code: "recovery-left", Severity: health.Warning, Service: r.Service, Node: n,
			Text: "the member was left stopped: its data belongs to another cluster", Hint: "look at it, move its data directory away, then start it"})
	}
	return out
}
