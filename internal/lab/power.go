package lab

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

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
