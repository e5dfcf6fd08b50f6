// Package stale ends the connections that this node has open to a machine which is no longer there.
//
// TCP cannot tell a dead peer from a silent one: a client that has sent its request and waits for the answer of a machine
// without power waits for as long as its own time-outs say, in OpenStack's libraries up to minutes, and each new connection
// to that machine costs another time-out. Three things are seen here instead:
//
//   - a controller that answers no echo request (ICMP, answered by its kernel however busy it is) for two seconds. Its
//     connections are closed, and new ones are refused at once, until it answers again;
//   - a controller that this node does not hear, but a third controller does: the network between the two is broken, and no
//     machine. Quorums do not know such a state, so one of the two stands aside, Corosync's datagrams included: see aside.go;
//   - the virtual address that moves to another machine, which knows none of the connections made before. Most often it
//     moves because a machine died: the new holder asks at once who is still there, and sends no requests to the others.
//
// Invariants: a controller that has never answered is not taken for dead, so a network that drops echo requests changes nothing. A node
// that hears nobody closes its side too, as the others do theirs: who is cut off must know it when they know it. A
// refusal ends by itself when nobody renews it.
package stale

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// The rhythm. Two seconds: longer than any pause of a live machine's kernel that was seen, shorter than what waits for it.
const (
	every    = 250 * time.Millisecond
	patience = 2 * time.Second
	// held is how long the kernel keeps a refusal that nobody renews: an agent that died must not keep a returned machine
	// away.
	held  = 15 * time.Second
	renew = 5 * time.Second
	// acquaint is how long a peer may take to answer for the first time: machines boot side by side.
	acquaint = 3 * time.Second
)

// Options of Run.
type Options struct {
	// Own is this controller's address.
	Own netip.Addr
	// Peers are the addresses of the other controllers.
	Peers []netip.Addr
	// VIP is the virtual address; the zero value while there is none.
	VIP func() netip.Addr
	// Absent is told which peers did not answer a roll call: the virtual address had just come to this node, or one of them fell silent.
	Absent func(ctx context.Context, peers []netip.Addr)
	// Third asks one of the peers how long ago another one answered it. Without it nobody stands aside or yields.
	Third func(ctx context.Context, asked, about netip.Addr) (age time.Duration, err error)
	// Contested is told that the virtual address came here although a peer that this node does not hear is alive, and may
	// have it; the zero value: no longer.
	Contested func(unheard netip.Addr)
	// Yielding is told that the network to a peer may be broken, as a third controller hears it, and that this node would be the one to stand
	// aside: nothing here should be the first to take that peer for dead. The zero value: no longer. It must not block.
	Yielding func(unheard netip.Addr)
	// Aside is told that this node stands aside because it does not hear a peer, and again every few seconds; the zero value: no longer.
	Aside func(unheard netip.Addr)
	// Acquainted is told once: every peer has answered by now, or had the time to, and what that means for this node is decided. It must not block.
	Acquainted func()
	// Ears are told who answers.
	Ears *Ears
	// Connections are those of this node.
	Connections Connections
	Log         *slog.Logger
}

// Connections is what may be done to the connections of a node. Kernel is the real one.
type Connections interface {
	// Close closes all to a remote address.
	Close(ctx context.Context, remote netip.Addr) error
	// Abandon closes those that are still being opened to a remote address.
	Abandon(ctx context.Context, remote netip.Addr) error
	// Refuse has new ones, and whatever is still sent, refused at once, for these addresses and no others, and for as
	// long as held at most.
	Refuse(ctx context.Context, r Refusal) error
}

// Refusal is with whom there are no connections.
type Refusal struct {
	// Dead do not hear this node anyway.
	Dead []netip.Addr
	// Avoided do; they too are refused at once when they begin. Only agents go on speaking to each other. With anybody
	// avoided, Corosync hears nobody and is heard by nobody.
	Avoided []netip.Addr
	Held    time.Duration
}

// Run works until ctx ends, and takes its refusals back then.
func Run(ctx context.Context, o Options) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // what watches the network ends with it
	echo, err := listenEcho()
	if err != nil {
		return err
	}
	defer echo.close()
	moved, err := watchMoves(ctx, o.VIP, o.Log)
	if err != nil {
		return err
	}
	w := &watch{Options: o, silence: newSilence(o.Peers), partial: newPartial(o.Own), words: make(chan word), askOne: echo.ask, born: time.Now()}
	defer w.asking.Wait()
	defer cancel() // before it waits
	w.refuse(ctx)  // what an agent before has left
	w.Yielding(w.yielding)
	defer func() {
		last, done := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer done()
		w.endContest("this agent ends")
		w.partial = newPartial(o.Own)
		w.silence = newSilence(nil)
		if w.unheard.IsValid() {
			w.comeBack(last, "this agent ends")
		} else {
			w.refuse(last)
		}
		w.yield()
	}()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case a := <-echo.answers:
			w.answered(ctx, a)
		case heard := <-w.words:
			w.testify(ctx, heard, time.Now())
		case here := <-moved:
			if here {
				w.beginRoll(ctx, time.Now(), true)
			}
			w.closeTo(ctx, o.VIP(), "the virtual address has moved")
		case <-w.contest.next:
			w.askContest(ctx, time.Now())
		case <-w.roll.next:
			w.callRoll(ctx, time.Now())
		case <-tick.C:
			w.judge(ctx, time.Now())
			w.ask()
		}
	}
}

// watch acts on what is heard.
type watch struct {
	Options
	silence *silence
	born    time.Time
	renewed time.Time
	// acquainted: Acquainted has been told.
	acquainted bool
	askOne     func(netip.Addr)

	contest contest
	// Standing aside: see aside.go.
	partial  *partial
	words    chan word
	asking   sync.WaitGroup
	unheard  netip.Addr // because of whom this node stands aside; the zero value: it does not
	yielding netip.Addr // who may not be heard because of the network, while this node would stand aside; the zero value: nobody
	// heardAgain is the first answer of the unheard one since it was silent.
	heardAgain time.Time

	roll roll
}

func (w *watch) ask() {
	for _, p := range w.Peers {
		w.askOne(p)
	}
}

func (w *watch) answered(ctx context.Context, a answer) {
	peer, now := a.peer, time.Now()
	w.Ears.heard(peer, a.asked)
	if w.contest.about == peer {
		w.endContest("it answers")
	}
	returned := w.silence.answered(peer, now)
	w.tellAcquainted(now)
	if w.unheard != peer {
		w.partial.forget(peer)
		w.yield()
	} else if w.heardAgain.IsZero() {
		w.heardAgain = now
	}
	if returned {
		w.Log.Info("answers again: connections to it are no longer refused", "peer", peer)
		w.refuse(ctx)
	}
}

func (w *watch) judge(ctx context.Context, now time.Time) {
	died := w.silence.judge(now, w.partial.patience)
	w.rollSilent(ctx, now)
	w.askThirds(ctx, now)
	w.stand(ctx, now)
	w.yield()
	w.tellAcquainted(now)
	if len(died) > 0 || len(w.silence.dead()) > 0 && now.Sub(w.renewed) >= renew {
		w.refuse(ctx)
	}
	for _, p := range died {
		w.closeTo(ctx, p, "it is silent")
	}
}

// strangers are the peers that never answered, though they had this long to.
func (w *watch) strangers(now time.Time, long time.Duration) []netip.Addr {
	if now.Sub(w.born) <= long {
		return nil
	}
	return w.silence.unknown()
}

// tellAcquainted tells when there is nothing more to wait for. A word of the third may be under way for as long as it is waited for, and one that has
// come may leave it open for a while whether this node stands aside.
func (w *watch) tellAcquainted(now time.Time) {
	if w.acquainted {
		return
	}
	if !w.unheard.IsValid() {
		for _, p := range w.silence.unknown() {
			if w.partial.heardElsewhere(p) && w.partial.yields(p) || now.Sub(w.born) < acquaint+thirdPatience {
				return
			}
		}
	}
	w.acquainted = true
	w.Acquainted()
}

func (w *watch) closeTo(ctx context.Context, remote netip.Addr, why string) {
	w.Log.Warn("closing the connections to it", "peer", remote, "why", why)
	if err := w.Connections.Close(ctx, remote); err != nil {
		w.Log.Warn("cannot close connections", "peer", remote, "err", err)
	}
}

func (w *watch) refuse(ctx context.Context) {
	w.renewed = time.Now()
	r := Refusal{Dead: w.silence.dead(), Held: held}
	if w.unheard.IsValid() {
		w.Aside(w.unheard)
		for _, p := range w.Peers {
			if !slices.Contains(r.Dead, p) {
				r.Avoided = append(r.Avoided, p)
			}
		}
	}
	if err := w.Connections.Refuse(ctx, r); err != nil {
		w.Log.Warn("cannot refuse connections", "dead", r.Dead, "avoided", r.Avoided, "err", err)
	}
}
