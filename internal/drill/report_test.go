package drill

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"
)

func TestJudge(t *testing.T) {
	probe := func(failed int, longest int64) ProbeReport {
		return ProbeReport{Name: ProbeAPI, Requests: 100, Failed: failed, Longest: longest}
	}
	second := Limit{Probe: ProbeAPI, Outage: time.Second}
	for name, tc := range map[string]struct {
		limit  Limit
		probe  ProbeReport
		change func(*evidence)
		fails  bool
	}{
		"within":                {second, probe(3, 1000), nil, false},
		"too long":              {second, probe(3, 1001), nil, true},
		"one failure too many":  {Limit{Probe: ProbeAPI, NoFailures: true}, probe(1, 5), nil, true},
		"none failed":           {Limit{Probe: ProbeAPI, NoFailures: true}, probe(0, 0), nil, false},
		"failed too late":       {Limit{Probe: ProbeAPI, QuietAfter: time.Second}, probe(2, 5), func(e *evidence) { e.after[ProbeAPI] = 1 }, true},
		"failed early":          {Limit{Probe: ProbeAPI, QuietAfter: time.Second}, probe(2, 5), nil, false},
		"limit without a probe": {Limit{Probe: "other", NoFailures: true}, probe(1, 5), nil, false},
		"no request":            {second, ProbeReport{Name: ProbeAPI}, nil, true},
		"lost":                  {second, probe(0, 0), func(e *evidence) { e.acks.Lost = 1 }, true},
		"stuck":                 {second, probe(0, 0), func(e *evidence) { e.acks.Stuck = 1 }, true},
		"not whole":             {second, probe(0, 0), func(e *evidence) { e.whole = false }, true},
		"failed before":         {second, probe(1, 5), func(e *evidence) { e.baseline = []string{ProbeAPI} }, true},
		"survivor wounded":      {second, probe(0, 0), func(e *evidence) { e.wounded = []string{"ctl2 lost"} }, true},
	} {
		t.Run(name, func(t *testing.T) {
			e := evidence{probes: []ProbeReport{tc.probe}, whole: true, after: map[string]int{}}
			if tc.change != nil {
				tc.change(&e)
			}
			if why := judge([]Limit{tc.limit}, e); (len(why) > 0) != tc.fails {
				t.Errorf("reasons %q", why)
			}
		})
	}
}

func TestJSONHasTheAgreedFields(t *testing.T) {
	r := Report{Name: "x", Verdict: Pass, Probes: []ProbeReport{{Name: ProbeTCP}}}
	var one map[string]any
	var b bytes.Buffer
	if err := WriteJSON(&b, []Report{r}, false); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b.Bytes(), &one); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"name", "verdict", "seed", "probes", "acks", "redundant_after_ms"} {
		if _, ok := one[key]; !ok {
			t.Errorf("no field %q", key)
		}
	}
	probe, _ := one["probes"].([]any)[0].(map[string]any)
	for _, key := range []string{"name", "requests", "failed", "longest_outage_ms", "total_outage_ms"} {
		if _, ok := probe[key]; !ok {
			t.Errorf("no field %q in a probe", key)
		}
	}
	b.Reset()
	var list []Report
	if err := WriteJSON(&b, []Report{r}, true); err != nil || json.Unmarshal(b.Bytes(), &list) != nil || len(list) != 1 {
		t.Errorf("a repeated run is no list: %s", b.String())
	}
}
