package agent

import (
	"context"
	"reflect"
	"sync"
	"time"

	"nines/internal/api"
	"nines/internal/model"
)

// atRest is how old a look may be by which a duty of the leader finds that there is something to do. What it then does rests on a
// look of its own. The duty that looks most often (drainEvery) keeps it younger: the others find it, and the agents are asked once for all.
const atRest = drainEvery + time.Second/2

// lookAtAll asks all agents for their health, unless that was done in the last old.
func (a *Agent) lookAtAll(ctx context.Context, c *model.Cluster, old time.Duration) []api.NodeStatus {
	return a.looks.last(ctx, c, old, a.askAll)
}

// looks keeps the last look at all agents: the duties of a leader ask much the same at much the same time.
type looks struct {
	sharing sync.Mutex // held while one asks for all who are content with the last answers

	mu           sync.Mutex
	began, ended time.Time
	nodes        []model.Node
	seen         []api.NodeStatus
}

// last asks, if the last answers came longer than old ago. Who comes meanwhile waits for the same answers; only who wants them
// fresh (0) does not: the answers of a dead machine are seconds of waiting.
func (l *looks) last(ctx context.Context, c *model.Cluster, old time.Duration, ask func(context.Context, *model.Cluster, api.Look) []api.NodeStatus) []api.NodeStatus {
	if old > 0 {
		l.sharing.Lock()
		defer l.sharing.Unlock()
		if seen, ok := l.recent(c, old); ok {
			return seen
		}
	}
	began := time.Now()
	seen := ask(ctx, c, api.LookAtHealth)
	if ctx.Err() == nil { // or the one who asked is gone, and what is missing is missing for that
		l.keep(began, c, seen)
	}
	return seen
}

func (l *looks) recent(c *model.Cluster, old time.Duration) ([]api.NodeStatus, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.seen, time.Since(l.ended) < old && reflect.DeepEqual(l.nodes, c.Nodes)
}

func (l *looks) keep(began time.Time, c *model.Cluster, seen []api.NodeStatus) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !began.Before(l.began) { // a look that began earlier and took longer is not the last
		l.began, l.ended, l.nodes, l.seen = began, time.Now(), c.Nodes, seen
	}
}
