package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"nines/internal/api"
	"nines/internal/health"
	"nines/internal/model"
	"nines/internal/service"
	"nines/internal/stale"
)

// endStale ends connections to controllers that have died, until ctx ends.
func (a *Agent) endStale(ctx context.Context) {
	o := stale.Options{Own: a.Config.Address, Peers: a.others(), Connections: stale.Kernel{Host: a.Host, Agents: model.PortAgent, Rings: model.PortsCorosync}, Log: a.Log, VIP: a.vip,
		Absent: a.passOver, Third: a.askThird, Acquainted: a.acquainted, Aside: a.standAside, Contested: a.aside.contest, Ears: &a.ears}
	// The last word counts, and what it takes must not keep the watch waiting.
	words, done := make(chan bool, 1), make(chan struct{})
	o.Yielding = func(unheard netip.Addr) {
		select {
		case <-words:
		default:
		}
		words <- unheard.IsValid()
	}
	go func() {
		defer close(done)
		for on := range words {
			a.yield(ctx, on)
		}
	}()
	defer func() {
		close(words)
		<-done
	}()
	for ctx.Err() == nil {
		if err := stale.Run(ctx, o); err != nil {
			a.Log.Warn("connections to dead machines are not ended", "err", err)
			pause(ctx, time.Minute)
		}
	}
}

// others are the addresses of the other controllers.
func (a *Agent) others() []netip.Addr {
	var out []netip.Addr
	for _, m := range a.Config.Members {
		if m.Address != a.Config.Address {
			out = append(out, m.Address)
		}
	}
	return out
}

// vip is the virtual address, the zero value while the spec is not known.
func (a *Agent) vip() netip.Addr {
	if c := a.spec.Load(); c != nil {
		return c.VIP.Address.Addr()
	}
	return netip.Addr{}
}

// here is the cluster and what services may use on this node; not ok while that is not known.
func (a *Agent) here() (c *model.Cluster, env service.Env, ok bool) {
	if c = a.spec.Load(); c == nil {
		return nil, env, false
	}
	env, err := a.env(c)
	return c, env, err == nil
}

// passOver has the services of this node that send requests to others leave out those at these addresses.
func (a *Agent) passOver(ctx context.Context, absent []netip.Addr) {
	c, env, ok := a.here()
	if !ok {
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
		a.Log.Warn("no answer to a roll call: no requests to them", "service", s.Name(), "nodes", nodes)
		if err := b.PassOver(ctx, env, nodes); err != nil {
			a.Log.Warn("cannot pass over absent nodes", "service", s.Name(), "nodes", nodes, "err", err)
		}
	}
}

// yield has the members of this node leave it to others to take a controller for dead, or no longer.
func (a *Agent) yield(ctx context.Context, on bool) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), yieldLimit)
	defer cancel()
	c, env, ok := a.here()
	if !ok {
		return
	}
	var all sync.WaitGroup // tenths of a second count
	for _, s := range a.Services {
		y, ok := s.(service.Yielder)
		if !ok || !c.Runs(s.Name()) {
			continue
		}
		all.Go(func() {
			if err := y.Yield(ctx, env, on); err != nil {
				a.Log.Warn("cannot tell the member how patient to be", "service", s.Name(), "yield", on, "err", err)
			} else if on {
				a.Log.Warn("another controller hears one that this one does not: leaving it to others to take it for dead", "service", s.Name())
			}
		})
	}
	all.Wait()
}

// yieldLimit bounds what a database that stands still may cost.
const yieldLimit = 2 * time.Second

// askThird asks the controller at an address how long ago another one answered it.
func (a *Agent) askThird(ctx context.Context, asked, about netip.Addr) (time.Duration, error) {
	return a.peers.Heard(ctx, agentAddr(asked), about)
}

// acquainted lets the members of quorums start, which wait for it after a boot (service.AwaitAcquainted).
func (a *Agent) acquainted() {
	if err := os.WriteFile(model.PathAcquainted, nil, 0o644); err != nil {
		a.Log.Warn("members that have just booted wait up to ten seconds longer", "err", err)
	}
}

// standAside has the node stand aside, or no longer. Members of quorums do not start meanwhile (service.AwaitAcquainted).
func (a *Agent) standAside(unheard netip.Addr) {
	a.aside.set(unheard)
	var err error
	if unheard.IsValid() {
		err = os.WriteFile(model.PathAside, nil, 0o644)
	} else {
		err = os.Remove(model.PathAside)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		a.Log.Warn("members that start do not know whether this node stands aside", "unheard", unheard, "err", err)
	}
}

// getHeard says how long ago another controller answered this one.
func (a *Agent) getHeard(w http.ResponseWriter, r *http.Request) error {
	about, err := netip.ParseAddr(r.URL.Query().Get("about"))
	if err != nil {
		return &api.Error{Status: http.StatusBadRequest, Code: api.CodeInvalid, Text: err.Error()}
	}
	age, ok := a.ears.Age(about)
	if !ok {
		return &api.Error{Status: http.StatusNotFound, Code: api.CodeInvalid, Text: about.String() + " never answered"}
	}
	api.WriteJSON(w, api.Heard{Age: age})
	return nil
}

// aside knows whether this node stands aside, and why.
type aside struct {
	mu        sync.Mutex
	unheard   netip.Addr // the zero value: it does not
	since     time.Time
	contested netip.Addr // who may have the VIP, though it came here
	unplugged string     // interface by which users do not come, while they come to others
	changed   chan struct{}
}

func newAside() *aside { return &aside{changed: make(chan struct{}, 1)} }

func (s *aside) set(unheard netip.Addr) {
	s.mu.Lock()
	known := s.unheard == unheard
	if !known {
		s.unheard, s.since = unheard, time.Now()
	}
	s.mu.Unlock()
	if !known {
		s.tell()
	}
}

// contest notes who may have the VIP, though it came here.
func (s *aside) contest(unheard netip.Addr) {
	s.mu.Lock()
	s.contested = unheard
	s.mu.Unlock()
	s.tell()
}

// unplug notes the interface by which users do not come, while they come to others; "": they do.
func (s *aside) unplug(nic string) {
	s.mu.Lock()
	same := s.unplugged == nic
	s.unplugged = nic
	s.mu.Unlock()
	if !same {
		s.tell()
	}
}

func (s *aside) tell() {
	select {
	case s.changed <- struct{}{}:
	default: // it is told already
	}
}

// forbids says why this node must not hold the VIP now; "": it may.
func (s *aside) forbids() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.unheard.IsValid():
		return "this node stands aside, because it does not hear " + s.unheard.String()
	case s.contested.IsValid():
		return s.contested.String() + " is alive and not heard here: it may have the VIP"
	case s.unplugged != "":
		return s.unplugged + ", by which users come, has no link, and another controller's has"
	default:
		return ""
	}
}

// now is the controller because of which this node stands aside.
func (s *aside) now() (unheard netip.Addr, since time.Time, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.unheard, s.since, s.unheard.IsValid()
}

// conditions says that the node stands aside.
func (s *aside) conditions(c *model.Cluster) []health.Condition {
	unheard, since, ok := s.now()
	if !ok {
		return nil
	}
	name := unheard.String()
	for _, n := range c.Controllers() {
		if n.Address() == unheard {
			name = n.Name
		}
	}
	return []health.Condition{{Code: "stands-aside", Severity: health.Warning,
		Text: fmt.Sprintf("it does not hear %s, and the third controller hears both: it has no connections with either since %s, as if it were cut off", name, since.UTC().Format("15:04:05 UTC")),
		Hint: "mend the network between the two: cable, switch port, filter rules; one direction is enough to break it"}}
}
