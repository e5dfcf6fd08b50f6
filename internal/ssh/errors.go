package ssh

import (
	"errors"
	"fmt"
	"os"
	"strings"
)

// UnreachableError says that no connection came about.
type UnreachableError struct {
	Addr string
	Err  error
}

func (e *UnreachableError) Error() string { return fmt.Sprintf("cannot reach %s: %v", e.Addr, e.Err) }

// Unwrap returns the cause.
func (e *UnreachableError) Unwrap() error { return e.Err }

// Hint says what to do now.
func (e *UnreachableError) Hint() string {
	return "is the machine up, is its address in cluster.yaml right, does sshd listen on ssh.port, does a firewall stand between?"
}

// LostError says that a connection broke off. The command may or may not have finished.
type LostError struct {
	Addr string
	Err  error
}

func (e *LostError) Error() string {
	return fmt.Sprintf("the connection to %s broke off: %v", e.Addr, e.Err)
}

// Unwrap returns the cause.
func (e *LostError) Unwrap() error { return e.Err }

// Hint says what to do now.
func (e *LostError) Hint() string { return "run the same command again: it goes on where it stopped" }

// AuthError says that the machine let nobody in with the keys we have.
type AuthError struct {
	Addr, User, Identity string
	Err                  error
}

func (e *AuthError) Error() string {
	return fmt.Sprintf("%s refuses user %s with key %s: %v", e.Addr, e.User, e.Identity, e.Err)
}

// Unwrap returns the cause.
func (e *AuthError) Unwrap() error { return e.Err }

// Hint says what to do now.
func (e *AuthError) Hint() string {
	return fmt.Sprintf("put the public half of the key into ~%s/.ssh/authorized_keys on the machine; for root, sshd needs 'PermitRootLogin prohibit-password'; or set ssh.user and ssh.identity in cluster.yaml", e.User)
}

// IdentityError says that the private key cannot be used.
type IdentityError struct {
	Path      string
	Encrypted bool
	Err       error
}

func (e *IdentityError) Error() string {
	if e.Encrypted {
		return fmt.Sprintf("the private key %s is encrypted, and no ssh-agent offers a key", e.Path)
	}
	return fmt.Sprintf("the private key %s cannot be used: %v", e.Path, e.Err)
}

// Unwrap returns the cause.
func (e *IdentityError) Unwrap() error { return e.Err }

// Hint says what to do now.
func (e *IdentityError) Hint() string {
	if e.Encrypted {
		return fmt.Sprintf("load it into an ssh-agent and try again: eval \"$(ssh-agent)\"; ssh-add %s", e.Path)
	}
	if errors.Is(e.Err, os.ErrNotExist) {
		return fmt.Sprintf("make one (ssh-keygen -t ed25519 -f %s), set ssh.identity in cluster.yaml, or load a key into an ssh-agent", e.Path)
	}
	return "set ssh.identity in cluster.yaml to a private key that this user may read"
}

// KnownHostsError says that the file with the known hosts cannot be used.
type KnownHostsError struct {
	Path string
	Err  error
}

func (e *KnownHostsError) Error() string {
	if errors.Is(e.Err, os.ErrNotExist) {
		return fmt.Sprintf("there is no file of known hosts at %s", e.Path)
	}
	return fmt.Sprintf("the file of known hosts %s cannot be used: %v", e.Path, e.Err)
}

// Unwrap returns the cause.
func (e *KnownHostsError) Unwrap() error { return e.Err }

// Hint says what to do now.
func (e *KnownHostsError) Hint() string {
	if errors.Is(e.Err, os.ErrNotExist) {
		return "make it: one line 'ADDRESS KEY' for each machine, KEY being the content of /etc/ssh/ssh_host_ed25519_key.pub as the machine's own console shows it (or connect once with ssh and compare the fingerprint); or set ssh.known_hosts in cluster.yaml"
	}
	return "correct the line, or set ssh.known_hosts in cluster.yaml to another file"
}

// HostKeyUnknownError says that known_hosts has no key of the machine.
type HostKeyUnknownError struct {
	Addr        string
	Fingerprint string // SHA256:...
	KeyType     string
	File        string // the file of known hosts
	Line        string // what to add to it
}

func (e *HostKeyUnknownError) Error() string {
	return fmt.Sprintf("the host key of %s is not known: it shows the %s key %s", e.Addr, e.KeyType, e.Fingerprint)
}

// Hint says what to do now.
func (e *HostKeyUnknownError) Hint() string {
	return fmt.Sprintf("on the machine's own console run 'ssh-keygen -lf /etc/ssh/%s'; if it prints the same fingerprint, add this line to %s:\n%s",
		keyFile(e.KeyType), e.File, e.Line)
}

// HostKeyChangedError says that the machine shows another key than known_hosts has:
// it was reinstalled, its address belongs to another machine now, or somebody stands in between.
type HostKeyChangedError struct {
	Addr        string
	Fingerprint string // of the key it shows; empty: it has none of the known kinds
	KeyType     string
	Known       []KnownKey
}

// KnownKey is one line of a file of known hosts.
type KnownKey struct {
	File        string
	Line        int
	Fingerprint string
	KeyType     string
}

func (e *HostKeyChangedError) Error() string {
	var known []string
	for _, k := range e.Known {
		known = append(known, fmt.Sprintf("%s %s (%s:%d)", k.KeyType, k.Fingerprint, k.File, k.Line))
	}
	shows := "it has no key of that kind any more"
	if e.Fingerprint != "" {
		shows = fmt.Sprintf("it shows %s %s", e.KeyType, e.Fingerprint)
	}
	return fmt.Sprintf("THE HOST KEY OF %s HAS CHANGED: %s, known is %s", e.Addr, shows, strings.Join(known, ", "))
}

// Hint says what to do now.
func (e *HostKeyChangedError) Hint() string {
	var lines []string
	for _, k := range e.Known {
		lines = append(lines, fmt.Sprintf("line %d of %s", k.Line, k.File))
	}
	return fmt.Sprintf("somebody may be listening in between. Only if you know why it changed (the machine was installed anew): compare the fingerprint with 'ssh-keygen -lf /etc/ssh/%s' on its own console, then replace %s",
		keyFile(e.KeyType), strings.Join(lines, " and "))
}

func keyFile(keyType string) string {
	kind := "ed25519"
	switch {
	case strings.Contains(keyType, "rsa"):
		kind = "rsa"
	case strings.Contains(keyType, "ecdsa"):
		kind = "ecdsa"
	}
	return "ssh_host_" + kind + "_key.pub"
}

// NotRootError says that the user cannot become root.
type NotRootError struct {
	Addr, User string
	Missing    bool // there is no sudo at all
	Err        error
}

func (e *NotRootError) Error() string {
	if e.Missing {
		return fmt.Sprintf("user %s of %s is not root, and sudo is not installed there", e.User, e.Addr)
	}
	return fmt.Sprintf("user %s of %s is not root and may not use sudo without a password", e.User, e.Addr)
}

// Unwrap returns the cause.
func (e *NotRootError) Unwrap() error { return e.Err }

// Hint says what to do now.
func (e *NotRootError) Hint() string {
	if e.Missing {
		return "set ssh.user in cluster.yaml to root, or install sudo on the machine and let the user use it without a password"
	}
	return fmt.Sprintf("set ssh.user in cluster.yaml to root, or put '%s ALL=(ALL) NOPASSWD: ALL' into /etc/sudoers.d/nines on the machine", e.User)
}

// ExitError says that a command ran and did not exit 0.
type ExitError struct {
	Code   int    // -1: ended by a signal
	Stderr string // its last lines
}

func (e *ExitError) Error() string {
	how := fmt.Sprintf("exit status %d", e.Code)
	if e.Code < 0 {
		how = "ended by a signal"
	}
	if e.Stderr == "" {
		return how
	}
	return how + ": " + e.Stderr
}

// lastLines returns the end of a command's error output, at most n lines.
func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
