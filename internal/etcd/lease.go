package etcd

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"nines/internal/store"
)

const (
	// leaseTTL: etcd's floor is 1.5 elections, 2 s here, but a lease that short is lost in every election
	// of an etcd leader (1-2 s, and the first commit). 5 s outlives an election and one lost keepalive.
	// It is how long nobody leads after the leader's machine died; what clients feel does not wait for it.
	leaseTTL = 5 * time.Second
	// leaseMargin is how much earlier than etcd the holder gives the lease up: for clocks that run at
	// different rates and for the time it takes to notice.
	leaseMargin = 500 * time.Millisecond
	// leaseRenewal: four chances before the lease is lost.
	leaseRenewal = time.Second
)

// lease is held leadership: the key leasesPrefix+name, bound to an etcd lease.
// Its create revision is the fence: it exists from the moment of winning until the lease ends.
type lease struct {
	client *Client
	name   string
	id     clientv3.LeaseID
	fence  store.Fence
	once   sync.Once
	lost   chan struct{}
}

// Campaign waits for the lease of that name. Without a majority it goes on trying.
func (c *Client) Campaign(ctx context.Context, name, holder string) (store.Lease, error) {
	for {
		l, taken, err := c.win(ctx, name, holder)
		if l != nil {
			return l, nil
		}
		if err == nil {
			err = c.awaitRelease(ctx, name, taken)
		}
		switch {
		case c.closed.Err() != nil:
			return nil, fmt.Errorf("campaign for %s: %w", name, store.ErrClosed)
		case ctx.Err() != nil:
			return nil, fmt.Errorf("campaign for %s: %w", name, ctx.Err())
		case err != nil && !errors.Is(err, store.ErrNoQuorum):
			return nil, fmt.Errorf("campaign for %s: %w", name, err)
		case err != nil:
			c.log.Debug("campaign goes on", "lease", name, "err", err)
			pause(ctx)
		}
	}
}

// win takes the lease if it is free. If it is not, it returns the revision at which that was seen.
func (c *Client) win(ctx context.Context, name, holder string) (*lease, int64, error) {
	key := leasesPrefix + name
	// Who waits holds no etcd lease that would have to be kept alive: look first.
	seen, err := call(ctx, c, "look at lease "+name, func(ctx context.Context) (*clientv3.GetResponse, error) {
		return c.etcd.Get(ctx, key)
	})
	if err != nil {
		return nil, 0, err
	}
	if len(seen.Kvs) > 0 {
		return nil, seen.Header.Revision, nil
	}
	granted, err := call(ctx, c, "grant lease "+name, func(ctx context.Context) (*clientv3.LeaseGrantResponse, error) {
		return c.etcd.Grant(ctx, int64(leaseTTL/time.Second))
	})
	if err != nil {
		return nil, 0, err
	}
	asked := time.Now()
	// The grant may be old by now: make sure of a whole TTL, counted from before the question.
	won, err := call(ctx, c, "take lease "+name, func(ctx context.Context) (*clientv3.TxnResponse, error) {
		if _, err := c.etcd.KeepAliveOnce(ctx, granted.ID); err != nil {
			return nil, err
		}
		return c.etcd.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision(key), "=", 0)).
			Then(clientv3.OpPut(key, holder, clientv3.WithLease(granted.ID))).Commit()
	})
	if err != nil || !won.Succeeded {
		// It may have been won without the answer reaching us: take it back.
		c.revoke(granted.ID)
	}
	if err != nil {
		return nil, 0, err
	}
	if !won.Succeeded {
		return nil, won.Header.Revision, nil
	}
	l := &lease{client: c, name: name, id: granted.ID, fence: store.Fence(won.Header.Revision), lost: make(chan struct{})}
	go l.keep(asked.Add(leaseTTL - leaseMargin))
	return l, 0, nil
}

// revoke ends an etcd lease as well as it can; what fails runs out by itself.
func (c *Client) revoke(id clientv3.LeaseID) {
	ctx, cancel := context.WithTimeout(c.closed, time.Second)
	defer cancel()
	if _, err := c.etcd.Revoke(ctx, id); err != nil {
		c.log.Debug("lease is left to run out", "id", int64(id), "err", err)
	}
}

// awaitRelease returns when the lease, seen taken at that revision, may be free.
func (c *Client) awaitRelease(ctx context.Context, name string, revision int64) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.closed, cancel)()
	watch := c.etcd.Watch(clientv3.WithRequireLeader(ctx), leasesPrefix+name, clientv3.WithRev(revision+1), clientv3.WithFilterPut())
	for resp := range watch {
		if err := resp.Err(); err != nil {
			pause(ctx)
			return nil // look again
		}
		if len(resp.Events) > 0 {
			return nil
		}
	}
	return nil
}

// Holder says who holds the lease of that name.
func (c *Client) Holder(ctx context.Context, name string) (string, store.Fence, error) {
	what := "holder of " + name
	r, err := call(ctx, c, what, func(ctx context.Context) (*clientv3.GetResponse, error) {
		return c.etcd.Get(ctx, leasesPrefix+name)
	})
	if err != nil {
		return "", 0, err
	}
	if len(r.Kvs) == 0 {
		return "", 0, fmt.Errorf("%s: %w", what, store.ErrNotFound)
	}
	return string(r.Kvs[0].Value), store.Fence(r.Kvs[0].CreateRevision), nil
}

func (l *lease) Fence() store.Fence    { return l.fence }
func (l *lease) Lost() <-chan struct{} { return l.lost }

func (l *lease) end() { l.once.Do(func() { close(l.lost) }) }

// keep renews the lease until it is lost. etcd counts the TTL from when it got the
// keepalive, which is after it was sent: counting from the sending is safe.
func (l *lease) keep(deadline time.Time) {
	defer l.end()
	expiry := time.NewTimer(time.Until(deadline))
	defer expiry.Stop()
	for pause := leaseRenewal; ; {
		select {
		case <-l.lost: // resigned
			return
		case <-l.client.closed.Done():
			return
		case <-expiry.C:
			l.client.log.Warn("lease is lost: the majority could not be reached in time", "lease", l.name, "fence", l.fence)
			return
		case <-time.After(pause):
		}
		sent := time.Now()
		err := l.renew(deadline)
		switch {
		case errors.Is(err, rpctypes.ErrLeaseNotFound):
			l.client.log.Warn("lease is lost: it ran out or was taken away", "lease", l.name, "fence", l.fence)
			return
		case err != nil:
			pause = retryPause
		default:
			pause, deadline = leaseRenewal, sent.Add(leaseTTL-leaseMargin)
			expiry.Reset(time.Until(deadline))
		}
	}
}

// renew asks once; it gives up at the deadline, so that the loss is told in time.
func (l *lease) renew(deadline time.Time) error {
	ctx, cancel := context.WithDeadline(l.client.closed, deadline)
	defer cancel()
	ctx, cancel = context.WithTimeout(ctx, leaseRenewal)
	defer cancel()
	_, err := l.client.etcd.KeepAliveOnce(ctx, l.id)
	return err
}

// Resign gives the lease up: others may win at once.
func (l *lease) Resign(ctx context.Context) error {
	select {
	case <-l.lost:
		return nil
	default:
	}
	l.end() // before others can win
	_, err := call(ctx, l.client, "resign "+l.name, func(ctx context.Context) (*clientv3.LeaseRevokeResponse, error) {
		return l.client.etcd.Revoke(ctx, l.id)
	})
	if errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return nil
	}
	return err
}
