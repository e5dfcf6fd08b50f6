package drill

import (
	"context"
	"fmt"
	"time"
)

// The probes' rates suit machines on which a login takes usualLogin: a tenth of a second of work for Keystone. In a lab clients and cluster share
// their processors; on two slow ones, where a login took 0.26 s, the usual load kept half of them busy before any fault, and with one Keystone
// of three away for a minute the others fell so far behind that logins failed until the load ended.
const (
	usualLogin  = 100 * time.Millisecond
	slowestPace = 4 // the probes must still find an outage as short as their limits
	paceTries   = 3 // the first login fills caches
)

// pace logs in while nobody else does, and has all probes send as many times less often as that takes longer than usual. Only logins keep their
// rate: one that fails is an outage until the next, and their limit is three of them. But where a whole site is away nothing is measured in seconds,
// and logins alone kept a quarter of the processors busy that it came back on.
func (x *run) pace(ctx context.Context, probes []Probe) {
	took := quickestLogin(ctx, probes)
	factor := min(took.Seconds()/usualLogin.Seconds(), slowestPace)
	if factor <= 1 {
		return
	}
	spared, logins := ProbeToken, ", but logins"
	if x.drill.Site != nil {
		spared, logins = "", ""
	}
	for i := range probes {
		if probes[i].Name != spared {
			probes[i].Every = time.Duration(float64(probes[i].Every) * factor)
		}
	}
	x.note(fmt.Sprintf("clients sent %.1f times less often than usual%s: before the load a login took %.2f s", factor, logins, took.Seconds()))
}

// quickestLogin is zero where no probe logs in. A login that fails counts as long as its client would wait: if others do too, the load before the
// fault says so.
func quickestLogin(ctx context.Context, probes []Probe) time.Duration {
	for _, p := range probes {
		if p.Name != ProbeToken {
			continue
		}
		quickest := p.Timeout
		for range paceTries {
			begun := time.Now()
			ctx, cancel := context.WithTimeout(ctx, p.Timeout)
			err := p.Send(ctx, 0)
			cancel()
			if err == nil {
				quickest = min(quickest, time.Since(begun))
			}
		}
		return quickest
	}
	return 0
}
