package rabbitmq

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"nines/internal/health"
	"nines/internal/service"
)

// queue is what is asked of a queue: who has a replica, and who leads.
type queue struct {
	Name    string   `json:"name"`
	VHost   string   `json:"vhost"`
	Type    string   `json:"type"`
	Leader  string   `json:"leader"`
	Members []string `json:"members"` // "rabbit@ctl1"
}

// queues lists all queues, without their figures.
func (c *client) queues(ctx context.Context) ([]queue, error) {
	var out []queue
	return out, c.call(ctx, http.MethodGet, "queues?columns=name,vhost,type,leader,members&disable_stats=true", nil, &out)
}

func (q queue) on(nodes []string) (n int) {
	for _, m := range q.Members {
		if slices.Contains(nodes, strings.TrimPrefix(m, "rabbit@")) {
			n++
		}
	}
	return n
}

// held counts the quorum queues that have most of their replicas on the given nodes.
func (c *client) held(ctx context.Context, nodes []string) (n int, err error) {
	all, err := c.queues(ctx)
	for _, q := range all {
		if q.Type == "quorum" && 2*q.on(nodes) > len(q.Members) {
			n++
		}
	}
	return n, err
}

// replicas looks now and then whether quorum queues lack a replica on this node, and whether those here go with their leaders. RabbitMQ
// adds them by itself, within five minutes of a member's coming; who is missing longer is told.
type replicas struct {
	mu      sync.Mutex
	at      time.Time
	busy    bool
	missing int
	looks   int // in a row in which some were missing
	example string
	behind  []health.Condition
	// laggards belongs to the look that is under way. What it remembers is of no use once a member was away (anew).
	laggards laggards
	anew     bool
}

// replicasEvery lies between two looks: each lists all queues. replicasTimeout bounds one; making a replica anew has time of its own.
const (
	replicasEvery   = 30 * time.Second
	replicasTimeout = 30 * time.Second
	// replicasSettle is for replicas of a member that has just come: they are behind, and come after.
	replicasSettle = 30 * time.Second
)

// note looks again if it is time, without being waited for, and returns what was seen last. whole: all members run, and have for a while.
func (r *replicas) note(ctx context.Context, env service.Env, api *client, whole bool) []health.Condition {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !whole {
		r.missing, r.looks, r.behind, r.anew = 0, 0, nil, true
		return nil
	}
	if !r.busy && time.Since(r.at) >= replicasEvery {
		if r.anew {
			r.laggards.lags, r.laggards.found, r.anew = nil, nil, false
		}
		r.busy, r.at = true, time.Now()
		go r.look(context.WithoutCancel(ctx), env, api)
	}
	if r.missing == 0 || r.looks < 3 {
		return r.behind
	}
	return append(slices.Clone(r.behind), health.Condition{Code: "rabbitmq-replicas-missing", Severity: health.Warning,
		Text: fmt.Sprintf("%d quorum queues have too few replicas and none on %s, such as %s", r.missing, env.Node.Name, r.example),
		Hint: "RabbitMQ adds them within five minutes; 'rabbitmq-queues grow rabbit@" + env.Node.Name + " all' does it at once"})
}

func (r *replicas) look(ctx context.Context, env service.Env, api *client) {
	ctx, cancel := context.WithTimeout(ctx, replicasTimeout)
	defer cancel()
	all, err := api.queues(ctx)
	if err == nil {
		r.count(env, all)
		err = r.laggards.look(ctx, env, api, all)
	}
	if err != nil {
		env.Log.Debug("look for replicas", "err", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.busy, r.behind = false, r.laggards.conditions(env.Node.Name)
}

// count counts the queues that lack a replica here.
func (r *replicas) count(env service.Env, all []queue) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.missing = 0
	want := min(len(env.Cluster.Controllers()), maxReplicas)
	for _, q := range all {
		if q.Type == "quorum" && len(q.Members) < want && q.on([]string{env.Node.Name}) == 0 {
			r.missing++
			r.example = q.String()
		}
	}
	if r.looks++; r.missing == 0 {
		r.looks = 0
	}
}
