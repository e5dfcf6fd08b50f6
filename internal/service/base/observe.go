package base

import (
	"context"
	"encoding/csv"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"nines/internal/health"
	"nines/internal/host"
	"nines/internal/service"
)

// maxOffset is how far a node's clock may be off: tokens and certificates are valid by the clock, and
// logs of several nodes are read side by side.
const maxOffset = 500 * time.Millisecond

// Interval is long: clocks drift slowly, and each look starts a process.
func (*Service) Interval() time.Duration { return 15 * time.Second }

// tracking is what chronyc -c tracking says.
type tracking struct {
	Reference string
	Stratum   int
	Offset    time.Duration // of the system clock to the sources' time
	Leap      string
}

// parseTracking reads the one line of "chronyc -c tracking" (chronyc(1): fields in the order of the
// long output): refid, name, stratum, reference time, current correction, last offset, RMS offset,
// frequency, residual, skew, root delay, root dispersion, interval, leap status.
func parseTracking(text string) (tracking, error) {
	fields, err := csv.NewReader(strings.NewReader(text)).Read()
	if err != nil {
		return tracking{}, fmt.Errorf("chronyc: %w", err)
	}
	if len(fields) < 14 {
		return tracking{}, fmt.Errorf("chronyc: %d fields, want 14", len(fields))
	}
	stratum, err := strconv.Atoi(fields[2])
	if err != nil {
		return tracking{}, fmt.Errorf("chronyc: stratum: %w", err)
	}
	seconds, err := strconv.ParseFloat(fields[4], 64)
	if err != nil || math.IsNaN(seconds) || math.Abs(seconds) > 1e9 {
		return tracking{}, fmt.Errorf("chronyc: offset %q", fields[4])
	}
	return tracking{Reference: fields[1], Stratum: stratum, Offset: time.Duration(seconds * float64(time.Second)), Leap: fields[13]}, nil
}

// Observe asks chronyd how the clock is.
func (*Service) Observe(ctx context.Context, env service.Env) service.Observation {
	out, err := env.Host.Run(ctx, host.Cmd{Args: []string{"/usr/bin/chronyc", "-n", "-c", "tracking"}})
	var t tracking
	if err == nil {
		t, err = parseTracking(string(out.Stdout))
	}
	if err != nil {
		reason := "chronyd does not answer"
		return service.Observation{Reason: reason, Conditions: []health.Condition{{Code: "time-down", Severity: health.Warning,
			Text: reason, Hint: "look at 'journalctl -u chrony' on the node; 'nines apply' starts it"}}}
	}
	return observation(t, len(env.Cluster.NTP.Upstreams) > 0)
}

func observation(t tracking, upstreams bool) service.Observation {
	o := service.Observation{Serving: true, Reason: fmt.Sprintf("clock off by %v, stratum %d", t.Offset, t.Stratum),
		Facts: map[string]string{"stratum": strconv.Itoa(t.Stratum), "offset": t.Offset.String(), "leap": t.Leap, "reference": t.Reference}}
	// Without upstreams the controllers agree among themselves and one of them is its own source.
	if t.Leap == "Not synchronised" && upstreams {
		o.Conditions = append(o.Conditions, health.Condition{Code: "time-unsynchronised", Severity: health.Warning,
			Text: "the clock follows no source", Hint: "check that the NTP upstreams of cluster.yaml answer; a new start takes a minute"})
	}
	if t.Offset.Abs() > maxOffset {
		o.Conditions = append(o.Conditions, health.Condition{Code: "time-offset", Severity: health.Warning,
			Text: fmt.Sprintf("the clock is off by %v", t.Offset), Hint: "chronyd corrects it slowly; 'chronyc makestep' at a quiet time corrects it at once"})
	}
	return o
}
