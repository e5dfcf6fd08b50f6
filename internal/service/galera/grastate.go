package galera

import (
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"strconv"
	"strings"

	"nines/internal/host"
)

// zeroUUID stands for "no history".
const zeroUUID = "00000000-0000-0000-0000-000000000000"

// position is a place in a cluster's history.
type position struct {
	UUID  string
	Seqno int64 // -1: not known
}

// none reports whether the position belongs to no cluster.
func (p position) none() bool { return p.UUID == "" || p.UUID == zeroUUID }

// grastate is the content of grastate.dat: what Galera saved of its state.
type grastate struct {
	position
	SafeToBootstrap bool
}

var uuidPattern = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)

// parseGrastate reads grastate.dat ("key: value" lines, # comments). A file without a
// valid uuid or seqno is an error: nothing may be concluded from it.
func parseGrastate(text string) (grastate, error) {
	var g grastate
	seen := map[string]bool{}
	for line := range strings.Lines(text) {
		key, value, found := strings.Cut(strings.TrimSpace(line), ":")
		if !found || strings.HasPrefix(key, "#") {
			continue
		}
		value = strings.TrimSpace(value)
		switch key {
		case "uuid":
			if !uuidPattern.MatchString(value) {
				return grastate{}, fmt.Errorf("grastate.dat: %q is no UUID", value)
			}
			g.UUID = strings.ToLower(value)
		case "seqno":
			n, err := strconv.ParseInt(value, 10, 64)
			if err != nil {
				return grastate{}, fmt.Errorf("grastate.dat: seqno: %w", err)
			}
			g.Seqno = n
		case "safe_to_bootstrap":
			g.SafeToBootstrap = value == "1"
		}
		seen[key] = true
	}
	if !seen["uuid"] || !seen["seqno"] {
		return grastate{}, errors.New("grastate.dat has no uuid or no seqno")
	}
	return g, nil
}

// readGrastate reads the node's grastate.dat; found is false when there is none, or an empty
// one: a server leaves that behind when it could not join at its very first start.
func readGrastate(h host.Host) (g grastate, found bool, err error) {
	f, err := h.ReadFile(grastateFile)
	if errors.Is(err, fs.ErrNotExist) {
		return grastate{}, false, nil
	}
	if err != nil {
		return grastate{}, false, fmt.Errorf("read grastate.dat: %w", err)
	}
	if strings.TrimSpace(string(f.Content)) == "" {
		return grastate{}, false, nil
	}
	g, err = parseGrastate(string(f.Content))
	return g, true, err
}

var recoveredPattern = regexp.MustCompile(`WSREP: Recovered position: ?([0-9a-fA-F-]{36}):(-?[0-9]+)`)

// parseRecovered finds the position that mariadbd --wsrep-recover logs.
func parseRecovered(log string) (position, error) {
	all := recoveredPattern.FindAllStringSubmatch(log, -1)
	if len(all) == 0 {
		return position{}, errors.New("mariadbd --wsrep-recover told no position")
	}
	m := all[len(all)-1]
	n, err := strconv.ParseInt(m[2], 10, 64)
	if err != nil || !uuidPattern.MatchString(m[1]) {
		return position{}, fmt.Errorf("mariadbd --wsrep-recover told %q", m[0])
	}
	return position{UUID: strings.ToLower(m[1]), Seqno: n}, nil
}
