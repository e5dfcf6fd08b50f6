package drill

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// The probes' rates suit machines on which a login takes usualLogin: a tenth of a second of work for Keystone. In a lab clients and cluster share
// their processors; on two slow ones, where a login took 0.26 s, the usual load kept half of them busy before any fault, and with one Keystone
// of three away for a minute the others fell so far behind that logins failed until the load ended.
const (
	usualLogin  = 100 * time.Millisecond
	slowestPace = 4 // the probes must still find an outage as short as their limits
	paceTries   = 5
	paceBounds  = 3 // an outage as long as a limit meets as many requests at least
	mostLater   = time.Second
)

// pace logs in while nobody else does, and has all probes send as many times less often as that takes longer than usual. Where a limit is
// short its probe keeps the rate that it takes to find an outage of that length: logins' is 1.5 s in some drills.
func (x *run) pace(ctx context.Context, probes []Probe) {
	took := usualTime(ctx, probes)
	factor := min(took.Seconds()/usualLogin.Seconds(), slowestPace)
	if factor <= 1 {
		return
	}
	x.slower = factor
	logins, limits := "", slices.Clone(x.drill.Limits)
	for i, p := range probes {
		slower := time.Duration(float64(p.Every) * factor)
		for _, l := range x.drill.Limits {
			if l.Probe == p.Name && l.Outage > 0 {
				slower = max(p.Every, min(slower, l.Outage/paceBounds))
			}
		}
		if p.Name == ProbeToken {
			logins = fmt.Sprintf(", logins every %.1f s", slower.Seconds())
			limits = withWork(limits, factor)
		}
		probes[i].Every = slower
	}
	x.limit(limits)
	x.note(fmt.Sprintf("clients sent up to %.1f times less often than usual%s, and the cluster has as many times longer to be whole again: before the load a login took %.2f s", factor, logins, took.Seconds()))
}

// withWork returns the limits with more for logins where one takes factor times as long as it usually does, mostLater at most: after a failover as many
// as have waited are worked off at once, and each is processor time for the most part (database and cache kept one waiting for 0.3 s of 1.5, seen).
func withWork(limits []Limit, factor float64) []Limit {
	for i, l := range limits {
		if l.Probe == ProbeToken && l.Outage > 0 {
			limits[i].Outage += min(mostLater, time.Duration((factor-1)*float64(l.Outage)).Round(time.Millisecond))
		}
	}
	return limits
}

// usualTime is what a login takes, the median of some; zero where no probe logs in. One that fails counts as long as its client would wait: if others
// do too, the load before the fault says so. The first, which fills caches, does not count.
func usualTime(ctx context.Context, probes []Probe) time.Duration {
	i := slices.IndexFunc(probes, func(p Probe) bool { return p.Name == ProbeToken })
	if i < 0 {
		return 0
	}
	var took []time.Duration
	for range 1 + paceTries {
		took = append(took, loginTime(ctx, probes[i]))
	}
	took = took[1:]
	slices.Sort(took)
	return took[len(took)/2]
}

func loginTime(ctx context.Context, p Probe) time.Duration {
	ctx, cancel := context.WithTimeout(ctx, p.Timeout)
	defer cancel()
	begun := time.Now()
	if err := p.Send(ctx, 0); err != nil {
		return p.Timeout
	}
	return time.Since(begun)
}
