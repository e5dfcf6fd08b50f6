package agent

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"nines/internal/converge"
	"nines/internal/store"
)

// The leader decides from what all agents say. Where the network between it and one controller is broken, and another one hears both, that
// other one knows more: a recovery that needs everybody's word would wait for as long as the link is broken. So the leader gives the lead up and
// stands aside from the next election for a while.

const (
	middleEvery = time.Second
	// unheardAfter is for how long a controller has answered none of this node's echo requests, heardWithin how lately it answered the other's.
	unheardAfter = 3 * time.Second
	heardWithin  = 3 * time.Second / 2
	// abstainFor is long enough for the others to elect one, and for that one to find that it has the same trouble.
	abstainFor = 10 * time.Second
	// yieldAgain keeps the lead from going round where several links are broken and nobody hears all.
	yieldAgain = time.Minute
)

// middle finds whether another controller hears one that this one does not.
type middle struct {
	peers []netip.Addr
	// age is how long ago a peer answered this node, heard how long ago it answered the peer that is asked.
	age   func(peer netip.Addr) (time.Duration, bool)
	heard func(ctx context.Context, asked, about netip.Addr) (time.Duration, error)
}

func (m middle) hears(peer netip.Addr) bool {
	age, ok := m.age(peer)
	return ok && age < unheardAfter
}

// elsewhere names a controller that this one does not hear, and one that does.
func (m middle) elsewhere(ctx context.Context) (unheard, by netip.Addr, ok bool) {
	ctx, cancel := context.WithTimeout(ctx, middleEvery)
	defer cancel()
	for _, unheard := range m.peers {
		if m.hears(unheard) {
			continue
		}
		for _, by := range m.peers {
			if by == unheard || !m.hears(by) {
				continue
			}
			if age, err := m.heard(ctx, by, unheard); err == nil && age < heardWithin {
				return unheard, by, true
			}
		}
	}
	return netip.Addr{}, netip.Addr{}, false
}

// yieldToMiddle gives the lead up by yield if another controller is the better place for it, seen twice in a row. An apply is led to its end.
func (a *Agent) yieldToMiddle(ctx context.Context, s store.Store, yield func()) {
	m := middle{peers: a.others(), age: a.ears.Age, heard: a.askThird}
	for times := 0; pause(ctx, middleEvery); {
		if time.Since(a.yielded) < yieldAgain {
			continue
		}
		unheard, by, ok := m.elsewhere(ctx)
		if !ok {
			times = 0
			continue
		}
		if times++; times < 2 {
			continue
		}
		if r, err := converge.Current(ctx, s); err == nil && r.State != converge.Converging || errors.Is(err, converge.ErrNoApply) {
			a.Log.Warn("giving the lead up: another controller hears one that this node does not", "unheard", unheard, "heard_by", by)
			a.yielded = time.Now()
			yield()
			return
		}
	}
}
