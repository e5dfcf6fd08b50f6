package host

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
)

func (e *ExitError) Error() string {
	how := fmt.Sprintf("exit code %d", e.Code)
	if e.Code < 0 {
		how = "killed"
	}
	msg := fmt.Sprintf("%s: %s", strings.Join(e.Args, " "), how)
	if last := lastLines(e.Stderr, 3); len(last) > 0 {
		msg += ": " + strings.Join(last, "; ")
	}
	return msg
}

// WriteError says that a file could not be put in place. The old file, if any, is untouched.
type WriteError struct {
	Path string
	Err  error
}

func (e *WriteError) Error() string { return fmt.Sprintf("write %s: %v", e.Path, e.Err) }

func (e *WriteError) Unwrap() error { return e.Err }

// Hint says what to do now.
func (e *WriteError) Hint() string {
	switch {
	case errors.Is(e.Err, syscall.ENOSPC), errors.Is(e.Err, syscall.EDQUOT):
		return "free space on the file system of " + e.Path + ", then apply again"
	case errors.Is(e.Err, syscall.EROFS):
		return "the file system of " + e.Path + " is read-only: look for disk errors in the kernel log"
	case errors.Is(e.Err, syscall.EACCES), errors.Is(e.Err, syscall.EPERM):
		return "nines must run as root"
	}
	return "look at the file's directory, then apply again"
}

// ValidationError says that the component itself refuses the candidate of a file. The old file is untouched.
type ValidationError struct {
	Path string
	Err  *ExitError // Args hold the path of the candidate, which is gone
	Text string     // what the component said
}

func (e *ValidationError) Error() string {
	return fmt.Sprintf("%s is refused by %s: %s", e.Path, e.Err.Args[0], e.Text)
}

func (e *ValidationError) Unwrap() error { return e.Err }

// Hint says what to do now.
func (e *ValidationError) Hint() string {
	return "the file on the node was left as it was; check the tuning in cluster.yaml and the version of the package"
}

// UnitError says that a job of a unit failed.
type UnitError struct {
	Unit   string
	Verb   string   // "start", "stop", "restart", "reload"
	Result string   // systemd's word: "failed", "timeout", "dependency", "canceled", "skipped"
	Lines  []string // the unit's last log lines
}

func (e *UnitError) Error() string {
	msg := fmt.Sprintf("%s %s: %s", e.Verb, e.Unit, e.Result)
	if len(e.Lines) > 0 {
		msg += "; its last log lines:\n  " + strings.Join(e.Lines, "\n  ")
	}
	return msg
}

// Hint says what to do now.
func (e *UnitError) Hint() string {
	return fmt.Sprintf("look at 'journalctl -u %s' on the node, then apply again", e.Unit)
}

// PackageFailure says why packages could not be installed.
type PackageFailure string

// What goes wrong with packages.
const (
	SourceUnreachable PackageFailure = "package source does not answer"
	SourceInvalid     PackageFailure = "package source is not what it should be"
	SourceUntrusted   PackageFailure = "package source is not signed with a trusted key"
	PackageNotFound   PackageFailure = "package not found"
	PackageDiskFull   PackageFailure = "disk full"
	PackageLocked     PackageFailure = "another program holds the package database"
	PackageBroken     PackageFailure = "package installation failed"
)

var packageHints = map[PackageFailure]string{
	SourceUnreachable: "check packages.source in cluster.yaml, the sources in /etc/apt and the node's network",
	SourceInvalid:     "check packages.source and packages.suite in cluster.yaml and the sources in /etc/apt",
	SourceUntrusted:   "check packages.key in cluster.yaml: it must be the key the source is signed with; check the node's clock too",
	PackageNotFound:   "the node's package sources do not have it: check packages.source and packages.suite in cluster.yaml",
	PackageDiskFull:   "free space on the node ('apt-get clean' may do), then apply again",
	PackageLocked:     "wait until the other package installation on the node is over, then apply again",
	PackageBroken:     "look at /var/log/apt/term.log on the node, then apply again",
}

// PackageError says why packages could not be installed.
type PackageError struct {
	Reason PackageFailure
	Names  []string
	Detail string // what the package system said, one or a few lines
	Err    error
}

func (e *PackageError) Error() string {
	return fmt.Sprintf("install %s: %s: %s", strings.Join(e.Names, " "), e.Reason, e.Detail)
}

func (e *PackageError) Unwrap() error { return e.Err }

// Hint says what to do now.
func (e *PackageError) Hint() string { return packageHints[e.Reason] }

// lastLines returns up to n last lines of s that are not empty.
func lastLines(s string, n int) []string {
	var out []string
	for line := range strings.Lines(s) {
		if line = strings.TrimSpace(line); line != "" {
			out = append(out, line)
		}
	}
	return out[max(0, len(out)-n):]
}
