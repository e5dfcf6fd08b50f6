package rabbitmq

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"time"

	"nines/internal/health"
	"nines/internal/service"
)

// A replica of a quorum queue can come to take nothing from its leader any more, for good. Ra before 2.15.2 has one that led without a
// majority apply entries of its own that were never committed, and it refuses the leader's for the same places ever after ("term mismatch", twice
// a minute; rabbitmq/ra 508, rabbitmq-server 14675). A start of the broker reads the same log again. Consumers that are connected to its node are
// given their messages by it, so they get none, while every health check passes. What it has is worth nothing: the others have all that is
// committed. So it is removed from the queue and added anew, empty.

// laggards keeps what was seen of this node's replicas that were not up to date. It is used by one look at a time.
type laggards struct {
	lags  map[string]lag // by queue
	tried map[string]time.Time
	next  int               // the queue with which the next look begins
	found map[string]string // by queue: what stands still and was not mended, until it is seen to move
}

// lag is a replica that has not applied all that is committed: how far it was when that was first seen, and how far its leader.
type lag struct{ applied, committed index }

const (
	// laggardsAtOnce bounds what one look costs: each queue is a request, and one more from broker to broker for each replica.
	laggardsAtOnce = 100
	// laggardAgain is when a replica that was seen to stand still is looked at once more.
	laggardAgain = 2 * time.Second
	// laggardTries lies between two tries to make the same replica anew.
	laggardTries = 15 * time.Minute
	mendLimit    = time.Minute
)

// index is a place in a queue's log; -1: not told.
type index int64

// UnmarshalJSON implements json.Unmarshaler: who does not answer has no numbers.
func (i *index) UnmarshalJSON(b []byte) error {
	var n int64
	if json.Unmarshal(b, &n) != nil {
		n = -1
	}
	*i = index(n)
	return nil
}

// replica is how far one is, as RabbitMQ tells it.
type replica struct {
	Node      string `json:"Node Name"` // "rabbit@ctl1"
	State     string `json:"Raft State"`
	Applied   index  `json:"Last Applied"`
	Committed index  `json:"Commit Index"`
}

func (q queue) path() string {
	return "queues/quorum/" + url.PathEscape(q.VHost) + "/" + url.PathEscape(q.Name)
}

func (q queue) String() string { return q.Name + " in " + q.VHost }

// replicasOf asks how far each replica of a queue is.
func (c *client) replicasOf(ctx context.Context, q queue) ([]replica, error) {
	var out []replica
	return out, c.call(ctx, http.MethodGet, q.path()+"/status", nil, &out)
}

// renewReplica makes the replica of a node anew. If only the first half is done RabbitMQ does the other one within five minutes.
func (c *client) renewReplica(ctx context.Context, q queue, node string) error {
	who := map[string]string{"node": node}
	if err := c.call(ctx, http.MethodDelete, q.path()+"/replicas/delete", who, nil); err != nil {
		return err
	}
	return c.call(ctx, http.MethodPost, q.path()+"/replicas/add", who, nil)
}

// stands reports whether the replica of a node stands still while its queue goes on, given what was seen of it before, and whether all other replicas
// are up to date, so that it can be spared. now is what is to be remembered; the zero value: nothing. Pure.
func stands(before lag, all []replica, node string) (now lag, still, spare bool) {
	var own, leader *replica
	for i := range all {
		switch r := &all[i]; {
		case r.Node == node:
			own = r
		case r.State == "leader":
			leader = r
		}
	}
	if own == nil || leader == nil || own.Applied < 0 || own.Applied >= leader.Committed {
		return lag{}, false, false
	}
	if before == (lag{}) || own.Applied != before.applied {
		return lag{own.Applied, leader.Committed}, false, false
	}
	spare = len(all) >= 3
	for _, r := range all {
		spare = spare && (r.Node == node || r.Applied >= before.committed)
	}
	return before, leader.Committed > before.committed, spare
}

// look looks at this node's replicas, at most laggardsAtOnce of them, and has those made anew that stand still.
func (g *laggards) look(ctx context.Context, env service.Env, api *client, all []queue) error {
	node := "rabbit@" + env.Node.Name
	var own []queue
	for _, q := range all {
		if q.Type == "quorum" && q.Leader != node && slices.Contains(q.Members, node) {
			own = append(own, q)
		}
	}
	g.prune(own)
	var suspects []queue
	for range min(len(own), laggardsAtOnce) {
		g.next = (g.next + 1) % len(own)
		still, _, err := g.see(ctx, api, own[g.next], node)
		if err != nil {
			return err
		}
		if still {
			suspects = append(suspects, own[g.next])
		}
	}
	if len(suspects) == 0 {
		return nil
	}
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(laggardAgain):
	}
	for _, q := range suspects {
		still, spare, err := g.see(ctx, api, q, node)
		if err != nil {
			return err
		}
		if still && !g.mend(ctx, env, api, q, node, spare) {
			g.found[q.path()] = q.String()
		}
	}
	return nil
}

// prune forgets what is remembered of queues that are no more.
func (g *laggards) prune(own []queue) {
	lags, found := map[string]lag{}, map[string]string{}
	for _, q := range own {
		if l, ok := g.lags[q.path()]; ok {
			lags[q.path()] = l
		}
		if name, ok := g.found[q.path()]; ok {
			found[q.path()] = name
		}
	}
	g.lags, g.found = lags, found
}

// see asks for a queue's replicas, and remembers what is to be. A queue that is just not there, or gives no answer, is none that stands still.
func (g *laggards) see(ctx context.Context, api *client, q queue, node string) (still, spare bool, err error) {
	all, err := api.replicasOf(ctx, q)
	if refusal := new(statusError); errors.As(err, &refusal) {
		return false, false, nil
	}
	if err != nil {
		return false, false, err
	}
	now, still, spare := stands(g.lags[q.path()], all, node)
	if now == (lag{}) {
		delete(g.lags, q.path())
	} else {
		g.lags[q.path()] = now
	}
	if !still {
		delete(g.found, q.path())
	}
	return still, spare, nil
}

// mend makes a replica anew, and reports whether that was done.
func (g *laggards) mend(ctx context.Context, env service.Env, api *client, q queue, node string, spare bool) bool {
	maps.DeleteFunc(g.tried, func(_ string, at time.Time) bool { return time.Since(at) > laggardTries })
	if _, lately := g.tried[q.path()]; lately || !spare {
		return false
	}
	if g.tried == nil {
		g.tried = map[string]time.Time{}
	}
	g.tried[q.path()] = time.Now()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), mendLimit)
	defer cancel()
	if err := api.renewReplica(ctx, q, node); err != nil {
		env.Log.Warn("cannot make a replica anew that takes nothing from its leader", "queue", q, "err", err)
		return false
	}
	env.Log.Warn("a replica here took nothing from its leader any more: made anew from the others", "queue", q, "applied", g.lags[q.path()].applied)
	delete(g.lags, q.path())
	delete(g.found, q.path())
	return true
}

// conditions tells what stands still and was not mended.
func (g *laggards) conditions(node string) []health.Condition {
	if len(g.found) == 0 {
		return nil
	}
	example := slices.Min(slices.Collect(maps.Values(g.found)))
	return []health.Condition{{Code: "rabbitmq-replica-behind", Severity: health.Critical,
		Text: fmt.Sprintf("%d of the replicas on %s take nothing from their leaders any more, such as that of %s: consumers connected there get no messages from them", len(g.found), node, example),
		Hint: "nines makes one anew, at most each 15 minutes, while all other replicas of its queue are up to date: see that they are ('rabbitmq-queues quorum_status')"}}
}
