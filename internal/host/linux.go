package host

import (
	"log/slog"
	"path/filepath"
	"sync"
)

// Linux is the Host of a Debian system with systemd. It is safe for concurrent use.
// Running as another user, WriteFile with an owner, packages and units need root.
type Linux struct {
	log  *slog.Logger
	root string // prefix of every path nines itself chooses; empty but in tests

	status statusCache
	owners ownerCache
	bus    busConn
	apt    installer
	reload reloader

	writing sync.Map // path -> *sync.Mutex: one writer of a file at a time
}

var _ Host = (*Linux)(nil)

// NewLinux returns the host this process runs on. It does no I/O; Close ends
// its connection to systemd.
func NewLinux(log *slog.Logger) *Linux { return newLinux(log, "") }

func newLinux(log *slog.Logger, root string) *Linux {
	return &Linux{log: log, root: root}
}

// Close ends the connection to systemd. The host may be used again: it connects anew.
func (l *Linux) Close() error {
	l.bus.close()
	return nil
}

func (l *Linux) path(p string) string { return filepath.Join(l.root, p) }
