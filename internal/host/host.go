// Package host is the seam to the operating system of one node: commands,
// files, packages, units. Linux is the real one; hosttest has a fake for unit tests.
//
// Invariants: files are replaced atomically and durably; no secret is passed in
// an argument list (use Cmd.Stdin or Cmd.Env); every call honours its context.
// It must never know what a service is.
package host

import (
	"context"
	"io/fs"
	"time"
)

// Cmd is a command to run without a shell.
type Cmd struct {
	Args  []string
	Stdin []byte
	Env   []string // added to the environment
	User  string   // run as this user; empty: root
}

// Output is what a command printed.
type Output struct {
	Stdout []byte
	Stderr []byte
}

// ExitError says that a command ran and did not exit 0.
type ExitError struct {
	Args   []string
	Code   int // -1: killed by a signal or by the context
	Stderr string
}

// File is a regular file with its owner.
type File struct {
	Path    string
	Mode    fs.FileMode
	Owner   string
	Group   string
	Content []byte
	// Changed is when content, owner or mode last changed (the inode's ctime, which
	// no program can set back). ReadFile fills it in; WriteFile ignores it.
	Changed time.Time
}

// Room is how full a file system is, in bytes.
type Room struct {
	Free  int64 // for programs
	Total int64
	// Device is the same for all paths of one file system.
	Device uint64
}

// UnitState is what systemd says of a unit.
type UnitState struct {
	Loaded  bool   // a unit file exists
	Enabled bool   // starts at boot
	Active  string // "active", "inactive", "failed", "activating", "deactivating", "reloading"
	Sub     string
	Result  string // "success", "exit-code", "timeout", ...
	MainPID int
	// Invocation changes with every start.
	Invocation string
	// Started is when the unit last began to start; zero when it did not since boot.
	Started time.Time
	// FileState is systemd's word for how the unit file is enabled: "enabled", "disabled",
	// "static", "masked", "generated", ...; a static or generated one can be neither enabled nor disabled.
	FileState string
}

// Host is one node's operating system.
type Host interface {
	// Run runs a command. A non-zero exit is an *ExitError; Output is valid then too.
	Run(ctx context.Context, cmd Cmd) (Output, error)

	// ReadFile returns a file with owner and mode; fs.ErrNotExist when it is missing.
	ReadFile(path string) (File, error)
	// WriteFile replaces a file atomically (temporary file, fsync, rename, fsync of the directory)
	// and makes missing parent directories (0755). validate, if not empty, is a command run before the
	// rename with {} replaced by the temporary path.
	WriteFile(ctx context.Context, f File, validate []string) error
	// RemoveFile removes a file; a missing one is no error.
	RemoveFile(path string) error

	// Room says how full the file system is that holds path.
	Room(path string) (Room, error)

	// Packages returns the installed packages with versions.
	Packages(ctx context.Context) (map[string]string, error)
	// InstallPackages installs packages with all questions answered by default; their services are not started.
	InstallPackages(ctx context.Context, names []string) error

	// Unit returns the state of a unit; an unknown one has Loaded == false.
	Unit(ctx context.Context, name string) (UnitState, error)
	// StartUnit, StopUnit, RestartUnit and ReloadUnit return when the job is done, with an
	// error that carries the unit's last log lines if it failed.
	StartUnit(ctx context.Context, name string) error
	StopUnit(ctx context.Context, name string) error
	RestartUnit(ctx context.Context, name string) error
	ReloadUnit(ctx context.Context, name string) error
	// EnableUnit makes it start at boot, or not.
	EnableUnit(ctx context.Context, name string, enabled bool) error
	// ReloadUnitFiles is systemctl daemon-reload.
	ReloadUnitFiles(ctx context.Context) error
	// SignalUnit sends a signal to every process of the unit.
	SignalUnit(ctx context.Context, name string, signal int) error
}
