package smoke

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// guestPort is where the guest answers.
const guestPort = 80

// Answer is what a guest says about itself.
type Answer struct {
	Hostname string
	Address  string   // that it got by DHCP
	Metadata string   // its name, as the metadata service told it
	Key      string   // the public key, from there too
	Disks    []string // vda, vdb, ...
}

// parseAnswer reads a guest's answer: lines of NAME: VALUE, of which others are ignored.
func parseAnswer(text string) (Answer, error) {
	lines := map[string]string{}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(line, ":")
		lines[name] = strings.TrimSpace(value)
	}
	for _, name := range []string{"hostname", "address", "metadata", "key", "disks"} {
		if _, ok := lines[name]; !ok {
			return Answer{}, fmt.Errorf("whoever answers is not the guest of the smoke test: %.80q", text)
		}
	}
	return Answer{Hostname: lines["hostname"], Address: lines["address"], Metadata: lines["metadata"], Key: lines["key"],
		Disks: strings.Fields(lines["disks"])}, nil
}

// lacks says what the guest has not learned yet, or has wrong; "" when nothing.
func (a Answer) lacks(server string, address netip.Addr, key string) string {
	switch {
	case a.Address != address.String():
		return fmt.Sprintf("it has the address %q, not %s (DHCP)", a.Address, address)
	case a.Metadata == "":
		return "it has no metadata yet"
	case a.Metadata != server && !strings.HasPrefix(a.Metadata, server+"."):
		return fmt.Sprintf("the metadata service calls it %q, not %s", a.Metadata, server)
	case a.Key != key:
		return "the metadata service has not given it the public key"
	}
	return ""
}

// HTTPVisit asks a guest over the network, each time by a new connection.
func HTTPVisit(ctx context.Context, at netip.Addr) (Answer, error) {
	client := &http.Client{Transport: &http.Transport{
		DialContext:       (&net.Dialer{Timeout: visitLimit}).DialContext,
		DisableKeepAlives: true,
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(at.String(), strconv.Itoa(guestPort))+"/", nil)
	if err != nil {
		return Answer{}, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return Answer{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return Answer{}, err
	}
	if resp.StatusCode != http.StatusOK {
		return Answer{}, fmt.Errorf("GET %s: HTTP %d", req.URL, resp.StatusCode)
	}
	return parseAnswer(string(text))
}

// visitLimit ends one try to reach a guest: packets are dropped, not refused, until its address is known everywhere.
const visitLimit = 3 * time.Second

// awaitAnswer asks a guest until it lacks nothing.
func (r *Runner) awaitAnswer(ctx context.Context, at netip.Addr, lacks func(Answer) string) (Answer, error) {
	for {
		visit, cancel := context.WithTimeout(ctx, visitLimit)
		a, err := r.Visit(visit, at)
		cancel()
		if err == nil {
			missing := lacks(a)
			if missing == "" {
				return a, nil
			}
			err = fmt.Errorf("the instance answers at %s, but %s", at, missing)
		} else {
			err = fmt.Errorf("the instance does not answer at %s: %w", at, err)
		}
		if pause(ctx) != nil {
			return a, err
		}
	}
}
