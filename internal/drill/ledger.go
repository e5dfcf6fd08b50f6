package drill

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

// The kinds of acknowledged writes.
const (
	KindRow     = "row"     // of the database
	KindMessage = "message" // confirmed by the broker
)

// Ledger is what the cluster has acknowledged, kept outside of it: an append-only file with one line "kind number"
// for each acknowledgement. It is safe for concurrent use.
type Ledger struct {
	mu   sync.Mutex
	file *os.File
	err  error // first failed write: the ledger can no longer prove anything
}

// NewLedger creates the file; it must not exist yet.
func NewLedger(path string) (*Ledger, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("ledger: %w", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("ledger: %w", err)
	}
	return &Ledger{file: f}, nil
}

// Ack records that the cluster acknowledged write n. One line is one write call, so
// a crash of this process loses none that was recorded.
func (l *Ledger) Ack(kind string, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, err := fmt.Fprintf(l.file, "%s %d\n", kind, n); err != nil && l.err == nil {
		l.err = fmt.Errorf("ledger: %w", err)
	}
}

// Acked reads back the numbers of one kind.
func (l *Ledger) Acked(kind string) ([]int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return nil, l.err
	}
	if err := l.file.Sync(); err != nil {
		return nil, fmt.Errorf("ledger: %w", err)
	}
	all, err := ReadLedger(io.NewSectionReader(l.file, 0, 1<<40))
	return all[kind], err
}

// Close closes the file; it stays.
func (l *Ledger) Close() error { return l.file.Close() }

// ReadLedger reads a ledger: the acknowledged numbers by kind. An unfinished
// last line (the writer died) is no acknowledgement.
func ReadLedger(r io.Reader) (map[string][]int, error) {
	out := map[string][]int{}
	in := bufio.NewReader(r)
	for line := 1; ; line++ {
		text, err := in.ReadString('\n')
		if err == io.EOF {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("ledger: %w", err)
		}
		kind, number, ok := strings.Cut(strings.TrimSuffix(text, "\n"), " ")
		n, err := strconv.Atoi(number)
		if !ok || kind == "" || err != nil || n < 0 {
			return nil, fmt.Errorf("ledger: line %d is not \"kind number\"", line)
		}
		out[kind] = append(out[kind], n)
	}
}

// missing returns the numbers that are not in have.
func missing(acked []int, have map[int]int) []int {
	var out []int
	for _, a := range acked {
		if have[a] == 0 {
			out = append(out, a)
		}
	}
	return out
}
