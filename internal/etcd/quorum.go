package etcd

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/server/v3/etcdserver"
)

// quorum knows whether this member is in the majority right now.
//
// Raft itself knows it, for nothing: a leader that no majority answers steps down (CheckQuorum), and a
// follower that hears no leader has none, both within two election time-outs (1-2 s). So the member looks whether there
// is a leader. Two things that cannot say are added:
//
//   - During each election there is no leader, on no member, and both survivors would drop the VIP because the third node,
//     the leader, died. So the member asks the others directly (GET /version on their peer address, TLS both
//     ways: a frozen process cannot answer). If a majority answers, an election is all that is missing, and the
//     answer stays yes, for electionGrace at most.
//   - What raft says is as old as its last step: a member whose disk hangs goes on believing in its leader. So now and
//     then a read is asked for that only a majority can agree to (a read index: messages, no disk).
//
// A process that was frozen, or starved, for lookAge knows nothing any more until such a read has been agreed to.
//
// A read each half second in place of raft's own knowledge was tried: on a machine with several times more work than
// processors one was missed sooner or later, and a healthy cluster moved its VIP.
type quorum struct {
	server *etcdserver.EtcdServer
	peers  *http.Client
	clock  func() time.Time
	done   sync.WaitGroup

	mu       sync.Mutex
	evidence evidence
	proving  bool // a read is under way
	asking   bool // the others are being asked
}

// evidence is what the answer is judged from; a zero time is never.
type evidence struct {
	looked  time.Time // when this process last looked at raft's state
	led     time.Time // when it last saw a leader there
	proven  time.Time // when the last read was asked for that a majority agreed to
	contact time.Time // when a majority was last asked directly and answered
}

const (
	lookInterval = 400 * time.Millisecond
	lookAge      = 2 * time.Second

	// contactTimeout: a busy machine takes hundreds of milliseconds for a TLS handshake.
	contactTimeout = time.Second
	// contactAge: until the next round of asking has been answered, however slowly.
	contactAge = 2*contactTimeout + lookInterval
	// leaderAge: when no leader is seen any more, the others are asked first.
	leaderAge = contactTimeout + lookInterval
	// electionGrace: two rounds of voting that fail (2 x 2 s) and the first commit of the new leader.
	electionGrace = 5 * time.Second

	proofInterval = 5 * time.Second
	proofTimeout  = 2 * time.Second
	// proofAge: some reads may be missed on a busy machine.
	proofAge = 20 * time.Second
)

func newQuorum(cfg ServerConfig, server *etcdserver.EtcdServer) (*quorum, error) {
	info := transport.TLSInfo{CertFile: cfg.CertFile, KeyFile: cfg.KeyFile, TrustedCAFile: cfg.CAFile}
	conf, err := info.ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("TLS files for asking the other members: %w", err)
	}
	conf.MinVersion = tls.VersionTLS13
	return &quorum{
		server: server,
		clock:  time.Now,
		// Connections are not kept: they are needed during elections only, and an old one proves nothing.
		peers: &http.Client{Transport: &http.Transport{TLSClientConfig: conf, DisableKeepAlives: true}, Timeout: contactTimeout},
	}, nil
}

func (q *quorum) start(ctx context.Context) { q.done.Go(func() { q.watch(ctx) }) }

func (q *quorum) wait() { q.done.Wait() }

// watch looks at each interval, until ctx ends.
func (q *quorum) watch(ctx context.Context) {
	tick := time.NewTicker(lookInterval)
	defer tick.Stop()
	for {
		q.look(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// look notes whether raft has a leader, and begins to ask for whatever is missing.
func (q *quorum) look(ctx context.Context) {
	now, led := q.clock(), q.server.Leader() != 0
	q.mu.Lock()
	defer q.mu.Unlock()
	e := &q.evidence
	if now.Sub(e.looked) > lookAge {
		*e = evidence{} // what was true before says nothing about now
	}
	e.looked = now
	if led {
		e.led = now
	}
	if led && now.Sub(e.proven) >= proofInterval && !q.proving {
		q.proving = true
		q.done.Go(func() { q.prove(ctx, now) })
	}
	if !led && now.Sub(e.led) <= electionGrace && !q.asking {
		q.asking = true
		q.done.Go(func() { q.reach(ctx, now) })
	}
}

// prove asks for a read that needs a majority's agreement, at a time.
func (q *quorum) prove(ctx context.Context, asked time.Time) {
	ctx, cancel := context.WithTimeout(ctx, proofTimeout)
	defer cancel()
	err := q.server.LinearizableReadNotify(ctx)
	q.mu.Lock()
	defer q.mu.Unlock()
	q.proving = false
	if err == nil {
		q.evidence.proven = asked // dated by the question: never newer than it says
	}
}

// reach asks the other members directly, at a time.
func (q *quorum) reach(ctx context.Context, asked time.Time) {
	majority := q.askPeers(ctx)
	q.mu.Lock()
	defer q.mu.Unlock()
	q.asking = false
	if majority {
		q.evidence.contact = asked
	}
}

// askPeers reports whether this member and those that answer directly are a majority of the voters.
func (q *quorum) askPeers(ctx context.Context) bool {
	var urls [][]string
	voters := 0
	for _, m := range q.server.Cluster().Members() {
		if m.IsLearner {
			continue
		}
		voters++
		if m.ID != q.server.MemberID() {
			urls = append(urls, m.PeerURLs)
		}
	}
	answers := make(chan bool, len(urls))
	for _, peer := range urls {
		go func() { answers <- q.ask(ctx, peer) }()
	}
	reached := 1 // itself
	for range urls {
		if <-answers {
			reached++
		}
		if reached > voters/2 {
			return true // the dead one need not be waited for
		}
	}
	return reached > voters/2
}

func (q *quorum) ask(ctx context.Context, urls []string) bool {
	for _, u := range urls {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, u+"/version", nil)
		if err != nil {
			continue
		}
		resp, err := q.peers.Do(req)
		if err != nil {
			continue
		}
		_, err = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if err == nil && resp.StatusCode == http.StatusOK {
			return true
		}
	}
	return false
}

func (q *quorum) now() (bool, string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return judge(q.clock(), q.evidence)
}

// judge decides from the evidence at that time.
func judge(now time.Time, e evidence) (bool, string) {
	age := func(t time.Time) time.Duration { return now.Sub(t) }
	leaderless := age(e.led).Round(100 * time.Millisecond)
	switch {
	case age(e.looked) > lookAge:
		return false, "this process did not run for a while"
	case e.proven.IsZero():
		return false, "not yet heard from a majority of the members"
	case age(e.proven) > proofAge:
		return false, fmt.Sprintf("no majority has agreed to a read for %s", age(e.proven).Round(time.Second))
	case age(e.led) <= leaderAge:
		return true, ""
	case age(e.contact) > contactAge:
		return false, fmt.Sprintf("cut off from the majority, without a leader for %s", leaderless)
	case age(e.led) > electionGrace:
		return false, fmt.Sprintf("the members answer, but have not agreed on a leader for %s", leaderless)
	default:
		return true, "a leader is being elected"
	}
}
