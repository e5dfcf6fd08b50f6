package rabbitmq

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"nines/internal/model"
	"nines/internal/service"
)

// client speaks to the management API of one node over one kept connection. The
// command line tools would do, but each start of the Erlang runtime costs more than
// a second of CPU.
type client struct {
	http     *http.Client
	base     string // "https://198.18.0.11:15671"
	password string
	// cluster is the name of the broker's cluster, asked for at clusterAt.
	cluster   string
	clusterAt time.Time
}

// statusError is an answer other than 2xx.
type statusError struct {
	path string
	code int
	body string // first line or so, never a secret
}

func (e *statusError) Error() string {
	return fmt.Sprintf("management API answered %d to %s: %s", e.code, e.path, e.body)
}

// api returns the client for the node of env, made at first use.
func (s *Service) api(env service.Env) (*client, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.clients[env.Node.Name]; c != nil {
		return c, nil
	}
	password, err := env.Secrets.Get(SecretAdmin)
	if err != nil {
		return nil, err
	}
	ca, err := env.Host.ReadFile(model.PathCA)
	if err != nil {
		return nil, fmt.Errorf("cluster authority: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca.Content) {
		return nil, fmt.Errorf("no certificate in %s: run 'nines apply' again", model.PathCA)
	}
	port := strconv.Itoa(model.PortRabbitMQAdmin)
	c := &client{
		base: "https://" + net.JoinHostPort(env.Node.Address().String(), port), password: password,
		http: &http.Client{Transport: &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12},
			// Two: an observation and an action may meet. HTTP/1.1 is all the server needs.
			MaxIdleConnsPerHost: 2, IdleConnTimeout: time.Minute,
		}},
	}
	s.clients[env.Node.Name] = c
	return c, nil
}

// forget drops the client of a node after a refused password or certificate, so that the
// next call reads both anew.
func (s *Service) forget(node string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.clients[node]; c != nil {
		c.http.CloseIdleConnections()
		delete(s.clients, node)
	}
}

// maxAnswer bounds what is read of an answer.
const maxAnswer = 8 << 20

// call sends body (nil: none) and decodes the answer into out (nil: dropped).
func (c *client) call(ctx context.Context, method, path string, body, out any) error {
	var in io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return err
		}
		in = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+"/api/"+path, in)
	if err != nil {
		return err
	}
	req.SetBasicAuth(AdminUser, c.password)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return &statusError{path: path, code: resp.StatusCode, body: firstLine(answer)}
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fmt.Errorf("answer to %s: %w", path, err)
	}
	return nil
}

func firstLine(b []byte) string {
	line, _, _ := strings.Cut(strings.TrimSpace(string(b)), "\n")
	return line[:min(len(line), 200)]
}

// refused reports whether the broker does not know nines's own user or password.
func refused(err error) bool {
	var s *statusError
	return errors.As(err, &s) && s.code == http.StatusUnauthorized
}

// peer is a member as a node sees it.
type peer struct {
	Name    string `json:"name"` // "rabbit@ctl1"
	Running bool   `json:"running"`
}

// peers lists the members of the cluster the node belongs to.
func (c *client) peers(ctx context.Context) ([]peer, error) {
	var out []peer
	return out, c.call(ctx, http.MethodGet, "nodes?columns=name,running", nil, &out)
}

// clusterAgain is for how long the cluster's name is believed: it changes only if a member is reset and joins another cluster.
const clusterAgain = time.Minute

// clusterID is RabbitMQ's own name of the cluster that the node belongs to.
func (s *Service) clusterID(ctx context.Context, env service.Env, c *client) (string, error) {
	s.mu.Lock()
	id, at := c.cluster, c.clusterAt
	s.mu.Unlock()
	if id != "" && time.Since(at) < clusterAgain {
		return id, nil
	}
	var out struct {
		Value string `json:"value"`
	}
	if err := c.call(ctx, http.MethodGet, "global-parameters/internal_cluster_id", nil, &out); err != nil {
		return "", fmt.Errorf("ask %s for its cluster's name: %w", env.Node.Name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c.cluster, c.clusterAt = out.Value, time.Now()
	return out.Value, nil
}

// check asks a health check; text is empty when it passes.
func (c *client) check(ctx context.Context, name string) (text string, err error) {
	err = c.call(ctx, http.MethodGet, "health/checks/"+name, nil, nil)
	var s *statusError
	if errors.As(err, &s) && s.code == http.StatusServiceUnavailable {
		var why struct {
			Reason string `json:"reason"`
		}
		if json.Unmarshal([]byte(s.body), &why) == nil && why.Reason != "" {
			return why.Reason, nil
		}
		return s.body, nil
	}
	return "", err
}

// state reads what the broker holds of users, virtual hosts and permissions.
func (c *client) state(ctx context.Context) (definitions, error) {
	var users []struct {
		userDef
		Tags any `json:"tags"` // a list, or a string with commas in older answers
	}
	var d definitions
	if err := c.call(ctx, http.MethodGet, "users?columns=name,password_hash,hashing_algorithm,tags", nil, &users); err != nil {
		return d, err
	}
	for _, u := range users {
		u.userDef.Tags = tagList(u.Tags)
		d.Users = append(d.Users, u.userDef)
	}
	if err := c.call(ctx, http.MethodGet, "vhosts?columns=name,default_queue_type", nil, &d.VHosts); err != nil {
		return d, err
	}
	return d, c.call(ctx, http.MethodGet, "permissions", nil, &d.Permissions)
}

func tagList(v any) []string {
	out := []string{}
	switch t := v.(type) {
	case []any:
		for _, x := range t {
			out = append(out, fmt.Sprint(x))
		}
	case string:
		for _, x := range strings.Split(t, ",") {
			if x != "" {
				out = append(out, x)
			}
		}
	}
	return out
}

// load adds or changes users, virtual hosts and permissions; what it does not name stays.
func (c *client) load(ctx context.Context, d definitions) error {
	return c.call(ctx, http.MethodPost, "definitions", d, nil)
}

// drop removes a user; one that does not exist is no error.
func (c *client) drop(ctx context.Context, user string) error {
	err := c.call(ctx, http.MethodDelete, "users/"+url.PathEscape(user), nil, nil)
	var s *statusError
	if errors.As(err, &s) && s.code == http.StatusNotFound {
		return nil
	}
	return err
}
