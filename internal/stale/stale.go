// Package stale ends the connections that this node has open to a machine which is no longer there.
//
// TCP cannot tell a dead peer from a silent one: a client that has sent its request and waits for the answer of a machine
// without power waits for as long as its own time-outs say, in OpenStack's libraries up to minutes, and each new connection
// to that machine costs another time-out. Two things are seen here instead:
//
//   - a controller that answers no echo request (ICMP, answered by its kernel however busy it is) for two seconds. Its
//     connections are closed, and new ones are refused at once, until it answers again;
//   - the virtual address that moves to another machine, which knows none of the connections made before. Most often it
//     moves because a machine died: the new holder asks at once who is still there, and sends no requests to the others.
//
// Invariants: a controller that has never answered is not judged, so a network that drops echo requests changes nothing. A node
// that hears nobody closes its side too, as the others do theirs: who is cut off must know it when they know it. A
// refusal ends by itself when nobody renews it. Nothing but TCP is touched.
package stale

import (
	"context"
	"log/slog"
	"net/netip"
	"time"
)

// The rhythm. Two seconds: longer than any pause of a live machine's kernel that was seen, shorter than what waits for it.
const (
	every    = 500 * time.Millisecond
	patience = 2 * time.Second
	// held is how long the kernel keeps a refusal that nobody renews: an agent that died must not keep a returned machine
	// away.
	held  = 15 * time.Second
	renew = 5 * time.Second
)

// Options of Run.
type Options struct {
	// Peers are the addresses of the other controllers.
	Peers []netip.Addr
	// VIP is the virtual address; the zero value while there is none.
	VIP func() netip.Addr
	// Absent is told which peers did not answer when the virtual address had just come to this node.
	Absent func(ctx context.Context, peers []netip.Addr)
	// Connections are those of this node.
	Connections Connections
	Log         *slog.Logger
}

// Connections is what may be done to the TCP connections of a node. Kernel is the real one.
type Connections interface {
	// Close closes all to a remote address.
	Close(ctx context.Context, remote netip.Addr) error
	// Abandon closes those that are still being opened to a remote address.
	Abandon(ctx context.Context, remote netip.Addr) error
	// Refuse has new ones, and whatever is still sent, refused at once, for these addresses and no others, and for as
	// long as held at most.
	Refuse(ctx context.Context, remotes []netip.Addr, held time.Duration) error
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
	w := &watch{Options: o, silence: newSilence(o.Peers), askOne: echo.ask}
	w.refuse(ctx) // what an agent before has left
	defer func() {
		last, done := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer done()
		w.silence = newSilence(nil)
		w.refuse(last)
	}()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case peer := <-echo.answers:
			w.answered(ctx, peer)
		case here := <-moved:
			if here {
				w.beginRoll(ctx, time.Now())
			}
			w.closeTo(ctx, o.VIP(), "the virtual address has moved")
		case <-w.roll:
			w.callRoll(ctx, time.Now())
		case <-tick.C:
			w.judge(ctx)
			w.ask()
		}
	}
}

// watch acts on what is heard.
type watch struct {
	Options
	silence *silence
	renewed time.Time
	askOne  func(netip.Addr)

	// The roll call: see beginRoll.
	roll  <-chan time.Time // nil: none is under way
	began time.Time
	asked int
}

func (w *watch) ask() {
	for _, p := range w.Peers {
		w.askOne(p)
	}
}

func (w *watch) answered(ctx context.Context, peer netip.Addr) {
	if w.silence.answered(peer, time.Now()) {
		w.Log.Info("answers again: connections to it are no longer refused", "peer", peer)
		w.refuse(ctx)
	}
}

func (w *watch) judge(ctx context.Context) {
	died := w.silence.judge(time.Now())
	if len(died) > 0 || len(w.silence.dead()) > 0 && time.Since(w.renewed) >= renew {
		w.refuse(ctx)
	}
	for _, p := range died {
		w.closeTo(ctx, p, "silent for "+patience.String())
	}
}

func (w *watch) closeTo(ctx context.Context, remote netip.Addr, why string) {
	w.Log.Warn("closing the connections to it", "peer", remote, "why", why)
	if err := w.Connections.Close(ctx, remote); err != nil {
		w.Log.Warn("cannot close connections", "peer", remote, "err", err)
	}
}

func (w *watch) refuse(ctx context.Context) {
	w.renewed = time.Now()
	if err := w.Connections.Refuse(ctx, w.silence.dead(), held); err != nil {
		w.Log.Warn("cannot refuse connections", "peers", w.silence.dead(), "err", err)
	}
}
