package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"nines/internal/drill"
	"nines/internal/progress"
)

// rehearsal is a site on which runs end as told.
type rehearsal struct {
	verdicts []string // of the runs, in order
	broken   error    // what the run after the last verdict says
	seeds    []uint64
	open     int
}

func (r *rehearsal) Drills() ([]drill.Drill, error) {
	return []drill.Drill{{Name: "kill-x", Title: "kill x", Limits: []drill.Limit{{Probe: "vip-tcp", NoFailures: true}}}, {Name: "freeze-x", Title: "freeze x"}}, nil
}
func (r *rehearsal) Open(context.Context, []drill.Drill) error {
	r.open++
	return nil
}
func (r *rehearsal) Close() { r.open-- }
func (r *rehearsal) Run(_ context.Context, d drill.Drill, seed uint64, _ progress.Emit) (drill.Report, error) {
	r.seeds = append(r.seeds, seed)
	n := len(r.seeds) - 1
	if n >= len(r.verdicts) {
		return drill.Report{}, r.broken
	}
	rep := drill.Report{Name: d.Name, Verdict: r.verdicts[n], Seed: seed, Node: "ctl2", RedundantAfter: 4200, Environment: "lab",
		Acks: drill.Acks{Written: 70}, Probes: []drill.ProbeReport{{Name: "vip-tcp", Requests: 900, Failed: 31, Longest: int64(100 * (n + 1)), Total: 340}}}
	if rep.Verdict == drill.Fail {
		rep.Reasons = []string{"vip-tcp: too long"}
	}
	return rep, nil
}

// drillCommand runs the drill command alone.
func drillCommand(t *testing.T, r *rehearsal, args ...string) (out string, err error) {
	t.Helper()
	var o bytes.Buffer
	g := &globals{out: &o, err: &bytes.Buffer{}}
	cmd := newDrillCommand(g, func() (drillSite, error) { return r, nil })
	cmd.PersistentFlags().BoolVar(&g.json, "json", false, "")
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetArgs(args)
	err = cmd.ExecuteContext(t.Context())
	if r.open != 0 {
		t.Errorf("%d sessions left open", r.open)
	}
	return o.String(), err
}

func TestDrillRun(t *testing.T) {
	two := exitCode(2)
	broken := errors.New("not whole")
	for name, tc := range map[string]struct {
		site *rehearsal
		args []string
		want []string
		err  error
	}{
		"passes": {&rehearsal{verdicts: []string{drill.Pass}}, []string{"run", "kill-x"},
			[]string{"vip-tcp  900       31      0.10 s", "PASS kill-x on ctl2 [lab]: clients waited at most 0.10 s (vip-tcp), 0 of 70 acknowledged writes lost, whole again after 4.2 s"}, nil},
		"fails": {&rehearsal{verdicts: []string{drill.Fail}}, []string{"run", "kill-x"},
			[]string{"FAIL kill-x", "  - vip-tcp: too long"}, two},
		"repeats": {&rehearsal{verdicts: []string{drill.Pass, drill.Fail, drill.Pass}}, []string{"run", "kill-x", "--repeat", "3"},
			[]string{"2 of 3 runs of kill-x passed", "vip-tcp         0.10 s  0.20 s  0.30 s"}, two},
		"all": {&rehearsal{verdicts: []string{drill.Pass, drill.Fail}}, []string{"run", "--all"},
			[]string{"PASS kill-x", "FAIL freeze-x", "1 of 1 runs of kill-x passed", "0 of 1 runs of freeze-x passed"}, two},
		"several": {&rehearsal{verdicts: []string{drill.Pass, drill.Pass, drill.Pass, drill.Pass}}, []string{"run", "freeze-x", "kill-x", "--repeat", "2"},
			[]string{"2 of 2 runs of freeze-x passed", "2 of 2 runs of kill-x passed", "vip-tcp         0.30 s  0.40 s  0.40 s"}, nil},
		"stops when nothing can be measured": {&rehearsal{verdicts: []string{drill.Pass}, broken: broken}, []string{"run", "kill-x", "--repeat", "3"},
			[]string{"PASS"}, broken},
		"list": {&rehearsal{}, []string{"list"}, []string{"kill-x    kill x", "freeze-x  freeze x"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := drillCommand(t, tc.site, tc.args...)
			if !errors.Is(err, tc.err) {
				t.Fatalf("error %v, want %v", err, tc.err)
			}
			for _, want := range tc.want {
				if !strings.Contains(out, want) {
					t.Errorf("no %q in:\n%s", want, out)
				}
			}
		})
	}
}

func TestDrillSeeds(t *testing.T) {
	r := &rehearsal{verdicts: []string{drill.Pass, drill.Pass}}
	out, err := drillCommand(t, r, "run", "kill-x", "--seed", "7", "--repeat", "2", "--json")
	if err != nil || len(r.seeds) != 2 || r.seeds[0] != 7 || r.seeds[1] != 8 {
		t.Fatalf("seeds %v, %v", r.seeds, err)
	}
	var runs []drill.Report
	if err := json.Unmarshal([]byte(out), &runs); err != nil || len(runs) != 2 {
		t.Errorf("a repeated drill is no list: %v\n%s", err, out)
	}
	out, err = drillCommand(t, &rehearsal{verdicts: []string{drill.Pass}}, "run", "kill-x", "--json")
	var one drill.Report
	if err != nil || json.Unmarshal([]byte(out), &one) != nil || one.Name != "kill-x" {
		t.Errorf("one run is no object: %v\n%s", err, out)
	}
}

func TestDrillRefusesNonsense(t *testing.T) {
	for _, args := range [][]string{{"run"}, {"run", "unknown"}, {"run", "kill-x", "unknown"}, {"run", "kill-x", "--all"}, {"run", "kill-x", "--repeat", "0"}} {
		if _, err := drillCommand(t, &rehearsal{verdicts: []string{drill.Pass}}, args...); err == nil {
			t.Errorf("%q was accepted", args)
		}
	}
}
