package bootstrap

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"nines/internal/model"
	"nines/internal/secret"
)

// Timings of the wait for agents. Nobody tells when a port begins to answer: we ask
// often, for the wait is part of every first deployment.
const (
	askEvery   = 50 * time.Millisecond
	askTimeout = 2 * time.Second
)

// ready is what an agent says when it reaches a quorum of etcd.
const ready = "ready"

// version is the part of an agent's answer that bootstrap looks at.
type version struct {
	Node      string `json:"node"`
	ClusterID string `json:"cluster_id"`
	Store     string `json:"store"`
}

// AgentError says that a node's agent does not do what it should.
type AgentError struct {
	Node    string
	Text    string
	Journal string // its last lines
	Err     error
}

func (e *AgentError) Error() string {
	if e.Journal == "" {
		return e.Text
	}
	return e.Text + "; its last words:\n    " + strings.ReplaceAll(e.Journal, "\n", "\n    ")
}

// Unwrap returns the cause, if there is one.
func (e *AgentError) Unwrap() error { return e.Err }

// Hint says what to do now.
func (e *AgentError) Hint() string {
	return fmt.Sprintf("look at it with 'systemctl status %s' and 'journalctl -u %s' on %s; then run the same command again", unitAgent, unitAgent, e.Node)
}

// asker asks agents for their version over mutual TLS.
type asker struct{ http *http.Client }

func (r *run) newClient() (*asker, error) {
	conf, err := secret.ClientTLS(r.state.clientFiles())
	if err != nil {
		return nil, err
	}
	return &asker{&http.Client{Timeout: askTimeout, Transport: &http.Transport{TLSClientConfig: conf, DialContext: (&net.Dialer{}).DialContext}}}, nil
}

func (a *asker) close() { a.http.CloseIdleConnections() }

func (a *asker) version(ctx context.Context, n model.Node) (version, error) {
	var v version
	addr := netip.AddrPortFrom(n.Address(), model.PortAgent)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+addr.String()+"/v1/version", nil)
	if err != nil {
		return v, err
	}
	res, err := a.http.Do(req)
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	if err != nil {
		return v, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return v, err
	}
	if res.StatusCode != http.StatusOK {
		return v, fmt.Errorf("it answers %s", res.Status)
	}
	return v, json.Unmarshal(body, &v)
}

// await waits until a node's agent answers and has the quorum of etcd behind it.
func (r *run) await(ctx context.Context, a *asker, m *machine, task string) error {
	return r.task(m, task, "wait for the agent and its quorum", func() (string, error) {
		ctx, cancel := context.WithTimeout(ctx, r.Wait)
		defer cancel()
		last := "it was not asked yet"
		tick := time.NewTicker(askEvery)
		defer tick.Stop()
		for {
			v, err := a.version(ctx, m.node)
			switch {
			case ctx.Err() != nil: // its error is the deadline's, not the agent's
			case err != nil:
				last = err.Error()
			case v.ClusterID != r.state.id || v.Node != m.node.Name:
				return "", &AgentError{Node: m.node.Name, Text: fmt.Sprintf("at %s answers node %q of cluster %s", m.node.Address(), v.Node, v.ClusterID)}
			case v.Store == ready:
				return "", nil
			default:
				last = "etcd: " + v.Store
			}
			if done, err := r.pause(ctx, tick, m, last); done {
				return "", err
			}
		}
	})
}

// pause waits for the next tick; when the time is over, it says why it was not enough.
func (r *run) pause(ctx context.Context, tick *time.Ticker, m *machine, last string) (done bool, err error) {
	select {
	case <-tick.C:
		return false, nil
	case <-ctx.Done():
	}
	if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return true, ctx.Err()
	}
	r.Log.Debug("agent is late", "node", m.node.Name, "last", last)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askTimeout)
	defer cancel()
	return true, &AgentError{Node: m.node.Name, Text: fmt.Sprintf("the agent is not ready after %s: %s", r.Wait, last), Journal: journal(ctx, m), Err: context.DeadlineExceeded}
}
