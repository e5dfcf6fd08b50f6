package host

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// liveHost returns the real host. These tests install packages and start units: they run only where
// NINES_LIVE_HOST names a directory with a flat package repository (packages and a file named
// Packages) that holds memcached and mariadb-server, in a disposable Debian machine booted by systemd.
func liveHost(t testing.TB) (l *Linux, repo string) {
	t.Helper()
	repo = os.Getenv("NINES_LIVE_HOST")
	if repo == "" {
		t.Skip("changes the machine: set NINES_LIVE_HOST=REPOSITORY in a disposable machine, or run TestLive of test/e2e")
	}
	l = NewLinux(slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})))
	t.Cleanup(func() { l.Close() })
	return l, repo
}

func source(t *testing.T, l *Linux, line string) {
	t.Helper()
	_ = os.Rename("/etc/apt/sources.list", "/etc/apt/sources.list.off")
	if err := l.WriteFile(t.Context(), File{Path: "/etc/apt/sources.list.d/live.list", Mode: 0o644, Content: []byte(line + "\n")}, nil); err != nil {
		t.Fatal(err)
	}
}

func TestLiveInstall(t *testing.T) {
	l, repo := liveHost(t)
	var p *PackageError
	source(t, l, "deb [trusted=yes] http://127.0.0.1:1/ ./")
	if err := l.InstallPackages(t.Context(), []string{"memcached"}); !errors.As(err, &p) || p.Reason != SourceUnreachable {
		t.Errorf("unreachable source: %v", err)
	}
	source(t, l, "deb file:"+repo+" ./")
	if err := l.InstallPackages(t.Context(), []string{"memcached"}); !errors.As(err, &p) || p.Reason != SourceUntrusted {
		t.Errorf("unsigned source: %v", err)
	}
	source(t, l, "deb [trusted=yes] file:/no/such/place ./")
	if err := l.InstallPackages(t.Context(), []string{"memcached"}); !errors.As(err, &p) || p.Reason != SourceInvalid {
		t.Errorf("missing source: %v", err)
	}
	source(t, l, "deb [trusted=yes] file:"+repo+" ./")
	if err := l.InstallPackages(t.Context(), []string{"no-such-package-anywhere"}); !errors.As(err, &p) || p.Reason != PackageNotFound {
		t.Errorf("unknown package: %v", err)
	}

	var wg sync.WaitGroup // merged into fewer runs
	for _, names := range [][]string{{"memcached"}, {"haproxy"}, {"mariadb-server", "galera-4"}, {"chrony"}} {
		wg.Go(func() {
			begin := time.Now()
			if err := l.InstallPackages(context.Background(), names); err != nil {
				t.Errorf("install %v: %v", names, err)
			}
			t.Logf("%v took %s", names, time.Since(begin).Round(time.Millisecond))
		})
	}
	wg.Wait()
	installed, err := l.Packages(t.Context())
	if err != nil || installed["memcached"] == "" || installed["mariadb-server"] == "" {
		t.Fatalf("not installed: %v", err)
	}
	for _, u := range []string{"memcached.service", "haproxy.service", "mariadb.service", "chrony.service"} {
		st, err := l.Unit(t.Context(), u)
		if err != nil || !st.Loaded || st.Enabled || st.Active != "inactive" {
			t.Errorf("%s after its installation: %+v, %v", u, st, err)
		}
	}
	for _, pattern := range []string{policyPath + "*", presetPath, installing, "/etc/systemd/system/*.wants/m*"} {
		if left, _ := filepath.Glob(pattern); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	}
	if st, err := l.Unit(t.Context(), "logrotate.timer"); err == nil && st.Loaded && !st.Enabled {
		t.Error("timers must keep their default")
	}
	begin := time.Now()
	if err := l.InstallPackages(t.Context(), []string{"memcached"}); err != nil || time.Since(begin) > 200*time.Millisecond {
		t.Errorf("installing what is installed: %v, took %s", err, time.Since(begin))
	}
}

func TestLiveInterruptedInstall(t *testing.T) {
	l, repo := liveHost(t)
	source(t, l, "deb [trusted=yes] file:"+repo+" ./")
	if err := l.InstallPackages(t.Context(), []string{"socat"}); err != nil {
		t.Fatal(err)
	}
	debs, _ := filepath.Glob(repo + "/keepalived_*.deb")
	if len(debs) == 0 {
		t.Skip("the repository has no keepalived")
	}
	// What a power cut between unpacking and configuring leaves.
	if _, err := l.Run(t.Context(), Cmd{Args: []string{"dpkg", "--force-depends", "--unpack", debs[0]}}); err != nil {
		t.Fatal(err)
	}
	if _, err := l.holdServices(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := l.InstallPackages(t.Context(), []string{"keepalived"}); err != nil {
		t.Fatal(err)
	}
	st, err := l.Unit(t.Context(), "keepalived.service")
	if err != nil || !st.Loaded || st.Enabled || st.Active != "inactive" {
		t.Errorf("%+v, %v", st, err)
	}
	if _, err := os.Stat(policyPath); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("policy-rc.d: %v", err)
	}
}

func putUnit(t *testing.T, l *Linux, name, content string) {
	t.Helper()
	if err := l.WriteFile(t.Context(), File{Path: "/etc/systemd/system/" + name, Mode: 0o644, Content: []byte(content)}, nil); err != nil {
		t.Fatal(err)
	}
}

const sleeper = "[Service]\nExecStart=/bin/sleep 1000\nExecReload=/bin/true\n[Install]\nWantedBy=multi-user.target\n"

func TestLiveUnits(t *testing.T) {
	l, _ := liveHost(t)
	ctx := t.Context()
	if st, err := l.Unit(ctx, "no-such.service"); err != nil || st.Loaded {
		t.Errorf("unknown unit: %+v, %v", st, err)
	}
	if err := l.StartUnit(ctx, "no-such.service"); err == nil {
		t.Error("an unknown unit started")
	}
	putUnit(t, l, "live.service", sleeper)
	if err := l.StartUnit(ctx, "live.service"); err != nil {
		t.Fatal(err)
	}
	first := unit(t, l, "live.service")
	if !first.Loaded || first.Active != "active" || first.Enabled || first.MainPID == 0 || first.Invocation == "" ||
		time.Since(first.Started).Abs() > time.Minute {
		t.Errorf("after start: %+v", first)
	}
	if err := l.EnableUnit(ctx, "live.service", true); err != nil || !unit(t, l, "live.service").Enabled {
		t.Errorf("enable: %v", err)
	}
	if err := l.EnableUnit(ctx, "live.service", false); err != nil || unit(t, l, "live.service").Enabled {
		t.Errorf("disable: %v", err)
	}
	if err := l.ReloadUnit(ctx, "live.service"); err != nil || unit(t, l, "live.service").Invocation != first.Invocation {
		t.Errorf("reload: %v", err)
	}
	// Changed behind systemd's back: the restart must use the new file without being told.
	putUnit(t, l, "live.service", strings.Replace(sleeper, "1000", "2000", 1))
	if err := l.RestartUnit(ctx, "live.service"); err != nil {
		t.Fatal(err)
	}
	second := unit(t, l, "live.service")
	if second.Invocation == first.Invocation || !second.Started.After(first.Started) {
		t.Errorf("after restart: %+v, before %+v", second, first)
	}
	out, err := l.Run(ctx, Cmd{Args: []string{"systemctl", "show", "-p", "ExecStart", "live.service"}})
	if err != nil || !strings.Contains(string(out.Stdout), "2000") {
		t.Errorf("runs with %s, %v", out.Stdout, err)
	}
	if err := l.SignalUnit(ctx, "live.service", int(syscall.SIGKILL)); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the unit to fail", func() bool { return unit(t, l, "live.service").Active == "failed" })
	if st := unit(t, l, "live.service"); st.Result != "signal" {
		t.Errorf("after SIGKILL: %+v", st)
	}
	if err := l.StopUnit(ctx, "live.service"); err != nil {
		t.Fatal(err)
	}
}

func unit(t *testing.T, l *Linux, name string) UnitState {
	t.Helper()
	st, err := l.Unit(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func TestLiveFailedStart(t *testing.T) {
	l, _ := liveHost(t)
	putUnit(t, l, "broken.service", "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo port is taken; exit 7'\n")
	for range 8 { // more often than systemd's start limit allows without a reset
		var u *UnitError
		err := l.StartUnit(t.Context(), "broken.service")
		if !errors.As(err, &u) || u.Result != "failed" || !slices.ContainsFunc(u.Lines, func(s string) bool { return strings.Contains(s, "port is taken") }) {
			t.Fatalf("got %v", err)
		}
	}
	putUnit(t, l, "slow.service", "[Service]\nType=oneshot\nExecStart=/bin/sleep 60\n")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := l.StartUnit(ctx, "slow.service"); err == nil || !strings.Contains(err.Error(), "not done in time") {
		t.Errorf("got %v", err)
	}
	if err := l.StopUnit(t.Context(), "slow.service"); err != nil {
		t.Error(err)
	}
}

func TestLiveWatch(t *testing.T) {
	l, _ := liveHost(t)
	putUnit(t, l, "watched.service", sleeper)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	changes := l.WatchUnits(ctx, []string{"watched.service"})
	if c := <-changes; c.State.Active != "inactive" {
		t.Errorf("first: %+v", c)
	}
	if err := l.StartUnit(ctx, "watched.service"); err != nil {
		t.Fatal(err)
	}
	awaitState(t, changes, "active")
	begin := time.Now()
	if err := l.SignalUnit(ctx, "watched.service", int(syscall.SIGKILL)); err != nil {
		t.Fatal(err)
	}
	awaitState(t, changes, "failed")
	t.Logf("death was seen after %s", time.Since(begin))
	cancel()
	for range changes {
	}
}

func awaitState(t *testing.T, changes <-chan UnitChange, want string) {
	t.Helper()
	for c := range changes {
		if c.State.Active == want {
			return
		}
	}
	t.Fatalf("never became %s", want)
}

func TestLiveReconnects(t *testing.T) {
	l, _ := liveHost(t)
	unit(t, l, "dbus.service")
	if _, err := l.Run(t.Context(), Cmd{Args: []string{"systemctl", "daemon-reexec"}}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "systemd to answer again", func() bool { _, err := l.Unit(t.Context(), "dbus.service"); return err == nil })
	begin := time.Now()
	if err := l.ReloadUnitFiles(t.Context()); err != nil {
		t.Error(err)
	}
	t.Logf("daemon-reload took %s", time.Since(begin))
}

func BenchmarkLiveUnit(b *testing.B) {
	l, _ := liveHost(b)
	for b.Loop() {
		if _, err := l.Unit(b.Context(), "dbus.service"); err != nil {
			b.Fatal(err)
		}
	}
}
