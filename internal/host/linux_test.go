package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func testHost(t testing.TB) *Linux {
	t.Helper()
	return newLinux(slog.New(slog.DiscardHandler), t.TempDir())
}

func TestRun(t *testing.T) {
	l := testHost(t)
	out, err := l.Run(t.Context(), Cmd{Args: []string{"sh", "-c", "cat; echo $MARK; pwd >&2"}, Stdin: []byte("in "), Env: []string{"MARK=mark"}})
	if err != nil || string(out.Stdout) != "in mark\n" || string(out.Stderr) != "/\n" {
		t.Errorf("got %q, %q, %v", out.Stdout, out.Stderr, err)
	}
	t.Setenv("LEAK", "leaked")
	out, err = l.Run(t.Context(), Cmd{Args: []string{"env"}})
	if err != nil || bytes.Contains(out.Stdout, []byte("LEAK")) {
		t.Errorf("the agent's environment leaks: %q, %v", out.Stdout, err)
	}
}

func TestRunFailures(t *testing.T) {
	l := testHost(t)
	out, err := l.Run(t.Context(), Cmd{Args: []string{"sh", "-c", "echo out; echo first >&2; echo why >&2; exit 3"}})
	var exit *ExitError
	if !errors.As(err, &exit) || exit.Code != 3 || string(out.Stdout) != "out\n" {
		t.Fatalf("got %v, %q", err, out.Stdout)
	}
	if msg := err.Error(); !strings.Contains(msg, "exit code 3: first; why") {
		t.Errorf("message %q", msg)
	}
	if _, err := l.Run(t.Context(), Cmd{Args: []string{"no-such-program"}}); err == nil || errors.As(err, &exit) && exit.Code == 0 {
		t.Errorf("missing program: %v", err)
	}
	if _, err := l.Run(t.Context(), Cmd{}); err == nil {
		t.Error("empty command ran")
	}
	if _, err := l.Run(t.Context(), Cmd{Args: []string{"true"}, User: "no-such-user"}); err == nil {
		t.Error("ran as a user that does not exist")
	}
}

// TestRunKillsAll: children of the command end with it, and a child that keeps the output open does
// not hold Run up.
func TestRunKillsAll(t *testing.T) {
	l := testHost(t)
	pidFile := filepath.Join(t.TempDir(), "pid")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	begin := time.Now()
	_, err := l.Run(ctx, Cmd{Args: []string{"sh", "-c", "sleep 60 & echo $! >" + pidFile + "; wait"}})
	var exit *ExitError
	if !errors.Is(err, context.DeadlineExceeded) || !errors.As(err, &exit) || exit.Code != -1 {
		t.Errorf("got %v", err)
	}
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("took %s", took)
	}
	b, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the child to end", func() bool {
		stat, err := os.ReadFile("/proc/" + strings.TrimSpace(string(b)) + "/stat")
		return err != nil || bytes.Contains(stat, []byte(") Z "))
	})

	out, err := l.Run(t.Context(), Cmd{Args: []string{"sh", "-c", "sleep 5 & echo done"}})
	if err != nil || string(out.Stdout) != "done\n" {
		t.Errorf("with a child left behind: %q, %v", out.Stdout, err)
	}
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(5 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline.C:
			t.Fatalf("gave up waiting for %s", what)
		case <-tick.C:
		}
	}
}

func TestRunBoundsOutput(t *testing.T) {
	l := testHost(t)
	out, err := l.Run(t.Context(), Cmd{Args: []string{"sh", "-c", "head -c 1000000 /dev/zero | tr '\\0' x; echo END"}})
	if err != nil || len(out.Stdout) != outputLimit || !bytes.HasSuffix(out.Stdout, []byte("xEND\n")) {
		t.Errorf("kept %d bytes, %v", len(out.Stdout), err)
	}
}

func me(t *testing.T) (owner, group string) {
	t.Helper()
	u, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	g, err := user.LookupGroupId(u.Gid)
	if err != nil {
		t.Fatal(err)
	}
	return u.Username, g.Name
}

func TestWriteAndReadFile(t *testing.T) {
	l := testHost(t)
	owner, group := me(t)
	path := l.path("/etc/new/deep/file.conf")
	want := File{Path: path, Mode: 0o640, Owner: owner, Group: group, Content: []byte("content\n")}
	for range 2 { // new, then replaced
		if err := l.WriteFile(t.Context(), want, []string{"grep", "-q", "content", "{}"}); err != nil {
			t.Fatal(err)
		}
	}
	got, err := l.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if age := time.Since(got.Changed); age > time.Minute || age < -time.Minute {
		t.Errorf("changed %s ago", age)
	}
	got.Changed = time.Time{}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	st, err := os.Stat(l.path("/etc/new"))
	if err != nil || st.Mode().Perm() != 0o755 {
		t.Errorf("parent: %v, %v", st.Mode(), err)
	}
	noLeftovers(t, filepath.Dir(path), "file.conf")

	if err := l.RemoveFile(path); err != nil {
		t.Fatal(err)
	}
	if _, err := l.ReadFile(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after removal: %v", err)
	}
	if err := l.RemoveFile(path); err != nil {
		t.Errorf("removing a missing file: %v", err)
	}
}

func noLeftovers(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("files in %s (-want +got):\n%s", dir, diff)
	}
}

func TestRefusedFileStaysAsItWas(t *testing.T) {
	l := testHost(t)
	path := l.path("/etc/x.conf")
	if err := l.WriteFile(t.Context(), File{Path: path, Mode: 0o600, Content: []byte("old")}, nil); err != nil {
		t.Fatal(err)
	}
	err := l.WriteFile(t.Context(), File{Path: path, Mode: 0o600, Content: []byte("new")},
		[]string{"sh", "-c", "echo bad line in {} >&2; exit 1"})
	var v *ValidationError
	if !errors.As(err, &v) || v.Text != "bad line in "+path || v.Hint() == "" {
		t.Errorf("got %v", err)
	}
	if f, err := l.ReadFile(path); err != nil || string(f.Content) != "old" {
		t.Errorf("file is %q, %v", f.Content, err)
	}
	noLeftovers(t, filepath.Dir(path), "x.conf")
}

func TestWriteFileErrors(t *testing.T) {
	l := testHost(t)
	dir := l.path("/etc")
	if err := os.MkdirAll(filepath.Join(dir, "taken"), 0o755); err != nil {
		t.Fatal(err)
	}
	var w *WriteError
	if err := l.WriteFile(t.Context(), File{Path: filepath.Join(dir, "taken"), Mode: 0o600}, nil); !errors.As(err, &w) || w.Hint() == "" {
		t.Errorf("directory in the way: %v", err)
	}
	if err := l.WriteFile(t.Context(), File{Path: filepath.Join(dir, "f"), Owner: "no-such-user"}, nil); !errors.As(err, &w) {
		t.Errorf("unknown owner: %v", err)
	}
	noLeftovers(t, dir, "taken")
	full := &WriteError{Path: "/x", Err: fmt.Errorf("write: %w", syscall.ENOSPC)}
	if !strings.Contains(full.Hint(), "free space") {
		t.Errorf("hint of a full disk: %s", full.Hint())
	}
	if _, err := l.ReadFile("/dev/null"); err == nil {
		t.Error("a device was read")
	}
}

const statusText = `Package: haproxy
Status: install ok installed
Description: fast and reliable
 Version: 9.9 is not a field here
Version: 3.0.11-1

Package: gone
Status: deinstall ok config-files
Version: 1

Package: half
Status: install ok half-configured
Version: 2

Package: held
Status: hold ok installed
Version: 4-1`

func TestParseStatus(t *testing.T) {
	st, err := parseStatus(strings.NewReader(statusText))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"haproxy": "3.0.11-1", "held": "4-1"}, st.installed); diff != "" {
		t.Errorf("installed (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"half"}, st.unfinished); diff != "" {
		t.Errorf("unfinished (-want +got):\n%s", diff)
	}
}

func FuzzParseStatus(f *testing.F) {
	f.Add(statusText)
	f.Fuzz(func(t *testing.T, s string) {
		st, err := parseStatus(strings.NewReader(s))
		if err == nil && len(st.installed)+len(st.unfinished) > strings.Count(s, "Status") {
			t.Errorf("more packages than states: %v", st)
		}
	})
}

func TestPackagesFollowTheFile(t *testing.T) {
	l := testHost(t)
	path := l.path(dpkgStatus)
	if _, err := l.Packages(t.Context()); err == nil {
		t.Error("no status file, no error")
	}
	write(t, path, statusText)
	got, err := l.Packages(t.Context())
	if err != nil || len(got) != 2 {
		t.Fatalf("got %v, %v", got, err)
	}
	got["haproxy"] = "changed by the caller"
	write(t, path, statusText+"\n\nPackage: new\nStatus: install ok installed\nVersion: 1\n")
	got, err = l.Packages(t.Context())
	if err != nil || len(got) != 3 || got["haproxy"] != "3.0.11-1" {
		t.Errorf("got %v, %v", got, err)
	}
}

func write(t testing.TB, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
		t.Fatal(err)
	}
}

// TestServicesAreHeld: an operator's own policy-rc.d is back afterwards, wherever a crash was.
func TestServicesAreHeld(t *testing.T) {
	for _, own := range []string{"", "#!/bin/sh\nexit 104\n"} {
		for _, crash := range []string{"", "before ours was written", "while holding"} {
			t.Run(fmt.Sprintf("own %t crash %q", own != "", crash), func(t *testing.T) {
				l := testHost(t)
				if err := os.MkdirAll(l.path("/usr/sbin"), 0o755); err != nil {
					t.Fatal(err)
				}
				if own != "" {
					write(t, l.path(policyPath), own)
				}
				if crash == "before ours was written" && own != "" {
					if err := os.Link(l.path(policyPath), l.path(policySaved)); err != nil {
						t.Fatal(err)
					}
				}
				if crash == "while holding" {
					if _, err := l.holdServices(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
				release, err := l.holdServices(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if b, err := os.ReadFile(l.path(policyPath)); err != nil || string(b) != policyText {
					t.Errorf("while holding: %q, %v", b, err)
				}
				if err := release(); err != nil {
					t.Fatal(err)
				}
				if err := l.Recover(t.Context()); err != nil {
					t.Fatal(err)
				}
				want := []string(nil)
				if own != "" {
					want = []string{"policy-rc.d"}
					if b, _ := os.ReadFile(l.path(policyPath)); string(b) != own {
						t.Errorf("the operator's policy is %q", b)
					}
				}
				noLeftovers(t, l.path("/usr/sbin"), want...)
				noLeftovers(t, l.path(filepath.Dir(presetPath)))
			})
		}
	}
}

func TestClassify(t *testing.T) {
	for said, want := range map[string]PackageFailure{
		"E: Unable to locate package nosuch":           PackageNotFound,
		"E: Package 'x' has no installation candidate": PackageNotFound,
		"W: Failed to fetch http://a/dists/x/InRelease  Could not connect to 198.18.0.1:8080 (198.18.0.1). - connect (111: Connection refused)": SourceUnreachable,
		"W: Failed to fetch http://a/InRelease  Temporary failure resolving 'a'":                                                                SourceUnreachable,
		"E: The repository 'http://a trixie Release' does not have a Release file.":                                                             SourceInvalid,
		"E: Failed to fetch http://a/x_1_amd64.deb  404  Not Found [IP: 198.18.0.1 8080]":                                                       SourceInvalid,
		"E: The repository 'file:/repo ./ InRelease' is not signed.":                                                                            SourceUntrusted,
		"W: GPG error: http://a trixie InRelease: NO_PUBKEY 0123456789ABCDEF\nE: The repository 'http://a' is not signed.":                      SourceUntrusted,
		"dpkg: error processing archive x.deb (--unpack):\n cannot copy: failed to write (No space left on device)":                             PackageDiskFull,
		"E: You don't have enough free space in /var/cache/apt/archives/.":                                                                      PackageDiskFull,
		"E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 1 (apt)":                                                      PackageLocked,
		"E: Sub-process /usr/bin/dpkg returned an error code (1)":                                                                               PackageBroken,
	} {
		err := packageError([]string{"x"}, &aptFailure{said: said, err: errors.New("exit code 100")})
		var p *PackageError
		if !errors.As(err, &p) || p.Reason != want || p.Hint() == "" {
			t.Errorf("%q: got %v, want %q", said, err, want)
		}
	}
	err := packageError(nil, &aptFailure{said: "E: Failed to fetch http://bob:pass@a/x", err: errors.New("x")})
	if strings.Contains(err.Error(), "pass@") {
		t.Errorf("password of the source in %v", err)
	}
}

func TestUnitState(t *testing.T) {
	st := unitState(map[string]any{"LoadState": "loaded", "ActiveState": "active", "SubState": "running", "UnitFileState": "enabled",
		"InvocationID": []byte{1, 0xab}, "InactiveExitTimestamp": uint64(1_700_000_000_000_001)})
	want := UnitState{Loaded: true, Enabled: true, Active: "active", Sub: "running", FileState: "enabled",
		Invocation: "01ab", Started: time.UnixMicro(1_700_000_000_000_001)}
	if diff := cmp.Diff(want, st); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if st := unitState(map[string]any{"LoadState": "not-found", "ActiveState": "inactive"}); st.Loaded {
		t.Errorf("unknown unit: %+v", st)
	}
}

// BenchmarkPackages reads the status file of this machine, where it has one.
func BenchmarkPackages(b *testing.B) {
	if _, err := os.Stat(dpkgStatus); err != nil {
		b.Skip("needs " + dpkgStatus)
	}
	for b.Loop() {
		l := newLinux(slog.New(slog.DiscardHandler), "")
		if _, err := l.Packages(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

func TestRoom(t *testing.T) {
	l := &Linux{}
	dir := t.TempDir()
	a, err := l.Room(dir)
	if err != nil || a.Free <= 0 || a.Total < a.Free || a.Device == 0 {
		t.Errorf("%+v, %v", a, err)
	}
	if b, err := l.Room(filepath.Dir(dir)); err != nil || b.Device != a.Device {
		t.Errorf("two devices for one file system: %+v, %+v, %v", a, b, err)
	}
	if _, err := l.Room(dir + "/absent"); err == nil {
		t.Error("a directory that does not exist has room")
	}
}
