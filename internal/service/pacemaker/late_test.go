package pacemaker

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"nines/internal/health"
)

// noon is when these were looked at: one is 10 s old, one two hours, and one has no time.
var noon = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)

const misses = `stats.schedmiss.0.delay (flt) = 719.603455
stats.schedmiss.0.timestamp (u64) = 1795953590000
stats.schedmiss.1.delay (flt) = 2023.436279
stats.schedmiss.1.timestamp (u64) = 1795946400000
stats.schedmiss.2.delay (flt) = 5000.0
`

func TestLately(t *testing.T) {
	for name, tc := range map[string]struct {
		text  string
		now   time.Time
		times int
		worst time.Duration
	}{
		"one of late":   {misses, noon, 1, 719603455 * time.Nanosecond},
		"two of late":   {misses + "stats.schedmiss.1.timestamp (u64) = 1795953000000\n", noon, 2, 2023436279 * time.Nanosecond},
		"none any more": {misses, noon.Add(2 * time.Hour), 0, 0},
		"not yet":       {misses, noon.Add(-24 * time.Hour), 0, 0},
		"never":         {"", noon, 0, 0},
		"not numbers":   {"stats.schedmiss.0.delay (flt) = x\nstats.schedmiss.0.timestamp (u64) = 1\nstats.schedmiss.1.delay (flt) = 1\nstats.schedmiss.1.timestamp (u64) = NaN\n", noon, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			if times, worst := lately(tc.text, tc.now); times != tc.times || worst != tc.worst {
				t.Errorf("%d times, %s; want %d, %s", times, worst, tc.times, tc.worst)
			}
		})
	}
}

func TestCorosyncLateIsTold(t *testing.T) {
	h := running(t, "crm_mon-whole.xml")
	h.Answer("corosync-cmapctl -m stats", fmt.Sprintf("stats.schedmiss.0.delay (flt) = 719.603455\nstats.schedmiss.0.timestamp (u64) = %d\n", time.Now().UnixMilli()-5000), 0)
	s := New(nil)
	of := func() (out []health.Condition) {
		for _, c := range s.Observe(t.Context(), testEnv(h)).Conditions {
			if c.Code == "corosync-late" {
				out = append(out, c)
			}
		}
		return out
	}
	got := of()
	if len(got) != 1 || !strings.Contains(got[0].Text, "up to 719 ms (1x within an hour)") || !strings.Contains(got[0].Text, "token is 600 ms") || got[0].Ails() {
		t.Fatalf("%+v", got)
	}
	asked := len(h.Calls())
	if got := of(); len(got) != 1 {
		t.Errorf("it is told for a while: %+v", got)
	}
	for _, call := range h.Calls()[asked:] {
		if strings.Contains(call, "schedmiss") {
			t.Errorf("asked again at once: %s", call)
		}
	}
}

func FuzzLately(f *testing.F) {
	f.Add(misses, noon.UnixMilli())
	f.Add("stats.schedmiss.0.delay (flt) = 1e300\nstats.schedmiss.0.timestamp (u64) = -1\n", int64(1))
	f.Fuzz(func(t *testing.T, text string, now int64) {
		times, worst := lately(text, time.UnixMilli(now))
		if worst < 0 || worst > lateFor || times == 0 && worst != 0 {
			t.Errorf("%d times, %s", times, worst)
		}
	})
}
