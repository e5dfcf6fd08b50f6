package etcd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/server/v3/embed"
	"google.golang.org/grpc"
)

// Errors of StartServer.
var (
	// ErrLostState: the member's history is gone while the cluster still counts on it.
	ErrLostState = errors.New("this member has taken part in the cluster before and its data is gone")
	// ErrForeign: the data belongs to another cluster or another member.
	ErrForeign = errors.New("the data belongs to another cluster")
)

// ServerConfig describes one embedded member.
type ServerConfig struct {
	Name string // of this member: a key of Members
	// Dir holds etcd's data. Next to it, in Dir + ".member.json", stands who this member is: it
	// outlives the data, so that a member with lost data is not taken for a new one.
	Dir        string
	ClientAddr netip.AddrPort // the only address clients are served on: the node's management address
	PeerAddr   netip.AddrPort // the only address members are served on
	// Members maps every initial member to its peer URL, https://ADDRESS:PORT. Ignored by a member that has data.
	Members map[string]string
	// ClusterToken tells clusters apart: it is part of the cluster's and the members' IDs.
	ClusterToken string
	// CAFile, CertFile and KeyFile (PEM) authenticate this node to members and clients and
	// these to it. They are read anew for every connection: no restart when they are renewed.
	CAFile, CertFile, KeyFile string
	Log                       *slog.Logger `json:"-"`
}

// Server is a running member.
type Server struct {
	etcd   *embed.Etcd
	quorum *quorum
	log    *slog.Logger
	stop   context.CancelFunc
}

// StartServer starts the member and returns as soon as it listens: it does not wait
// for the others (Ready tells). Fails with ErrLostState or ErrForeign rather than
// joining with a wrong history. After an error the process is expected to end: etcd
// leaves files and ports open.
func StartServer(ctx context.Context, cfg ServerConfig) (*Server, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("start etcd: %w", err)
	}
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("start etcd: %w", err)
	}
	if err := checkIdentity(cfg); err != nil {
		return nil, fmt.Errorf("start etcd in %s: %w", cfg.Dir, err)
	}
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	e, err := start(cfg.embed(running))
	if err != nil {
		stop()
		return nil, fmt.Errorf("start etcd in %s: %w", cfg.Dir, explain(err))
	}
	s := &Server{etcd: e, log: cfg.Log, stop: stop}
	if err := recordIdentity(cfg); err != nil {
		return nil, errors.Join(fmt.Errorf("start etcd: %w", err), s.Close())
	}
	s.quorum, err = newQuorum(cfg, e.Server)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start etcd: %w", err), s.Close())
	}
	s.quorum.start(running)
	return s, nil
}

// start turns the panics etcd ends in when it meets damaged files into an error.
func start(cfg *embed.Config) (e *embed.Etcd, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("etcd cannot use its data: %v", r)
		}
	}()
	return embed.StartEtcd(cfg)
}

// explain gives etcd's errors a name and a way out.
func explain(err error) error {
	if strings.Contains(err.Error(), "has already been bootstrapped") {
		return fmt.Errorf("%w (%w): remove the member from the cluster and add it again, do not start it empty", ErrLostState, err)
	}
	return err
}

func (c ServerConfig) validate() error {
	switch {
	case c.Members[c.Name] == "":
		return fmt.Errorf("member %q is not among the members %v", c.Name, slices.Sorted(maps.Keys(c.Members)))
	case !c.ClientAddr.IsValid() || !c.PeerAddr.IsValid():
		return errors.New("the client and the peer address must be set")
	case c.ClientAddr.Addr().IsUnspecified() || c.PeerAddr.Addr().IsUnspecified():
		return errors.New("it must listen on the management address alone, not on every address")
	case c.CAFile == "" || c.CertFile == "" || c.KeyFile == "":
		return errors.New("TLS files must be set: consensus is never spoken in the clear")
	case c.ClusterToken == "":
		return errors.New("the cluster token must be set: without it two clusters could mix")
	case c.Log == nil:
		return errors.New("a logger must be set")
	}
	for name, peer := range c.Members {
		if u, err := url.Parse(peer); err != nil || u.Scheme != "https" {
			return fmt.Errorf("peer URL %q of %s must be https://ADDRESS:PORT", peer, name)
		}
	}
	return nil
}

// embed is the configuration of etcd; what is not set here is etcd's default.
func (c ServerConfig) embed(running context.Context) *embed.Config {
	e := embed.NewConfig()
	e.Name, e.Dir = c.Name, c.Dir
	c.listen(e)
	limits(e)

	// Election 1 s (a follower waits 1-2 s): etcd's default, ten times the
	// round trip of a slow local network and the pause of a busy two-core machine. A shorter one
	// wins little (the VIP does not wait for etcd) and loses leaders to a slow disk. Heartbeats each 200 ms, the fewest
	// that etcd allows with it: a member at rest took 0.8-1.0 % of a core, with the default of 100 ms 0.9-1.1 % (BenchmarkRest, twice each).
	e.TickMs, e.ElectionMs = 200, 1000
	// A member that was cut off must not depose the leader when it comes back.
	e.PreVote = true
	e.StrictReconfigCheck = true
	e.UnsafeNoFsync = false

	// "new" is right for an empty directory only, and looked at then only: etcd takes the membership from its
	// write-ahead log once there is one. A member added later will say "existing".
	e.ClusterState = embed.ClusterStateFlagNew
	if hasData(c.Dir) {
		e.ClusterState = embed.ClusterStateFlagExisting
	}
	e.InitialClusterToken = c.ClusterToken
	var members []string
	for _, name := range slices.Sorted(maps.Keys(c.Members)) {
		members = append(members, name+"="+c.Members[name])
	}
	e.InitialCluster = strings.Join(members, ",")

	e.AuthToken = ""            // certificates say who may talk: no passwords, no tokens
	e.EnableGRPCGateway = false // the REST copy of the API: nobody uses it
	e.EnablePprof = false
	e.Metrics = "basic" // no histograms; served to authenticated clients only
	e.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zapLogger(running, c.Log))
	e.LogLevel = "warn"

	// A dead client is noticed, and its watches are freed, in half a minute, not two hours.
	e.GRPCKeepAliveInterval, e.GRPCKeepAliveTimeout = 20*time.Second, 10*time.Second
	e.GRPCKeepAliveMinTime = keepAliveTime / 2 // below what our own clients send
	e.GRPCAdditionalServerOptions = []grpc.ServerOption{endStreams(running)}
	return e
}

func (c ServerConfig) listen(e *embed.Config) {
	https := func(a netip.AddrPort) []url.URL { return []url.URL{{Scheme: "https", Host: a.String()}} }
	e.ListenClientUrls, e.AdvertiseClientUrls = https(c.ClientAddr), https(c.ClientAddr)
	e.ListenPeerUrls = https(c.PeerAddr)
	own, _ := url.Parse(c.Members[c.Name]) // validated
	e.AdvertisePeerUrls = []url.URL{*own}
	tls := transport.TLSInfo{CertFile: c.CertFile, KeyFile: c.KeyFile, TrustedCAFile: c.CAFile, ClientCertAuth: true}
	e.ClientTLSInfo, e.PeerTLSInfo = tls, tls
	e.TlsMinVersion = "TLS1.3" // both ends are this program
}

// limits keeps a member small: the state of a cluster is a few thousand keys of a few KiB.
func limits(e *embed.Config) {
	e.QuotaBackendBytes = 256 << 20
	// One hour of history: enough for a watch to resume after any hiccup.
	e.AutoCompactionMode, e.AutoCompactionRetention = embed.CompactorModePeriodic, "1h"
	// The raft log is held in memory between snapshots, with whole values. 500 entries let a
	// member that was away for a moment catch up without the whole state, which is small anyway.
	e.SnapshotCount, e.SnapshotCatchUpEntries = 1000, 500
	e.MaxSnapFiles, e.MaxWalFiles = 2, 2
	e.MaxConcurrentStreams = 4096
}

// endStreams ends the watches of clients when this member stops: etcd would
// wait seven seconds for them.
func endStreams(running context.Context) grpc.ServerOption {
	return grpc.ChainStreamInterceptor(func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
		ctx, cancel := context.WithCancel(ss.Context())
		defer cancel()
		defer context.AfterFunc(running, cancel)()
		return handle(srv, stream{ss, ctx})
	})
}

type stream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s stream) Context() context.Context { return s.ctx }

// Ready is closed when the member has joined the others and serves clients.
func (s *Server) Ready() <-chan struct{} { return s.etcd.Server.ReadyNotify() }

// Wait returns nil when ctx ends, or why the member stopped by itself: the
// agent cannot go on without it.
func (s *Server) Wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case err := <-s.etcd.Err():
		return fmt.Errorf("etcd stopped: %w", err)
	case <-s.etcd.Server.StopNotify():
		return errors.New("etcd stopped: this member was removed from the cluster, or its disk failed")
	}
}

// HasQuorum says whether this member belongs to the majority right now, and if
// not, why. It reads memory only: ask as often as you like.
func (s *Server) HasQuorum() (bool, string) { return s.quorum.now() }

// Close hands leadership over, stops the member and waits for it.
func (s *Server) Close() error {
	s.stop()
	if s.quorum != nil {
		s.quorum.wait()
	}
	s.etcd.Close()
	return nil
}
