package openstack

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"nines/internal/host"
	"nines/internal/model"
)

// Client speaks HTTPS to the cluster's services: it trusts the cluster's authority alone and makes a new
// connection for each request, because a frozen process still has its port open and its old
// connections. The TLS session goes on, which spares the other side its signature. The zero value is ready to use; it must not be copied.
type Client struct {
	// Dial replaces the way to an address in tests.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	mu   sync.Mutex
	http *http.Client
	ca   string // the authority that http trusts
}

// HTTP returns the client; it is made again when the authority on the node changes.
func (c *Client) HTTP(h host.Host) (*http.Client, error) {
	ca, err := h.ReadFile(model.PathCA)
	if err != nil {
		return nil, fmt.Errorf("the cluster's certificate authority: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.http != nil && c.ca == string(ca.Content) {
		return c.http, nil
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca.Content) {
		return nil, fmt.Errorf("%s holds no certificate", model.PathCA)
	}
	dial := c.Dial
	if dial == nil {
		dial = (&net.Dialer{Timeout: time.Second}).DialContext
	}
	c.ca = string(ca.Content)
	c.http = &http.Client{Transport: &http.Transport{
		DialContext:       dial,
		TLSClientConfig:   &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12, ClientSessionCache: tls.NewLRUClientSessionCache(0)},
		DisableKeepAlives: true,
	}}
	return c.http, nil
}

// Send sends a request and wants a status for an answer; the answer's body is thrown away.
func (c *Client) Send(h host.Host, req *http.Request, want int) error {
	_, err := c.send(h, req, want)
	return err
}

func (c *Client) send(h host.Host, req *http.Request, want int) (http.Header, error) {
	client, err := c.HTTP(h)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20)); err != nil {
		return nil, fmt.Errorf("answer cut short: %w", err)
	}
	if resp.StatusCode != want {
		return nil, fmt.Errorf("%s %s: HTTP %d, want %d", req.Method, req.URL.Path, resp.StatusCode, want)
	}
	return resp.Header, nil
}

// Get wants 200 for an answer.
func (c *Client) Get(ctx context.Context, h host.Host, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	return c.Send(h, req, http.StatusOK)
}

// Clock is Get that also returns what time it is for the one who answered, by whole seconds; zero if it does not say.
func (c *Client) Clock(ctx context.Context, h host.Host, url string) (time.Time, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return time.Time{}, err
	}
	header, err := c.send(h, req, http.StatusOK)
	if err != nil {
		return time.Time{}, err
	}
	at, err := http.ParseTime(header.Get("Date"))
	if err != nil {
		return time.Time{}, nil // an answer all the same
	}
	return at, nil
}

// Loads says why an API is not asked (Loading).
const Loads = "loads its application"

// Silent says in one line why an API did not answer.
func Silent(err error) string {
	if errors.Is(err, context.DeadlineExceeded) {
		return "no answer within the time-out (frozen or overloaded)"
	}
	return "does not answer: " + oneLine(err)
}
