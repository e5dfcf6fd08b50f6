package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// inPrivateMounts runs f on an operating-system thread whose mounts nobody
// else sees and which vanish with it, whatever happens to this process. The
// commands f starts see them too; goroutines it starts do not.
//
// Of the labs' mounts only those at or below keep are seen, see dropForeignMounts.
func inPrivateMounts(keep string, f func() error) error {
	return onOwnThread(func() error {
		if err := privateMounts(keep); err != nil {
			return err
		}
		return f()
	})
}

// onOwnThread runs f on an operating-system thread that ends with it, and with it what f has changed for the thread.
func onOwnThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The main thread ends with the process only: a machine's disk would stay mounted by it. While it waits here another runs f.
			defer runtime.UnlockOSThread()
			done <- onOwnThread(f)
			return
		}
		done <- f() // never unlocked: the thread ends with this goroutine
	}()
	return <-done
}

// privateMounts gives the calling thread a mount namespace of its own. It hands
// nothing to the host's, but learns of what is unmounted there where the host
// shares its mounts: a copy would keep it busy.
func privateMounts(keep string) error {
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("mount namespace: %w", err)
	}
	return dropForeignMounts(keep)
}

// dropForeignMounts unmounts, in the calling thread's own mount namespace, what
// labs have mounted except what is at or below keep. Where the host's mounts are
// not shared, a machine would otherwise hold on to what belongs to others, even
// after those are gone.
func dropForeignMounts(keep string) error {
	mounts, err := readMounts("/proc/thread-self/mountinfo")
	if err != nil {
		return err
	}
	for _, m := range slices.Backward(mounts) {
		if !isBelow(m.target, runRoot) || keep != "" && isBelow(m.target, keep) {
			continue
		}
		if err := unix.Unmount(m.target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return fmt.Errorf("drop mount %s: %w", m.target, err)
		}
	}
	return nil
}

// onLabNetwork runs f on a thread inside the network namespace at path. Sockets
// that f makes stay there for good; goroutines it starts are not inside.
func onLabNetwork(path string, f func() error) error {
	return onOwnThread(func() error {
		if err := joinNetwork(path); err != nil {
			return err
		}
		return f()
	})
}

// joinNetwork moves the calling thread into the network namespace at path.
func joinNetwork(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("network namespace %s: %w", path, err)
	}
	defer unix.Close(fd)
	if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter network namespace %s: %w", path, err)
	}
	return nil
}

// makeNetworkNamespace makes a network namespace that lives as long as the
// bind mount at path. One that is there already is kept.
func makeNetworkNamespace(path string) error {
	if isNetworkNamespace(path) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o600)
	if err != nil {
		return err
	}
	f.Close()
	err = onOwnThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		return unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")
	})
	if err != nil {
		return fmt.Errorf("network namespace %s: %w", path, err)
	}
	return nil
}

// isNetworkNamespace reports whether a namespace is mounted at path.
func isNetworkNamespace(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Type == unix.NSFS_MAGIC
}

// sameNetwork reports whether the calling thread is in the namespace at path.
func sameNetwork(path string) (bool, error) {
	var here, there unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &here); err != nil {
		return false, err
	}
	if err := unix.Stat(path, &there); err != nil {
		return false, err
	}
	return here.Dev == there.Dev && here.Ino == there.Ino, nil
}

// lockFile takes an exclusive lock on path, waiting for it until ctx ends. The
// kernel gives it back when the process dies.
func lockFile(ctx context.Context, path string) (unlock func(), err error) {
	for {
		f, err := tryLock(path)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%s is locked by another nines process: %w", path, ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// tryLock locks path or returns EWOULDBLOCK. The lock holds until the file is closed.
func tryLock(path string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	for {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return nil, err
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			f.Close()
			return nil, err
		}
		// The last holder may have deleted the file between our open and lock.
		mine, err := f.Stat()
		if err != nil {
			f.Close()
			return nil, err
		}
		if current, err := os.Stat(path); err == nil && os.SameFile(mine, current) {
			return f, nil
		}
		f.Close()
	}
}
