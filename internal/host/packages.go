package host

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"strings"
	"sync"
	"syscall"
)

const dpkgStatus = "/var/lib/dpkg/status"

// dpkgState is what /var/lib/dpkg/status says.
type dpkgState struct {
	installed map[string]string // name -> version, fully installed and configured
	// unfinished lists packages that dpkg was interrupted with: unpacked or half configured.
	unfinished []string
}

// statusCache keeps the parsed status until the file is another: observing is done
// every few seconds, packages change once a month.
type statusCache struct {
	mu    sync.Mutex
	stamp fileStamp
	state dpkgState
}

func stampOf(path string) fileStamp {
	st, err := os.Stat(path)
	if err != nil {
		return fileStamp{}
	}
	return fileStamp{mtime: st.ModTime().UnixNano(), size: st.Size(), inode: st.Sys().(*syscall.Stat_t).Ino}
}

// Packages implements Host by reading dpkg's own status file: no process is started.
func (l *Linux) Packages(ctx context.Context) (map[string]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	st, err := l.dpkg()
	if err != nil {
		return nil, err
	}
	return maps.Clone(st.installed), nil
}

func (l *Linux) dpkg() (dpkgState, error) {
	l.status.mu.Lock()
	defer l.status.mu.Unlock()
	path := l.path(dpkgStatus)
	stamp := stampOf(path) // before reading: dpkg replaces the file by rename
	if stamp == l.status.stamp && l.status.state.installed != nil {
		return l.status.state, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return dpkgState{}, fmt.Errorf("list packages (is this a Debian system?): %w", err)
	}
	defer f.Close()
	st, err := parseStatus(f)
	if err != nil {
		return dpkgState{}, fmt.Errorf("list packages: %s: %w", path, err)
	}
	l.status.stamp, l.status.state = stamp, st
	return st, nil
}

// parseStatus reads dpkg's status file: paragraphs of "Field: value" lines, continued
// by lines that start with a space (deb-src-control(5), dpkg-query(1)).
func parseStatus(r io.Reader) (dpkgState, error) {
	st := dpkgState{installed: map[string]string{}}
	var name, status, version string
	flush := func() {
		words := strings.Fields(status)
		if name != "" && len(words) == 3 {
			switch words[2] {
			case "installed":
				st.installed[name] = version
			case "half-installed", "unpacked", "half-configured", "triggers-awaited", "triggers-pending":
				st.unfinished = append(st.unfinished, name)
			}
		}
		name, status, version = "", "", ""
	}
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 64<<10), 4<<20)
	for sc.Scan() {
		line := sc.Bytes()
		switch {
		case len(line) == 0:
			flush()
		case line[0] == ' ', line[0] == '\t':
		default:
			field, value, _ := bytes.Cut(line, []byte(":"))
			switch string(field) {
			case "Package":
				name = string(bytes.TrimSpace(value))
			case "Status":
				status = string(value)
			case "Version":
				version = string(bytes.TrimSpace(value))
			}
		}
	}
	flush()
	return st, sc.Err()
}
