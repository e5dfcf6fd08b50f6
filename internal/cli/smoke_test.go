package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"nines/internal/progress"
	"nines/internal/smoke"
	"nines/internal/smoke/guest"
)

// smokeRehearsal is a site on which runs end as told.
type smokeRehearsal struct {
	report smoke.Report
	loop   smoke.LoopReport
	err    error // of Open
	calls  []string
}

func (r *smokeRehearsal) call(name string) { r.calls = append(r.calls, name) }

func (r *smokeRehearsal) Check() error { return nil }
func (r *smokeRehearsal) Guest(context.Context, guest.Image) (guest.Image, error) {
	r.call("guest")
	return guest.Image{Kernel: "/k", Ramdisk: "/r"}, nil
}
func (r *smokeRehearsal) Open(context.Context) error { r.call("open"); return r.err }
func (r *smokeRehearsal) Close()                     { r.call("close") }
func (r *smokeRehearsal) Run(_ context.Context, i guest.Image, keep bool, _ progress.Emit) (smoke.Report, error) {
	r.call(fmt.Sprintf("run %s %t", i.Kernel, keep))
	return r.report, nil
}
func (r *smokeRehearsal) Clean(context.Context, progress.Emit) (smoke.Report, error) {
	r.call("clean")
	return r.report, nil
}
func (r *smokeRehearsal) Loop(_ context.Context, _ guest.Image, how smoke.Loop, _ progress.Emit) (smoke.LoopReport, error) {
	r.call(fmt.Sprintf("loop %s %s", how.Length, how.Limit))
	return r.loop, nil
}
func (r *smokeRehearsal) Inside() string { return "nines lab exec --host -- " }

func smokeCommand(t *testing.T, r *smokeRehearsal, args ...string) (out string, err error) {
	t.Helper()
	var o bytes.Buffer
	g := &globals{out: &o, err: &bytes.Buffer{}}
	cmd := newSmokeCommand(g, func() smokeSite { return r })
	cmd.PersistentFlags().BoolVar(&g.json, "json", false, "")
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetArgs(args)
	err = cmd.ExecuteContext(t.Context())
	return o.String(), err
}

func TestSmoke(t *testing.T) {
	passed := smoke.Report{OK: true, TookMS: 61500, Steps: []smoke.Step{{Name: "make network", TookMS: 1200}, {Name: "boot instance", TookMS: 14100}}}
	noWay := &smoke.NoWayOutError{Err: errors.New("x")}
	failed := smoke.Report{TookMS: 900, Steps: []smoke.Step{{Name: "external network", TookMS: 800, Error: noWay.Error(), Err: noWay}}}
	stopped := fmt.Errorf("interrupted: %w", context.Canceled)
	kept := passed
	kept.Kept = &smoke.Kept{Run: "00", Name: "nines-smoke-kept-00-", URL: "http://198.18.1.240/"}
	refused := errors.New("HTTP 401")
	for name, tc := range map[string]struct {
		site  *smokeRehearsal
		args  []string
		calls string
		want  []string
		err   error
	}{
		"passes": {&smokeRehearsal{report: passed}, nil, "guest, open, run /k false, close",
			[]string{"STEP           TOOK    RESULT\nmake network   1.2 s   ok\nboot instance  14.1 s  ok\n", "PASS 2 steps in 1 min 1 s"}, nil},
		"fails": {&smokeRehearsal{report: failed}, nil, "guest, open, run /k false, close",
			[]string{"external network  0.8 s  failed", "FAIL after 0.9 s", "  - external network: there is no external network", "    next: set neutron.provider_interface"}, exitCode(2)},
		"is interrupted": {&smokeRehearsal{report: smoke.Report{Steps: []smoke.Step{{Name: "boot instance", Error: stopped.Error(), Err: stopped}}}}, nil,
			"guest, open, run /k false, close", []string{"FAIL"}, context.Canceled},
		"cannot begin": {&smokeRehearsal{err: refused}, nil, "guest, open, close", nil, refused},
		"keeps": {&smokeRehearsal{report: kept}, []string{"--keep"}, "guest, open, run /k true, close",
			[]string{"  reach: nines lab exec --host -- curl http://198.18.1.240/\n", "named nines-smoke-kept-00-*", "clean: nines smoke --clean"}, nil},
		"cleans":           {&smokeRehearsal{report: smoke.Report{OK: true}}, []string{"--clean"}, "open, clean, close", []string{"Nothing was left there."}, nil},
		"makes only guest": {&smokeRehearsal{}, []string{"--guest-only"}, "guest", []string{"--kernel /k --ramdisk /r"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := smokeCommand(t, tc.site, tc.args...)
			if !errors.Is(err, tc.err) {
				t.Fatalf("error %v, want %v", err, tc.err)
			}
			if got := strings.Join(tc.site.calls, ", "); got != tc.calls {
				t.Errorf("calls %q, want %q", got, tc.calls)
			}
			for _, want := range tc.want {
				if !strings.Contains(out, want) {
					t.Errorf("no %q in:\n%s", want, out)
				}
			}
		})
	}
}

func TestSmokeJSON(t *testing.T) {
	out, err := smokeCommand(t, &smokeRehearsal{report: smoke.Report{TookMS: 5, Steps: []smoke.Step{{Name: "make network", TookMS: 3, Error: "no"}}}}, "--json")
	var got map[string]any
	if !errors.Is(err, exitCode(2)) || json.Unmarshal([]byte(out), &got) != nil || got["ok"] != false || got["took_ms"] != 5.0 || len(got["steps"].([]any)) != 1 {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestSmokeLoop(t *testing.T) {
	report := smoke.LoopReport{OK: true, Count: 12, LongestMS: 14200, Longest: "boot instance",
		Operations: []smoke.Operation{{Name: "boot instance", Count: 12, MedianMS: 9000, LongestMS: 14200}}}
	r := &smokeRehearsal{loop: report}
	out, err := smokeCommand(t, r, "--loop", "--for", "10m")
	if err != nil || strings.Join(r.calls, ", ") != "guest, open, loop 10m0s 30s, close" ||
		!strings.Contains(out, "boot instance  12     0       9.00 s  14.20 s\n") || !strings.Contains(out, "PASS 12 operations, 0 failed, the longest took 14.20 s (boot instance)") {
		t.Errorf("%v, %v\n%s", err, r.calls, out)
	}
	report.OK, report.Failed = false, 1
	report.Failures = []smoke.Failure{{Name: "make volume", Error: "HTTP 503"}}
	out, err = smokeCommand(t, &smokeRehearsal{loop: report}, "--loop")
	if !errors.Is(err, exitCode(2)) || !strings.Contains(out, "make volume: HTTP 503") {
		t.Errorf("%v\n%s", err, out)
	}
	out, err = smokeCommand(t, &smokeRehearsal{loop: report}, "--loop", "--json")
	var got smoke.LoopReport
	if !errors.Is(err, exitCode(2)) || json.Unmarshal([]byte(out), &got) != nil || got.Failed != 1 || got.Operations[0].LongestMS != 14200 {
		t.Errorf("%v\n%s", err, out)
	}
}
