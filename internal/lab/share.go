package lab

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// pathSettled is there once the machine has started its services, and gone with its power: /run is in memory.
	pathSettled = "/run/lab-settled"
	unitSettled = "lab-settled.service"
	// shareEvery is how often machines are looked at.
	shareEvery = time.Second
	// bootTime is how long a machine may boot: one of its services may wait for another machine for ever. A controller of a whole cloud on two slow
	// processors takes six minutes; with three it got its whole share in the middle of that, and the others failed 36 s of logins.
	bootTime = 15 * time.Minute
)

// settledUnit writes pathSettled at the end of the boot.
var settledUnit = fmt.Sprintf(`[Unit]
Description=Say that this machine has started its services
After=multi-user.target

[Service]
Type=oneshot
ExecStart=/usr/bin/touch %s
`, pathSettled)

// writeSettled makes the machine say when it has started its services.
func (l *Lab) writeSettled(node string) error {
	dir := filepath.Join(l.rootOf(node), "etc/systemd/system")
	wants := filepath.Join(dir, "multi-user.target.wants")
	if err := os.MkdirAll(wants, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, unitSettled), []byte(settledUnit), 0o644); err != nil {
		return err
	}
	return replaceSymlink("../"+unitSettled, filepath.Join(wants, unitSettled))
}

// booted is a machine's init and since when it is known to run.
type booted struct {
	pid   int
	since time.Time
	share map[string]string
}

// share gives each machine that runs its share of the processors, less while it boots, until ctx ends.
func (l *Lab) share(ctx context.Context) error {
	known := map[string]booted{}
	for {
		for _, n := range l.state.Nodes {
			if known[n.Name].done() {
				continue
			}
			pid, err := l.initOf(n.Name)
			if err != nil || pid == 0 {
				continue // off; what cannot be read now can be next time
			}
			b := known[n.Name]
			if b.pid != pid {
				b = booted{pid: pid, since: time.Now()}
			}
			if want := shareOf(b); !maps.Equal(want, b.share) {
				b.share = want
				l.setShare(n.Name, want)
			}
			known[n.Name] = b
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(shareEvery):
		}
	}
}

// done reports whether the machine has all that it gets for as long as it runs: then nobody has to search for its init.
func (b booted) done() bool {
	return b.pid != 0 && maps.Equal(b.share, weightMachine) && unix.Kill(b.pid, 0) == nil
}

// shareOf is the machine's: the whole one once it has started its services, or has had the time for it.
func shareOf(b booted) map[string]string {
	_, err := os.Lstat(fmt.Sprintf("/proc/%d/root%s", b.pid, pathSettled))
	if err == nil || time.Since(b.since) > bootTime {
		return weightMachine
	}
	return weightBooting
}

func (l *Lab) setShare(node string, weight map[string]string) {
	dirs, err := cgroupDirs(l.Name(), node)
	if err != nil {
		return // without weights a lab still runs
	}
	for _, dir := range dirs {
		setFiles(dir, weight)
	}
}
