package progress_test

import (
	"errors"
	"testing"

	"nines/internal/progress"
)

func TestStepTellsStartAndEnd(t *testing.T) {
	broken := errors.New("disk full")
	for name, want := range map[string]struct {
		err    error
		state  progress.State
		detail string
	}{
		"success": {nil, progress.Done, ""},
		"failure": {broken, progress.Failed, "disk full"},
	} {
		t.Run(name, func(t *testing.T) {
			var seen []progress.Event
			err := progress.Step(func(e progress.Event) { seen = append(seen, e) }, "x", "copy", func() error { return want.err })
			if !errors.Is(err, want.err) {
				t.Fatalf("Step returned %v, want %v", err, want.err)
			}
			if len(seen) != 2 || seen[0].State != progress.Running || seen[0].Ended() {
				t.Fatalf("events: %+v", seen)
			}
			if last := seen[1]; last.State != want.state || last.Detail != want.detail || !last.Ended() {
				t.Fatalf("last event: %+v", last)
			}
		})
	}
}
