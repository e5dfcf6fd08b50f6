// Package hosttest is a Host in memory for unit tests: files, packages and units that
// behave like the real ones as far as nines can tell, scripted commands, failures on
// demand, and a crash at any step.
//
// Time is a counter: every change takes one second. It must never be used outside tests.
package hosttest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"nines/internal/host"
)

// ErrCrashed is what every call returns after the crash asked for with CrashAfter, until Revive.
var ErrCrashed = errors.New("hosttest: the machine crashed")

// Verbs of the record of calls; the target is the path, the unit, the packages or the command.
const (
	Run     = "run"
	Write   = "write"
	Remove  = "remove"
	Install = "install"
	Start   = "start"
	Stop    = "stop"
	Restart = "restart"
	Reload  = "reload"
	Enable  = "enable"
	Disable = "disable"
	Signal  = "signal"
	ReRead  = "daemon-reload"
	Unit    = "unit" // only for Fail: reading a unit's state
	Read    = "read" // only for Fail: reading a file
)

// Package is what a package source offers.
type Package struct {
	Name    string
	Version string
	Units   []string    // unit files it brings; neither enabled nor started by installing
	Files   []host.File // configuration it brings
	Depends []string
}

// Host is the fake. Its zero value is not usable; call New. It is safe for concurrent use.
type Host struct {
	mu        sync.Mutex
	now       time.Time
	files     map[string]host.File
	offered   map[string]Package
	installed map[string]string
	units     map[string]*unit
	handlers  []handler
	failures  map[string]error
	calls     []string
	commands  []host.Cmd
	starts    int
	looks     int64 // at the room

	changes int
	crash   struct {
		armed, applied, crashed bool
		at                      int
	}
}

type unit struct {
	host.UnitState
	started map[string]string // path -> content when it last started
	read    map[string]string // path -> content when it last started or reloaded
}

type handler struct {
	prefix string
	answer func(cmd host.Cmd) (host.Output, error)
}

var _ host.Host = (*Host)(nil)

// New returns an empty machine.
func New() *Host {
	return &Host{
		now:   time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
		files: map[string]host.File{}, offered: map[string]Package{}, installed: map[string]string{},
		units: map[string]*unit{}, failures: map[string]error{},
	}
}

// change runs one step that changes the machine, unless it is scripted to fail or the machine crashes.
func (h *Host) change(ctx context.Context, verb, target string, apply func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.crash.crashed {
		return ErrCrashed
	}
	h.calls = append(h.calls, strings.TrimSpace(verb+" "+target))
	if err := h.failing(verb, target); err != nil {
		return err
	}
	h.changes++
	if h.crash.armed && h.changes > h.crash.at {
		h.crash.crashed = true
		if !h.crash.applied {
			return ErrCrashed
		}
	}
	h.now = h.now.Add(time.Second)
	err := apply()
	if h.crash.crashed {
		return ErrCrashed
	}
	return err
}

// look guards a call that reads.
func (h *Host) look(verb, target string) error {
	if h.crash.crashed {
		return ErrCrashed
	}
	return h.failing(verb, target)
}

func (h *Host) failing(verb, target string) error {
	if err := h.failures[verb+" "+target]; err != nil {
		return err
	}
	return h.failures[verb+" "]
}

// Run implements host.Host with the answers given to Handle; other commands are not found (127).
func (h *Host) Run(ctx context.Context, cmd host.Cmd) (host.Output, error) {
	if err := ctx.Err(); err != nil {
		return host.Output{}, err
	}
	line := strings.Join(cmd.Args, " ")
	h.mu.Lock()
	if err := h.look(Run, line); err != nil {
		h.mu.Unlock()
		return host.Output{}, err
	}
	h.calls = append(h.calls, Run+" "+line)
	h.commands = append(h.commands, cmd)
	answer := h.answerTo(line)
	h.mu.Unlock()
	if answer == nil {
		return host.Output{}, &host.ExitError{Args: cmd.Args, Code: 127, Stderr: "hosttest: no answer scripted"}
	}
	return answer(cmd) // not under the lock: the answer may change the machine
}

func (h *Host) answerTo(line string) func(host.Cmd) (host.Output, error) {
	var best *handler
	for i, c := range h.handlers {
		if strings.HasPrefix(line, c.prefix) && (best == nil || len(c.prefix) >= len(best.prefix)) {
			best = &h.handlers[i]
		}
	}
	if best == nil {
		return nil
	}
	return best.answer
}

// ReadFile implements host.Host.
func (h *Host) ReadFile(path string) (host.File, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.look(Read, path); err != nil {
		return host.File{}, err
	}
	f, ok := h.files[path]
	if !ok {
		return host.File{}, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	f.Content = slices.Clone(f.Content)
	return f, nil
}

// WriteFile implements host.Host. The validating command is asked only if Handle knows it.
func (h *Host) WriteFile(ctx context.Context, f host.File, validate []string) error {
	if err := h.validate(f, validate); err != nil {
		return err
	}
	return h.change(ctx, Write, f.Path, func() error { h.put(f); return nil })
}

func (h *Host) validate(f host.File, validate []string) error {
	line := strings.ReplaceAll(strings.Join(validate, " "), "{}", f.Path)
	h.mu.Lock()
	answer := h.answerTo(line)
	h.mu.Unlock()
	if len(validate) == 0 || answer == nil {
		return nil
	}
	args := strings.Fields(line)
	_, err := answer(host.Cmd{Args: args, Stdin: f.Content})
	var exit *host.ExitError
	if errors.As(err, &exit) {
		return &host.ValidationError{Path: f.Path, Err: exit, Text: exit.Stderr}
	}
	return err
}

func (h *Host) put(f host.File) {
	f.Content, f.Mode, f.Changed = slices.Clone(f.Content), f.Mode.Perm(), h.now
	h.files[f.Path] = f
}

// RemoveFile implements host.Host.
func (h *Host) RemoveFile(path string) error {
	return h.change(context.Background(), Remove, path, func() error { delete(h.files, path); return nil })
}

// Room implements host.Host: there is always room, less at each look.
func (h *Host) Room(string) (host.Room, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.looks++
	return host.Room{Free: 1<<40 - 4096*h.looks, Total: 1 << 41, Device: 1}, nil
}

// Packages implements host.Host.
func (h *Host) Packages(ctx context.Context) (map[string]string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.look("packages", ""); err != nil {
		return nil, err
	}
	return maps.Clone(h.installed), ctx.Err()
}

// InstallPackages implements host.Host with the packages that were offered.
func (h *Host) InstallPackages(ctx context.Context, names []string) error {
	return h.change(ctx, Install, strings.Join(names, " "), func() error {
		for _, n := range names {
			if err := h.install(n); err != nil {
				return err
			}
		}
		return nil
	})
}

func (h *Host) install(name string) error {
	if _, ok := h.installed[name]; ok {
		return nil
	}
	p, ok := h.offered[name]
	if !ok {
		return &host.PackageError{Reason: host.PackageNotFound, Names: []string{name}, Detail: "Unable to locate package " + name}
	}
	for _, d := range p.Depends {
		if err := h.install(d); err != nil {
			return err
		}
	}
	for _, f := range p.Files {
		if _, there := h.files[f.Path]; !there {
			h.put(f)
		}
	}
	for _, u := range p.Units {
		h.unitFile(u)
	}
	h.markInstalled(name, p.Version)
	return nil
}

// markInstalled does what dpkg does: it writes the package's list of files.
func (h *Host) markInstalled(name, version string) {
	h.installed[name] = version
	h.put(host.File{Path: "/var/lib/dpkg/info/" + name + ".list", Mode: 0o644, Owner: "root", Group: "root"})
}

// unitFile makes a unit known: loaded, not enabled, not running.
func (h *Host) unitFile(name string) *unit {
	u, ok := h.units[name]
	if !ok {
		u = &unit{UnitState: host.UnitState{Loaded: true, Active: "inactive", Sub: "dead", FileState: "disabled"}}
		h.units[name] = u
	}
	return u
}

// find returns the unit if a package or a file under /etc/systemd/system brought it.
func (h *Host) find(name string) *unit {
	if u, ok := h.units[name]; ok {
		return u
	}
	if _, ok := h.files["/etc/systemd/system/"+name]; ok {
		return h.unitFile(name)
	}
	return nil
}

// Unit implements host.Host.
func (h *Host) Unit(ctx context.Context, name string) (host.UnitState, error) {
	if err := ctx.Err(); err != nil {
		return host.UnitState{}, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.look(Unit, name); err != nil {
		return host.UnitState{}, err
	}
	u := h.find(name)
	if u == nil {
		return host.UnitState{Active: "inactive", Sub: "dead"}, nil
	}
	return u.UnitState, nil
}

func (h *Host) withUnit(ctx context.Context, verb, name string, apply func(u *unit) error) error {
	return h.change(ctx, verb, name, func() error {
		u := h.find(name)
		if u == nil {
			return &host.UnitError{Unit: name, Verb: verb, Result: "Unit " + name + " not found."}
		}
		return apply(u)
	})
}

// begin starts a unit: it reads its files now.
func (h *Host) begin(u *unit) {
	h.starts++
	u.Active, u.Sub, u.Result = "active", "running", "success"
	u.MainPID, u.Invocation, u.Started = 1000+h.starts, fmt.Sprintf("%032x", h.starts), h.now
	u.started, u.read = h.contents(), h.contents()
}

func (u *unit) end(active string) {
	u.Active, u.Sub, u.MainPID = active, "dead", 0
	u.started, u.read = nil, nil
}

func (h *Host) contents() map[string]string {
	out := make(map[string]string, len(h.files))
	for p, f := range h.files {
		out[p] = string(f.Content)
	}
	return out
}

// StartUnit implements host.Host.
func (h *Host) StartUnit(ctx context.Context, name string) error {
	return h.withUnit(ctx, Start, name, func(u *unit) error {
		if u.Active != "active" {
			h.begin(u)
		}
		return nil
	})
}

// StopUnit implements host.Host.
func (h *Host) StopUnit(ctx context.Context, name string) error {
	return h.withUnit(ctx, Stop, name, func(u *unit) error { u.end("inactive"); return nil })
}

// RestartUnit implements host.Host.
func (h *Host) RestartUnit(ctx context.Context, name string) error {
	return h.withUnit(ctx, Restart, name, func(u *unit) error { h.begin(u); return nil })
}

// ReloadUnit implements host.Host.
func (h *Host) ReloadUnit(ctx context.Context, name string) error {
	return h.withUnit(ctx, Reload, name, func(u *unit) error {
		if u.Active != "active" {
			return &host.UnitError{Unit: name, Verb: Reload, Result: "Unit is not active"}
		}
		u.read = h.contents()
		return nil
	})
}

// EnableUnit implements host.Host.
func (h *Host) EnableUnit(ctx context.Context, name string, enabled bool) error {
	verb, state := Enable, "enabled"
	if !enabled {
		verb, state = Disable, "disabled"
	}
	return h.withUnit(ctx, verb, name, func(u *unit) error {
		if u.FileState == "enabled" || u.FileState == "disabled" || u.FileState == "indirect" {
			u.Enabled, u.FileState = enabled, state
		}
		return nil
	})
}

// ReloadUnitFiles implements host.Host.
func (h *Host) ReloadUnitFiles(ctx context.Context) error {
	return h.change(ctx, ReRead, "", func() error { return nil })
}

// SignalUnit implements host.Host: SIGKILL (9) ends the unit as failed, others do nothing.
func (h *Host) SignalUnit(ctx context.Context, name string, signal int) error {
	return h.withUnit(ctx, Signal, name, func(u *unit) error {
		if signal == 9 && u.Active == "active" {
			u.end("failed")
			u.Result = "signal"
		}
		return nil
	})
}
