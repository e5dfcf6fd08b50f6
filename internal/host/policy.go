package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Packages must not start their services: an unconfigured MariaDB would listen before
// nines has configured it. Two things see to that while packages are being installed:
//
//   - policy-rc.d (invoke-rc.d(8), deb-systemd-invoke(1)) denies starts and restarts;
//   - a systemd preset (deb-systemd-helper(1) enables new units by "systemctl preset") keeps new
//     services and sockets from being enabled, so that a reboot before nines has configured
//     them starts nothing either. Timers (logrotate and the like) keep their default.
//
// Preset and the mark that makes policy-rc.d deny live in /run: after a power cut neither
// has any effect, and Recover takes what is left of policy-rc.d away.
const (
	policyPath  = "/usr/sbin/policy-rc.d"
	policySaved = "/usr/sbin/policy-rc.d.before-nines" // the operator's own, if there is one
	policyMark  = "# Written by nines"
	installing  = "/run/nines/installing"
	presetPath  = "/run/systemd/system-preset/00-nines-installing.preset"
	installLock = "/run/nines/install.lock"
)

const policyText = `#!/bin/sh
` + policyMark + ` while it installs packages, and removed afterwards: services start when they are configured.
[ -e ` + installing + ` ] && exit 101
[ -x ` + policySaved + ` ] && exec ` + policySaved + ` "$@"
exit 0
`

const presetText = `# Written by nines while it installs packages: nines enables what it has configured.
disable *.service
disable *.socket
`

// holdServices keeps the services of packages from starting until release is
// called. Only the holder of the install lock may call it.
func (l *Linux) holdServices(ctx context.Context) (release func() error, err error) {
	if err := l.releaseServices(); err != nil { // what an interrupted install left
		return nil, err
	}
	release = l.releaseServices
	ours, err := l.policyIsOurs()
	if err != nil {
		return nil, err
	}
	if !ours {
		err := os.Link(l.path(policyPath), l.path(policySaved))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("keep the existing policy-rc.d: %w", err)
		}
	}
	for _, f := range []File{
		{Path: installing, Mode: 0o644},
		{Path: presetPath, Mode: 0o644, Content: []byte(presetText)},
		{Path: policyPath, Mode: 0o755, Content: []byte(policyText)},
	} {
		f.Path = l.path(f.Path)
		if err := l.WriteFile(ctx, f, nil); err != nil {
			return nil, errors.Join(fmt.Errorf("keep services from starting: %w", err), release())
		}
	}
	return release, nil
}

// releaseServices undoes holdServices, whatever point it had come to. It is safe to repeat.
func (l *Linux) releaseServices() error {
	ours, err := l.policyIsOurs()
	if err != nil {
		return err
	}
	_, savedErr := os.Lstat(l.path(policySaved))
	switch {
	case ours && savedErr == nil:
		err = os.Rename(l.path(policySaved), l.path(policyPath))
	case ours:
		err = l.RemoveFile(l.path(policyPath))
	case savedErr == nil: // crashed before ours was put in place: both are the operator's
		err = l.RemoveFile(l.path(policySaved))
	}
	return errors.Join(err, removeIfThere(l.path(presetPath)), removeIfThere(l.path(installing)))
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (l *Linux) policyIsOurs() (bool, error) {
	b, err := os.ReadFile(l.path(policyPath))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return bytes.Contains(b, []byte(policyMark)), err
}

// lockInstall waits for other processes of nines that install packages on this machine.
func (l *Linux) lockInstall(ctx context.Context) (unlock func(), err error) {
	path := l.path(installLock)
	if err := makeDirs(filepath.Dir(path)); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	done := make(chan error, 1)
	go func() { done <- flock(int(f.Fd())) }()
	select {
	case err := <-done:
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		return func() { f.Close() }, nil
	case <-ctx.Done():
		go func() { <-done; f.Close() }() // cannot be interrupted: let go as soon as it is ours
		return nil, context.Cause(ctx)
	}
}

func flock(fd int) error {
	for {
		if err := syscall.Flock(fd, syscall.LOCK_EX); !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

// Recover undoes what an interrupted InstallPackages may have left: the agent calls it
// when it starts. It does nothing while another process installs packages.
func (l *Linux) Recover(ctx context.Context) error {
	unlock, err := l.lockInstall(ctx)
	if err != nil {
		return fmt.Errorf("recover package installation: %w", err)
	}
	defer unlock()
	return l.releaseServices()
}
