package agent

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"nines/internal/api"
	"nines/internal/model"
)

func TestLooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		ask := func(_ context.Context, c *model.Cluster, _ api.Look) []api.NodeStatus {
			asked.Add(1)
			return make([]api.NodeStatus, len(c.Nodes))
		}
		var l looks
		want := func(n int64) {
			t.Helper()
			if got := asked.Swap(0); got != n {
				t.Fatalf("asked %d times, want %d", got, n)
			}
		}
		three := &model.Cluster{Nodes: make([]model.Node, 3)}
		look := func(ctx context.Context, c *model.Cluster, old time.Duration) {
			t.Helper()
			if n := len(l.last(ctx, c, old, ask)); n != len(c.Nodes) {
				t.Fatalf("%d nodes, want %d", n, len(c.Nodes))
			}
		}
		ctx := t.Context()

		var wg sync.WaitGroup
		for range 4 { // at once: one asks, all have it
			wg.Go(func() { l.last(ctx, three, 2*time.Second, ask) })
		}
		wg.Wait()
		want(1)
		time.Sleep(time.Second)
		look(ctx, three, 2*time.Second)
		want(0)
		look(ctx, three, time.Second) // too old for this one
		want(1)
		look(ctx, three, 0) // before a deed: as it is now
		look(ctx, three, 0)
		want(2)
		look(ctx, &model.Cluster{Nodes: make([]model.Node, 4)}, time.Minute) // a node has come
		want(1)
		gone, cancel := context.WithCancel(ctx)
		cancel()
		time.Sleep(time.Second)
		look(gone, three, 0)
		look(ctx, three, time.Minute) // what a leader of the past found out at its end is nothing to go by
		want(2)

		slow := func(ctx context.Context, c *model.Cluster, look api.Look) []api.NodeStatus {
			time.Sleep(3 * time.Second) // a dead machine
			return ask(ctx, c, look)[:1]
		}
		wg.Go(func() { l.last(ctx, three, 0, slow) })
		time.Sleep(time.Second)
		look(ctx, three, 0) // waits for nobody
		want(1)
		wg.Wait()
		want(1)
		look(ctx, three, time.Minute) // what began later is the last
		want(0)
	})
}
