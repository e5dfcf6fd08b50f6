package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"nines/internal/store"
)

const (
	// callTimeout bounds a call whose context has no deadline: two elections that follow each other.
	callTimeout = 5 * time.Second
	// keepAliveTime and keepAliveTimeout: a powered-off endpoint is given up after 4 s, so that
	// the calls after it go to another one.
	keepAliveTime    = 2 * time.Second
	keepAliveTimeout = 2 * time.Second
	// retryPause is between attempts of what is repeated until it works.
	retryPause = 200 * time.Millisecond

	keysPrefix   = "/nines/keys/"
	leasesPrefix = "/nines/leases/"
)

// ClientConfig says how to reach the members.
type ClientConfig struct {
	// Endpoints are ADDRESS:PORT of members' client addresses. On a node that runs a member: that one alone. It
	// forwards to the leader wherever that is, and if it is down so is this node's agent.
	Endpoints []string
	TLS       *tls.Config // with a client certificate
	Log       *slog.Logger
}

// Client is a store.Store on etcd.
type Client struct {
	etcd   *clientv3.Client
	log    *slog.Logger
	closed context.Context // done when Close was called
	close  context.CancelFunc
}

var _ store.Store = (*Client)(nil)

// Connect returns a client. It does not wait for a connection: without a
// majority the calls fail with store.ErrNoQuorum, and work when it is back.
func Connect(cfg ClientConfig) (*Client, error) {
	if len(cfg.Endpoints) == 0 || cfg.TLS == nil || cfg.Log == nil {
		return nil, errors.New("connect to etcd: endpoints, TLS and a logger must be set")
	}
	endpoints := make([]string, 0, len(cfg.Endpoints))
	for _, e := range cfg.Endpoints {
		endpoints = append(endpoints, "https://"+e)
	}
	closed, cancel := context.WithCancel(context.Background())
	c, err := clientv3.New(clientv3.Config{
		Endpoints:            endpoints,
		TLS:                  cfg.TLS,
		DialTimeout:          callTimeout,
		DialKeepAliveTime:    keepAliveTime,
		DialKeepAliveTimeout: keepAliveTimeout,
		Logger:               zap.NewNop(), // what goes wrong is returned
	})
	if err != nil {
		cancel()
		return nil, fmt.Errorf("connect to etcd at %s: %w", strings.Join(cfg.Endpoints, " "), err)
	}
	return &Client{etcd: c, log: cfg.Log, closed: closed, close: cancel}, nil
}

// call runs f with a context that ends with ctx, with Close, and after
// callTimeout if ctx has no deadline, and gives the error its store meaning. A member
// without a leader refuses before it does anything, so the call is repeated.
func call[R any](ctx context.Context, c *Client, what string, f func(ctx context.Context) (R, error)) (R, error) {
	var none R
	attempt, cancel := context.WithCancel(ctx)
	defer cancel()
	if _, ok := ctx.Deadline(); !ok {
		attempt, cancel = context.WithTimeout(attempt, callTimeout)
		defer cancel()
	}
	defer context.AfterFunc(c.closed, cancel)()
	for {
		r, err := f(clientv3.WithRequireLeader(attempt))
		if err == nil {
			return r, nil
		}
		if !errors.Is(err, rpctypes.ErrNoLeader) || !pause(attempt) {
			return none, fmt.Errorf("%s: %w", what, c.explain(ctx, err))
		}
	}
}

// pause waits for retryPause and reports whether ctx still runs.
func pause(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(retryPause):
		return true
	}
}

// explain gives an error of etcd the meaning it has for a store; ctx is the caller's.
func (c *Client) explain(ctx context.Context, err error) error {
	switch {
	case c.closed.Err() != nil:
		return store.ErrClosed
	case errors.Is(ctx.Err(), context.Canceled):
		return ctx.Err()
	case errors.Is(err, context.DeadlineExceeded), unavailable(err):
		return fmt.Errorf("%w (%w)", store.ErrNoQuorum, err)
	default:
		return err
	}
}

// unavailable reports whether no member could be asked, or none that has a leader.
func unavailable(err error) bool {
	code := status.Code(err)
	var known rpctypes.EtcdError
	if errors.As(err, &known) {
		code = known.Code()
	}
	return code == codes.Unavailable || code == codes.DeadlineExceeded
}

// Get returns the entry of key, as the majority has it now.
func (c *Client) Get(ctx context.Context, key string) (store.Entry, error) {
	what := "get " + key
	r, err := call(ctx, c, what, func(ctx context.Context) (*clientv3.GetResponse, error) {
		return c.etcd.Get(ctx, keysPrefix+key)
	})
	if err != nil {
		return store.Entry{}, err
	}
	if len(r.Kvs) == 0 {
		return store.Entry{}, fmt.Errorf("%s: %w", what, store.ErrNotFound)
	}
	return entry(r.Kvs[0]), nil
}

// List returns the entries under prefix, sorted by key.
func (c *Client) List(ctx context.Context, prefix string) ([]store.Entry, error) {
	r, err := call(ctx, c, "list "+prefix, func(ctx context.Context) (*clientv3.GetResponse, error) {
		return c.etcd.Get(ctx, keysPrefix+prefix, clientv3.WithPrefix()) // sorted by key
	})
	if err != nil {
		return nil, err
	}
	out := make([]store.Entry, 0, len(r.Kvs))
	for _, kv := range r.Kvs {
		out = append(out, entry(kv))
	}
	return out, nil
}

// Put writes key if it is still at revision.
func (c *Client) Put(ctx context.Context, key string, value []byte, revision int64) (int64, error) {
	return c.write(ctx, "put "+key, clientv3.OpPut(keysPrefix+key, string(value)), at(key, revision))
}

// PutFenced is Put under a lease that must still be held with that fence.
func (c *Client) PutFenced(ctx context.Context, name string, fence store.Fence, key string, value []byte, revision int64) (int64, error) {
	what := "put " + key + " under lease " + name
	if fence <= 0 { // etcd takes 0 for "does not exist"
		if err := ctx.Err(); err != nil {
			return 0, fmt.Errorf("%s: %w", what, err)
		}
		return 0, fmt.Errorf("%s: %w", what, store.ErrFenced)
	}
	held := clientv3.Compare(clientv3.CreateRevision(leasesPrefix+name), "=", int64(fence))
	r, err := call(ctx, c, what, func(ctx context.Context) (*clientv3.TxnResponse, error) {
		return c.etcd.Txn(ctx).If(append(at(key, revision), held)...).
			Then(clientv3.OpPut(keysPrefix+key, string(value))).
			Else(clientv3.OpGet(leasesPrefix + name)).Commit()
	})
	if err != nil {
		return 0, err
	}
	if r.Succeeded {
		return r.Header.Revision, nil
	}
	if kvs := r.Responses[0].GetResponseRange().Kvs; len(kvs) == 0 || kvs[0].CreateRevision != int64(fence) {
		return 0, fmt.Errorf("%s: %w", what, store.ErrFenced)
	}
	return 0, fmt.Errorf("%s: %w", what, store.ErrConflict)
}

// Delete removes key if it is still at revision.
func (c *Client) Delete(ctx context.Context, key string, revision int64) error {
	what := "delete " + key
	r, err := call(ctx, c, what, func(ctx context.Context) (*clientv3.TxnResponse, error) {
		return c.etcd.Txn(ctx).If(at(key, revision)...).Then(clientv3.OpDelete(keysPrefix + key)).Commit()
	})
	switch {
	case err != nil:
		return err
	case !r.Succeeded:
		return fmt.Errorf("%s: %w", what, store.ErrConflict)
	case r.Responses[0].GetResponseDeleteRange().Deleted == 0:
		return fmt.Errorf("%s: %w", what, store.ErrNotFound)
	}
	return nil
}

func (c *Client) write(ctx context.Context, what string, op clientv3.Op, conditions []clientv3.Cmp) (int64, error) {
	r, err := call(ctx, c, what, func(ctx context.Context) (*clientv3.TxnResponse, error) {
		return c.etcd.Txn(ctx).If(conditions...).Then(op).Commit()
	})
	if err != nil {
		return 0, err
	}
	if !r.Succeeded {
		return 0, fmt.Errorf("%s: %w", what, store.ErrConflict)
	}
	return r.Header.Revision, nil
}

// at is the condition that key is still at revision. A missing key is at revision 0.
func at(key string, revision int64) []clientv3.Cmp {
	if revision == store.Any {
		return nil
	}
	return []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(keysPrefix+key), "=", revision)}
}

// Close ends every watch, campaign and connection. Leases are lost; who wants
// to hand one over at once resigns before.
func (c *Client) Close() error {
	c.close()
	if err := c.etcd.Close(); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("close the connection to etcd: %w", err)
	}
	return nil
}
