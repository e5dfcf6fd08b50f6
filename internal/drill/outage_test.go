package drill

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

const ms = time.Millisecond

func TestMeasure(t *testing.T) {
	ok := func(at, took int) Sample { return Sample{At: time.Duration(at) * ms, Took: time.Duration(took) * ms} }
	bad := func(at, took int) Sample {
		return Sample{At: time.Duration(at) * ms, Took: time.Duration(took) * ms, Failure: "refused"}
	}
	for name, tc := range map[string]struct {
		samples        []Sample
		longest, total int
		failed         int
	}{
		"nothing":      {nil, 0, 0, 0},
		"all prompt":   {[]Sample{ok(0, 5), ok(100, 5), ok(200, 5)}, 0, 0, 0},
		"three failed": {[]Sample{ok(0, 5), bad(100, 1), bad(200, 1), bad(300, 1), ok(400, 5)}, 305, 305, 3},
		"two outages":  {[]Sample{bad(0, 1), ok(100, 5), bad(200, 1), bad(300, 1), ok(400, 5)}, 205, 310, 3},
		"a stall, nothing fails": {
			[]Sample{ok(0, 5), ok(100, 805), ok(200, 705), ok(300, 605), ok(950, 5)}, 805, 805, 0},
		"one slow among prompt ones": {[]Sample{ok(0, 5), ok(100, 905), ok(200, 5), ok(300, 5)}, 0, 0, 0},
		"one failed among prompt":    {[]Sample{ok(0, 5), bad(100, 900), ok(200, 5), ok(300, 5)}, 105, 105, 1},
		"time-outs end late":         {[]Sample{bad(0, 1000), bad(100, 1000), ok(200, 5), ok(300, 5)}, 205, 205, 2},
		"never answered again":       {[]Sample{ok(0, 5), bad(100, 1), bad(900, 1)}, 900, 900, 2},
		"out of order":               {[]Sample{ok(400, 5), bad(300, 1), ok(0, 5)}, 105, 105, 1},
	} {
		t.Run(name, func(t *testing.T) {
			f := Measure(tc.samples, 500*ms, 1000*ms)
			if f.Longest != time.Duration(tc.longest)*ms || f.Total != time.Duration(tc.total)*ms || f.Failed != tc.failed || f.Requests != len(tc.samples) {
				t.Errorf("%+v, want longest %d total %d failed %d", f, tc.longest, tc.total, tc.failed)
			}
		})
	}
}

func drawSamples(t *rapid.T) []Sample {
	n := rapid.IntRange(0, 60).Draw(t, "n")
	out := make([]Sample, n)
	for i := range out {
		out[i] = Sample{At: time.Duration(i) * 50 * ms, Took: time.Duration(rapid.IntRange(1, 1500).Draw(t, "took")) * ms}
		if rapid.Bool().Draw(t, "fails") {
			out[i].Failure = "x"
		}
	}
	return out
}

// The total agrees with its definition computed the slow way: the millisecond is in an outage
// when it lies between a request that failed or waited long and the first answer after it.
func TestMeasureAgreesWithItsDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		samples, late, end := drawSamples(t), 200*ms, 60*50*ms
		covered := map[time.Duration]bool{}
		var longest time.Duration
		for i, s := range samples {
			served := end
			for _, later := range samples[i:] {
				if later.OK() {
					served = min(served, later.end())
				}
			}
			if s.OK() && served-s.At <= late {
				continue
			}
			longest = max(longest, served-s.At)
			for at := s.At; at < served; at += ms {
				covered[at] = true
			}
		}
		f := Measure(samples, late, end)
		if f.Longest != longest || f.Total != time.Duration(len(covered))*ms {
			t.Fatalf("longest %s total %s, want %s and %d ms", f.Longest, f.Total, longest, len(covered))
		}
	})
}

func TestMeasureProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		samples, end := drawSamples(t), 60*50*ms
		f := Measure(samples, 200*ms, end)
		if f.Longest > f.Total || f.Total > end || (f.Failed > 0) && f.Longest == 0 {
			t.Fatalf("%+v", f)
		}
		for i := range samples { // a failure that did not happen never makes it worse
			if !samples[i].OK() {
				samples[i].Failure, samples[i].Took = "", ms
				if g := Measure(samples, 200*ms, end); g.Longest > f.Longest || g.Total > f.Total {
					t.Fatalf("%+v became %+v", f, g)
				}
				return
			}
		}
	})
}
