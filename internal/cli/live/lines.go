package live

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"nines/internal/progress"
)

// lines writes events as lines of text.
type lines struct {
	mu    sync.Mutex // one line at a time
	out   io.Writer
	board *board
	said  map[string]time.Time // when a running task was last mentioned
	now   func() time.Time
}

func (w *lines) emit(e progress.Event) {
	now := w.now()
	w.mu.Lock()
	defer w.mu.Unlock()
	last, known := w.said[e.ID]
	t := w.board.note(e, now)
	if t.State == progress.Running {
		if known && now.Sub(last) < detailEvery {
			return
		}
		w.said[e.ID] = now
		w.write(now, "start", t.Title, t.Detail)
		return
	}
	delete(w.said, e.ID)
	title := t.Title
	if t.State != progress.Skipped {
		title += " (" + duration(t.took(now)) + ")"
	}
	w.write(now, string(t.State), title, t.Detail)
}

func (w *lines) print(word, title, detail string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.write(w.now(), word, title, detail)
}

// write prints one line; an output that is gone is no reason to stop the work.
func (w *lines) write(now time.Time, word, title, detail string) {
	line := clock(now) + " "
	if word != "" {
		line += fmt.Sprintf("%-8s", word)
	}
	line += oneLine(title)
	if detail != "" {
		line += ": " + oneLine(detail)
	}
	_, _ = fmt.Fprintln(w.out, line)
}

// oneLine keeps texts of others from breaking the lines apart.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.TrimSpace(s))
}
