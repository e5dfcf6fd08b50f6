package stale

import (
	"context"
	"net/netip"
	"time"
)

// contestEvery is how often the third is asked while two may have the virtual address: each second of it, every client
// that is sent to the wrong one of the two loses its connections.
const contestEvery = 100 * time.Millisecond

// contestEnough is when a living peer has surely answered the third, which asks as often as this node does.
const contestEnough = 4*every + 2*contestEvery

// contest is the time from the moment at which the virtual address came here and a peer did not answer the roll call, until it is
// clear whether that one is dead. If it is alive, and this node is the one of the two that stands aside, it gives the
// address back before it is sure enough to close its connections: that costs one more move if it was wrong.
type contest struct {
	about netip.Addr // the zero value: there is none
	began time.Time
	// answered: the last question was.
	answered, lost bool

	next <-chan time.Time
}

// beginContest begins one about the first of the absent to which this node yields.
func (w *watch) beginContest(ctx context.Context, absent []netip.Addr, now time.Time) {
	if w.Third == nil || len(w.Peers) != 2 || w.contest.about.IsValid() {
		return
	}
	for _, p := range absent {
		if w.partial.yields(p) {
			w.contest = contest{about: p, began: w.roll.began, answered: true}
			w.askContest(ctx, now)
			return
		}
	}
}

// askContest asks the third, until this node would stand aside.
func (w *watch) askContest(ctx context.Context, now time.Time) {
	switch {
	case now.Sub(w.contest.began) > patience+thirdPatience:
		w.endContest("it is known by now")
	case w.contest.lost:
		w.contest.next = time.After(every)
	default:
		// One question at a time: a machine that has just taken over has enough to do.
		if w.contest.answered {
			w.contest.answered = false
			w.askAbout(ctx, w.contest.about)
		}
		w.contest.next = time.After(contestEvery)
	}
}

// contested takes up when the third last heard the other one.
func (w *watch) contested(heard, now time.Time) {
	w.contest.answered = true
	alive := heard.After(w.contest.began)
	if !alive && !w.contest.lost && now.Sub(w.contest.began) > contestEnough {
		w.endContest("nobody else hears it")
	}
	if !alive || w.contest.lost {
		return
	}
	w.contest.lost = true
	w.Log.Warn("the VIP came here, and another controller hears whom this one does not: giving it back", "peer", w.contest.about)
	w.Contested(w.contest.about)
}

func (w *watch) endContest(why string) {
	if w.contest.lost {
		w.Log.Info("the VIP may be held again", "why", why)
		w.Contested(netip.Addr{})
	}
	w.contest = contest{}
}
