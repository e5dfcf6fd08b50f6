package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"nines/internal/progress"
)

// Down removes the lab with everything it consists of. It goes by what is
// really there and not by the lab's state, so it also removes what an
// interrupted command left. Cached images stay.
func (l *Lab) Down(ctx context.Context, emit progress.Emit) error {
	start := time.Now()
	event := progress.Event{ID: "down", Title: "remove lab " + l.Name(), State: progress.Running}
	emit(event)
	err := l.down(ctx)
	event.State, event.Took = progress.Done, time.Since(start)
	if err != nil {
		event.State, event.Detail = progress.Failed, err.Error()
	}
	emit(event)
	return err
}

func (l *Lab) down(ctx context.Context) error {
	if err := requireRoot(); err != nil {
		return err
	}
	lock := filepath.Join(runRoot, l.Name()+".lock")
	unlock, err := lockLab(ctx, lock)
	if err != nil {
		return err
	}
	defer unlock()
	deadline := time.Now().Add(20 * time.Second)
	if err := l.stopDisks(); err != nil {
		return err
	}
	if err := leaveLab(l.Name()); err != nil {
		return err
	}
	if err := killCgroup(deadline, l.Name()); err != nil {
		return err
	}
	for _, dir := range []string{l.runDir(), l.Dir()} {
		if err := unmountBelow(deadline, dir); err != nil {
			return err
		}
	}
	if err := awaitDetached(l.Dir()); err != nil {
		return err
	}
	if err := errors.Join(removeCgroups(deadline, l.Name()), removeLabNspawnFiles(l.Name())); err != nil {
		return err
	}
	for _, dir := range []string{l.runDir(), l.Dir()} {
		if err := removeUnmounted(dir); err != nil {
			return err
		}
	}
	return errors.Join(removeIfThere(lock), removeIfEmpty(runRoot), removeIfEmpty(stateRoot))
}

// Exists reports whether anything of a lab of that name is on this host.
func Exists(name string) (bool, error) {
	if err := checkName(name); err != nil {
		return false, err
	}
	for _, dir := range []string{filepath.Join(stateRoot, name), filepath.Join(runRoot, name)} {
		if _, err := os.Stat(dir); err == nil {
			return true, nil
		} else if errors.Is(err, fs.ErrPermission) {
			return false, fmt.Errorf("labs need root; run it with sudo: %w", err)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
	}
	dirs, err := cgroupDirs(name)
	return len(dirs) > 0, err
}

// Purge removes the cached images. Labs that run on them must be down.
func Purge(ctx context.Context) error {
	if entries, err := os.ReadDir(stateRoot); err == nil && len(entries) > 0 {
		return fmt.Errorf("images are in use by lab %s: take it down first", entries[0].Name())
	}
	return purgeCache(ctx)
}

// stopDisks makes the lab's disks forget what is not written yet: it is thrown
// away anyhow, and writing it out first takes time.
func (l *Lab) stopDisks() error {
	nodes, err := os.ReadDir(filepath.Join(l.runDir(), "nodes"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, n := range nodes {
		if err := l.cutDisk(n.Name()); err != nil {
			return err
		}
	}
	return nil
}

// removeLabNspawnFiles is removeNspawnFiles for machines known by their files only.
func removeLabNspawnFiles(lab string) error {
	var errs []error
	for _, dir := range []string{"propagate", "unix-export"} {
		paths, err := filepath.Glob(filepath.Join("/run/systemd/nspawn", dir, machineName(lab, "ctl[0-9]*")))
		errs = append(errs, err)
		for _, path := range paths {
			errs = append(errs, os.RemoveAll(path))
		}
	}
	return errors.Join(errs...)
}

// removeUnmounted deletes a directory tree after making sure that nothing is
// mounted in it, so that it can never delete through a mount.
func removeUnmounted(dir string) error {
	mounts, err := readMounts("/proc/thread-self/mountinfo")
	if err != nil {
		return err
	}
	for _, m := range mounts {
		if isBelow(m.target, dir) {
			return fmt.Errorf("%s is still mounted; not deleting %s", m.target, dir)
		}
	}
	return os.RemoveAll(dir)
}

func removeIfEmpty(dir string) error {
	err := unix.Rmdir(dir)
	if err == nil || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) {
		return nil
	}
	return fmt.Errorf("remove %s: %w", dir, err)
}

// lockLab takes the lab's lock or says at once that somebody else works on it.
func lockLab(ctx context.Context, path string) (unlock func(), err error) {
	short, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	unlock, err = lockFile(short, path)
	if err != nil && ctx.Err() == nil && short.Err() != nil {
		return nil, errors.New("another nines lab command works on this lab; wait for it, or end it, and repeat")
	}
	return unlock, err
}
