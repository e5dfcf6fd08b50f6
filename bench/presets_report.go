package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"nines/internal/drill"
	"nines/internal/model"
)

// felt are the columns: what clients feel, and the drill's probe that measures it.
var felt = []struct{ title, probe string }{
	{"VIP", drill.ProbeTCP},
	{"Keystone", drill.ProbeAPI},
	{"logins", drill.ProbeToken},
	{"database writes", drill.ProbeWrite},
}

// presetsReport is one drill with several presets.
type presetsReport struct {
	Drill   string         `json:"drill"`
	Presets []presetReport `json:"presets"`
}

// presetReport is the drill with one preset.
type presetReport struct {
	contender
	Load float64     `json:"load"` // before its lab
	Runs []presetRun `json:"runs"`
}

// presetRun is one run of the drill.
type presetRun struct {
	Seed   uint64           `json:"seed"`
	Node   string           `json:"node"` // that lost its power
	Outage map[string]int64 `json:"longest_outage_ms"`
	Lost   int              `json:"acknowledged_writes_lost"`
	Whole  int64            `json:"redundant_after_ms"` // -1: never
}

// outages are the longest outages of a probe, in ms, one a run.
func (r presetReport) outages(probe string) []float64 {
	out := make([]float64, len(r.Runs))
	for i, run := range r.Runs {
		out[i] = float64(run.Outage[probe])
	}
	return out
}

// lost counts acknowledged writes that were lost, in all runs.
func (r presetReport) lost() int {
	n := 0
	for _, run := range r.Runs {
		n += run.Lost
	}
	return n
}

func writePresets(w io.Writer, r presetsReport) {
	fmt.Fprintf(w, "\n%s: longest outage (median of the runs), and as a multiple of that with the preset nines\n", r.Drill)
	fmt.Fprint(w, "  preset")
	for _, f := range felt {
		fmt.Fprint(w, "\t"+f.title)
	}
	fmt.Fprint(w, "\tlost writes\truns\tload before\n")
	for _, p := range r.Presets {
		fmt.Fprintf(w, "  %s", p.contender)
		for _, f := range felt {
			fmt.Fprintf(w, "\t%s", r.cell(p, f.probe))
		}
		fmt.Fprintf(w, "\t%d\t%d\t%.2f\n", p.lost(), len(p.Runs), p.Load)
	}
	for _, p := range r.Presets {
		writeRuns(w, p)
	}
}

// cell is "3150 ms (9.0)"; without a run of the preset nines there is nothing to compare with.
func (r presetsReport) cell(p presetReport, probe string) string {
	ms := median(p.outages(probe))
	i := slices.IndexFunc(r.Presets, func(p presetReport) bool { return p.Preset == model.PresetNines && p.Engine == model.EngineKeepalived })
	if i < 0 {
		return fmt.Sprintf("%.0f ms", ms)
	}
	base := median(r.Presets[i].outages(probe))
	if base == 0 {
		return fmt.Sprintf("%.0f ms (-)", ms)
	}
	return fmt.Sprintf("%.0f ms (%.1f)", ms, ms/base)
}

// writeRuns shows every run where a median hides some.
func writeRuns(w io.Writer, p presetReport) {
	if len(p.Runs) < 2 {
		return
	}
	fmt.Fprintf(w, "\n  runs with %s, ms\n", p.contender)
	for _, f := range felt {
		fmt.Fprintf(w, "  %s\t%s\n", f.title, strings.Trim(fmt.Sprintf("%.0f", p.outages(f.probe)), "[]"))
	}
}
