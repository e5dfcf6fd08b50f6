package host

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// installer merges the installations that are asked for while one is running into the
// next run of apt-get: a node's services ask at the same time, dpkg works one by one, and
// most of the time of a small installation is start and end.
type installer struct {
	mu      sync.Mutex
	running bool
	waiting []*installRequest
}

type installRequest struct {
	names []string
	done  chan error
}

// InstallPackages implements Host. Packages that are installed already are left at
// their version. When ctx ends it returns, and the installation goes on to its end.
func (l *Linux) InstallPackages(ctx context.Context, names []string) error {
	req := &installRequest{names: names, done: make(chan error, 1)}
	l.apt.mu.Lock()
	l.apt.waiting = append(l.apt.waiting, req)
	if !l.apt.running {
		l.apt.running = true
		go l.installWaiting()
	}
	l.apt.mu.Unlock()
	select {
	case err := <-req.done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("install %s: %w", strings.Join(names, " "), context.Cause(ctx))
	}
}

// installWaiting serves requests until there are none.
func (l *Linux) installWaiting() {
	for {
		l.apt.mu.Lock()
		batch := l.apt.waiting
		l.apt.waiting = nil
		l.apt.running = len(batch) > 0
		l.apt.mu.Unlock()
		if len(batch) == 0 {
			return
		}
		err := l.installBatch(batch)
		if err == nil || len(batch) == 1 {
			for _, r := range batch {
				r.done <- err
			}
			continue
		}
		for _, r := range batch { // so that each is told its own trouble
			r.done <- l.installBatch([]*installRequest{r})
		}
	}
}

// installLimit bounds one run of apt-get; 300 s of it may be spent waiting for the lock.
const installLimit = 30 * time.Minute

// installBatch installs what all of the batch want. It does not end with their contexts:
// a lost connection must not kill dpkg half way. Who asks again waits for this run.
func (l *Linux) installBatch(batch []*installRequest) error {
	ctx, cancel := context.WithTimeout(context.Background(), installLimit)
	defer cancel()
	var names []string
	for _, r := range batch {
		names = append(names, r.names...)
	}
	slices.Sort(names)
	return l.install(ctx, slices.Compact(names))
}

// install brings the missing ones of names onto the machine.
func (l *Linux) install(ctx context.Context, names []string) (err error) {
	missing, unfinished, err := l.missing(names)
	if err != nil || (len(missing) == 0 && !unfinished) {
		return err
	}
	unlock, err := l.lockInstall(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	release, err := l.holdServices(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, release()) }()

	repair := false
	if unfinished {
		l.log.Info("finishing a package installation that was interrupted")
		if _, err := l.Run(ctx, Cmd{Args: append([]string{"dpkg", "--configure", "-a"}, dpkgKeep...), Env: aptEnv}); err != nil {
			repair = true // most likely dependencies are missing: apt-get brings them
		}
		if missing, _, err = l.missing(names); err != nil {
			return err
		}
	}
	if len(missing) == 0 && !repair {
		return nil
	}
	return l.aptInstall(ctx, missing, repair)
}

// missing returns which of names are not installed, and whether dpkg was interrupted.
func (l *Linux) missing(names []string) (missing []string, unfinished bool, err error) {
	st, err := l.dpkg()
	if err != nil {
		return nil, false, err
	}
	for _, n := range names {
		if _, ok := st.installed[n]; !ok {
			missing = append(missing, n)
		}
	}
	journal, _ := filepath.Glob(l.path("/var/lib/dpkg/updates/[0-9]*")) // dpkg's own sign of an interruption
	return missing, len(st.unfinished) > 0 || len(journal) > 0, nil
}

var (
	// dpkgKeep answers the question about changed configuration files: keep what is there.
	dpkgKeep = []string{"--force-confdef", "--force-confold"}
	aptEnv   = []string{
		"DEBIAN_FRONTEND=noninteractive", "DEBCONF_NONINTERACTIVE_SEEN=true", "UCF_FORCE_CONFFOLD=1",
		"APT_LISTCHANGES_FRONTEND=none", "NEEDRESTART_SUSPEND=1",
	}
	aptOptions = []string{
		"-q", "-y", "--no-install-recommends",
		"-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold",
		"-o", "DPkg::Lock::Timeout=300", // seconds; unattended-upgrades may be at work
		"-o", "Dpkg::Use-Pty=0", // one process group, so that all of it ends with the context
		"-o", "Acquire::http::Timeout=20", "-o", "Acquire::https::Timeout=20", "-o", "Acquire::Retries=2",
	}
)

func (l *Linux) aptGet(ctx context.Context, args ...string) error {
	out, err := l.Run(ctx, Cmd{Args: append(append([]string{"apt-get"}, aptOptions...), args...), Env: aptEnv})
	if err == nil || ctx.Err() != nil {
		return err
	}
	return &aptFailure{said: string(out.Stdout) + "\n" + string(out.Stderr), err: err}
}

// aptFailure carries all that apt-get said.
type aptFailure struct {
	said string
	err  error
}

func (e *aptFailure) Error() string { return e.err.Error() }
func (e *aptFailure) Unwrap() error { return e.err }

// aptInstall installs names, with fresh lists of what there is. repair: first complete what
// dpkg could not configure for lack of dependencies.
func (l *Linux) aptInstall(ctx context.Context, names []string, repair bool) error {
	fresh := l.listsFresh()
	var updateErr error
	if !fresh {
		updateErr = l.aptUpdate(ctx)
	}
	err := l.aptTry(ctx, names, repair)
	if err != nil && fresh && ctx.Err() == nil {
		// Unknown package or a version that is gone: the lists may be older than the source.
		if reason := classify(err); reason == PackageNotFound || reason == SourceInvalid {
			if updateErr = l.aptUpdate(ctx); updateErr == nil {
				err = l.aptTry(ctx, names, repair)
			}
		}
	}
	switch {
	case ctx.Err() != nil:
		return err
	case err != nil && updateErr != nil && classify(err) == PackageNotFound:
		return packageError(names, updateErr) // the package is unknown because its source could not be read
	case err != nil:
		return packageError(names, err)
	case updateErr != nil:
		l.log.Warn("a package source cannot be read; the packages came from the others", "err", packageError(names, updateErr))
	}
	return nil
}

func (l *Linux) aptTry(ctx context.Context, names []string, repair bool) error {
	if repair {
		if err := l.aptGet(ctx, "--fix-broken", "--no-remove", "install"); err != nil {
			return err
		}
	}
	if len(names) == 0 {
		return nil
	}
	return l.aptGet(ctx, append([]string{"install"}, names...)...)
}

// listsMaxAge is how old the package lists may be before they are fetched again: old lists name
// versions that the source no longer has.
const listsMaxAge = time.Hour

const (
	aptStamp = "/var/lib/nines/apt-lists" // hash of the sources that were read last
	aptLists = "/var/lib/apt/lists"
)

// listsFresh reports whether nines fetched the package lists lately from the same sources.
func (l *Linux) listsFresh() bool {
	st, err := os.Stat(l.path(aptStamp))
	if err != nil || time.Since(st.ModTime()).Abs() > listsMaxAge {
		return false
	}
	b, err := os.ReadFile(l.path(aptStamp))
	if err != nil || string(b) != l.sourcesHash() {
		return false
	}
	lists, _ := filepath.Glob(l.path(aptLists + "/*Release"))
	return len(lists) > 0
}

func (l *Linux) aptUpdate(ctx context.Context) error {
	hash := l.sourcesHash() // before: a source added meanwhile counts as not read
	// Without it a source that does not answer is only a warning and exit code 0 (apt-get(8)).
	if err := l.aptGet(ctx, "-o", "APT::Update::Error-Mode=any", "update"); err != nil {
		os.Remove(l.path(aptStamp))
		return err
	}
	return l.WriteFile(ctx, File{Path: l.path(aptStamp), Mode: 0o600, Content: []byte(hash)}, nil)
}

// sourcesHash covers everything that decides what apt-get update fetches and trusts.
func (l *Linux) sourcesHash() string {
	h := sha256.New()
	for _, pattern := range []string{"sources.list", "sources.list.d/*", "trusted.gpg.d/*", "keyrings/*", "preferences.d/*", "apt.conf.d/*"} {
		files, _ := filepath.Glob(l.path("/etc/apt/" + pattern))
		for _, f := range files {
			b, _ := os.ReadFile(f)
			fmt.Fprintf(h, "%s %x\n", f, sha256.Sum256(b))
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

// failures tell from what apt-get and dpkg print (LC_ALL=C) what went wrong. The first that matches counts:
// a full disk makes every other message too, and a bad signature is followed by "not found".
var failures = []struct {
	reason PackageFailure
	match  *regexp.Regexp
}{
	{PackageDiskFull, regexp.MustCompile(`No space left on device|don't have enough free space`)},
	{PackageLocked, regexp.MustCompile(`Could not get lock|Unable to acquire the dpkg frontend lock|Unable to lock`)},
	{SourceUntrusted, regexp.MustCompile(`is not signed|NO_PUBKEY|BADSIG|EXPKEYSIG|Missing key|Sub-process .*sqv.* returned|signatures? (couldn't be verified|were invalid)|is not valid yet|is expired|cannot be authenticated|Hash Sum mismatch`)},
	{SourceUnreachable, regexp.MustCompile(`Could not connect|Temporary failure resolving|Could not resolve|Connection timed out|Connection failed|Connection refused|No route to host|Network is unreachable|Unable to connect|Cannot initiate the connection`)},
	{SourceInvalid, regexp.MustCompile(`does not have a Release file|no longer has a Release file|40[0-9] +[A-Z][a-z ]+|50[0-9] +[A-Z][a-z ]+|Failed to fetch|Malformed entry|doesn't support architecture|The list of sources could not be read`)},
	{PackageNotFound, regexp.MustCompile(`Unable to locate package|has no installation candidate|Couldn't find any package`)},
}

func classify(err error) PackageFailure {
	var f *aptFailure
	if errors.As(err, &f) {
		for _, c := range failures {
			if c.match.MatchString(f.said) {
				return c.reason
			}
		}
	}
	return PackageBroken
}

// urlPassword finds the user part of a URL: a source may need a password.
var urlPassword = regexp.MustCompile(`://[^/@\s]*@`)

func packageError(names []string, err error) error {
	var f *aptFailure
	if !errors.As(err, &f) {
		return err
	}
	reason := classify(err)
	var said []string
	for line := range strings.Lines(f.said) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "E: ") || strings.HasPrefix(line, "dpkg: error") || strings.HasPrefix(line, "Err:") {
			said = append(said, strings.TrimPrefix(line, "E: "))
		}
	}
	if len(said) == 0 {
		said = lastLines(f.said, 3)
	}
	detail := strings.Join(said[:min(len(said), 4)], "; ")
	return &PackageError{Reason: reason, Names: names, Detail: urlPassword.ReplaceAllString(detail, "://"), Err: f.err}
}
