package host

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
)

// busConn is the one connection to systemd, opened when first needed and again
// when it broke (systemd was re-executed, the bus restarted).
type busConn struct {
	mu   sync.Mutex
	conn *dbus.Conn
}

func (b *busConn) get() (*dbus.Conn, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.conn != nil && b.conn.Connected() {
		return b.conn, nil
	}
	if b.conn != nil {
		b.conn.Close()
		b.conn = nil
	}
	conn, err := dialSystemd()
	if err != nil {
		return nil, err
	}
	b.conn = conn
	return conn, nil
}

func (b *busConn) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.conn != nil {
		b.conn.Close()
		b.conn = nil
	}
}

// dialSystemd connects to systemd itself, as systemctl does for root: one hop less and no
// need for a bus daemon; over the system bus where that is not allowed. The connection's life must
// not hang on the context of the call that happens to open it.
func dialSystemd() (*dbus.Conn, error) {
	conn, err := dbus.NewSystemdConnectionContext(context.Background())
	if err != nil {
		conn, err = dbus.NewSystemConnectionContext(context.Background())
	}
	if err != nil {
		return nil, fmt.Errorf("connect to systemd (is this machine run by systemd, and are you root?): %w", err)
	}
	if err := conn.Subscribe(); err != nil { // without it no job is ever reported as done
		conn.Close()
		return nil, fmt.Errorf("subscribe to systemd: %w", err)
	}
	return conn, nil
}

// Unit implements Host: one call for the unit's properties, and two more for a service that runs.
func (l *Linux) Unit(ctx context.Context, name string) (UnitState, error) {
	conn, err := l.bus.get()
	if err != nil {
		return UnitState{}, err
	}
	props, err := conn.GetUnitPropertiesContext(ctx, name)
	if err != nil {
		return UnitState{}, fmt.Errorf("state of %s: %w", name, err)
	}
	st := unitState(props)
	if !st.Loaded || !strings.HasSuffix(name, ".service") {
		return st, nil
	}
	if p, err := conn.GetServicePropertyContext(ctx, name, "Result"); err == nil {
		st.Result, _ = p.Value.Value().(string)
	}
	if p, err := conn.GetServicePropertyContext(ctx, name, "MainPID"); err == nil {
		pid, _ := p.Value.Value().(uint32)
		st.MainPID = int(pid)
	}
	return st, nil
}

// unitState reads the properties of org.freedesktop.systemd1.Unit (org.freedesktop.systemd1(5)).
func unitState(props map[string]any) UnitState {
	text := func(key string) string { s, _ := props[key].(string); return s }
	st := UnitState{
		Loaded:    text("LoadState") != "not-found" && text("LoadState") != "",
		Active:    text("ActiveState"),
		Sub:       text("SubState"),
		FileState: text("UnitFileState"),
		Enabled:   text("UnitFileState") == "enabled",
	}
	if id, ok := props["InvocationID"].([]byte); ok && len(id) > 0 {
		st.Invocation = fmt.Sprintf("%x", id)
	}
	// When it left "inactive": before anything of it read a file. Microseconds since 1970, 0 for never.
	if us, ok := props["InactiveExitTimestamp"].(uint64); ok && us > 0 {
		st.Started = time.UnixMicro(int64(us))
	}
	return st
}

// StartUnit implements Host.
func (l *Linux) StartUnit(ctx context.Context, name string) error {
	return l.job(ctx, "start", name, (*dbus.Conn).StartUnitContext)
}

// StopUnit implements Host.
func (l *Linux) StopUnit(ctx context.Context, name string) error {
	return l.job(ctx, "stop", name, (*dbus.Conn).StopUnitContext)
}

// RestartUnit implements Host.
func (l *Linux) RestartUnit(ctx context.Context, name string) error {
	return l.job(ctx, "restart", name, (*dbus.Conn).RestartUnitContext)
}

// ReloadUnit implements Host.
func (l *Linux) ReloadUnit(ctx context.Context, name string) error {
	return l.job(ctx, "reload", name, (*dbus.Conn).ReloadUnitContext)
}

type jobFunc func(c *dbus.Conn, ctx context.Context, name, mode string, done chan<- string) (int, error)

// job queues a job and waits until it is done.
func (l *Linux) job(ctx context.Context, verb, name string, queue jobFunc) error {
	conn, err := l.bus.get()
	if err != nil {
		return err
	}
	if err := l.prepareJob(ctx, conn, verb, name); err != nil {
		return fmt.Errorf("%s %s: %w", verb, name, err)
	}
	done := make(chan string, 1)
	if _, err := queue(conn, ctx, name, "replace", done); err != nil {
		return &UnitError{Unit: name, Verb: verb, Result: err.Error(), Lines: l.journal(ctx, name)}
	}
	lost := time.NewTicker(time.Second)
	defer lost.Stop()
	for {
		select {
		case result := <-done:
			if result == "done" {
				return nil
			}
			return &UnitError{Unit: name, Verb: verb, Result: result, Lines: l.journal(ctx, name)}
		case <-ctx.Done():
			return &UnitError{Unit: name, Verb: verb, Result: "not done in time: " + context.Cause(ctx).Error(),
				Lines: l.journal(context.WithoutCancel(ctx), name)}
		case <-lost.C:
			if !conn.Connected() {
				return fmt.Errorf("%s %s: the connection to systemd broke; apply again", verb, name)
			}
		}
	}
}

// prepareJob makes systemd read changed unit files first, and forget earlier failures that would make
// it refuse a start ("start-limit-hit").
func (l *Linux) prepareJob(ctx context.Context, conn *dbus.Conn, verb, name string) error {
	if verb == "stop" {
		return nil
	}
	p, err := conn.GetUnitPropertyContext(ctx, name, "NeedDaemonReload")
	if err != nil {
		return err
	}
	if stale, _ := p.Value.Value().(bool); stale {
		if err := l.ReloadUnitFiles(ctx); err != nil {
			return err
		}
	}
	p, err = conn.GetUnitPropertyContext(ctx, name, "ActiveState")
	if err != nil {
		return err
	}
	if state, _ := p.Value.Value().(string); state == "failed" {
		return conn.ResetFailedUnitContext(ctx, name)
	}
	return nil
}

// journalLines is how much of a unit's log an error carries.
const journalLines = 15

// journal returns the last log lines of the unit since boot; none when they cannot be had.
func (l *Linux) journal(ctx context.Context, name string) []string {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	out, err := l.Run(ctx, Cmd{Args: []string{"journalctl", "-u", name, "-n", fmt.Sprint(journalLines), "-o", "cat", "--no-pager", "--quiet", "--boot"}})
	if err != nil {
		return nil
	}
	return lastLines(string(out.Stdout), journalLines)
}

// EnableUnit implements Host.
func (l *Linux) EnableUnit(ctx context.Context, name string, enabled bool) error {
	conn, err := l.bus.get()
	if err != nil {
		return err
	}
	verb := "enable"
	if enabled {
		_, _, err = conn.EnableUnitFilesContext(ctx, []string{name}, false, true)
	} else {
		verb = "disable"
		_, err = conn.DisableUnitFilesContext(ctx, []string{name}, false)
	}
	if err != nil {
		return &UnitError{Unit: name, Verb: verb, Result: err.Error()}
	}
	// systemd keeps what it knew of the unit file until it reads all of them again.
	return l.ReloadUnitFiles(ctx)
}

// reloader lets callers that ask for a daemon-reload at the same time share one: it
// takes tens of milliseconds, and a plan writes many unit files at once.
type reloader struct {
	mu           sync.Mutex // held while reloading
	count        sync.Mutex // guards the numbers
	asked, begun uint64
}

// ReloadUnitFiles implements Host.
func (l *Linux) ReloadUnitFiles(ctx context.Context) error {
	r := &l.reload
	r.count.Lock()
	r.asked++
	mine := r.asked
	r.count.Unlock()

	r.mu.Lock()
	defer r.mu.Unlock()
	r.count.Lock()
	served := r.begun >= mine // a reload that began after this call has succeeded
	begin := r.asked
	r.count.Unlock()
	if served {
		return nil
	}
	conn, err := l.bus.get()
	if err == nil {
		err = conn.ReloadContext(ctx)
	}
	if err != nil {
		return fmt.Errorf("reload unit files: %w", err)
	}
	r.count.Lock()
	r.begun = begin
	r.count.Unlock()
	return nil
}

// SignalUnit implements Host: every process in the unit's control group gets the signal.
func (l *Linux) SignalUnit(ctx context.Context, name string, signal int) error {
	conn, err := l.bus.get()
	if err != nil {
		return err
	}
	if signal <= 0 {
		return errors.New("signal " + name + ": no such signal")
	}
	if err := conn.KillUnitWithTarget(ctx, name, dbus.All, int32(signal)); err != nil {
		return fmt.Errorf("signal %s: %w", name, err)
	}
	return nil
}
