package lab

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// PowerOn boots the machines and returns when the init of each runs. A machine
// that is on already stays as it is.
func (l *Lab) PowerOn(ctx context.Context, nodes ...string) error {
	return l.eachNode(ctx, nodes, l.powerOn)
}

// PowerOff takes the power of the machines away but leaves their disks whole,
// as if a disk cache with a battery had caught what was written: no process can
// say goodbye, no connection is closed towards anybody.
func (l *Lab) PowerOff(ctx context.Context, nodes ...string) error {
	return l.eachNode(ctx, nodes, func(_ context.Context, n nodeSpec) error { return l.powerOff(n, false) })
}

// PowerCut is PowerOff that also loses everything not flushed to disk.
func (l *Lab) PowerCut(ctx context.Context, nodes ...string) error {
	return l.eachNode(ctx, nodes, func(_ context.Context, n nodeSpec) error { return l.powerOff(n, true) })
}

// stopLimit is how long a machine may take to shut down: a database writes what it has in memory.
const stopLimit = 3 * time.Minute

// PowerStop shuts machines down as they want to be: every service is stopped, every file system written.
func (l *Lab) PowerStop(ctx context.Context, nodes ...string) error {
	return l.eachNode(ctx, nodes, l.powerStop)
}

func (l *Lab) powerStop(ctx context.Context, n nodeSpec) error {
	pid, err := l.initOf(n.Name)
	if err != nil || pid == 0 {
		return err
	}
	// SIGRTMIN+4 has systemd start poweroff.target.
	const sigrtmin = 34
	if err := unix.Kill(pid, unix.Signal(sigrtmin+4)); err != nil {
		return fmt.Errorf("shut down %s: %w", n.Name, err)
	}
	deadline := time.Now().Add(stopLimit)
	for pid != 0 {
		if time.Now().After(deadline) {
			return fmt.Errorf("shut down %s: it still runs after %s; its console says why (%s), 'nines lab power off %s' does not wait\n%s", n.Name, stopLimit, l.console(n.Name), n.Name, l.lastWords(n.Name, 3))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
		if pid, err = l.initOf(n.Name); err != nil {
			return fmt.Errorf("shut down %s: %w", n.Name, err)
		}
	}
	if err := l.takeApart(n); err != nil {
		return fmt.Errorf("shut down %s: %w", n.Name, err)
	}
	return nil
}

// Lose removes a file of a machine that is on, and the removal is on its disk when it returns.
func (l *Lab) Lose(node, path string) error {
	root, err := l.files(node)
	if err != nil {
		return err
	}
	defer root.Close()
	name := strings.TrimPrefix(filepath.Clean(path), "/")
	if err := root.Remove(name); err != nil {
		return fmt.Errorf("files of %s: %w", node, err)
	}
	dir, err := root.Open(filepath.Dir(name))
	if err != nil {
		return fmt.Errorf("files of %s: %w", node, err)
	}
	defer dir.Close()
	return dir.Sync()
}

// eachNode checks all names, then runs f for every machine at the same time.
func (l *Lab) eachNode(ctx context.Context, names []string, f func(context.Context, nodeSpec) error) error {
	specs := make([]nodeSpec, 0, len(names))
	for _, name := range names {
		n, err := l.node(name)
		if err != nil {
			return err
		}
		specs = append(specs, n)
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, n := range specs {
		group.Go(func() error {
			unlock, err := lockFile(ctx, filepath.Join(l.runDir(), n.Name+".lock"))
			if err != nil {
				return err
			}
			defer unlock()
			return f(ctx, n)
		})
	}
	return group.Wait()
}

func (l *Lab) powerOn(ctx context.Context, n nodeSpec) error {
	pid, err := l.initOf(n.Name)
	if err != nil || pid != 0 {
		return err
	}
	if err := l.takeApart(n); err != nil {
		return fmt.Errorf("power on %s: %w", n.Name, err)
	}
	if err := l.boot(ctx, n); err != nil {
		return fmt.Errorf("power on %s: %w", n.Name, err)
	}
	return nil
}

// powerOff first silences the machine and stops its disk, then kills it: in the
// moment between, its processes see errors that nobody will ever hear of.
func (l *Lab) powerOff(n nodeSpec, cut bool) error {
	err := l.silence(n)
	if cut {
		err = errors.Join(err, l.cutDisk(n.Name))
	}
	l.setShare(n.Name, weightDying)
	if pid, initErr := l.initOf(n.Name); initErr != nil {
		err = errors.Join(err, initErr)
	} else if pid != 0 {
		if killErr := unix.Kill(pid, unix.SIGKILL); killErr != nil && !errors.Is(killErr, unix.ESRCH) {
			err = errors.Join(err, killErr)
		}
	}
	if err = errors.Join(err, l.takeApart(n)); err != nil {
		return fmt.Errorf("power off %s: %w", n.Name, err)
	}
	return nil
}
