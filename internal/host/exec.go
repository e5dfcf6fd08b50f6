package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"syscall"
	"time"
)

// outputLimit is how much of each stream of a command is kept: the last bytes.
const outputLimit = 64 << 10

// pipeGrace is how long Run waits for output after the command ended: a daemon it
// left behind may hold the pipe open for ever.
const pipeGrace = 2 * time.Second

// baseEnv is the environment of every command: what the agent itself was started
// with must not change what commands do, and their messages must be in English.
var baseEnv = []string{
	"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
	"LC_ALL=C.UTF-8",
}

// Run implements Host. The command gets a process group of its own, which is killed
// when ctx ends; of each output stream the last 64 KB are kept.
func (l *Linux) Run(ctx context.Context, cmd Cmd) (Output, error) {
	if len(cmd.Args) == 0 {
		return Output{}, errors.New("run: no command")
	}
	c := exec.CommandContext(ctx, cmd.Args[0], cmd.Args[1:]...)
	stdout, stderr := &tailBuffer{limit: outputLimit}, &tailBuffer{limit: outputLimit}
	c.Dir, c.Stdout, c.Stderr = "/", stdout, stderr
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
	c.WaitDelay = pipeGrace
	if cmd.Stdin != nil {
		c.Stdin = bytes.NewReader(cmd.Stdin)
	}
	if err := identity(c, cmd.User); err != nil {
		return Output{}, err
	}
	c.Env = append(c.Env, cmd.Env...)
	err := start(c)
	if err == nil {
		err = c.Wait()
	}
	out := Output{Stdout: stdout.Bytes(), Stderr: stderr.Bytes()}
	return out, runError(ctx, cmd, err, out)
}

// start starts the command at ordinary priority: the agent's own is higher, so that it answers health checks on a busy machine, and
// what it starts must not compete with it.
func start(c *exec.Cmd) error {
	if err := c.Start(); err != nil {
		return err
	}
	// Without the right to (a test), or already gone: it runs as it is.
	_ = syscall.Setpriority(syscall.PRIO_PGRP, c.Process.Pid, 0)
	return nil
}

// runError turns what exec says into the errors of this package.
func runError(ctx context.Context, cmd Cmd, err error, out Output) error {
	var exit *exec.ExitError
	switch {
	case err == nil, errors.Is(err, exec.ErrWaitDelay) && ctx.Err() == nil:
		return nil // with ErrWaitDelay the command itself exited 0
	case ctx.Err() != nil:
		return fmt.Errorf("%w: %w", &ExitError{Args: cmd.Args, Code: -1, Stderr: string(out.Stderr)}, context.Cause(ctx))
	case errors.As(err, &exit):
		return &ExitError{Args: cmd.Args, Code: exit.ExitCode(), Stderr: string(out.Stderr)}
	}
	return fmt.Errorf("run %s: %w", cmd.Args[0], err)
}

// identity sets user, groups and environment of the command.
func identity(c *exec.Cmd, name string) error {
	if name == "" {
		c.Env = append(append([]string{}, baseEnv...), "HOME=/root", "USER=root", "LOGNAME=root")
		return nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		return fmt.Errorf("run %s as %s: %w", c.Args[0], name, err)
	}
	c.Env = append(append([]string{}, baseEnv...), "HOME="+u.HomeDir, "USER="+name, "LOGNAME="+name)
	cred, err := credential(u)
	if err != nil {
		return fmt.Errorf("run %s as %s: %w", c.Args[0], name, err)
	}
	if os.Geteuid() != 0 && int(cred.Uid) == os.Geteuid() {
		return nil // already that user; only root may set groups
	}
	c.SysProcAttr.Credential = cred
	return nil
}

func credential(u *user.User) (*syscall.Credential, error) {
	ids := []string{u.Uid, u.Gid}
	groups, err := u.GroupIds()
	if err != nil {
		return nil, err
	}
	var nums []uint32
	for _, id := range append(ids, groups...) {
		n, err := strconv.ParseUint(id, 10, 32)
		if err != nil {
			return nil, err
		}
		nums = append(nums, uint32(n))
	}
	return &syscall.Credential{Uid: nums[0], Gid: nums[1], Groups: nums[2:]}, nil
}
