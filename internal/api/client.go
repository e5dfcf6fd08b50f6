package api

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"nines/internal/converge"
	"nines/internal/model"
	"nines/internal/plan"
)

// Client speaks to agents. It is safe for concurrent use.
type Client struct {
	http  *http.Client
	addrs []string // host:port; the first that answers serves requests for the cluster
}

// NewClient returns a client of the agents at addrs. The TLS configuration carries the
// caller's certificate.
func NewClient(conf *tls.Config, addrs []string) *Client {
	dialer := &net.Dialer{
		Timeout: 2 * time.Second,
		// A machine that lost its power says nothing: find out within about 10 s.
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 4 * time.Second, Interval: 2 * time.Second, Count: 3},
	}
	return &Client{addrs: addrs, http: &http.Client{Transport: &http.Transport{
		DialContext:         dialer.DialContext,
		TLSClientConfig:     conf,
		TLSHandshakeTimeout: 3 * time.Second,
		MaxIdleConnsPerHost: 4,
		IdleConnTimeout:     time.Minute,
	}}}
}

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// NodeAddr is where the agent of a node listens.
func NodeAddr(n model.Node) string {
	return net.JoinHostPort(n.Address().String(), fmt.Sprint(model.PortAgent))
}

// request sends one request to one agent. A nil reply leaves the body to the caller.
func (c *Client) request(ctx context.Context, method, addr, path string, body any) (*http.Response, error) {
	var r io.Reader
	switch b := body.(type) {
	case nil:
	case io.Reader:
		r = b
	default:
		buf, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("encode request: %w", err)
		}
		r = bytes.NewReader(buf)
	}
	req, err := http.NewRequestWithContext(ctx, method, "https://"+addr+path, r)
	if err != nil {
		return nil, fmt.Errorf("request to %s: %w", addr, err)
	}
	res, err := c.http.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, &UnreachableError{Addr: addr, Err: err}
	}
	if res.StatusCode >= 300 {
		defer res.Body.Close()
		return nil, readError(addr, res)
	}
	return res, nil
}

func readError(addr string, res *http.Response) error {
	e := &Error{Status: res.StatusCode}
	if err := json.NewDecoder(io.LimitReader(res.Body, 1<<20)).Decode(e); err != nil || e.Text == "" {
		e.Code, e.Text = CodeFailed, fmt.Sprintf("agent %s answered %s", addr, res.Status)
	}
	return e
}

func (c *Client) call(ctx context.Context, method, addr, path string, body, reply any) error {
	res, err := c.request(ctx, method, addr, path, body)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if reply == nil {
		return nil
	}
	if err := json.NewDecoder(res.Body).Decode(reply); err != nil {
		return &UnreachableError{Addr: addr, Err: fmt.Errorf("reply broke off: %w", err)}
	}
	return nil
}

// any asks the agents one after another until one can answer: one whose etcd is starting, or without a majority, may be the only one.
func (c *Client) any(ctx context.Context, method, path string, body, reply any) error {
	var errs []error
	var waits error
	for _, addr := range c.addrs {
		err := c.call(ctx, method, addr, path, body, reply)
		var u *UnreachableError
		var e *Error
		switch {
		case errors.As(err, &u):
			errs = append(errs, err)
		case errors.As(err, &e) && e.Passing():
			waits = err
		default:
			return err
		}
	}
	if waits != nil {
		return waits
	}
	return &NobodyError{Err: errors.Join(errs...)}
}

// NobodyError says that no agent answered.
type NobodyError struct{ Err error }

func (e *NobodyError) Error() string { return fmt.Sprintf("no agent answers:\n%v", e.Err) }

// Unwrap returns the causes.
func (e *NobodyError) Unwrap() error { return e.Err }

// Hint says what to do now.
func (e *NobodyError) Hint() string {
	if Expired(e.Err) || refused(e.Err) {
		return hintExpired
	}
	return "is the cluster deployed ('nines apply')? are the machines up ('nines lab status' in a lab)?"
}

// leaderWait is how long a request waits for a leader to be there: one election
// after the loss of the old one.
const leaderWait = 20 * time.Second

// leader asks the leader, whoever it is by now.
func (c *Client) leader(ctx context.Context, method, path string, body, reply any) error {
	deadline := time.Now().Add(leaderWait)
	for {
		err := c.any(ctx, method, path, body, reply)
		var e *Error
		if errors.As(err, &e) && e.Code == CodeNotLeader {
			err = c.call(ctx, method, e.Leader, path, body, reply)
		}
		if !retriable(err) || time.Now().After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(250 * time.Millisecond):
		}
	}
}

func retriable(err error) bool {
	var e *Error
	var u *UnreachableError
	var nobody *NobodyError
	if errors.As(err, &nobody) {
		return false
	}
	return errors.As(err, &u) || (errors.As(err, &e) && (e.Passing() || e.Code == CodeNotLeader))
}

// Version asks the agent at addr who it is.
func (c *Client) Version(ctx context.Context, addr string) (v Version, err error) {
	return v, c.call(ctx, http.MethodGet, addr, PathVersion, nil, &v)
}

// NodeReport asks the agent at addr how its node is.
func (c *Client) NodeReport(ctx context.Context, addr string, look Look) (r NodeReport, err error) {
	return r, c.call(ctx, http.MethodGet, addr, PathNode+look.query(), nil, &r)
}

// Heard asks a controller's agent how long ago another controller answered it.
func (c *Client) Heard(ctx context.Context, addr string, about netip.Addr) (time.Duration, error) {
	var r Heard
	err := c.call(ctx, http.MethodGet, addr, PathHeard+"?about="+url.QueryEscape(about.String()), nil, &r)
	return r.Age, err
}

// Serving calls emit with which services of a controller serve, by name, at first and at each change, until ctx ends or the agent is silent.
func (c *Client) Serving(ctx context.Context, addr string, emit func(map[string]bool)) error {
	res, err := c.request(ctx, http.MethodGet, addr, PathServing, nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	for in := json.NewDecoder(res.Body); ; {
		var serving map[string]bool
		if err := in.Decode(&serving); err != nil {
			return &UnreachableError{Addr: addr, Err: err}
		}
		emit(serving)
	}
}

// Observe asks a node's agent what is. It implements converge.Agents.
func (c *Client) Observe(ctx context.Context, n model.Node, spec *model.Cluster) (r converge.ObserveReply, err error) {
	return r, c.call(ctx, http.MethodPost, NodeAddr(n), PathObserve, SpecRequest{Spec: spec}, &r)
}

// Op asks a node's agent to do one op. It implements converge.Agents.
func (c *Client) Op(ctx context.Context, n model.Node, req converge.OpRequest) (r plan.Result, err error) {
	return r, c.call(ctx, http.MethodPost, NodeAddr(n), PathOp, req, &r)
}

// Status asks for the cluster's status.
func (c *Client) Status(ctx context.Context, look Look) (s Status, err error) {
	return s, c.any(ctx, http.MethodGet, PathStatus+look.query(), nil, &s)
}

// Plan asks the leader what would change.
func (c *Client) Plan(ctx context.Context, spec *model.Cluster) (r PlanReply, err error) {
	return r, c.leader(ctx, http.MethodPost, PathPlan, SpecRequest{Spec: spec}, &r)
}

// Apply asks the leader to apply.
func (c *Client) Apply(ctx context.Context, req converge.Request) (r converge.Record, err error) {
	return r, c.leader(ctx, http.MethodPost, PathApply, req, &r)
}

// Current asks for the latest apply.
func (c *Client) Current(ctx context.Context) (r converge.Record, err error) {
	return r, c.any(ctx, http.MethodGet, PathApply, nil, &r)
}

// Credential asks for one secret.
func (c *Client) Credential(ctx context.Context, name string) (string, error) {
	var r struct {
		Value string `json:"value"`
	}
	err := c.any(ctx, http.MethodGet, PathCredentials+"?name="+url.QueryEscape(name), nil, &r)
	return r.Value, err
}

// Signal has a node's agent send a signal to a unit.
func (c *Client) Signal(ctx context.Context, n model.Node, req SignalRequest) error {
	return c.call(ctx, http.MethodPost, NodeAddr(n), PathSignal, req, nil)
}

// Upgrade hands a new executable to a node's agent, which starts it.
func (c *Client) Upgrade(ctx context.Context, n model.Node, binary io.Reader) error {
	return c.call(ctx, http.MethodPut, NodeAddr(n), PathBinary, binary, nil)
}

// Follow calls emit for every event of the apply until it has ended, from another
// agent when the one that served it goes away. Events may come twice then.
func (c *Client) Follow(ctx context.Context, id string, emit func(converge.Event)) (converge.Record, error) {
	deadline := time.Now().Add(followWait)
	for {
		for _, addr := range c.addrs {
			end, heard, err := c.follow(ctx, addr, id, emit)
			if err != nil && ctx.Err() != nil {
				return converge.Record{}, ctx.Err()
			}
			if end != nil {
				return *end, nil
			}
			if heard {
				deadline = time.Now().Add(followWait)
			}
		}
		if time.Now().After(deadline) {
			return converge.Record{}, &NobodyError{Err: errors.New("the apply's events broke off")}
		}
		select {
		case <-ctx.Done():
			return converge.Record{}, ctx.Err()
		case <-time.After(250 * time.Millisecond):
		}
	}
}

// followWait is how long Follow waits for any agent to answer again.
const followWait = time.Minute

func (c *Client) follow(ctx context.Context, addr, id string, emit func(converge.Event)) (end *converge.Record, heard bool, err error) {
	res, err := c.request(ctx, http.MethodGet, addr, PathEvents+"?id="+url.QueryEscape(id), nil)
	if err != nil {
		return nil, false, err
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var ev converge.Event
		if err := json.Unmarshal(lines.Bytes(), &ev); err != nil {
			return nil, heard, fmt.Errorf("events of %s: %w", addr, err)
		}
		heard = true
		emit(ev)
		if ev.Apply != nil && ev.Apply.State != converge.Converging {
			return ev.Apply, true, nil
		}
	}
	return nil, heard, lines.Err()
}
