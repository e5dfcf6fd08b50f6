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
		logins []time.Duration // zero: fails
		want   time.Duration   // between two requests that usually come every 10 ms
		notes  int
		site   *Site // of the drill
	}{
		"usual":                     {[]time.Duration{400 * ms, 90 * ms, 100 * ms}, 10 * ms, 0, nil},
		"slow":                      {[]time.Duration{900 * ms, 250 * ms, 300 * ms}, 25 * ms, 1, nil},
		"slow, and a site is away":  {[]time.Duration{900 * ms, 250 * ms, 300 * ms}, 25 * ms, 1, &Site{}},
		"very slow":                 {[]time.Duration{3 * time.Second, 2 * time.Second, 2 * time.Second}, 40 * ms, 1, nil},
		"one fails":                 {[]time.Duration{0, 200 * ms, 200 * ms}, 20 * ms, 1, nil},
		"nobody can log in":         {[]time.Duration{0, 0, 0}, 40 * ms, 1, nil},
		"nobody is asked to log in": {nil, 10 * ms, 0, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				probes := []Probe{{Name: ProbeTCP, Every: 10 * ms}}
				if tc.logins != nil {
					probes = append(probes, Probe{Name: ProbeToken, Every: 10 * ms, Timeout: 5 * time.Second, Send: func(context.Context, int) error {
						took := tc.logins[0]
						tc.logins = tc.logins[1:]
						if took == 0 {
							return errors.New("refused")
						}
						time.Sleep(took)
						return nil
					}})
				}
				x := &run{drill: Drill{Site: tc.site}}
				x.pace(t.Context(), probes)
				if every := probes[0].Every; every != tc.want {
					t.Errorf("every %v, want %v", every, tc.want)
				}
				want := 10 * ms
				if tc.site != nil {
					want = tc.want
				}
				if tc.logins != nil && probes[1].Every != want {
					t.Errorf("logins every %v, want %v", probes[1].Every, want)
				}
				if len(x.report.Notes) != tc.notes {
					t.Errorf("notes: %q", x.report.Notes)
				}
			})
		})
	}
}
