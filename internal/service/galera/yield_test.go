package galera

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"nines/internal/service/servicetest"
)

func TestYield(t *testing.T) {
	const waits = "SET GLOBAL wsrep_provider_evs_suspect_timeout = 3"
	const back = "SET GLOBAL wsrep_provider_evs_suspect_timeout = 1"
	for name, tc := range map[string]struct {
		runsWith time.Duration
		on       bool
		want     []string
	}{
		"it waits":                         {time.Second, true, []string{waits}},
		"it waits already":                 {3 * time.Second, true, nil},
		"as before":                        {3 * time.Second, false, []string{back}},
		"it never waited":                  {time.Second, false, nil},
		"a change is under way":            {5 * time.Second, true, nil},
		"a change has been made meanwhile": {5 * time.Second, false, nil},
	} {
		t.Run(name, func(t *testing.T) {
			r := detectorRig(t, nil)
			r.env.Cluster = servicetest.Cluster()
			now := r.env.Cluster.Tuning.Galera
			now.SuspectTimeout = tc.runsWith
			r.server.rows["wsrep"] = rowsOf(runsWith(now))
			if err := r.Yield(t.Context(), r.env, tc.on); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tc.want, r.server.done); d != "" {
				t.Errorf("statements (-want +got):\n%s", d)
			}
			// What it waits for is no drift; that it still waits afterwards is.
			want := tc.runsWith == time.Second
			if tc.on {
				want = tc.runsWith == 3*time.Second
			}
			if done, reason, err := r.detectorSet(t.Context(), r.env, nil); done != want || err != nil {
				t.Errorf("as it should be: %t (%s), %v; want %t", done, reason, err, want)
			}
		})
	}
}

// A member never waits longer than Galera lets it.
func TestYieldedIsWithinBounds(t *testing.T) {
	tuning := servicetest.Cluster().Tuning.Galera
	for _, suspect := range []time.Duration{time.Second, 4 * time.Second, 10 * time.Second, 15 * time.Second} {
		tuning.SuspectTimeout = suspect
		if got := yielded(tuning).SuspectTimeout; got < suspect || got > tuning.InactiveTimeout {
			t.Errorf("%s: yields %s", suspect, got)
		}
	}
}
