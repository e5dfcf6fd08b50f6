package live

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/term"

	"nines/internal/progress"
)

// Show runs f and shows its events on out until it returns: live when out is a
// terminal, as plain lines otherwise. The error is f's. When ctx ends, f is
// expected to return soon; Show waits for it and says so.
func Show(ctx context.Context, out io.Writer, title string, f func(ctx context.Context, emit progress.Emit) error) error {
	if file, ok := out.(*os.File); ok && capable(file) {
		return onTerminal(ctx, file, title, f)
	}
	return asLines(ctx, out, title, f)
}

// capable reports whether the file is a terminal that can move its cursor.
func capable(f *os.File) bool {
	return term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb" && os.Getenv("CI") == ""
}

// asLines prints one line for each start and each end. A detail that changes is
// repeated only every detailEvery: a log is read later.
func asLines(ctx context.Context, out io.Writer, title string, f func(ctx context.Context, emit progress.Emit) error) error {
	w := &lines{out: out, board: newBoard(), said: map[string]time.Time{}, now: time.Now}
	began := w.now()
	w.print("", title, "")
	err := f(ctx, w.emit)
	l := w.board.look()
	w.print("", fmt.Sprintf("%s: %s in %s", title, outcome(l, err), duration(w.now().Sub(began))), "")
	return err
}

const detailEvery = 10 * time.Second

func clock(t time.Time) string { return t.Format("15:04:05") }

// duration shows a time to a tenth of a second below a minute.
func duration(d time.Duration) string {
	if d < time.Minute {
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	return fmt.Sprintf("%d min %d s", int(d.Minutes()), int(d.Seconds())%60)
}

// outcome sums up in words: "12 done, 3 skipped".
func outcome(l look, err error) string {
	text := fmt.Sprintf("%d done", l.counts[progress.Done])
	if n := l.counts[progress.Skipped]; n > 0 {
		text += fmt.Sprintf(", %d skipped", n)
	}
	if n := l.counts[progress.Failed]; n > 0 {
		text += fmt.Sprintf(", %d failed", n)
	}
	if n := len(l.running); n > 0 {
		text += fmt.Sprintf(", %d not finished", n)
	}
	if err != nil && l.counts[progress.Failed] == 0 && len(l.running) == 0 {
		text += ", then stopped"
	}
	return text
}
