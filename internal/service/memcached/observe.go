package memcached

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"time"

	"nines/internal/health"
	"nines/internal/model"
	"nines/internal/service"
)

func address(n model.Node) string {
	return netip.AddrPortFrom(n.Address(), model.PortMemcached).String()
}

// Interval of observation.
func (*Service) Interval() time.Duration { return 2 * time.Second }

// shownFacts are the statistics that status shows.
var shownFacts = []string{"version", "uptime", "curr_connections", "rejected_connections", "bytes", "limit_maxbytes", "curr_items", "evictions", "get_hits", "get_misses"}

// Observe asks the node's memcached for its statistics.
func (s *Service) Observe(ctx context.Context, env service.Env) service.Observation {
	st, err := stats(ctx, s.address(env.Node))
	if err != nil {
		reason := "memcached does not answer: " + err.Error()
		return service.Observation{Reason: reason, Conditions: []health.Condition{{Code: "memcached-down", Severity: health.Warning,
			Text: reason, Hint: "look at 'journalctl -u memcached' on the node; 'nines apply' starts it"}}}
	}
	o := service.Observation{Serving: true, Facts: map[string]string{},
		Reason: fmt.Sprintf("version %s, %s items", st["version"], st["curr_items"])}
	for _, k := range shownFacts {
		if v, ok := st[k]; ok {
			o.Facts[k] = v
		}
	}
	return o
}

// stats speaks the text protocol (protocol.txt of memcached): "stats" is answered by lines
// "STAT name value" and "END".
func stats(ctx context.Context, addr string) (map[string]string, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) }) // wakes the read
	defer stop()
	if _, err := io.WriteString(conn, "stats\r\n"); err != nil {
		return nil, err
	}
	return parseStats(conn)
}

// maxAnswer bounds an answer: what listens there might not be memcached.
const maxAnswer = 64 << 10

func parseStats(r io.Reader) (map[string]string, error) {
	out := map[string]string{}
	lines := bufio.NewScanner(io.LimitReader(r, maxAnswer))
	for lines.Scan() {
		line := strings.TrimRight(lines.Text(), "\r")
		if line == "END" {
			return out, nil
		}
		rest, ok := strings.CutPrefix(line, "STAT ")
		if !ok {
			return nil, fmt.Errorf("answered %q to stats", line)
		}
		key, value, _ := strings.Cut(rest, " ")
		out[key] = value
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	return nil, io.ErrUnexpectedEOF
}

// answers is the Ready check.
func (s *Service) answers(ctx context.Context, env service.Env, _ map[string]string) (bool, string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if _, err := stats(ctx, s.address(env.Node)); err != nil {
		return false, err.Error(), nil
	}
	return true, "", nil
}

func (s *Service) awaitAnswer(ctx context.Context, env service.Env, args map[string]string) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		done, reason, _ := s.answers(ctx, env, args)
		if done {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("memcached: %s: %w", reason, ctx.Err())
		case <-tick.C:
		}
	}
}
