// Package live shows the progress of long work: a view that redraws itself on a
// terminal, plain lines with times elsewhere (CI, a pipe, a log).
//
// Invariants: it never reads the terminal, so an interrupt reaches the program as
// the signal it is; when Show returns, the terminal is as it was and every
// failure is still to be read. It must never decide anything: it only shows.
package live

import (
	"sync"
	"time"

	"nines/internal/progress"
)

// task is what is known of one task.
type task struct {
	progress.Event
	began time.Time
	ended time.Time
}

// took is how long the task has been at work.
func (t task) took(now time.Time) time.Duration {
	switch {
	case t.Took > 0:
		return t.Took
	case t.Ended():
		return t.ended.Sub(t.began)
	}
	return now.Sub(t.began)
}

// board collects events from many goroutines for one who draws them.
type board struct {
	mu      sync.Mutex
	tasks   map[string]*task
	running []string // in the order they began
	fresh   []task   // ended since the last call of take, in order
	failed  []task
	counts  map[progress.State]int
}

func newBoard() *board {
	return &board{tasks: map[string]*task{}, counts: map[progress.State]int{}}
}

// note takes in an event; the task after it is returned.
func (b *board) note(e progress.Event, now time.Time) task {
	b.mu.Lock()
	defer b.mu.Unlock()
	t, known := b.tasks[e.ID]
	if known && t.Ended() && e.Ended() {
		return *t // said twice
	}
	if !known || t.Ended() {
		title := e.Title
		if known && title == "" {
			title = t.Title
		}
		t = &task{Event: progress.Event{ID: e.ID, Title: title}, began: now}
		b.tasks[e.ID] = t
		b.running = append(b.running, e.ID)
	}
	if e.Title != "" {
		t.Title = e.Title
	}
	if t.Title == "" {
		t.Title = e.ID
	}
	t.State, t.Detail, t.Took = e.State, e.Detail, e.Took
	if t.Ended() {
		t.ended = now
		b.end(*t)
	}
	return *t
}

func (b *board) end(t task) {
	for i, id := range b.running {
		if id == t.ID {
			b.running = append(b.running[:i], b.running[i+1:]...)
			break
		}
	}
	b.counts[t.State]++
	if t.State == progress.Failed {
		b.failed = append(b.failed, t)
		return
	}
	b.fresh = append(b.fresh, t)
}

// take returns the tasks that ended well since the last call.
func (b *board) take() []task {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := b.fresh
	b.fresh = nil
	return out
}

// look is a picture of the board at one time.
type look struct {
	running []task
	failed  []task
	counts  map[progress.State]int
}

func (b *board) look() look {
	b.mu.Lock()
	defer b.mu.Unlock()
	l := look{counts: map[progress.State]int{}}
	for _, id := range b.running {
		l.running = append(l.running, *b.tasks[id])
	}
	l.failed = append(l.failed, b.failed...)
	for s, n := range b.counts {
		l.counts[s] = n
	}
	return l
}
