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

// contender is whose values are measured, and what moves the VIP.
type contender struct {
	Preset model.Preset    `json:"preset"`
	Engine model.VIPEngine `json:"engine"`
}

// String is the contender as --presets has it: "kolla", "reference+pacemaker".
func (c contender) String() string {
	if c.Engine == model.EngineKeepalived {
		return string(c.Preset)
	}
	return string(c.Preset) + "+" + string(c.Engine)
}

// contenders reads the names of presets with their engines, keepalived where none is named, as --presets has them.
func contenders(list string) ([]contender, error) {
	var out []contender
	for _, name := range strings.Split(list, ",") {
		preset, engine, named := strings.Cut(strings.TrimSpace(name), "+")
		c := contender{Preset: model.Preset(preset), Engine: model.EngineKeepalived}
		if named {
			c.Engine = model.VIPEngine(engine)
		}
		if !slices.Contains(model.Presets, c.Preset) {
			return nil, fmt.Errorf("--presets: %q is no preset; there are %v", preset, model.Presets)
		}
		if !slices.Contains(model.VIPEngines, c.Engine) {
			return nil, fmt.Errorf("--presets: %q is no engine of the VIP; there are %v", engine, model.VIPEngines)
		}
		if slices.Contains(out, c) {
			return nil, fmt.Errorf("--presets names %s twice", c)
		}
		out = append(out, c)
	}
	return out, nil
}

// compare measures the drill with each preset, each on a fresh lab that is gone afterwards. What was measured before an error stays in the report.
func (b *bench) compare(ctx context.Context, of []contender, runs int) error {
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

// preset makes a lab with the contender, drills it, and takes it down.
func (b *bench) preset(ctx context.Context, p contender, runs int) (r presetReport, err error) {
	r = presetReport{contender: p, Load: load()}
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
	if is := (contender{c.Tuning.Preset, c.VIP.Engine}); is != p {
		return r, fmt.Errorf("the lab has the preset %s", is)
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

func (b *bench) up(ctx context.Context, p contender) error {
	ctx, cancel := context.WithTimeout(ctx, upTime)
	defer cancel()
	_, err := b.nines.run(ctx, "lab", "up", "--profile", "core", "--name", b.lab,
		"--set", "tuning.preset="+string(p.Preset), "--set", "vip.engine="+string(p.Engine))
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
