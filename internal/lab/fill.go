package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// filler takes the room of a machine's disk. Room is reserved without anything being written: the host's disk stays as it is.
const filler = "var/tmp/nines-lab-fill"

// FillDisk leaves so many bytes free on the disk of a machine that is on, at once, then takes rate bytes a second until nothing is left.
func (l *Lab) FillDisk(ctx context.Context, node string, left, rate int64) error {
	root, err := l.files(node)
	if err != nil {
		return err
	}
	defer root.Close()
	f, err := root.OpenFile(filler, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("fill the disk of %s: %w", node, err)
	}
	defer f.Close()
	if err := fill(ctx, f, left, rate); err != nil {
		return fmt.Errorf("fill the disk of %s: %w", node, err)
	}
	return nil
}

func fill(ctx context.Context, f *os.File, left, rate int64) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return err
	}
	const steps = 10 // a second
	size, most := int64(0), int64(st.Bavail)*st.Bsize
	tick := time.NewTicker(time.Second / steps)
	defer tick.Stop()
	for part := max(most-left, rate/steps); ; part = rate / steps {
		err := unix.Fallocate(int(f.Fd()), 0, size, part)
		if errors.Is(err, unix.ENOSPC) {
			return takeRest(f, size, part)
		}
		if err != nil {
			return err
		}
		size += part
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// takeRest takes what is left in ever smaller parts.
func takeRest(f *os.File, size, part int64) error {
	for part > 4096 {
		part = part / 2 / 4096 * 4096
		switch err := unix.Fallocate(int(f.Fd()), 0, size, max(part, 4096)); {
		case err == nil:
			size += part
			part *= 2 // as much may still be there
		case !errors.Is(err, unix.ENOSPC):
			return err
		}
	}
	return nil
}

// FreeDisk gives the room back.
func (l *Lab) FreeDisk(node string) error {
	root, err := l.files(node)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := root.Remove(filler); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("free the disk of %s: %w", node, err)
	}
	return nil
}

// files are those of a machine that is on.
func (l *Lab) files(node string) (*os.Root, error) {
	n, err := l.node(node)
	if err != nil {
		return nil, err
	}
	pid, err := l.initOf(n.Name)
	if err != nil {
		return nil, err
	}
	if pid == 0 {
		return nil, fmt.Errorf("%s is off", node)
	}
	root, err := os.OpenRoot(fmt.Sprintf("/proc/%d/root", pid))
	if err != nil {
		return nil, fmt.Errorf("files of %s: %w", node, err)
	}
	return root, nil
}

// Shell runs a script on a machine that is on, as root, and returns what it printed.
func (l *Lab) Shell(ctx context.Context, node, script string) (string, error) {
	n, err := l.node(node)
	if err != nil {
		return "", err
	}
	if err := l.awaitSSH(ctx, n); err != nil {
		return "", err
	}
	config, err := l.sshConfig()
	if err != nil {
		return "", err
	}
	client, err := l.login(n.Management+":22", config)
	if err != nil {
		return "", fmt.Errorf("log in to %s: %w", node, err)
	}
	defer client.Close()
	defer context.AfterFunc(ctx, func() { client.Close() })()
	session, err := client.NewSession()
	if err != nil {
		return "", fmt.Errorf("log in to %s: %w", node, err)
	}
	var failure strings.Builder
	session.Stdin, session.Stderr = strings.NewReader(script), &failure
	out, err := session.Output("sh -eu -s")
	if err != nil {
		return string(out), fmt.Errorf("a script on %s: %w: %s", node, err, strings.TrimSpace(failure.String()))
	}
	return string(out), nil
}
