package drill

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// The schedule goes on while answers are missing, and each request's time counts from its planned moment.
func TestLoadIsOpenLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		// The millisecond: what is planned at 2 s is answered at 3 s, before its time is over and not in the same moment.
		stall := Probe{Name: "x", Every: 100 * ms, Timeout: time.Second + ms, Late: 50 * ms,
			Send: func(ctx context.Context, _ int) error { // stuck from 1 s to 3 s
				at := time.Since(start)
				if at < time.Second || at >= 3*time.Second {
					return nil
				}
				select {
				case <-ctx.Done():
					return ctx.Err()
				case <-time.After(3*time.Second - at):
					return nil
				}
			}}
		l := startLoad(t.Context(), []Probe{stall})
		<-time.After(5*time.Second - 50*ms)
		if l.settled(4 * time.Second) {
			t.Error("settled although requests failed in the window")
		}
		if !l.settled(time.Second) {
			t.Error("not settled after a second without failures")
		}
		f := l.measured(0, 0, l.stop())[0]
		if f.Requests != 50 || f.Failed != 10 || f.Longest != 2*time.Second || f.Total != 2*time.Second {
			t.Errorf("%+v, want 50 requests, 10 failed, 2 s of outage", f)
		}
		if f := l.measured(2*time.Second, 0, 5*time.Second)[0]; f.Requests != 30 || f.Failed != 0 || f.Longest != time.Second {
			t.Errorf("%+v, want 30 requests from 2 s on, the first of which waited for a second", f)
		}
		if n, _ := l.failures("x", 1500*ms); n != 5 {
			t.Errorf("%d failures from 1.5 s on, want 5", n)
		}
	})
}

// A request that was under way when the fault came has waited for it since then; one that had ended by then has not.
func TestMeasuredFromTheFault(t *testing.T) {
	l := &load{probes: []Probe{{Name: "x", Late: 500 * ms}}, samples: map[string][]Sample{"x": {
		{At: 0, Took: 5 * ms}, {At: 1000 * ms, Took: 900 * ms, Failure: "reset"}, {At: 2000 * ms, Took: 5 * ms},
	}}}
	for fault, want := range map[time.Duration]time.Duration{0: 1005 * ms, 1600 * ms: 405 * ms, 1950 * ms: 1005 * ms} {
		if f := l.measured(0, fault, 3*time.Second)[0]; f.Longest != want || f.Requests != 3 || f.Failed != 1 {
			t.Errorf("fault at %v: %+v, want an outage of %v", fault, f, want)
		}
	}
}

// A request under way when the load ends is waited for and counted.
func TestLoadWaitsForRequestsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := startLoad(t.Context(), []Probe{{Name: "x", Every: time.Second, Timeout: time.Second,
			Send: func(ctx context.Context, _ int) error { <-ctx.Done(); return ctx.Err() }}})
		<-time.After(1500 * ms)
		end := l.stop()
		if f := l.measured(0, 0, end)[0]; f.Requests != 2 || f.Failed != 2 {
			t.Errorf("%+v", f)
		}
	})
}

func TestSettledNeedsAnAnswerFromEveryProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ok := func(context.Context, int) error { return nil }
		silent := func(ctx context.Context, _ int) error { <-ctx.Done(); return ctx.Err() }
		l := startLoad(t.Context(), []Probe{
			{Name: "a", Every: 100 * ms, Timeout: time.Second, Send: ok},
			{Name: "b", Every: 100 * ms, Timeout: time.Minute, Send: silent},
		})
		<-time.After(5 * time.Second)
		if l.settled(2 * time.Second) {
			t.Error("settled although nobody answers b")
		}
		l.stop()
	})
}
