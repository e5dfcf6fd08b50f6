package drill

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
)

// httpClient speaks HTTP/1.1, as OpenStack's clients do. kept: connections are used again; otherwise
// each request opens its own.
func httpClient(conf *tls.Config, kept bool) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DialContext:         (&net.Dialer{}).DialContext, // the request's context bounds it
			TLSClientConfig:     conf.Clone(),
			DisableKeepAlives:   !kept,
			MaxIdleConnsPerHost: 8,
		},
		// A redirect would be measured as two requests.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// tcpProbe opens a connection and resets it, so that no port waits out its time.
func tcpProbe(address string) func(context.Context, int) error {
	return func(ctx context.Context, _ int) error {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "tcp", address)
		if err != nil {
			return plain(err)
		}
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // the connection is closed either way
		}
		return conn.Close()
	}
}

func getProbe(client *http.Client, url string) func(context.Context, int) error {
	return func(ctx context.Context, _ int) error {
		_, err := exchange(ctx, client, http.MethodGet, url, nil, nil, http.StatusOK)
		return err
	}
}

// tokenProbe logs in and has the token validated: it takes the API, the database and, where one is used, the cache.
func tokenProbe(client *http.Client, api, password string) func(context.Context, int) error {
	type object = map[string]any
	domain := object{"id": "default"}
	login, err := json.Marshal(object{"auth": object{
		"identity": object{"methods": []string{"password"}, "password": object{
			"user": object{"name": "admin", "domain": domain, "password": password}}},
		"scope": object{"project": object{"name": "admin", "domain": domain}},
	}})
	return func(ctx context.Context, _ int) error {
		if err != nil {
			return err
		}
		answer, err := exchange(ctx, client, http.MethodPost, api+"/auth/tokens", nil, login, http.StatusCreated)
		if err != nil {
			return fmt.Errorf("log in: %w", err)
		}
		token := answer.Get("X-Subject-Token")
		_, err = exchange(ctx, client, http.MethodGet, api+"/auth/tokens",
			http.Header{"X-Auth-Token": {token}, "X-Subject-Token": {token}}, nil, http.StatusOK)
		if err != nil {
			return fmt.Errorf("validate: %w", err)
		}
		return nil
	}
}

func exchange(ctx context.Context, client *http.Client, method, url string, header http.Header, body []byte, want int) (http.Header, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if header != nil {
		req.Header = header
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	} else {
		req.Body = http.NoBody
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, plain(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20)); err != nil {
		return nil, fmt.Errorf("answer cut short: %w", plain(err))
	}
	if resp.StatusCode != want {
		return nil, fmt.Errorf("HTTP %d", resp.StatusCode)
	}
	return resp.Header, nil
}

// plain says a network error in few words: the report repeats them.
func plain(err error) error {
	var timeout net.Error
	if errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout() {
		return errors.New("no answer in time")
	}
	var op *net.OpError
	if errors.As(err, &op) {
		return fmt.Errorf("%s: %w", op.Op, op.Err)
	}
	return err
}
