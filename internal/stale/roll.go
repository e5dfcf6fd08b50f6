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

// roll is a call to all peers, to find in a tenth of a second who may be dead. What is done about one that does not answer is soon reversed, so it
// need not be as sure as a death: requests go past it, and connections that stand are left alone.
type roll struct {
	next  <-chan time.Time // nil: none is under way
	began time.Time
	asked int
	// moved: it is called because the virtual address has come here.
	moved bool
}

// beginRoll asks all peers: the virtual address has come here (moved), so whoever had it was silent for several advertisements, or one of them has
// fallen silent.
func (w *watch) beginRoll(ctx context.Context, now time.Time, moved bool) {
	w.roll = roll{began: now, moved: moved}
	w.callRoll(ctx, now)
}

func (w *watch) callRoll(ctx context.Context, now time.Time) {
	r := &w.roll
	r.next = nil
	due := time.Duration(r.asked) * rollEvery
	if now.Sub(r.began) > 2*due+rollEvery { // this process stood still itself: answers may wait to be read
		r.began, r.asked = now, 0
	}
	if r.asked < rollCalls {
		w.ask()
		r.asked++
		r.next = time.After(rollEvery)
		return
	}
	absent := w.silence.since(r.began)
	if len(absent) == 0 {
		return
	}
	if r.moved {
		w.beginContest(ctx, absent, now)
	}
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

// rollSilent calls the roll once for each peer that falls silent. One that is under way is about all of them.
func (w *watch) rollSilent(ctx context.Context, now time.Time) {
	if fell := w.silence.fallen(now, suspect); len(fell) > 0 && w.roll.next == nil {
		w.beginRoll(ctx, now, false)
	}
}
