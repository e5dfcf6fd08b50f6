package galera

import (
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"strconv"
	"strings"

	"nines/internal/host"
	"nines/internal/service/galera/recovery"
)

var uuidPattern = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)

// parseGrastate reads grastate.dat ("key: value" lines, # comments). A file without a
// valid uuid or seqno is an error: nothing may be concluded from it.
func parseGrastate(text string) (recovery.Saved, error) {
	var g recovery.Saved
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
				return recovery.Saved{}, fmt.Errorf("grastate.dat: %q is no UUID", value)
			}
			g.UUID = strings.ToLower(value)
		case "seqno":
			n, err := strconv.ParseInt(value, 10, 64)
			if err != nil {
				return recovery.Saved{}, fmt.Errorf("grastate.dat: seqno: %w", err)
			}
			g.Seqno = n
		case "safe_to_bootstrap":
			g.SafeToBootstrap = value == "1"
		}
		seen[key] = true
	}
	if !seen["uuid"] || !seen["seqno"] {
		return recovery.Saved{}, errors.New("grastate.dat has no uuid or no seqno")
	}
	return g, nil
}

// readGrastate reads the node's grastate.dat; found is false when there is none, or an empty
// one: a server leaves that behind when it could not join at its very first start.
func readGrastate(h host.Host) (g recovery.Saved, found bool, err error) {
	f, err := h.ReadFile(grastateFile)
	if errors.Is(err, fs.ErrNotExist) {
		return recovery.Saved{}, false, nil
	}
	if err != nil {
		return recovery.Saved{}, false, fmt.Errorf("read grastate.dat: %w", err)
	}
	if strings.TrimSpace(string(f.Content)) == "" {
		return recovery.Saved{}, false, nil
	}
	g, err = parseGrastate(string(f.Content))
	return g, true, err
}

var recoveredPattern = regexp.MustCompile(`WSREP: Recovered position: ?([0-9a-fA-F-]{36}):(-?[0-9]+)`)

// parseRecovered finds the position that mariadbd --wsrep-recover logs.
func parseRecovered(log string) (recovery.Position, error) {
	all := recoveredPattern.FindAllStringSubmatch(log, -1)
	if len(all) == 0 {
		return recovery.Position{}, errors.New("mariadbd --wsrep-recover told no position")
	}
	m := all[len(all)-1]
	n, err := strconv.ParseInt(m[2], 10, 64)
	if err != nil || !uuidPattern.MatchString(m[1]) {
		return recovery.Position{}, fmt.Errorf("mariadbd --wsrep-recover told %q", m[0])
	}
	return recovery.Position{UUID: strings.ToLower(m[1]), Seqno: n}, nil
}
