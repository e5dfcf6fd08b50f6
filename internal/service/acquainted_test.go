package service

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"nines/internal/model"
)

// A member's start, with the files of agents in a directory of its own.
func TestAwaitAcquainted(t *testing.T) {
	type files struct{ acquainted, aside string }
	start := func(t *testing.T, f files) <-chan error {
		command := strings.NewReplacer(model.PathAcquainted, f.acquainted, model.PathAside, f.aside).Replace(AwaitAcquainted)
		script, ok := strings.CutPrefix(command, "-/bin/sh -c '")
		if !ok || strings.ContainsAny(script, "$%") {
			t.Fatalf("systemd would not give a shell what is meant: %s", command)
		}
		done := make(chan error, 1)
		c := exec.CommandContext(t.Context(), "/bin/sh", "-c", strings.TrimSuffix(script, "'"))
		go func() { done <- c.Run() }()
		return done
	}
	touch := func(t *testing.T, path string, age time.Duration) {
		at := time.Now().Add(-age)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	waits := func(t *testing.T, done <-chan error) {
		select {
		case err := <-done:
			t.Fatalf("it did not wait: %v", err)
		case <-time.After(500 * time.Millisecond):
		}
	}
	goesOn := func(t *testing.T, done <-chan error) {
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			t.Fatal("it still waits")
		}
	}
	for name, f := range map[string]func(t *testing.T, f files){
		"until the others are known": func(t *testing.T, f files) {
			done := start(t, f)
			waits(t, done)
			touch(t, f.acquainted, 0)
			goesOn(t, done)
		},
		"without an agent": func(t *testing.T, f files) { goesOn(t, start(t, f)) },
		"until standing aside ends": func(t *testing.T, f files) {
			touch(t, f.acquainted, time.Hour)
			touch(t, f.aside, 10*time.Second)
			done := start(t, f)
			waits(t, done)
			_ = os.Remove(f.aside)
			goesOn(t, done)
		},
		"the agent stood aside and died": func(t *testing.T, f files) {
			touch(t, f.acquainted, time.Hour)
			touch(t, f.aside, 20*time.Second)
			goesOn(t, start(t, f))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			f(t, files{dir + "/acquainted", dir + "/aside"})
		})
	}
}
