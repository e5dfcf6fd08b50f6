package keystone

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"nines/internal/health"
	"nines/internal/model"
	"nines/internal/openstack"
	"nines/internal/service"
)

// maxSkew is how far a Keystone's clock may be from the others' before it is given no requests. Tokens are valid for an hour by the clock of whoever
// looks at them; chrony keeps clocks within milliseconds, and says earlier what it cannot (time-offset).
const maxSkew = 30 * time.Second

// The others are asked for their time every clockEvery, and again at once after an answer that is odd. clockTimeout bounds an answer.
const (
	clockEvery   = 10 * time.Second
	clockTimeout = time.Second
)

// clocks compares the clock of this node's Keystone with the others', by what their answers say. It is the clock that
// tokens are made and judged by, whatever the node's other programs see.
type clocks struct {
	mu    sync.Mutex
	busy  bool
	at    time.Time
	looks int // in a row that found it odd
	off   time.Duration
	with  []string
}

// note looks again if it is time, without being waited for, and returns by how much this node's Keystone was found to be ahead of
// others that agree. own is by how much it is ahead of the agent's clock; what that clock is worth does not matter.
func (c *clocks) note(ctx context.Context, s *Service, env service.Env, own time.Duration) (off time.Duration, with []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := s.now(); !c.busy && (now.Sub(c.at) >= clockEvery || c.looks == 1) {
		c.busy, c.at = true, now
		go c.look(context.WithoutCancel(ctx), s, env, own)
	}
	if c.looks < 2 {
		return 0, nil
	}
	return c.off, c.with
}

func (c *clocks) look(ctx context.Context, s *Service, env service.Env, own time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, clockTimeout)
	defer cancel()
	others := map[string]time.Duration{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, n := range env.Cluster.Controllers() {
		if n.Name == env.Node.Name {
			continue
		}
		wg.Go(func() {
			ahead, err := s.clockOf(ctx, env, n)
			mu.Lock()
			defer mu.Unlock()
			if err == nil && ahead != nil {
				others[n.Name] = *ahead
			}
		})
	}
	wg.Wait()
	off, with := odd(own, others, len(env.Cluster.Controllers()))
	c.mu.Lock()
	defer c.mu.Unlock()
	c.busy = false
	if c.off, c.with = off, with; len(with) == 0 {
		c.looks = 0
		return
	}
	c.looks++
}

// clockOf asks a node's Keystone, and returns by how much its clock is ahead of this agent's; nil: it does not tell.
func (s *Service) clockOf(ctx context.Context, env service.Env, n model.Node) (*time.Duration, error) {
	at, err := s.client.Clock(ctx, env.Host, "https://"+openstack.HostPort(n.Address(), model.PortKeystone)+"/v3")
	if err != nil || at.IsZero() {
		return nil, err
	}
	ahead := at.Sub(s.now())
	return &ahead, nil
}

// odd says by how much own is off from a majority of the members that agrees without it, and who that is; nobody: it is not, or nobody
// can say which of them is right. Pure.
func odd(own time.Duration, others map[string]time.Duration, members int) (off time.Duration, with []string) {
	for _, at := range others {
		var agree []string
		for name, other := range others {
			if (other - at).Abs() <= maxSkew {
				agree = append(agree, name)
			}
		}
		if len(agree) >= model.Quorum(members) && (own-at).Abs() > maxSkew {
			slices.Sort(agree)
			return own - at, agree
		}
	}
	return 0, nil
}

// skewed takes a Keystone out whose clock is wrong: its tokens live too long, or the others' are refused here.
func skewed(o *service.Observation, off time.Duration, with []string) {
	way := "ahead of"
	if off < 0 {
		way = "behind"
	}
	o.Serving = false
	o.Reason = fmt.Sprintf("its clock is %s %s that of %s", off.Abs().Round(time.Second), way, strings.Join(with, ", "))
	o.Conditions = append(o.Conditions, health.Condition{Code: "clock-skew", Severity: health.Warning, Text: o.Reason,
		Hint: "set the node's clock right ('chronyc makestep') and find out why it was off ('chronyc tracking'); it is given requests again then"})
}
