// Package agent is the nines process of one node: it observes its node, does the ops
// it is given, answers health checks, embeds etcd on controllers, and, while it
// holds the lease, leads the cluster.
//
// Invariants: it acts only on ops whose fence is the present leader's; its health port
// answers from the last observation and never waits for a service; nothing it does
// depends on the CLI staying connected. It must never know one service from another:
// what differs stands in the services' own folders.
package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"nines/internal/api"
	"nines/internal/converge"
	"nines/internal/etcd"
	"nines/internal/host"
	"nines/internal/model"
	"nines/internal/node"
	"nines/internal/service"
	"nines/internal/stale"
	"nines/internal/store"
)

// Options of an Agent.
type Options struct {
	Config   model.AgentConfig
	Services []service.Service
	Host     host.Host
	// Guard says what the VIP guard file should hold; see model.PathVIPFile.
	Guard   func(quorum bool, seen map[string]service.Observation) (content, reason string)
	Server  *tls.Config // of the API and the health port
	Client  *tls.Config // towards other agents and etcd
	Key     []byte      // age identity that opens the cluster's secrets
	Version string
	Log     *slog.Logger
}

// Agent is one node's process.
type Agent struct {
	Options
	started  time.Time
	executor *node.Executor
	peers    *api.Client
	cache    *cache
	watch    *watchers
	frozen   *frozen
	shapes   *shapes
	secrets  *secrets
	disks    *disks
	binary   func() string
	known    atomic.Pointer[timedVersion]
	exit     context.CancelCauseFunc // ends Run, for a new executable

	member atomic.Pointer[etcd.Server] // nil on nodes that are no controllers, and until it has started
	store  atomic.Pointer[etcd.Client] // nil until it has been opened
	leader atomic.Pointer[leadership]
	spec   atomic.Pointer[model.Cluster] // nil while it is not known
	life   context.Context

	duplicates duplicates
	ears       stale.Ears
	aside      *aside
	outside    outside
	yielded    time.Time // when this node gave the lead up last; of the goroutine that campaigns
	looks      looks
}

// ErrNewBinary is why Run ends after an upgrade: systemd starts the new executable.
var ErrNewBinary = errors.New("a new executable was installed")

// New wires an agent; nothing runs yet.
func New(o Options) *Agent {
	a := &Agent{Options: o, started: time.Now()}
	a.duplicates.others, a.duplicates.announce = othersByARP, a.announce
	a.aside = newAside()
	a.cache = &cache{dir: model.PathState}
	a.peers = api.NewClient(o.Client, nil)
	a.secrets = &secrets{key: o.Key, cache: a.cache}
	a.disks = &disks{host: o.Host}
	a.watch = newWatchers(o.Services, a.env, o.Log)
	a.frozen = newFrozen(o.Services, o.Host, a.watch, o.Log)
	a.watch.stopped = a.frozen.standsStill
	a.shapes = &shapes{services: o.Services}
	a.executor = node.New(node.Options{Host: o.Host, Services: o.Services, Node: model.Node{Name: o.Config.Node}, StateDir: model.PathState, Log: o.Log})
	a.binary = sync.OnceValue(executableHash)
	return a
}

// Run serves until ctx ends. ready is called once when the node's ports answer.
func (a *Agent) Run(ctx context.Context, ready func()) error {
	ctx, exit := context.WithCancelCause(ctx)
	defer exit(nil)
	a.exit, a.life = exit, ctx
	defer a.peers.Close()

	if c, err := a.cache.spec(); err == nil {
		a.follow(ctx, c) // before etcd answers: health checks must not wait for it
	}
	stop, err := a.listen()
	if err != nil {
		return err
	}
	defer stop()
	ready()

	var wg sync.WaitGroup
	wg.Go(func() { a.guardVIP(ctx) })
	wg.Go(func() { a.measureDisks(ctx) })
	wg.Go(func() { a.endStale(ctx) })
	wg.Go(func() { a.heedAll(ctx) })
	wg.Go(func() { a.frozen.run(ctx, a.env) })
	wg.Go(func() { a.watchDuplicates(ctx) })
	wg.Go(func() { a.watchOutside(ctx) })
	wg.Go(func() {
		if err := a.coordinate(ctx); err != nil && ctx.Err() == nil {
			exit(err)
		}
	})
	<-ctx.Done()
	a.Log.Info("stopping", "why", context.Cause(ctx))
	wg.Wait()
	a.watch.stop()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

// coordinate brings up etcd and follows the cluster until ctx ends.
func (a *Agent) coordinate(ctx context.Context) error {
	s, err := a.openStore(ctx)
	if err != nil {
		return err
	}
	a.store.Store(s)
	a.secrets.use(s)
	ctx, cancel := context.WithCancel(ctx)
	defer func() {
		if err := s.Close(); err != nil {
			a.Log.Debug("close store", "err", err)
		}
		if m := a.member.Load(); m != nil {
			if err := m.Close(); err != nil {
				a.Log.Debug("close etcd", "err", err)
			}
		}
	}()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { a.followSpec(ctx, s) })
	wg.Go(func() { a.followSecrets(ctx, s) })
	if m := a.member.Load(); m != nil {
		wg.Go(func() { a.campaign(ctx, s) })
		return m.Wait(ctx)
	}
	<-ctx.Done()
	return nil
}

// openStore starts this node's member of etcd, if it is a controller, and connects.
func (a *Agent) openStore(ctx context.Context) (*etcd.Client, error) {
	members := map[string]string{}
	var endpoints []string
	for _, m := range a.Config.Members {
		members[m.Name] = "https://" + netip.AddrPortFrom(m.Address, model.PortEtcdPeer).String()
		endpoints = append(endpoints, netip.AddrPortFrom(m.Address, model.PortEtcdClient).String())
	}
	if a.Config.Controller {
		own := netip.AddrPortFrom(a.Config.Address, model.PortEtcdClient)
		server, err := etcd.StartServer(ctx, etcd.ServerConfig{
			Name: a.Config.Node, Dir: filepath.Join(model.PathState, "etcd"),
			ClientAddr: own, PeerAddr: netip.AddrPortFrom(a.Config.Address, model.PortEtcdPeer),
			Members: members, ClusterToken: a.Config.ClusterID,
			CAFile: model.PathCA, CertFile: model.PathCert, KeyFile: model.PathKey, Log: a.Log,
		})
		if err != nil {
			return nil, fmt.Errorf("start etcd: %w", err)
		}
		a.member.Store(server)
		endpoints = []string{own.String()}
	}
	s, err := etcd.Connect(etcd.ClientConfig{Endpoints: endpoints, TLS: a.Client, Log: a.Log})
	if err != nil {
		return nil, fmt.Errorf("connect to etcd: %w", err)
	}
	return s, nil
}

// openedStore returns the store, or an error while etcd is not up yet.
func (a *Agent) openedStore() (*etcd.Client, error) {
	if s := a.store.Load(); s != nil {
		return s, nil
	}
	return nil, &api.Error{Status: 503, Code: api.CodeNoLeader, Text: "etcd is starting on " + a.Config.Node, Next: "try again in a few seconds"}
}

// env is what services may use on this node for the given spec.
func (a *Agent) env(c *model.Cluster) (service.Env, error) {
	n, ok := c.Node(a.Config.Node)
	if !ok {
		return service.Env{}, fmt.Errorf("node %s is not in cluster %s any more", a.Config.Node, c.Name)
	}
	return service.Env{Host: a.Host, Cluster: c, Node: n, Secrets: a.secrets, Log: a.Log}, nil
}

// followSpec keeps the node's view of the cluster current: which services to observe.
func (a *Agent) followSpec(ctx context.Context, s store.Store) {
	keepUp(ctx, s, converge.KeySpec, func() error {
		c, err := converge.LastSpec(ctx, s)
		if errors.Is(err, converge.ErrNoApply) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := a.cache.saveSpec(c); err != nil {
			a.Log.Warn("cannot keep the spec for the next start", "err", err)
		}
		a.follow(ctx, c)
		return nil
	})
}

// follow takes up the cluster as it is known now.
func (a *Agent) follow(ctx context.Context, c *model.Cluster) {
	a.spec.Store(c)
	a.watch.follow(ctx, c)
	a.frozen.follow(c)
	a.dropAuthority(c)
}

// followSecrets keeps the secrets current that services need to be observed.
func (a *Agent) followSecrets(ctx context.Context, s store.Store) {
	keepUp(ctx, s, converge.KeySecrets, func() error {
		_, err := a.secrets.refresh(ctx)
		return err
	})
}

// keepUp calls read at first and after every change of the key, until ctx ends. It watches
// before it reads, so that no change is missed; a read that fails is tried again.
func keepUp(ctx context.Context, s store.Store, key string, read func() error) {
	for ctx.Err() == nil {
		changes := s.Watch(ctx, key, 0)
		for read() != nil {
			if !pause(ctx, time.Second) {
				return
			}
		}
		for range changes {
			for read() != nil {
				if !pause(ctx, time.Second) {
					return
				}
			}
		}
	}
}

// pause waits, or returns false when ctx ends first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
