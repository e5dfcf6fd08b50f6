package bootstrap

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"nines/internal/model"
	"nines/internal/progress"
	"nines/internal/secret"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, dir string, now time.Time) *state {
	t.Helper()
	s, err := openState(dir, "lab", now)
	if err != nil {
		t.Fatal(err)
	}
	s.close()
	return s
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestStateIsMadeOnceAndIsPrivate(t *testing.T) {
	dir := t.TempDir()
	first := open(t, dir, time.Now())
	cert := read(t, first.path(fileCert))
	second := open(t, dir, time.Now())
	if first.id != second.id || first.clusterKey != second.clusterKey || string(first.ca.Pair().Cert) != string(second.ca.Pair().Cert) || read(t, first.path(fileCert)) != cert {
		t.Error("the second run made another cluster")
	}
	if _, err := secret.ClientTLS(second.clientFiles()); err != nil {
		t.Error(err)
	}
	entries, err := os.ReadDir(first.dir)
	if err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(first.dir); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("folder: %v, %v", fi.Mode(), err)
	}
	for _, e := range entries {
		fi, err := e.Info()
		if err != nil || fi.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", e.Name(), fi.Mode(), err)
		}
		if strings.HasPrefix(e.Name(), ".") {
			t.Errorf("%s is left over", e.Name())
		}
		text := read(t, first.path(e.Name()))
		if e.Name() != fileIdentity && strings.Contains(text, "AGE-SECRET-KEY") {
			t.Errorf("%s holds the cluster's key in the clear", e.Name())
		}
		if e.Name() != fileKey && strings.Contains(text, "PRIVATE KEY") {
			t.Errorf("%s holds a private key in the clear", e.Name())
		}
	}
}

func TestStateInterruptedBeforeItsSecretsIsBegunAnew(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, time.Now())
	for _, name := range []string{fileSecrets, fileCA, fileClusterID, fileCert, fileKey} {
		if err := os.Remove(s.path(name)); err != nil {
			t.Fatal(err)
		}
	}
	open(t, dir, time.Now())
	open(t, dir, time.Now())
}

func TestStateDrawsWhatIsLostFromItsSecrets(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, time.Now())
	for _, name := range []string{fileCA, fileClusterID, fileCert, fileKey} {
		if err := os.Remove(s.path(name)); err != nil {
			t.Fatal(err)
		}
	}
	if again := open(t, dir, time.Now()); again.id != s.id || read(t, s.path(fileClusterID)) != s.id+"\n" {
		t.Error("another cluster")
	}
}

func TestStateIsNeverReplaced(t *testing.T) {
	for name, harm := range map[string]func(*testing.T, *state) error{
		"secrets lost":    func(_ *testing.T, s *state) error { return os.Remove(s.path(fileSecrets)) },
		"identity lost":   func(_ *testing.T, s *state) error { return os.Remove(s.path(fileIdentity)) },
		"secrets damaged": func(_ *testing.T, s *state) error { return os.Truncate(s.path(fileSecrets), 100) },
		"identity of another": func(t *testing.T, s *state) error {
			other := open(t, t.TempDir(), time.Now())
			return os.WriteFile(s.path(fileIdentity), []byte(read(t, other.path(fileIdentity))), 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir, time.Now())
			ca := read(t, s.path(fileCA))
			if err := harm(t, s); err != nil {
				t.Fatal(err)
			}
			_, err := openState(dir, "lab", time.Now())
			var e *StateError
			if !errors.As(err, &e) || !strings.Contains(e.Hint(), "backup") {
				t.Fatalf("got %v", err)
			}
			if read(t, s.path(fileCA)) != ca {
				t.Error("the authority was replaced")
			}
		})
	}
}

func TestStateLocksOthersOut(t *testing.T) {
	dir := t.TempDir()
	s, err := openState(dir, "lab", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openState(dir, "lab", time.Now()); err == nil || !strings.Contains(err.Error(), "another nines") {
		t.Fatalf("got %v", err)
	}
	s.close()
	open(t, dir, time.Now())
}

func TestOperatorCertificateIsRenewed(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, time.Now())
	before := read(t, s.path(fileCert))
	open(t, dir, time.Now().Add(240*24*time.Hour))
	if read(t, s.path(fileCert)) != before {
		t.Error("renewed with more than a third of its life left")
	}
	open(t, dir, time.Now().Add(245*24*time.Hour))
	if read(t, s.path(fileCert)) == before {
		t.Error("not renewed with less than a third of its life left")
	}
}

func TestExpiredAuthorityIsRefused(t *testing.T) {
	dir := t.TempDir()
	open(t, dir, time.Now())
	_, err := openState(dir, "lab", time.Now().Add(11*365*24*time.Hour))
	var state *StateError
	if !errors.As(err, &state) || !strings.Contains(err.Error(), "authority expired") || state.Hint() == "" {
		t.Errorf("got %v, want a refusal that names the authority", err)
	}
}

func TestNodeFiles(t *testing.T) {
	c := testCluster()
	r := &run{Options: Options{Cluster: c, Log: discard()}, state: open(t, t.TempDir(), time.Now())}
	m := &machine{node: c.Nodes[0]}
	want, err := r.files(m)
	if err != nil {
		t.Fatal(err)
	}
	m.facts.files = map[string]remoteFile{}
	secrets := map[string]bool{model.PathKey: true, model.PathClusterKey: true, model.PathAgentConfig: true}
	for _, f := range want {
		m.facts.files[f.path] = remoteFile{mode: f.mode, owner: f.owner, content: f.content}
		if secrets[f.path] && f.mode&0o007 != 0 {
			t.Errorf("%s: %v", f.path, f.mode)
		}
	}
	again, err := r.files(m)
	if err != nil || len(missing(again, m.facts)) != 0 {
		t.Fatalf("the second time something is missing: %v, %v", missing(again, m.facts), err)
	}
	// Another address of the VIP: a new certificate, and nothing else.
	c.VIP.Address = netip.MustParsePrefix("198.18.0.20/24")
	again, err = r.files(m)
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, f := range missing(again, m.facts) {
		paths = append(paths, f.path)
	}
	if strings.Join(paths, " ") != model.PathKey+" "+model.PathCert {
		t.Errorf("replaced: %v", paths)
	}
	if needsRestart(paths[0]) || needsRestart(paths[1]) || !needsRestart(model.PathBinary) {
		t.Error("a new certificate must not restart the agent, a new executable must")
	}
}

func TestRunTellsAllThatIsWrongBeforeItTouchesAnything(t *testing.T) {
	c := testCluster()
	dir := t.TempDir()
	c.SSH = model.SSH{User: "root", Port: 22, Identity: filepath.Join(dir, "none"), KnownHosts: filepath.Join(dir, "none")}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var failed int
	events := make(chan progress.Event, 100)
	err = Run(t.Context(), Options{Cluster: c, Dir: dir, Binary: self, Emit: func(e progress.Event) { events <- e }})
	close(events)
	for e := range events {
		if e.State == progress.Failed {
			failed++
		}
	}
	var pre *PreflightError
	if !errors.As(err, &pre) || len(pre.Problems) != 3 || failed != 3 {
		t.Fatalf("%d failed, %v", failed, err)
	}
	for i, p := range pre.Problems {
		if p.Node != c.Nodes[i].Name || !strings.Contains(p.Text, "known hosts") || p.Next == "" {
			t.Errorf("%+v", p)
		}
	}
}

func TestExecutable(t *testing.T) {
	script := filepath.Join(t.TempDir(), "nines")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{script, script + "-none"} {
		var e *BinaryError
		if _, err := openExecutable(path); !errors.As(err, &e) || e.Hint() == "" {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestCancelledRunSaysSo(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Run(ctx, Options{Cluster: testCluster(), Dir: t.TempDir(), Binary: self}); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	if err := Run(t.Context(), Options{Cluster: testCluster(), Dir: "/proc/none", Binary: self}); !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
		t.Fatalf("got %v", err)
	}
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }
