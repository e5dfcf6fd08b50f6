package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"nines/internal/config"
	"nines/internal/drill"
	"nines/internal/lab"
	"nines/internal/model"
)

const (
	// presetDrill takes the VIP and a member of the database away at once: every value of a preset counts.
	presetDrill = "vip-holder-power-off"
	// upTime bounds bringing a lab up, runTime one run of the drill with its wait for a whole cluster.
	upTime  = 15 * time.Minute
	runTime = 8 * time.Minute
	// exitFailed is the exit code of nines drill run when a run exceeded its limits, which are those of the preset nines.
	exitFailed = 2
)

// presets reads the names of presets, as --presets has them.
func presets(list string) ([]model.Preset, error) {
	var out []model.Preset
	for _, name := range strings.Split(list, ",") {
		p := model.Preset(strings.TrimSpace(name))
		if !slices.Contains(model.Presets, p) {
			return nil, fmt.Errorf("--presets: %q is no preset; there are %v", p, model.Presets)
		}
		if slices.Contains(out, p) {
			return nil, fmt.Errorf("--presets names %s twice", p)
		}
		out = append(out, p)
	}
	return out, nil
}

// compare measures the drill with each preset, each on a fresh lab that is gone afterwards. What was measured before an error stays in the report.
func (b *bench) compare(ctx context.Context, of []model.Preset, runs int) error {
	if err := b.free(); err != nil {
		return err
	}
	if err := b.describe(ctx); err != nil {
		return err
	}
	b.report.Presets = &presetsReport{Drill: presetDrill}
	for _, p := range of {
		r, err := b.preset(ctx, p, runs)
		if len(r.Runs) > 0 {
			b.report.Presets.Presets = append(b.report.Presets.Presets, r)
		}
		if err != nil {
			return fmt.Errorf("preset %s: %w", p, err)
		}
	}
	return nil
}

// preset makes a lab with the preset, drills it, and takes it down.
func (b *bench) preset(ctx context.Context, p model.Preset, runs int) (r presetReport, err error) {
	r = presetReport{Preset: p, Load: load()}
	defer func() { err = errors.Join(err, b.down(context.WithoutCancel(ctx))) }()
	b.say("preset %s: bringing up a lab", p)
	if err := b.up(ctx, p); err != nil {
		return r, err
	}
	l, err := lab.Find(b.lab)
	if err != nil {
		return r, err
	}
	c, err := config.Load(l.ClusterFile())
	if err != nil {
		return r, err
	}
	if c.Tuning.Preset != p {
		return r, fmt.Errorf("the lab has the preset %s", c.Tuning.Preset)
	}
	b.report.Nodes = len(l.Nodes())
	for i := range runs {
		b.say("preset %s: %s, %d of %d", p, presetDrill, i+1, runs)
		run, err := b.drill(ctx, l)
		if err != nil {
			return r, err
		}
		r.Runs = append(r.Runs, run)
	}
	return r, nil
}

func (b *bench) up(ctx context.Context, p model.Preset) error {
	ctx, cancel := context.WithTimeout(ctx, upTime)
	defer cancel()
	_, err := b.nines.run(ctx, "lab", "up", "--profile", "core", "--name", b.lab, "--set", "tuning.preset="+string(p))
	return err
}

// drill runs the drill once. A run that exceeds its limits is a measurement like any other.
func (b *bench) drill(ctx context.Context, l *lab.Lab) (presetRun, error) {
	ctx, cancel := context.WithTimeout(ctx, runTime)
	defer cancel()
	out, err := b.nines.run(ctx, "-c", l.ClusterFile(), "drill", "run", presetDrill, "--json")
	if err != nil && out.code != exitFailed {
		return presetRun{}, err
	}
	return parseDrill(out.stdout)
}

// parseDrill reads what nines drill run --json printed of one run.
func parseDrill(raw []byte) (presetRun, error) {
	var r drill.Report
	if err := json.Unmarshal(raw, &r); err != nil {
		return presetRun{}, fmt.Errorf("what 'nines drill run --json' printed: %w", err)
	}
	run := presetRun{Seed: r.Seed, Node: r.Node, Outage: map[string]int64{}, Lost: r.Acks.Lost, Whole: r.RedundantAfter}
	for _, f := range felt {
		i := slices.IndexFunc(r.Probes, func(p drill.ProbeReport) bool { return p.Name == f.probe })
		if i < 0 || r.Probes[i].Requests == 0 {
			return presetRun{}, fmt.Errorf("the drill sent no request as %s", f.probe)
		}
		run.Outage[f.probe] = r.Probes[i].Longest
	}
	return run, nil
}
