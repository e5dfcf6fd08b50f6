package agent

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"time"

	"nines/internal/converge"
	"nines/internal/model"
	"nines/internal/service"
)

// observeTimeout is how long a service may take to say how it is. A frozen process is
// found by its missing answers: one may be a busy machine, patience of them in a row count as
// not serving. Taking every instance out because all are slow would be the outage.
const (
	observeTimeout = time.Second
	patience       = 2
)

// watchers observe the services of this node, each in its own rhythm, and keep
// the last observation of each.
type watchers struct {
	services []service.Service
	env      func(*model.Cluster) (service.Env, error)
	log      *slog.Logger
	// stopped reports whether all processes that the observation is about are stopped (SIGSTOP). nil: not known.
	stopped func(name string) bool

	mu     sync.Mutex
	spec   string // hash of the spec they run for
	cancel context.CancelFunc
	wg     sync.WaitGroup
	seen   map[string]observed
	leaves map[string]string        // services that are about to be stopped here, and why
	first  map[string]chan struct{} // closed at the first observation

	changed chan struct{} // closed, and another put in its place, when a service begins or ceases to serve
}

type observed struct {
	service.Observation
	at     time.Time
	good   time.Duration // for how long it may be believed
	missed int           // answers missing in a row
	asked  time.Time     // when the first of them was asked for
	stuck  time.Time     // since when it has been stuck
}

func newWatchers(services []service.Service, env func(*model.Cluster) (service.Env, error), log *slog.Logger) *watchers {
	w := &watchers{services: services, env: env, log: log, seen: map[string]observed{}, leaves: map[string]string{}, first: map[string]chan struct{}{},
		changed: make(chan struct{})}
	for _, s := range services {
		for name := range observers(s) {
			w.first[name] = make(chan struct{})
		}
	}
	return w
}

// observers are those of the service and of its parts, by the name of their observations. The service's own
// belongs to all its units.
func observers(s service.Service) map[string]service.Part {
	out := map[string]service.Part{}
	if o, ok := s.(service.Observer); ok {
		out[s.Name()] = service.Part{Observer: o}
	}
	if c, ok := s.(service.Composite); ok {
		for name, part := range c.Parts() {
			out[s.Name()+"/"+name] = part
		}
	}
	return out
}

// follow observes the services that the spec puts on this node, in place of
// those of the spec before.
func (w *watchers) follow(ctx context.Context, c *model.Cluster) {
	w.mu.Lock()
	defer w.mu.Unlock()
	hash := converge.SpecHash(c)
	if hash == w.spec {
		return
	}
	env, err := w.env(c)
	if err != nil {
		w.log.Warn("cannot observe", "err", err)
		return
	}
	if w.cancel != nil {
		w.cancel()
	}
	w.spec = hash
	ctx, w.cancel = context.WithCancel(ctx)
	maps.DeleteFunc(w.seen, func(name string, _ observed) bool {
		svc, _, _ := strings.Cut(name, "/")
		return !c.Runs(svc)
	})
	for _, s := range w.services {
		if !c.Runs(s.Name()) {
			continue
		}
		for name, part := range observers(s) {
			if placed(s, part.Unit, env) {
				w.wg.Go(func() { w.observe(ctx, name, part, env) })
			}
		}
	}
}

// placed reports whether the service has that unit on the node; empty: any unit.
func placed(s service.Service, unit string, env service.Env) bool {
	rs, err := s.Resources(env.Cluster, env.Secrets)
	if err != nil {
		return true // secrets are not there yet: better observe in vain than not at all
	}
	for _, r := range rs {
		if r.Node == env.Node.Name && r.Unit != nil && (unit == "" || r.Unit.Name == unit) {
			return true
		}
	}
	return false
}

func (w *watchers) stop() {
	w.mu.Lock()
	if w.cancel != nil {
		w.cancel()
	}
	w.mu.Unlock()
	w.wg.Wait()
}

func (w *watchers) observe(ctx context.Context, name string, o service.Observer, env service.Env) {
	every := time.NewTicker(o.Interval())
	defer every.Stop()
	for {
		obs, answered := once(ctx, o, env)
		if ctx.Err() != nil {
			return // the cluster may have no such service any more
		}
		if !answered && w.stopped != nil && w.stopped(name) {
			// No busy machine: there is no second answer to wait for.
			w.miss(name, patience-1)
			obs.Reason = "all its processes are stopped (SIGSTOP)"
		}
		w.keep(name, o.Interval(), obs, answered)
		select {
		case <-ctx.Done():
			return
		case <-every.C:
		}
	}
}

// once asks the service, but does not wait for an answer longer than observeTimeout.
func once(ctx context.Context, o service.Observer, env service.Env) (obs service.Observation, answered bool) {
	ctx, cancel := context.WithTimeout(ctx, observeTimeout)
	defer cancel()
	answer := make(chan service.Observation, 1)
	go func() { answer <- o.Observe(ctx, env) }()
	select {
	case obs := <-answer:
		// Whoever gave up because the time was over has no answer either.
		return obs, obs.Serving || ctx.Err() == nil
	case <-ctx.Done():
		return service.Observation{Reason: fmt.Sprintf("no answer within %s", observeTimeout)}, false
	}
}

// miss counts answers as missing for which nobody has waited.
func (w *watchers) miss(name string, n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	o := w.seen[name]
	if o.missed < n {
		o.missed, o.asked = n, time.Now().Add(-observeTimeout)
		w.seen[name] = o
	}
}

func (w *watchers) keep(name string, interval time.Duration, obs service.Observation, answered bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	before := w.seen[name]
	known := before.known()
	now := observed{Observation: obs, at: time.Now(), good: 2*interval + 2*observeTimeout}
	if !answered {
		now.missed, now.asked = before.missed+1, before.asked
		if now.missed == 1 {
			now.asked = now.at.Add(-observeTimeout)
		}
		switch {
		case now.missed >= patience:
		case before.Serving:
			now.Observation = before.Observation
		case !known: // an agent that has just started has nothing to say: others would end connections that do well
			before.missed, before.asked = now.missed, now.asked
			w.seen[name] = before
			return
		}
	}
	if now.Stuck != "" {
		if now.stuck = before.stuck; before.Stuck == "" {
			now.stuck = now.at
		}
	}
	for i := range now.Conditions {
		now.Conditions[i].Service = name
	}
	if known && before.Serving != now.Serving {
		w.log.Info("service changed", "service", name, "serving", now.Serving, "reason", now.Reason)
	}
	w.seen[name] = now
	if !now.Serving { // it has left; whoever starts it again must find it serving
		delete(w.leaves, name)
	}
	if !known || before.Serving != now.Serving {
		w.tell()
	}
	select {
	case <-w.first[name]: // closed already: services may go and come back
	default:
		close(w.first[name])
	}
}

// news is closed when a service begins or ceases to serve after this call.
func (w *watchers) news() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.changed
}

// tell has everybody know that there is news; w.mu is held.
func (w *watchers) tell() {
	close(w.changed)
	w.changed = make(chan struct{})
}

// serving says which of the observed services serve.
func (w *watchers) serving() map[string]bool {
	out := map[string]bool{}
	for name, o := range w.all() {
		out[name] = o.Serving
	}
	return out
}

// all returns the latest observations, those that are too old as not serving.
func (w *watchers) all() map[string]service.Observation {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := make(map[string]service.Observation, len(w.seen))
	for name, o := range w.seen {
		if o.known() {
			out[name] = w.told(name)
		}
	}
	return out
}

// silent says for how long services have owed an answer, at least patience of them.
func (w *watchers) silent(now time.Time) map[string]time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := map[string]time.Duration{}
	for name, o := range w.seen {
		if o.missed >= patience {
			out[name] = now.Sub(o.asked)
		}
	}
	return out
}

// stuck says since when, and why, services come back only with a new start.
func (w *watchers) stuck() map[string]observed {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := map[string]observed{}
	for name, o := range w.seen {
		if o.Stuck != "" {
			out[name] = o
		}
	}
	return out
}

// get waits for the first observation of a service, as long as ctx allows.
func (w *watchers) get(ctx context.Context, name string) (service.Observation, bool) {
	first, ok := w.first[name]
	if !ok {
		return service.Observation{}, false
	}
	select {
	case <-first:
	case <-ctx.Done():
		return service.Observation{Reason: "not observed yet"}, true
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.told(name), true
}

// leave has a service say that it does not serve, until that is so, or it is called with no reason: nothing new should come to what is about to
// be stopped.
func (w *watchers) leave(name, why string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if delete(w.leaves, name); why != "" {
		w.leaves[name] = why
	}
	w.tell()
}

// told is what is said of a service now; w.mu is held.
func (w *watchers) told(name string) service.Observation {
	o := w.seen[name].believed(time.Now())
	if why := w.leaves[name]; why != "" {
		o.Serving, o.Reason = false, why
	}
	return o
}

// known: it has been observed.
func (o observed) known() bool { return !o.at.IsZero() }

func (o observed) believed(now time.Time) service.Observation {
	if age := now.Sub(o.at); age > o.good {
		return service.Observation{Reason: fmt.Sprintf("last observed %s ago", age.Round(time.Second)), Facts: o.Facts}
	}
	return o.Observation
}
