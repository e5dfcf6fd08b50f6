package drill

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"nines/internal/health"
)

func (s *site) Isolate(_ context.Context, node string) error { return s.hurt("isolate", node) }
func (s *site) CutOneWay(_ context.Context, from, to string) error {
	return s.hurt("cut "+from+" from", to)
}
func (s *site) Claim(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log, s.claimed = append(s.log, "claim"), time.Now()
	return nil
}
func (s *site) Mend(ctx context.Context) error {
	s.mu.Lock()
	s.claimed = time.Time{}
	s.mu.Unlock()
	return errors.Join(ctx.Err(), s.heal("mend", "the network"))
}

// alarm is what status says of a claim.
func (s *site) alarm() []health.Condition {
	if s.claimed.IsZero() || s.alarmAfter == 0 || time.Since(s.claimed) < s.alarmAfter {
		return nil
	}
	return []health.Condition{{Code: codeDuplicate, Severity: health.Critical, Text: "somebody else"}}
}

func (s *site) Direct(context.Context, string) ([]Probe, func(), error) {
	send := func(err error) func(context.Context, int) error {
		return func(context.Context, int) error { return err }
	}
	var reach, write error
	if s.unreached {
		reach = errors.New("no route")
	}
	if !s.split {
		write = errors.New("not a Primary")
	}
	return []Probe{
		{Name: ProbeReach, Every: 200 * ms, Timeout: time.Second, Send: send(reach)},
		{Name: ProbeDirectWrite, Every: 200 * ms, Timeout: time.Second, Send: send(write)},
	}, func() {}, nil
}

func TestPartitions(t *testing.T) {
	for name, tc := range map[string]struct {
		drill   string
		site    *site
		verdict string
		reason  string
		did     string // in the log
	}{
		"a minority that stands still":   {"partition-minority", &site{failover: 300 * ms}, Pass, "", "isolate ctl1, mend the network"},
		"a minority that writes":         {"partition-minority", &site{failover: 300 * ms, split: true}, Fail, "ctl1 acknowledged", "mend the network"},
		"a minority that nobody reached": {"partition-minority", &site{failover: 300 * ms, unreached: true}, Fail, "clients did not reach ctl1", "mend the network"},
		"one way":                        {"partition-asymmetric", &site{failover: 100 * ms, says: "stands-aside"}, Pass, "", "mend the network"},
		"one way, and nobody says so":    {"partition-asymmetric", &site{failover: 100 * ms}, Fail, "nothing in status said stands-aside of ctl", "mend the network"},
		"a claim that is told":           {"vip-duplicate", &site{alarmAfter: 3 * time.Second}, Pass, "", "claim, mend the network"},
		"a claim that is told late":      {"vip-duplicate", &site{alarmAfter: 7 * time.Second}, Fail, "later than 5 s", "claim, mend the network"},
		"a claim that nobody tells":      {"vip-duplicate", &site{}, Fail, "nothing in status said vip-duplicate", "claim, mend the network"},
	} {
		t.Run(name, func(t *testing.T) {
			tc.site.vip = "ctl1"
			r := runnerFor(t, tc.site)
			synctest.Test(t, func(t *testing.T) {
				rep, err := r.Run(t.Context(), drillNamed(t, tc.drill), 42)
				if err != nil {
					t.Fatal(err)
				}
				reasons := strings.Join(rep.Reasons, "; ")
				if rep.Verdict != tc.verdict || !strings.Contains(reasons, tc.reason) {
					t.Errorf("%s: %s; want %s %q", rep.Verdict, reasons, tc.verdict, tc.reason)
				}
				if log := strings.Join(tc.site.log, ", "); !strings.Contains(log, tc.did) {
					t.Errorf("did %q, want %q", log, tc.did)
				}
			})
		})
	}
}
