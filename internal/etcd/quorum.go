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
// Proof is a read index: the leader answers it only after a majority has
// confirmed its leadership in a round of heartbeats that began after the
// question. Each member asks twice a second; it costs a few messages and no
// disk write. The proof is dated by when the question was asked, so that it is never
// newer than it says, also after the process was frozen.
//
// A member is in the majority while its last proof is younger than
// proofAge. That alone would say no on every member during each
// election of a leader (1-2 s), and both survivors would drop the VIP
// because the third node, the leader, died. So while proof is missing the
// member also asks the others directly (GET /version on their peer address, TLS
// both ways: a frozen process cannot answer). If a majority answers, an
// election is all that is missing, and the answer stays yes, for electionGrace at
// most. A member that is cut off reaches nobody and says no after proofAge.
type quorum struct {
	server *etcdserver.EtcdServer
	peers  *http.Client
	clock  func() time.Time
	done   sync.WaitGroup

	mu       sync.Mutex
	proven   time.Time // when the last question was asked that a majority answered
	contact  time.Time // when a majority was last asked directly and answered
	hasVoted bool      // proven is set
}

const (
	proofInterval = 500 * time.Millisecond
	retryInterval = 100 * time.Millisecond // after a failure
	// proofAge: a question each 500 ms, and 1 s for the slowest answer that still counts as healthy.
	proofAge = 1500 * time.Millisecond
	// doubtAge is when to begin asking directly: soon enough for answers to be in before proofAge.
	doubtAge       = 800 * time.Millisecond
	contactTimeout = 400 * time.Millisecond
	contactAge     = time.Second
	// electionGrace: two rounds of voting that fail (2 x 2 s) and the first commit of the new leader.
	electionGrace = 5 * time.Second
	// pollInterval is how often QuorumChanges looks.
	pollInterval = 100 * time.Millisecond
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

func (q *quorum) start(ctx context.Context) {
	q.done.Go(func() { q.prove(ctx) })
	q.done.Go(func() { q.watchPeers(ctx) })
}

func (q *quorum) wait() { q.done.Wait() }

// prove asks for a proof at each interval, until ctx ends.
func (q *quorum) prove(ctx context.Context) {
	for {
		asked := q.clock()
		attempt, cancel := context.WithTimeout(ctx, time.Second)
		err := q.server.LinearizableReadNotify(attempt)
		cancel()
		pause := retryInterval
		if err == nil {
			q.mu.Lock()
			q.proven, q.hasVoted = asked, true
			q.mu.Unlock()
			pause = proofInterval
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// watchPeers asks the other members while proof is missing, until ctx ends.
func (q *quorum) watchPeers(ctx context.Context) {
	tick := time.NewTicker(contactTimeout / 2)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		asked := q.clock()
		if age := asked.Sub(q.lastProof()); age < doubtAge || age > electionGrace {
			continue
		}
		if q.askPeers(ctx) {
			q.mu.Lock()
			q.contact = asked
			q.mu.Unlock()
		}
	}
}

func (q *quorum) lastProof() time.Time {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.proven
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
	if !q.hasVoted {
		return false, "not yet heard from a majority of the members since the start"
	}
	now := q.clock()
	return judge(now.Sub(q.proven), now.Sub(q.contact))
}

// judge decides from the ages of the last proof and the last direct contact with a majority.
func judge(proof, contact time.Duration) (bool, string) {
	switch {
	case proof <= proofAge:
		return true, ""
	case proof <= electionGrace && contact <= contactAge:
		return true, "a leader is being elected"
	case contact <= contactAge:
		return false, fmt.Sprintf("the members answer, but have not agreed on a leader for %s", proof.Round(100*time.Millisecond))
	default:
		return false, fmt.Sprintf("cut off from the majority for %s", proof.Round(100*time.Millisecond))
	}
}

func (q *quorum) changes(ctx context.Context) <-chan bool {
	out := make(chan bool, 1)
	go func() {
		defer close(out)
		tick := time.NewTicker(pollInterval)
		defer tick.Stop()
		last, sent := false, false
		for {
			if now, _ := q.now(); now != last || !sent {
				select {
				case <-out: // nobody has read the last one: it is outdated
				default:
				}
				out <- now
				last, sent = now, true
			}
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	}()
	return out
}
