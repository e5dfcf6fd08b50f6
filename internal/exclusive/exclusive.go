// Package exclusive runs a program on one node of several: only the holder of a lease runs it, the others wait.
//
// Invariants: the program and its process group are killed before anybody else can win the lease (store.Lease.Lost
// comes in time for that), unless this very process is stopped: then a unit's processes are stopped together, and
// the program is killed first thing when they go on. It dies with this process. The lease is resigned only when it is gone. The package must never start the program without the lease, and never know what the program is.
package exclusive

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"nines/internal/store"
)

// Program is what one node at a time runs.
type Program struct {
	Lease  string // the same on all nodes
	Holder string // this node
	// Needs is a file without which this node must not hold the lease, because the program could not work here;
	// empty: none. It is looked for once, before the node waits for the lease.
	Needs   string
	Command []string // program and arguments
	// Patience is how long the program may take to end by itself when it is asked to.
	Patience time.Duration
}

// Errors of Run.
var (
	ErrLost     = errors.New("the lease is lost: the program was killed")
	ErrUnfit    = errors.New("this node cannot run the program")
	ErrPatience = errors.New("the program did not end in time and was killed")
)

// resignTimeout bounds the resignation; what fails runs out by itself.
const resignTimeout = 2 * time.Second

// Run waits for the lease, runs the program, and returns when it has ended, when the lease is lost
// (ErrLost), or, after the program's orderly end, when ctx ends (nil).
func Run(ctx context.Context, s store.Store, p Program, log *slog.Logger) error {
	if p.Needs != "" {
		if _, err := os.Stat(p.Needs); err != nil {
			return fmt.Errorf("%w: %w", ErrUnfit, err)
		}
	}
	log.Info("waiting for the lease", "lease", p.Lease)
	lease, err := s.Campaign(ctx, "exclusive/"+p.Lease, p.Holder)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	log.Info("this node runs the program", "lease", p.Lease, "fence", lease.Fence())
	err = p.run(ctx, lease, log)
	// Only now: the program is gone.
	resign, cancel := context.WithTimeout(context.WithoutCancel(ctx), resignTimeout)
	defer cancel()
	if rerr := lease.Resign(resign); rerr != nil {
		log.Warn("the lease is left to run out", "err", rerr)
	}
	return err
}

func (p Program) run(ctx context.Context, lease store.Lease, log *slog.Logger) error {
	// The kernel kills the child when the thread that started it ends.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.Command(p.Command[0], p.Command[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.Command[0], err)
	}
	signal := func(s syscall.Signal) {
		if err := syscall.Kill(-cmd.Process.Pid, s); err != nil && !errors.Is(err, syscall.ESRCH) {
			log.Warn("signal", "signal", s, "err", err)
		}
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	defer signal(syscall.SIGKILL) // whoever the program left behind

	var overdue <-chan time.Time
	stopping := ctx.Done()
	for {
		select {
		case err := <-exited:
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("%s ended: %w", p.Command[0], orEnd(err))
		case <-lease.Lost():
			signal(syscall.SIGKILL)
			<-exited
			return ErrLost
		case <-stopping:
			signal(syscall.SIGTERM)
			stopping, overdue = nil, time.After(p.Patience)
		case <-overdue:
			signal(syscall.SIGKILL)
			<-exited
			return ErrPatience
		}
	}
}

func orEnd(err error) error {
	if err == nil {
		return errors.New("exit status 0")
	}
	return err
}
