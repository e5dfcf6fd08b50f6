package drill

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestPace(t *testing.T) {
	for name, tc := range map[string]struct {
		logins     []time.Duration // after the first; zero: fails
		most       time.Duration   // the limit of logins' outages; 0: none
		tcp, login time.Duration   // between two requests: usually 10 ms and 500 ms
		notes      int
	}{
		"usual":              {[]time.Duration{90 * ms, 100 * ms, 80 * ms, 100 * ms, 300 * ms}, 0, 10 * ms, 500 * ms, 0},
		"slow":               {[]time.Duration{900 * ms, 250 * ms, 300 * ms, 100 * ms, 200 * ms}, 0, 25 * ms, 1250 * ms, 1},
		"slow, short limit":  {[]time.Duration{250 * ms, 250 * ms, 250 * ms, 250 * ms, 250 * ms}, 1200 * ms, 25 * ms, 500 * ms, 1},
		"slow, longer limit": {[]time.Duration{250 * ms, 250 * ms, 250 * ms, 250 * ms, 250 * ms}, 3 * time.Second, 25 * ms, time.Second, 1},
		"a little slow":      {[]time.Duration{200 * ms, 200 * ms, 200 * ms, 200 * ms, 200 * ms}, 600 * ms, 20 * ms, 500 * ms, 1},
		"slow, long limit":   {[]time.Duration{250 * ms, 250 * ms, 250 * ms, 250 * ms, 250 * ms}, 9 * time.Second, 25 * ms, 1250 * ms, 1},
		"very slow":          {[]time.Duration{time.Second, time.Second, time.Second, time.Second, time.Second}, 0, 40 * ms, 2 * time.Second, 1},
		"two fail":           {[]time.Duration{0, 200 * ms, 200 * ms, 0, 100 * ms}, 0, 20 * ms, time.Second, 1},
		"nobody can log in":  {make([]time.Duration, 5), 0, 40 * ms, 2 * time.Second, 1},
		"nobody is asked to": {nil, 0, 10 * ms, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				probes := []Probe{{Name: ProbeTCP, Every: 10 * ms}}
				if tc.logins != nil {
					asked := 0
					probes = append(probes, Probe{Name: ProbeToken, Every: 500 * ms, Timeout: 5 * time.Second, Send: func(context.Context, int) error {
						took := 4 * time.Second
						if asked > 0 {
							took = tc.logins[asked-1]
						}
						if asked++; took == 0 {
							return errors.New("refused")
						}
						time.Sleep(took)
						return nil
					}})
				}
				x := &run{drill: Drill{Limits: []Limit{{Probe: ProbeToken, Outage: tc.most}}}}
				x.pace(t.Context(), probes)
				if every := probes[0].Every; every != tc.tcp {
					t.Errorf("every %v, want %v", every, tc.tcp)
				}
				if tc.logins != nil && probes[1].Every != tc.login {
					t.Errorf("logins every %v, want %v", probes[1].Every, tc.login)
				}
				want := min(time.Second, time.Duration((float64(tc.tcp)/float64(10*ms)-1)*float64(tc.most)))
				if more := x.drill.Limits[0].Outage - tc.most; more != want {
					t.Errorf("logins may be away for %v more, want %v", more, want)
				}
				if len(x.report.Notes) != tc.notes {
					t.Errorf("notes: %q", x.report.Notes)
				}
			})
		})
	}
}
