package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"nines/internal/api"
	"nines/internal/app"
	"nines/internal/config"
	"nines/internal/converge"
	"nines/internal/lab"
	"nines/internal/plan"
	"nines/internal/secret"
)

const (
	noopRuns = 5
	// maxDiscarded bounds the runs that are made again because they were no no-op.
	maxDiscarded = 3
	// settleTime bounds the wait for a fresh cluster to be as its plan wants it.
	settleTime = 2 * time.Minute
	// downTime bounds taking the lab down.
	downTime = 5 * time.Minute
	// exitChanges is the exit code of nines plan when something would change.
	exitChanges = 2
)

// bench is one run.
type bench struct {
	nines  program
	lab    string // name
	say    func(format string, args ...any)
	report report
}

// run measures everything on a lab that is gone afterwards.
func (b *bench) run(ctx context.Context) (err error) {
	if err := b.free(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.down(context.WithoutCancel(ctx))) }()
	if err := b.describe(ctx); err != nil {
		return err
	}
	if err := b.firstApply(ctx); err != nil {
		return err
	}
	l, err := lab.Find(b.lab)
	if err != nil {
		return err
	}
	if err := b.settle(ctx, l); err != nil {
		return err
	}
	err = b.noop(ctx, l)
	if ctx.Err() != nil {
		return err
	}
	return errors.Join(err, b.rest(ctx, l)) // without Ansible there is still something to measure
}

// free says why there can be no lab of the name: the machine cannot run one, or it exists.
func (b *bench) free() error {
	if err := lab.Supported(); err != nil {
		return err
	}
	there, err := lab.Exists(b.lab)
	if err != nil {
		return err
	}
	if there {
		return fmt.Errorf("lab %s exists already: another bench runs, or one was killed; 'nines lab down --name %s' removes it", b.lab, b.lab)
	}
	return nil
}

func (b *bench) down(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, downTime)
	defer cancel()
	b.say("taking down lab %s", b.lab)
	_, err := b.nines.run(ctx, "lab", "down", "--name", b.lab)
	return err
}

// describe notes what the measurements are of, and on which machine.
func (b *bench) describe(ctx context.Context) error {
	version, err := b.nines.run(ctx, "--version")
	if err != nil {
		return err
	}
	b.report.Nines = strings.TrimSpace(strings.TrimPrefix(string(version.stdout), "nines "))
	b.report.Date = time.Now().UTC().Truncate(time.Second)
	b.report.Cores = runtime.NumCPU()
	b.report.Load = load()
	return nil
}

// load is the machine's load average of the last minute, 0 if it cannot be read.
func load() float64 {
	var one float64
	if raw, err := os.ReadFile("/proc/loadavg"); err == nil {
		_, _ = fmt.Sscan(string(raw), &one)
	}
	return one
}

// firstApply makes a fresh lab and measures how its cluster came to be.
func (b *bench) firstApply(ctx context.Context) error {
	b.say("making sure that the machines' image is cached")
	if _, err := b.nines.run(ctx, "lab", "up", "--profile", "core", "--name", b.lab, "--machines-only"); err != nil {
		return err
	}
	if _, err := b.nines.run(ctx, "lab", "down", "--name", b.lab); err != nil {
		return err
	}
	b.say("measuring the first apply: lab up of a fresh lab")
	before := load()
	started := time.Now()
	up, err := b.nines.run(ctx, "lab", "up", "--profile", "core", "--name", b.lab)
	if err != nil {
		return err
	}
	l, err := lab.Find(b.lab)
	if err != nil {
		return err
	}
	b.report.Nodes = len(l.Nodes())
	out, err := b.nines.run(ctx, "-c", l.ClusterFile(), "apply", "--attach", "--json")
	if err != nil {
		return err
	}
	b.report.Apply, err = summarize(out.stdout)
	if err != nil {
		return err
	}
	b.report.Apply.Load = before
	b.report.Apply.LabUp = up.took.Seconds()
	b.report.Apply.Before = b.report.Apply.since.Sub(started).Seconds()
	return nil
}

// applied is what nines apply --attach --json prints.
type applied struct {
	converge.Record
	Results  map[plan.ID]plan.Result `json:"results"`
	Critical []plan.ID               `json:"critical_path"`
}

// summarize computes an applyReport, all but the times around the apply, from what
// nines apply --attach --json printed.
func summarize(raw []byte) (*applyReport, error) {
	var a applied
	if err := json.Unmarshal(raw, &a); err != nil {
		return nil, fmt.Errorf("what 'nines apply --attach --json' printed: %w", err)
	}
	if a.State != converge.Converged || len(a.Critical) == 0 {
		return nil, fmt.Errorf("the first apply is %q with a critical path of %d operations, which is nothing to measure", a.State, len(a.Critical))
	}
	r := &applyReport{since: a.Since, Apply: a.Finished.Sub(a.Since).Seconds(), Operations: len(a.Results)}
	for _, result := range a.Results {
		r.Work += result.Took.Seconds()
	}
	ops := map[plan.ID]plan.Op{}
	for _, op := range a.Plan.Ops {
		ops[op.ID] = op
	}
	for _, id := range a.Critical {
		took := a.Results[id].Took.Seconds()
		r.Critical += took
		r.Path = append(r.Path, step{ID: id, Node: ops[id].Node, Summary: ops[id].Summary, Seconds: took})
	}
	r.ApplyToCritical, r.WorkToApply = ratio(r.Apply, r.Critical), ratio(r.Work, r.Apply)
	return r, nil
}

// settle waits until nothing is left to do, so that a no-op is one.
func (b *bench) settle(ctx context.Context, l *lab.Lab) error {
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	for {
		out, err := b.nines.run(ctx, "-c", l.ClusterFile(), "plan")
		switch {
		case err == nil:
			return nil
		case out.code != exitChanges:
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the plan is still not empty %s after the first apply:\n%s", settleTime, out.stdout)
		case <-time.After(time.Second):
		}
	}
}

// noop measures applies that find nothing to do: those of nines and those of Ansible in
// turns, so that what else the machine does meets both.
func (b *bench) noop(ctx context.Context, l *lab.Lab) (err error) {
	r := &noopReport{Load: load()}
	if r.Resources, err = desired(l.ClusterFile()); err != nil {
		return err
	}
	play, hangUp, err := b.ansible(ctx, l)
	defer hangUp()
	if err == nil {
		r.Ansible = &ansibleReport{Version: ansibleVersion(ctx)}
	} else if ctx.Err() != nil {
		return err
	}
	b.say("measuring applies that change nothing: nines %d times, Ansible %d times with and %d times without gathering facts", noopRuns, ansibleRuns, ansibleRuns)
	for i := range noopRuns {
		took, failed := b.applyNothing(ctx, l, r)
		if failed != nil {
			return errors.Join(err, failed)
		}
		r.Nines.Runs = append(r.Nines.Runs, took)
		if r.Ansible == nil || i >= ansibleRuns {
			continue
		}
		if failed := r.Ansible.add(ctx, play); failed != nil {
			return failed
		}
	}
	r.sum()
	b.report.Noop = r
	return err
}

// add runs both playbooks once.
func (a *ansibleReport) add(ctx context.Context, play player) error {
	took, err := play(ctx, gathering)
	if err != nil {
		return err
	}
	a.Gathering.Runs = append(a.Gathering.Runs, took)
	if took, err = play(ctx, bare); err != nil {
		return err
	}
	a.Bare.Runs = append(a.Bare.Runs, took)
	return nil
}

// sum computes medians and ratios from the runs.
func (r *noopReport) sum() {
	r.Nines.Median = median(r.Nines.Runs)
	if r.Ansible == nil {
		return
	}
	for _, t := range []*timing{&r.Ansible.Gathering, &r.Ansible.Bare} {
		t.Median = median(t.Runs)
		t.ToNines = ratio(t.Median, r.Nines.Median)
	}
}

// applyNothing runs nines apply --yes where nothing is to be done, and returns what it took, in
// seconds. On a machine under load a member may drop out of its cluster for a moment: a run
// that met something to do is counted as discarded and made again when all is settled.
func (b *bench) applyNothing(ctx context.Context, l *lab.Lab, r *noopReport) (float64, error) {
	for {
		out, err := b.nines.run(ctx, "-c", l.ClusterFile(), "apply", "--yes")
		if err != nil {
			return 0, err
		}
		if strings.HasPrefix(string(out.stdout), "No changes.") {
			return out.took.Seconds(), nil
		}
		r.Discarded++
		b.say("discarded a run of nines apply, as there was something to do:\n%s", lastLines(string(out.stdout), 20))
		if r.Discarded > maxDiscarded {
			return 0, fmt.Errorf("%d runs of 'nines apply --yes' met something to do: the machine is too busy to measure on", r.Discarded)
		}
		if err := b.settle(ctx, l); err != nil {
			return 0, err
		}
	}
}

// desired counts what a no-op apply of nines looks at.
func desired(clusterFile string) (resources, error) {
	all, err := wanted(clusterFile)
	if err != nil {
		return resources{}, err
	}
	var n resources
	for _, r := range all {
		switch {
		case r.Packages != nil:
			n.Packages += len(r.Packages.Names)
		case r.File != nil:
			n.Files++
		case r.Unit != nil:
			n.Units++
		case r.Action != nil:
			n.Actions++
		}
	}
	return n, nil
}

// wanted returns the resources of the cluster, with marks in the place of secrets.
func wanted(clusterFile string) ([]plan.Resource, error) {
	c, err := config.Load(clusterFile)
	if err != nil {
		return nil, err
	}
	return converge.Resources(app.Services(), c, secret.Redacted{})
}

// leader is the node whose agent leads, empty if nobody knows. It does more than the others.
func (b *bench) leader(ctx context.Context, l *lab.Lab) string {
	out, err := b.nines.run(ctx, "-c", l.ClusterFile(), "status", "--json")
	if err != nil && out.code != exitChanges { // not all healthy: still an answer
		return ""
	}
	var s api.Status
	if json.Unmarshal(out.stdout, &s) != nil {
		return ""
	}
	return s.Leader
}

// median of the values; 0 for none.
func median(values []float64) float64 {
	n := len(values)
	if n == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// ratio is a/b, 0 where there is nothing to divide by.
func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}
