package etcd

import (
	"context"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"nines/internal/store"
)

func entry(kv *mvccpb.KeyValue) store.Entry {
	return store.Entry{Key: strings.TrimPrefix(string(kv.Key), keysPrefix), Value: kv.Value, Revision: kv.ModRevision}
}

// Watch sends the changes under prefix. It goes on over lost connections and
// elections. It ends early, closing the channel, when the revision to go on from has been
// compacted, and when it starts from now while there is no majority to say what "now" is.
func (c *Client) Watch(ctx context.Context, prefix string, from int64) <-chan store.Event {
	out := make(chan store.Event)
	if from == 0 {
		var err error
		if from, err = c.revision(ctx); err != nil {
			c.log.Debug("watch does not start", "prefix", prefix, "err", err)
			close(out)
			return out
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(c.closed, cancel)
	go func() {
		defer close(out)
		defer stop()
		defer cancel()
		for ctx.Err() == nil {
			next, again := c.follow(ctx, prefix, from, out)
			if !again || !pause(ctx) {
				return
			}
			from = next
		}
	}()
	return out
}

// revision is the store's, now.
func (c *Client) revision(ctx context.Context) (int64, error) {
	r, err := call(ctx, c, "revision", func(ctx context.Context) (*clientv3.GetResponse, error) {
		return c.etcd.Get(ctx, keysPrefix, clientv3.WithCountOnly())
	})
	if err != nil {
		return 0, err
	}
	return r.Header.Revision, nil
}

// follow sends the changes after revision from until the watch ends. It returns the
// last revision that is dealt with and whether to go on from there.
func (c *Client) follow(ctx context.Context, prefix string, from int64, out chan<- store.Event) (int64, bool) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// Without a leader this member would be silent for ever: the watch is then begun anew, elsewhere if possible.
	// Progress notices keep from above the compacted history while nothing under prefix changes.
	watch := c.etcd.Watch(clientv3.WithRequireLeader(ctx), keysPrefix+prefix,
		clientv3.WithPrefix(), clientv3.WithRev(from+1), clientv3.WithProgressNotify())
	for resp := range watch {
		if err := resp.Err(); err != nil {
			if resp.CompactRevision != 0 || err == rpctypes.ErrCompacted {
				c.log.Warn("watch ends: its history is compacted", "prefix", prefix, "revision", from)
				return from, false
			}
			c.log.Debug("watch begins anew", "prefix", prefix, "revision", from, "err", err)
			return from, true
		}
		for _, ev := range resp.Events {
			e := store.Event{Entry: entry(ev.Kv), Deleted: ev.Type == clientv3.EventTypeDelete}
			select {
			case out <- e:
			case <-ctx.Done():
				return from, false
			}
		}
		from = max(from, resp.Header.Revision)
	}
	return from, true
}
