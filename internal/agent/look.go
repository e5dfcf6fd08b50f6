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
	mu    sync.Mutex
	at    time.Time // when the last one ended
	nodes []model.Node
	seen  []api.NodeStatus
}

// last asks, if the last answers are older than old. Who comes meanwhile waits for the same answers.
func (l *looks) last(ctx context.Context, c *model.Cluster, old time.Duration, ask func(context.Context, *model.Cluster, api.Look) []api.NodeStatus) []api.NodeStatus {
	l.mu.Lock()
	defer l.mu.Unlock()
	if time.Since(l.at) < old && reflect.DeepEqual(l.nodes, c.Nodes) {
		return l.seen
	}
	seen := ask(ctx, c, api.LookAtHealth)
	if ctx.Err() == nil { // or the one who asked is gone, and what is missing is missing for that
		l.at, l.nodes, l.seen = time.Now(), c.Nodes, seen
	}
	return seen
}
