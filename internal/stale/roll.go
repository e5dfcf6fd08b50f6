package stale

import (
	"context"
	"time"
)

// The rhythm of a roll call. Within a site a kernel answers in less than 2 ms; several requests, because one may be lost.
const (
	rollEvery = 25 * time.Millisecond
	rollCalls = 4
	// rollPatience is for what is done about it.
	rollPatience = time.Second
)

// beginRoll asks all peers because the virtual address has come here: whoever had it was silent for several advertisements. One that
// does not answer this either is passed over. That is soon reversed, so it need not be as sure as a death: connections that
// stand are left alone.
func (w *watch) beginRoll(ctx context.Context, now time.Time) {
	w.began, w.asked = now, 0
	w.callRoll(ctx, now)
}

func (w *watch) callRoll(ctx context.Context, now time.Time) {
	w.roll = nil
	due := time.Duration(w.asked) * rollEvery
	if now.Sub(w.began) > 2*due+rollEvery { // this process stood still itself: answers may wait to be read
		w.began, w.asked = now, 0
	}
	if w.asked < rollCalls {
		w.ask()
		w.asked++
		w.roll = time.After(rollEvery)
		return
	}
	absent := w.silence.since(w.began)
	if len(absent) == 0 {
		return
	}
	w.beginContest(ctx, absent, now)
	ctx, cancel := context.WithTimeout(ctx, rollPatience)
	defer cancel()
	w.Absent(ctx, absent)
	// Now that nobody begins anew there, those who wait for an answer to their first packet go on to another.
	for _, p := range absent {
		if err := w.Connections.Abandon(ctx, p); err != nil {
			w.Log.Warn("cannot abandon connections", "peer", p, "err", err)
		}
	}
}
