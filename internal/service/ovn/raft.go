package ovn

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"nines/internal/ovsdb"
)

// member is what a database's server says of its RAFT cluster ("cluster/status").
type member struct {
	cluster string // ID of the cluster; empty: it has not joined yet
	server  string // short ID
	status  string // "cluster member", "joining cluster", ...
	role    string // "leader", "follower", "candidate"
	leader  string // short ID, "self" or "unknown"
	term    uint64
	peers   []peer
}

// peer is a member as another sees it, itself among them.
type peer struct {
	id      string // short ID
	address string // ssl:ADDRESS:PORT
	self    bool
	silent  time.Duration // since the last message; negative: unknown
}

// serving: it takes part, and knows whom to send writes to.
func (m member) serving() bool {
	return m.status == "cluster member" && m.cluster != "" && m.leader != "" && m.leader != "unknown" && (m.role == "leader" || m.role == "follower")
}

// String says in a few words how the member does.
func (m member) String() string {
	if m.status != "cluster member" {
		return m.status
	}
	if m.leader == "unknown" {
		return m.role + " without a leader"
	}
	return m.role
}

var (
	statusLine = regexp.MustCompile(`^(Cluster ID|Server ID|Status|Role|Term|Leader): (.*)$`)
	longID     = regexp.MustCompile(`\(([0-9a-f-]{36})\)`)
	serverLine = regexp.MustCompile(`^\s+([0-9a-f]{4}) \([0-9a-f]{4} at ([^)\s]+)\)(.*)$`)
	lastHeard  = regexp.MustCompile(`last msg (\d+) ms ago`)
)

// parseStatus reads the answer of cluster/status. An answer that is none says nothing of a cluster.
func parseStatus(answer string) member {
	var m member
	for line := range strings.Lines(answer) {
		line = strings.TrimRight(line, "\n")
		if p := serverLine.FindStringSubmatch(line); p != nil {
			m.peers = append(m.peers, parsePeer(p))
			continue
		}
		f := statusLine.FindStringSubmatch(line)
		if f == nil {
			continue
		}
		switch value := strings.TrimSpace(f[2]); f[1] {
		case "Cluster ID":
			if id := longID.FindStringSubmatch(value); id != nil {
				m.cluster = id[1]
			}
		case "Server ID":
			m.server, _, _ = strings.Cut(value, " ")
		case "Status":
			m.status = value
		case "Role":
			m.role = value
		case "Leader":
			m.leader = value
		case "Term":
			m.term, _ = strconv.ParseUint(value, 10, 64)
		}
	}
	return m
}

func parsePeer(fields []string) peer {
	p := peer{id: fields[1], address: fields[2], self: strings.Contains(fields[3], "(self)"), silent: -1}
	if m := lastHeard.FindStringSubmatch(fields[3]); m != nil {
		if ms, err := strconv.ParseInt(m[1], 10, 64); err == nil && ms >= 0 && ms < int64(24*time.Hour/time.Millisecond)*365 {
			p.silent = time.Duration(ms) * time.Millisecond
		}
	}
	return p
}

// status asks the node's server of a database.
func (s *Service) status(ctx context.Context, d database) (member, error) {
	answer, err := ovsdb.Text(ctx, s.rpc, d.ctl, "cluster/status", d.name)
	if err != nil {
		return member{}, err
	}
	m := parseStatus(answer)
	if m.status == "" {
		return member{}, fmt.Errorf("%s: cluster/status says %q", d.ctl, answer)
	}
	return m, nil
}

// stale finds members of the same address as another: only one of them can be there. A node that lost its
// database joins as a new member, and the old one would count against the majority for ever.
func stale(m member) []peer {
	var out []peer
	for _, p := range m.peers {
		for _, other := range m.peers {
			if p.id == other.id || p.address != other.address || p.self {
				continue
			}
			heard := other.self || other.silent >= 0 && other.silent < staleAfter
			if heard && (p.silent < 0 || p.silent > staleAfter) {
				out = append(out, p)
			}
		}
	}
	return out
}

// staleAfter: many of the leader's heartbeats, which go out three times in an election timer.
const staleAfter = 20 * time.Second
