package pacemaker

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"nines/internal/health"
	"nines/internal/host"
	"nines/internal/service"
)

const (
	// lateEvery is how often Corosync is asked: each time costs a process.
	lateEvery = 30 * time.Second
	// lateFor is for how long it is told that Corosync was late.
	lateFor = time.Hour
)

// lateness keeps what Corosync last said of it.
type lateness struct {
	mu    sync.Mutex
	asked time.Time
	told  []health.Condition
}

// conditions warn that this machine does not let Corosync run in time: it is then as silent as a dead one, and the others act. Corosync itself notes when it
// was not scheduled for most of its token (cmap_keys(7), stats.schedmiss; the last ten times).
func (l *lateness) conditions(ctx context.Context, env service.Env) []health.Condition {
	l.mu.Lock()
	defer l.mu.Unlock()
	if time.Since(l.asked) < lateEvery {
		return l.told
	}
	l.asked, l.told = time.Now(), nil
	out, err := env.Host.Run(ctx, host.Cmd{Args: []string{"corosync-cmapctl", "-m", "stats", "stats.schedmiss"}})
	if err != nil {
		return nil // there is nothing yet, or it has just gone, which is told elsewhere
	}
	times, worst := lately(string(out.Stdout), time.Now())
	if times > 0 {
		l.told = []health.Condition{{Code: "corosync-late", Severity: health.Notice,
			Text: fmt.Sprintf("Corosync did not get to run for up to %d ms (%dx within an hour), and its token is %d ms: the others may take this node for dead", worst.Milliseconds(), times, newTotem(env.Cluster).Token),
			Hint: "what keeps the machine busy? If that is to be so: 'tuning: {pacemaker: {token: ...}}' well above that time, then 'nines apply'"}}
	}
	return l.told
}

// lately counts how often Corosync was late within lateFor before now, and says for how long at most. A delay is in milliseconds, its time in milliseconds
// since 1970 (seen with Corosync 3.1.9).
func lately(text string, now time.Time) (times int, worst time.Duration) {
	have := parseMap(text)
	for key, value := range have {
		miss, is := strings.CutSuffix(key, ".delay") // stats.schedmiss.0.delay (flt) = 719.603455
		if !is {
			continue
		}
		ms, wrong := strconv.ParseFloat(value, 64)
		when, unknown := strconv.ParseFloat(have[miss+".timestamp"], 64)
		age, hour := float64(now.UnixMilli())-when, float64(lateFor.Milliseconds())
		if wrong == nil && unknown == nil && age >= 0 && age <= hour && ms >= 0 && ms <= hour { // not a number is none of these
			times++
			worst = max(worst, time.Duration(ms*float64(time.Millisecond)))
		}
	}
	return times, worst
}
