package bootstrap

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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
	return fmt.Sprintf("look at it with 'systemctl status %s' and 'journalctl -u %s' on %s; then run the same command again", UnitAgent, UnitAgent, e.Node)
}

// asker asks agents for their version over mutual TLS.
type asker struct {
	http *http.Client
	addr func(model.Node) string // of a node's API
}

func apiAddr(n model.Node) string {
	return netip.AddrPortFrom(n.Address(), model.PortAgent).String()
}

func (r *run) newClient() (*asker, error) {
	conf, err := secret.ClientTLS(r.state.clientFiles())
	if err != nil {
		return nil, err
	}
	return &asker{addr: apiAddr, http: &http.Client{Timeout: askTimeout, Transport: &http.Transport{TLSClientConfig: conf}}}, nil
}

func (a *asker) close() { a.http.CloseIdleConnections() }

func (a *asker) version(ctx context.Context, n model.Node) (version, error) {
	var v version
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+a.addr(n)+"/v1/version", nil)
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

// strangerError says that something else answers where an agent should.
type strangerError struct{ text string }

func (e *strangerError) Error() string { return e.text }

// ready returns nil when the node's agent has a quorum behind it, else why not.
func (a *asker) ready(ctx context.Context, n model.Node, clusterID string) error {
	v, err := a.version(ctx, n)
	switch {
	case err != nil:
		return err
	case v.ClusterID != clusterID || v.Node != n.Name:
		return &strangerError{fmt.Sprintf("at %s answers node %q of cluster %s", a.addr(n), v.Node, v.ClusterID)}
	case v.Store != ready:
		return errors.New("etcd: " + v.Store)
	}
	return nil
}

// await waits until a node's agent answers and has the quorum of etcd behind it.
func (r *run) await(ctx context.Context, a *asker, m *machine, task string) error {
	return r.task(m, task, "wait for the agent and its quorum", func() (string, error) {
		ctx, cancel := context.WithTimeout(ctx, r.Wait)
		defer cancel()
		last := errors.New("it was not asked yet")
		tick := time.NewTicker(askEvery)
		defer tick.Stop()
		for {
			err := a.ready(ctx, m.node, r.state.id)
			var stranger *strangerError
			if err == nil || errors.As(err, &stranger) {
				return "", err
			}
			if ctx.Err() == nil { // else it is the deadline's error, not the agent's
				last = err
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return "", r.late(ctx, m, last)
			}
		}
	})
}

// late says why the time was not enough.
func (r *run) late(ctx context.Context, m *machine, last error) error {
	if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return ctx.Err()
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askTimeout)
	defer cancel()
	return &AgentError{Node: m.node.Name, Text: fmt.Sprintf("the agent is not ready after %s: %v", r.Wait, last), Journal: journal(ctx, m), Err: last}
}
