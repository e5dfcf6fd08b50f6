package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"nines/internal/drill"
	"nines/internal/model"
)

var (
	nines = contender{model.PresetNines, model.EngineKeepalived}
	kolla = contender{model.PresetKolla, model.EngineKeepalived}
)

func TestPresets(t *testing.T) {
	got, err := contenders("kolla, nines,nines+pacemaker")
	if err != nil || !slices.Equal(got, []contender{kolla, nines, {model.PresetNines, model.EnginePacemaker}}) {
		t.Errorf("%v, %v", got, err)
	}
	if name := got[2].String(); name != "nines+pacemaker" || got[0].String() != "kolla" {
		t.Error(name)
	}
	for list, want := range map[string]string{"kola": "no preset", "nines,": "no preset", "nines,nines+keepalived": "twice", "nines+corosync": "no engine", "nines+": "no engine"} {
		if _, err := contenders(list); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q", list, err, want)
		}
	}
}

// drilled is what nines drill run --json prints, with these outages of VIP, Keystone, logins and database writes.
func drilled(t *testing.T, outages ...int64) []byte {
	t.Helper()
	r := drill.Report{Name: presetDrill, Verdict: drill.Fail, Seed: 7, Node: "ctl2", Acks: drill.Acks{Written: 900, Lost: 1}, RedundantAfter: 31000}
	for i, ms := range outages {
		r.Probes = append(r.Probes, drill.ProbeReport{Name: felt[i].probe, Requests: 100, Longest: ms})
	}
	var b bytes.Buffer
	if err := drill.WriteJSON(&b, []drill.Report{r}, false); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestParseDrill(t *testing.T) {
	got, err := parseDrill(drilled(t, 340, 900, 1200, 1900))
	if err != nil {
		t.Fatal(err)
	}
	want := presetRun{Seed: 7, Node: "ctl2", Lost: 1, Whole: 31000,
		Outage: map[string]int64{drill.ProbeTCP: 340, drill.ProbeAPI: 900, drill.ProbeToken: 1200, drill.ProbeWrite: 1900}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for name, raw := range map[string][]byte{"not JSON": []byte("error: the cluster is not whole"), "a probe is missing": drilled(t, 340, 900)} {
		if _, err := parseDrill(raw); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestPresetsReport(t *testing.T) {
	run := func(tcp, api, token, write int64) presetRun {
		return presetRun{Outage: map[string]int64{drill.ProbeTCP: tcp, drill.ProbeAPI: api, drill.ProbeToken: token, drill.ProbeWrite: write}}
	}
	r := report{Nines: "v1", Date: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Cores: 2, Load: 0.1, Nodes: 3,
		Presets: &presetsReport{Drill: presetDrill, Presets: []presetReport{
			{contender: nines, Load: 0.5, Runs: []presetRun{run(300, 0, 1000, 2000), run(340, 0, 1200, 1900)}},
			{contender: kolla, Load: 1, Runs: []presetRun{run(3200, 3300, 6000, 6400)}},
			{contender: contender{model.PresetNines, model.EnginePacemaker}, Load: 1, Runs: []presetRun{run(1600, 1500, 1900, 2100)}},
		}}}
	var text bytes.Buffer
	if err := writeText(&text, r); err != nil {
		t.Fatal(err)
	}
	golden(t, "presets.txt", text.Bytes())
}

func TestPresetsReportWithoutNines(t *testing.T) {
	alone := presetReport{contender: kolla, Runs: []presetRun{{Outage: map[string]int64{drill.ProbeTCP: 3200}}}}
	r := presetsReport{Presets: []presetReport{alone}}
	if got := r.cell(alone, drill.ProbeTCP); got != "3200 ms" {
		t.Error(got)
	}
}
