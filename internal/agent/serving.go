package agent

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"sync"
	"time"

	"nines/internal/model"
	"nines/internal/service"
)

// The rhythm of what agents say of their services. A change is said at once.
const (
	// sayEvery is for what changes by itself: an observation that is too old is not believed any more.
	sayEvery = time.Second
	// repeatEvery is for who forgot: a balancer that started anew takes everybody for serving.
	repeatEvery = time.Second
	// heedAgain is the pause after a stream that broke off, heedLimit bounds what a balancer that stands still may cost.
	heedAgain = 500 * time.Millisecond
	heedLimit = time.Second
)

// getServing says which services of this node serve: all of them, in a line at first and at each change.
func (a *Agent) getServing(w http.ResponseWriter, r *http.Request) error {
	w.Header().Set("Content-Type", "application/x-ndjson")
	flush := http.NewResponseController(w)
	out := json.NewEncoder(w)
	tick := time.NewTicker(sayEvery)
	defer tick.Stop()
	var said map[string]bool
	for {
		news := a.watch.news()
		if now := a.watch.serving(); said == nil || !maps.Equal(now, said) {
			if out.Encode(now) != nil || flush.Flush() != nil {
				return nil // the asker is gone
			}
			said = now
		}
		select {
		case <-r.Context().Done():
			return nil
		case <-a.life.Done():
			return nil
		case <-news:
		case <-tick.C:
		}
	}
}

// heedAll has the balancers of this controller know at once what the agents of all controllers say of their services, until ctx ends.
// Health checks find the same, later, and stay: who says nothing is judged by them.
func (a *Agent) heedAll(ctx context.Context) {
	if !a.Config.Controller {
		return
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, m := range a.Config.Members {
		words := make(chan map[string]bool)
		wg.Go(func() { a.listenTo(ctx, m, words) })
		wg.Go(func() { a.passOn(ctx, m.Name, words) })
	}
}

// listenTo hears what the agent of a controller says until ctx ends; nil is said when it has fallen silent.
func (a *Agent) listenTo(ctx context.Context, m model.AgentMember, words chan<- map[string]bool) {
	defer close(words)
	say := func(serving map[string]bool) {
		select {
		case words <- serving:
		case <-ctx.Done():
		}
	}
	for {
		if err := a.peers.Serving(ctx, agentAddr(m.Address), say); err != nil {
			a.Log.Debug("what an agent says of its services broke off", "node", m.Name, "err", err)
		}
		say(nil)
		if !pause(ctx, heedAgain) {
			return
		}
	}
}

// passOn tells the balancers what is news, and repeats what does not serve.
func (a *Agent) passOn(ctx context.Context, node string, words <-chan map[string]bool) {
	again := time.NewTicker(repeatEvery)
	defer again.Stop()
	var known map[string]bool
	for {
		select {
		case said, ok := <-words:
			if !ok {
				return
			}
			news := changed(known, said)
			known = said
			if err := a.heed(ctx, node, news); err != nil && ctx.Err() == nil {
				a.Log.Warn("cannot pass on what an agent says of its services", "node", node, "said", news, "err", err)
			}
		case <-again.C:
			_ = a.heed(ctx, node, silenced(known)) // as the first time: the health checks find it too
		}
	}
}

func (a *Agent) heed(ctx context.Context, node string, serving map[string]bool) error {
	c, env, ok := a.here()
	if !ok || len(serving) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, heedLimit)
	defer cancel()
	for _, s := range a.Services {
		if b, ok := s.(service.Balancer); ok && c.Runs(s.Name()) {
			if err := b.Heed(ctx, env, node, serving); err != nil {
				return err
			}
		}
	}
	return nil
}

// changed is what now says that before did not.
func changed(before, now map[string]bool) map[string]bool {
	out := maps.Clone(now)
	maps.DeleteFunc(out, func(name string, serves bool) bool {
		was, known := before[name]
		return known && was == serves
	})
	return out
}

// silenced are those that do not serve.
func silenced(serving map[string]bool) map[string]bool {
	out := maps.Clone(serving)
	maps.DeleteFunc(out, func(_ string, serves bool) bool { return serves })
	return out
}
