package exclusive

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"nines/internal/store"
	"nines/internal/store/memstore"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// stage is where programs of a test say what they do.
type stage struct {
	t     *testing.T
	store *memstore.Store
	fifo  string
	lines *bufio.Reader
}

func newStage(t *testing.T) *stage {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(fifo, os.O_RDWR, 0) // for both: never at its end
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{t: t, store: memstore.New(), fifo: fifo, lines: bufio.NewReader(f)}
	t.Cleanup(func() { s.store.Close(); f.Close() })
	return s
}

// program is a shell script that says its name and process ID, and then does what the script says.
func (s *stage) program(holder, script string) Program {
	return Program{Lease: "x", Holder: holder, Patience: 10 * time.Second,
		Command: []string{"/bin/sh", "-c", `echo "$0 $$" >"$1"; ` + script, holder, s.fifo}}
}

// start runs a program; its end comes through the channel.
func (s *stage) start(ctx context.Context, p Program) <-chan error {
	done := make(chan error, 1)
	go func() { done <- Run(ctx, s.store, p, quiet) }()
	return done
}

// next is the next line of a program.
func (s *stage) next() string {
	line, err := s.lines.ReadString('\n')
	if err != nil {
		s.t.Fatal(err)
	}
	return strings.TrimSpace(line)
}

// started waits for the first line of that program and returns its process ID.
func (s *stage) started(holder string) int {
	name, pid, _ := strings.Cut(s.next(), " ")
	if name != holder {
		s.t.Fatalf("%s runs, want %s", name, holder)
	}
	n, err := strconv.Atoi(pid)
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

func gone(pid int) bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }

const forever = "trap '' TERM; while :; do sleep 100; done"

func TestALostLeaseKillsBeforeAnotherStarts(t *testing.T) {
	s := newStage(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	first := s.start(ctx, s.program("a", forever))
	pid := s.started("a")
	second := s.start(ctx, s.program("b", "exec sleep 100"))
	s.store.Expire("exclusive/x")
	if err := <-first; !errors.Is(err, ErrLost) {
		t.Errorf("error %v", err)
	}
	if !gone(pid) {
		t.Error("the first program still runs")
	}
	s.started("b")
	cancel()
	if err := <-second; err != nil {
		t.Error(err)
	}
}

func TestAStopIsOrderly(t *testing.T) {
	s := newStage(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := s.start(ctx, s.program("a", `trap 'echo bye >"$1"; kill $!; exit 0' TERM; sleep 100 & echo ready >"$1"; wait`))
	s.started("a")
	s.next()
	cancel()
	if word := s.next(); word != "bye" {
		t.Errorf("%q", word)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, _, err := s.store.Holder(t.Context(), "exclusive/x"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("the lease is still held: %v", err)
	}
}

func TestPatienceEnds(t *testing.T) {
	s := newStage(t)
	ctx, cancel := context.WithCancel(t.Context())
	p := s.program("a", `trap '' TERM; echo ready >"$1"; while :; do sleep 100; done`)
	p.Patience = time.Millisecond
	done := s.start(ctx, p)
	pid := s.started("a")
	s.next()
	cancel()
	if err := <-done; !errors.Is(err, ErrPatience) || !gone(pid) {
		t.Errorf("%v, gone %v", err, gone(pid))
	}
}

func TestAProgramThatEndsGivesTheLeaseUp(t *testing.T) {
	s := newStage(t)
	if err := <-s.start(t.Context(), s.program("a", "exit 3")); err == nil || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("error %v", err)
	}
	s.started("a")
	if _, _, err := s.store.Holder(t.Context(), "exclusive/x"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("the lease is still held: %v", err)
	}
}

func TestAnUnfitNodeStandsAside(t *testing.T) {
	s := newStage(t)
	p := s.program("a", "exit 0")
	p.Needs = filepath.Join(t.TempDir(), "mark")
	if err := <-s.start(t.Context(), p); !errors.Is(err, ErrUnfit) {
		t.Errorf("error %v", err)
	}
}
