// Package progress is how long work tells what it is doing: a stream of events,
// each about one task. It knows neither who works nor who watches.
//
// Invariants: the last event of a task is Done, Failed or Skipped; events of one
// task come in order; an Emit may be called from many goroutines. Titles and
// details are shown to people and written to logs: they never carry a secret.
package progress

import "time"

// State says how a task stands.
type State string

// The states of a task.
const (
	Running State = "running"
	Done    State = "done"
	Failed  State = "failed"
	Skipped State = "skipped" // not needed: already as wanted
)

// Event is one change of one task.
type Event struct {
	// ID names the task; later events of the same ID replace earlier ones.
	ID string `json:"id"`
	// Title says what is done, in a few words: "ctl1: install 12 packages".
	// Empty in later events: unchanged.
	Title string `json:"title,omitempty"`
	State State  `json:"state"`
	// Detail is one line about where the task is now, how it ended, or why it failed.
	Detail string `json:"detail,omitempty"`
	// Took is how long the task took, in an event that ends it. Zero: the
	// watcher measures from the first event of the task.
	Took time.Duration `json:"took,omitempty"` // nanoseconds
}

// Emit receives events. It must be safe for concurrent use and must not block for long.
type Emit func(Event)

// Discard is an Emit that nobody watches.
func Discard(Event) {}

// Ended reports whether the event is the last of its task.
func (e Event) Ended() bool { return e.State != Running }

// Step runs f as one task and emits its start and its end. The error of f is
// both shown and returned.
func Step(emit Emit, id, title string, f func() error) error {
	emit(Event{ID: id, Title: title, State: Running})
	start := time.Now()
	err := f()
	e := Event{ID: id, Title: title, State: Done, Took: time.Since(start)}
	if err != nil {
		e.State, e.Detail = Failed, err.Error()
	}
	emit(e)
	return err
}
