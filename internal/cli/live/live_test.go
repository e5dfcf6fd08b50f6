package live_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"nines/internal/cli/live"
	"nines/internal/progress"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var clock = regexp.MustCompile(`(?m)^\d\d:\d\d:\d\d `)

// shown runs f with plain output and returns it without the times of day.
func shown(t *testing.T, f func(ctx context.Context, emit progress.Emit) error) (string, error) {
	t.Helper()
	var out bytes.Buffer
	err := live.Show(context.Background(), &out, "Applying", f)
	if n := len(clock.FindAllString(out.String(), -1)); n != strings.Count(out.String(), "\n") {
		t.Errorf("%d of the lines begin with a time:\n%s", n, &out)
	}
	return clock.ReplaceAllString(out.String(), ""), err
}

func TestPlainLines(t *testing.T) {
	broken := errors.New("one op failed")
	out, err := shown(t, func(_ context.Context, emit progress.Emit) error {
		emit(progress.Event{ID: "a", Title: "ctl1: install 3 packages", State: progress.Running})
		emit(progress.Event{ID: "b", Title: "ctl2: restart\nmariadb", State: progress.Running, Detail: "waiting"})
		emit(progress.Event{ID: "a", State: progress.Running, Detail: "unpacking"}) // too soon to repeat
		emit(progress.Event{ID: "a", State: progress.Done, Took: 1500 * time.Millisecond})
		emit(progress.Event{ID: "b", State: progress.Failed, Detail: "exit status 1"})
		emit(progress.Event{ID: "c", Title: "ctl3: hosts", State: progress.Skipped})
		emit(progress.Event{ID: "c", State: progress.Skipped})
		return broken
	})
	if !errors.Is(err, broken) {
		t.Fatalf("got %v", err)
	}
	want := `Applying
start   ctl1: install 3 packages
start   ctl2: restart mariadb: waiting
done    ctl1: install 3 packages (1.5 s)
failed  ctl2: restart mariadb (0.0 s): exit status 1
skipped ctl3: hosts
skipped ctl3: hosts
Applying: 1 done, 1 skipped, 1 failed in 0.0 s
`
	if out != want {
		t.Errorf("got\n%swant\n%s", out, want)
	}
}

func TestManyGoroutines(t *testing.T) {
	out, err := shown(t, func(_ context.Context, emit progress.Emit) error {
		var wg sync.WaitGroup
		for i := range 50 {
			wg.Go(func() {
				_ = progress.Step(emit, string(rune('A'+i)), "task", func() error { return nil })
			})
		}
		wg.Wait()
		return nil
	})
	if err != nil || !strings.Contains(out, "Applying: 50 done in ") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestUnfinishedTasksAreCounted(t *testing.T) {
	out, _ := shown(t, func(_ context.Context, emit progress.Emit) error {
		emit(progress.Event{ID: "a", Title: "a", State: progress.Running})
		return context.Canceled
	})
	if !strings.Contains(out, "0 done, 1 not finished") {
		t.Errorf("%s", out)
	}
}

// gone is an output that nobody reads any more.
type gone struct{}

func (gone) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestWorkGoesOnWithoutAWatcher(t *testing.T) {
	done := false
	err := live.Show(context.Background(), gone{}, "Applying", func(_ context.Context, emit progress.Emit) error {
		emit(progress.Event{ID: "a", Title: "a", State: progress.Running})
		done = true
		return nil
	})
	if err != nil || !done {
		t.Errorf("done %v, err %v", done, err)
	}
}
