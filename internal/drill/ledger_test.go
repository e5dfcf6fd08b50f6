package drill

import (
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

func newLedger(t *testing.T) *Ledger {
	t.Helper()
	l, err := NewLedger(filepath.Join(t.TempDir(), "run", "ledger"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func TestLedgerKeepsEveryAck(t *testing.T) {
	l := newLedger(t)
	var wg sync.WaitGroup
	for n := range 200 {
		wg.Go(func() {
			l.Ack(KindRow, n)
			l.Ack(KindMessage, 1000+n)
		})
	}
	wg.Wait()
	rows, err := l.Acked(KindRow)
	if err != nil || len(rows) != 200 || slices.Max(rows) != 199 {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
}

func TestLedgerThatCannotWriteProvesNothing(t *testing.T) {
	l := newLedger(t)
	l.file.Close()
	l.Ack(KindRow, 1)
	if _, err := l.Acked(KindRow); err == nil {
		t.Error("no error")
	}
}

func TestLedgerIsNeverOverwritten(t *testing.T) {
	l := newLedger(t)
	if _, err := NewLedger(l.file.Name()); err == nil {
		t.Error("a second run took over the ledger of the first")
	}
}

func TestReadLedger(t *testing.T) {
	for name, tc := range map[string]struct {
		text string
		rows []int
		ok   bool
	}{
		"empty":           {"", nil, true},
		"rows":            {"row 1\nmessage 7\nrow 2\n", []int{1, 2}, true},
		"unfinished line": {"row 1\nrow 2", []int{1}, true},
		"garbage":         {"row 1\nrow x\n", nil, false},
		"negative":        {"row -1\n", nil, false},
		"no kind":         {" 1\n", nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ReadLedger(strings.NewReader(tc.text))
			if (err == nil) != tc.ok || err == nil && !slices.Equal(got[KindRow], tc.rows) {
				t.Errorf("%v, %v", got, err)
			}
		})
	}
}

func FuzzReadLedger(f *testing.F) {
	f.Add("row 1\nmessage 2\n")
	f.Fuzz(func(t *testing.T, text string) {
		all, err := ReadLedger(strings.NewReader(text))
		if err != nil {
			return
		}
		n := 0
		for _, v := range all {
			n += len(v)
		}
		if n != strings.Count(text, "\n") {
			t.Fatalf("%d acknowledgements in %q", n, text)
		}
	})
}
