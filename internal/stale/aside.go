package stale

import (
	"context"
	"net/netip"
	"sync"
	"time"
)

// Two controllers that do not hear each other while a third hears both: no machine is broken, the network between the two is, in
// one direction or in both. What stands among the controllers has no good answer to that. Both hold the virtual address, each in a
// majority with the third. RabbitMQ's members, who all must see all, pause on both until the network is mended, and the third alone has no majority. So one
// of the two takes itself for cut off: it has no connections with either of the others, Corosync's rings included, and everything on it behaves as
// that of a machine alone, which every quorum knows how to treat. Nothing is lost by it: with one of the others gone the two would
// not have been a majority either. The one that is left out comes back when it hears the other again, or when the third
// does not hear it any more.
//
// Who: the one with the higher address, a rule that needs no talk between two that do not hear each other. It must be out before the
// other one closes its connections, so that nobody is left who sees both: the other one waits a little longer.

const (
	// suspect is when the third is asked first: three requests without an answer. Its first word must come before Galera's members (1.0 to 1.5 s)
	// and Corosync's (1.3 s) have decided by themselves whom to leave out.
	suspect = every * 14 / 5
	// grace is how much longer the one that stays waits.
	grace = time.Second
	// thirdPatience bounds a question; several may be under way.
	thirdPatience = time.Second

	// sameHearing: of a machine that lost its power two others may hold answers of moments this far apart, not more, where each may be late.
	sameHearing = 3 * every
	// newsNeeded: the third must have heard it anew between two questions. One answer may have lain unread in a machine that stood still.
	newsNeeded = 2
	// returning: a peer that was away for all is not heard again by all at once. Where its hardware address was forgotten meanwhile the kernel asks for it
	// once a second. So one whom this node had given up before the third heard it must be heard by the third for this long.
	returning = 2 * time.Second
	// oldEnough: that many answers in a row without news, and the third does not hear it either.
	oldEnough = 8
	// wordHolds is for a third whose agent says nothing for a while; an upgrade takes some seconds.
	wordHolds = 30 * time.Second
	// steady is how long it must have been heard again: each return has all members regroup.
	steady = 2 * time.Second
)

// Ears know when each peer was last asked and answered. They may be asked at any time.
type Ears struct {
	mu sync.Mutex
	at map[netip.Addr]time.Time
}

func (e *Ears) heard(peer netip.Addr, at time.Time) {
	if e == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.at == nil {
		e.at = map[netip.Addr]time.Time{}
	}
	if at.After(e.at[peer]) {
		e.at[peer] = at
	}
}

// Age is how long ago the request was sent that the peer answered last; false: it never did.
func (e *Ears) Age(peer netip.Addr) (time.Duration, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	at, ok := e.at[peer]
	return time.Since(at), ok
}

// word is what a third says: when it last heard a peer.
type word struct {
	about netip.Addr
	heard time.Time
}

// partial tells from the words of others whether it is the network that is broken. It does no I/O.
type partial struct {
	own   netip.Addr
	peers map[netip.Addr]*testimony
}

// testimony is what was said of a silent peer.
type testimony struct {
	heard time.Time // the latest time at which somebody heard it
	at    time.Time // when that was said
	news  int       // words that told of a later time than those before
	first time.Time // when the first of them came
	late  bool      // this node had given the peer up by then
	old   int       // words in a row that did not
}

func newPartial(own netip.Addr) *partial {
	return &partial{own: own, peers: map[netip.Addr]*testimony{}}
}

// testify notes a word; mine is when this node heard the peer itself.
func (p *partial) testify(said word, mine, now time.Time) {
	t := p.peers[said.about]
	if t == nil {
		t = &testimony{heard: mine.Add(sameHearing - every/2)}
		p.peers[said.about] = t
	}
	if said.heard.Sub(t.heard) >= every/2 {
		t.heard, t.at, t.old = said.heard, now, 0
		if t.news++; t.news == 1 {
			t.first, t.late = now, now.Sub(mine) > patience
		}
		return
	}
	if t.old++; t.old >= oldEnough {
		delete(p.peers, said.about)
	}
}

// forget is for a peer that is heard.
func (p *partial) forget(peer netip.Addr) { delete(p.peers, peer) }

// broken reports whether the network between this node and the peer is.
func (p *partial) broken(peer netip.Addr, now time.Time) bool {
	t := p.peers[peer]
	return p.doubted(peer) && t.news >= newsNeeded && now.Sub(t.at) < wordHolds
}

// heardElsewhere reports whether somebody hears the peer since this node does not.
func (p *partial) heardElsewhere(peer netip.Addr) bool {
	t := p.peers[peer]
	return t != nil && t.news > 0
}

// doubted reports the same of a peer that does not just come back: then its death may be none.
func (p *partial) doubted(peer netip.Addr) bool {
	t := p.peers[peer]
	return p.heardElsewhere(peer) && (!t.late || t.at.Sub(t.first) >= returning)
}

// yields reports whether this node is the one that stands aside.
func (p *partial) yields(peer netip.Addr) bool { return peer.Less(p.own) }

// patience is how long a peer may be silent. The one that stands aside must do so first.
func (p *partial) patience(peer netip.Addr) time.Duration {
	if p.doubted(peer) && !p.yields(peer) {
		return patience + grace
	}
	return patience
}

// askThirds asks the other peers about those that are silent.
func (w *watch) askThirds(ctx context.Context, now time.Time) {
	if w.Third == nil || len(w.Peers) != 2 {
		return // who may stand aside among more than three, so that a majority is left, is not so simple
	}
	for _, about := range append(w.silence.silent(now, suspect), w.strangers(now, suspect)...) {
		w.askAbout(ctx, about)
	}
}

func (w *watch) askAbout(ctx context.Context, about netip.Addr) {
	_, known := w.silence.heard[about]
	for _, asked := range w.Peers {
		if asked == about {
			continue
		}
		w.asking.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, thirdPatience)
			defer cancel()
			// Of one that never answered echo requests they may be all that does not get through.
			if !known && w.speaksTo(ctx, about, asked) {
				return
			}
			asking := time.Now()
			age, err := w.Third(ctx, asked, about)
			if err != nil {
				return // it says nothing
			}
			select {
			case w.words <- word{about, asking.Add(-age)}: // never later than it was
			case <-ctx.Done():
			}
		})
	}
}

// speaksTo reports whether an agent can be asked: its network is not broken then.
func (w *watch) speaksTo(ctx context.Context, peer, about netip.Addr) bool {
	ctx, cancel := context.WithTimeout(ctx, thirdPatience/2)
	defer cancel()
	_, err := w.Third(ctx, peer, about)
	return err == nil
}

// testify takes up what a third says.
func (w *watch) testify(ctx context.Context, said word, now time.Time) {
	if w.contest.about == said.about {
		w.contested(said.heard, now)
	}
	mine, known := w.silence.heard[said.about]
	if !known {
		mine = w.born
	}
	if now.Sub(mine) <= suspect && w.unheard != said.about {
		return // it has been heard meanwhile
	}
	w.partial.testify(said, mine, now)
	w.stand(ctx, now)
	w.yield()
}

// yield tells whether this node may be about to stand aside. One word is enough: being wrong costs a moment's patience.
func (w *watch) yield() {
	about := w.unheard
	for _, p := range w.Peers {
		if !about.IsValid() && w.partial.doubted(p) && w.partial.yields(p) {
			about = p
		}
	}
	if about == w.yielding {
		return
	}
	w.yielding = about
	w.Yielding(about)
}

// stand decides whether this node stands aside.
func (w *watch) stand(ctx context.Context, now time.Time) {
	if w.unheard.IsValid() {
		switch {
		case !w.silence.hears(w.unheard, now):
			w.heardAgain = time.Time{}
		case !w.heardAgain.IsZero() && now.Sub(w.heardAgain) >= steady:
			w.comeBack(ctx, "it answers again")
			return
		}
		switch {
		case w.heardAgain.IsZero() && !w.partial.broken(w.unheard, now):
			w.comeBack(ctx, "nobody else hears it")
		case now.Sub(w.renewed) >= renew:
			w.refuse(ctx)
		}
		return
	}
	for _, p := range append(w.silence.silent(now, patience), w.strangers(now, acquaint)...) {
		if w.partial.broken(p, now) && w.partial.yields(p) {
			w.standAside(ctx, p)
			return
		}
	}
}

func (w *watch) standAside(ctx context.Context, unheard netip.Addr) {
	w.unheard, w.heardAgain = unheard, time.Time{}
	w.Log.Warn("another controller hears it, this one does not: standing aside", "peer", unheard)
	w.silence.gone[unheard] = true
	w.refuse(ctx)
	for _, p := range w.Peers {
		w.closeTo(ctx, p, "this node stands aside")
	}
}

func (w *watch) comeBack(ctx context.Context, why string) {
	w.Log.Info("no longer standing aside", "peer", w.unheard, "why", why)
	w.partial.forget(w.unheard)
	if _, known := w.silence.heard[w.unheard]; !known {
		delete(w.silence.gone, w.unheard) // it was not heard, which does not make it dead
	}
	w.unheard = netip.Addr{}
	w.refuse(ctx)
	w.Aside(w.unheard)
}
