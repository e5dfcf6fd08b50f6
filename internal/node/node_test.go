package node_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"nines/internal/host"
	"nines/internal/host/hosttest"
	"nines/internal/model"
	"nines/internal/node"
	"nines/internal/plan"
	"nines/internal/secret"
	"nines/internal/service"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// web is a service with one of everything: a package, a file it must be restarted for, one
// it reloads, a drop-in, a unit, and an action that creates a record through the unit.
type web struct {
	joins         int    // how often Start ran
	config, sites string // versions of the two files' contents
	// tunables is a third file, FIXED/REST: the daemon takes up the rest while it runs. None if empty.
	tunables  string
	ready     bool // the unit has a Ready
	start     bool // the unit has a Start
	validate  []string
	stopped   bool // the unit shall not run
	slowCheck chan struct{}
	runErr    error
	notReady  func() bool
}

const (
	unitName   = "web.service"
	configPath = "/etc/web/web.conf"
	sitesPath  = "/etc/web/sites.conf"
	tunedPath  = "/etc/web/tunables.conf"
	dropInPath = "/etc/systemd/system/web.service.d/nines.conf"
	siteMark   = "/srv/web/created"
	password   = "correct-horse-battery"
)

func (w *web) Name() string { return "web" }

func (w *web) Secrets(*model.Cluster) []secret.Spec {
	return []secret.Spec{{Name: "web/password", Kind: secret.Password}}
}

func id(kind, name string) plan.ID { return plan.Make("web", "n1", kind, name) }

func (w *web) Resources(c *model.Cluster, s secret.Source) ([]plan.Resource, error) {
	pw, err := s.Get("web/password")
	if err != nil {
		return nil, err
	}
	file := func(path, content string) plan.Resource {
		return plan.Resource{ID: id("file", path), Service: "web", Node: "n1", After: []plan.ID{id("packages", "web")},
			File: &plan.File{Path: path, Mode: 0o640, Owner: "root", Group: "web", Content: []byte(content), Validate: w.validate}}
	}
	unit := &plan.Unit{Name: unitName, Enabled: !w.stopped, Running: !w.stopped,
		RestartOn: []plan.ID{id("packages", "web"), id("file", configPath), id("file", dropInPath)},
		ReloadOn:  []plan.ID{id("file", sitesPath)}}
	var tuned []plan.Resource
	if fixed, _, ok := strings.Cut(w.tunables, "/"); ok {
		tuned = append(tuned, file(tunedPath, w.tunables))
		tuned[0].File.Fixed = []byte(fixed)
		unit.RestartOn = append(unit.RestartOn, tuned[0].ID)
	}
	if w.ready {
		unit.Ready = &plan.Action{Name: "serves", Timeout: 10 * time.Second}
	}
	if w.start {
		unit.Start = &plan.Action{Name: "join", Args: map[string]string{"cluster": c.Name}}
	}
	return append(tuned, []plan.Resource{
		{ID: id("packages", "web"), Service: "web", Node: "n1", Packages: &plan.Packages{Names: []string{"web", "web-modules"}}},
		file(configPath, "password = "+pw+"\nversion = "+w.config+"\n"),
		file(sitesPath, "sites = "+w.sites+"\n"),
		file(dropInPath, "[Service]\n"),
		{ID: id("unit", unitName), Service: "web", Node: "n1", Unit: unit},
		{ID: id("action", "site"), Service: "web", Node: "n1", After: []plan.ID{id("unit", unitName)},
			Action: &plan.Action{Name: "create-site", Args: map[string]string{"name": "main"}}},
		{ID: plan.Make("web", "n2", "file", configPath), Service: "web", Node: "n2", File: &plan.File{Path: configPath}},
	}...), nil
}

func (w *web) Actions() map[string]service.Action {
	return map[string]service.Action{
		"serves": {Check: func(ctx context.Context, env service.Env, _ map[string]string) (bool, string, error) {
			st, err := env.Host.Unit(ctx, unitName)
			if w.notReady != nil && w.notReady() {
				return false, "still thinking", err
			}
			return st.Active == "active", "it is " + st.Active, err
		}},
		"join": {Run: func(ctx context.Context, env service.Env, args map[string]string) error {
			w.joins++
			if args["restart"] == "true" {
				return env.Host.RestartUnit(ctx, unitName)
			}
			return env.Host.StartUnit(ctx, unitName)
		}},
		"create-site": {
			Check: func(ctx context.Context, env service.Env, _ map[string]string) (bool, string, error) {
				if w.slowCheck != nil {
					<-w.slowCheck // does not honour its context
				}
				_, err := env.Host.ReadFile(siteMark)
				return err == nil, "no such site", nil
			},
			Run: func(ctx context.Context, env service.Env, _ map[string]string) error {
				if w.runErr != nil {
					return w.runErr
				}
				return env.Host.WriteFile(ctx, host.File{Path: siteMark}, nil)
			},
		},
	}
}

type rig struct {
	host    *hosttest.Host
	web     *web
	cluster *model.Cluster
	secrets secret.Source
	x       *node.Executor
}

func newRig(w *web) *rig {
	h := hosttest.New()
	h.Offer(hosttest.Package{Name: "web", Version: "1", Units: []string{unitName},
		Files: []host.File{{Path: configPath, Mode: 0o644, Owner: "root", Group: "root", Content: []byte("shipped")}}},
		hosttest.Package{Name: "web-modules", Version: "1"})
	r := &rig{host: h, web: w, secrets: secret.Map{"web/password": password},
		cluster: &model.Cluster{Name: "lab", Services: []string{"web"}, Nodes: []model.Node{
			{Name: "n1", Addresses: map[model.NetworkName]netip.Addr{model.Management: netip.MustParseAddr("198.18.0.11")}}, {Name: "n2"}}}}
	r.restartAgent()
	return r
}

// restartAgent makes a new executor, as after a crash: nothing in memory is left.
func (r *rig) restartAgent() {
	r.x = node.New(node.Options{Host: r.host, Services: []service.Service{r.web}, Node: model.Node{Name: "n1"}})
}

func (r *rig) plan(t require) plan.Plan {
	t.Helper()
	seen, err := r.x.Observe(context.Background(), r.cluster, r.secrets)
	if err != nil {
		t.Fatalf("observe: %v", err)
	}
	rs, err := r.web.Resources(r.cluster, r.secrets)
	if err != nil {
		t.Fatalf("resources: %v", err)
	}
	p, err := plan.Build("spec", rs[:len(rs)-1], plan.Observed{Resources: seen})
	if err != nil {
		t.Fatalf("plan: %v", err)
	}
	return p
}

// apply runs the plan once; it stops at the first error, as dependents would be skipped.
func (r *rig) apply(t require) error {
	t.Helper()
	for _, op := range r.plan(t).Ops {
		if _, err := r.x.Apply(context.Background(), r.cluster, r.secrets, op.ID, op.Hash); err != nil {
			return err
		}
	}
	return nil
}

type require interface {
	Helper()
	Fatalf(format string, args ...any)
	Errorf(format string, args ...any)
}

func (r *rig) mustApply(t require) {
	t.Helper()
	if err := r.apply(t); err != nil {
		t.Fatalf("apply: %v", err)
	}
	r.mustBeInSync(t)
}

// mustBeInSync checks what counts in the end: what the running daemon read is what it should have.
func (r *rig) mustBeInSync(t require) {
	t.Helper()
	if p := r.plan(t); !p.Empty() {
		t.Fatalf("the plan is not empty after an apply: %+v", p.Ops)
	}
	st, err := r.host.Unit(context.Background(), unitName)
	if err != nil {
		t.Fatalf("unit: %v", err)
	}
	if r.web.stopped {
		if st.Active == "active" || st.Enabled {
			t.Errorf("unit is %s, enabled %t; want stopped", st.Active, st.Enabled)
		}
		return
	}
	if st.Active != "active" || !st.Enabled {
		t.Errorf("unit is %s, enabled %t", st.Active, st.Enabled)
	}
	if got, _ := r.host.StartedWith(unitName, configPath); !strings.Contains(got, "version = "+r.web.config+"\n") {
		t.Errorf("the daemon runs with %q, want version %s", got, r.web.config)
	}
	if got, _ := r.host.LastRead(unitName, sitesPath); got != "sites = "+r.web.sites+"\n" {
		t.Errorf("the daemon serves %q, want %s", got, r.web.sites)
	}
}

func (r *rig) status(t *testing.T, id plan.ID) plan.Status {
	t.Helper()
	seen, err := r.x.Observe(context.Background(), r.cluster, r.secrets)
	if err != nil {
		t.Fatal(err)
	}
	return seen[id]
}

func TestFirstApplyThenNothing(t *testing.T) {
	r := newRig(&web{config: "1", sites: "a", ready: true})
	r.mustApply(t)
	want := []string{
		"install web web-modules", "write " + configPath, "write " + sitesPath, "write " + dropInPath, "daemon-reload",
		"start web.service", "write /var/lib/nines/units/web.service.json", "enable web.service", "write " + siteMark,
	}
	if diff := cmp.Diff(want, r.host.Calls()); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
	r.host.Forget()
	r.restartAgent()
	r.mustApply(t)
	if got := r.host.Calls(); len(got) > 0 {
		t.Errorf("the second apply did %v", got)
	}
}

func TestApplyOfWhatIsDoneChangesNothing(t *testing.T) {
	r := newRig(&web{config: "1", sites: "a", ready: true})
	ops := r.plan(t).Ops
	r.mustApply(t)
	r.host.Forget()
	for _, op := range ops {
		res, err := r.x.Apply(context.Background(), r.cluster, r.secrets, op.ID, op.Hash)
		if err != nil || res.Changed || res.ID != op.ID {
			t.Errorf("%s: changed %t, err %v", op.ID, res.Changed, err)
		}
	}
	if got := r.host.Calls(); len(got) > 0 {
		t.Errorf("repeated ops did %v", got)
	}
}

// TestChanges says for each thing that may have happened what the plan does about the unit.
func TestChanges(t *testing.T) {
	tests := map[string]struct {
		happen func(r *rig)
		change string // of the unit; empty: no op for it
		reason string // part of it
		calls  []string
	}{
		"nothing":                     {func(r *rig) {}, "", "", nil},
		"plain reboot":                {func(r *rig) { r.host.Reboot() }, "", "", nil},
		"restarted by Restart=always": {func(r *rig) { r.host.Halt(unitName, "failed"); r.host.Bounce(unitName) }, "", "", nil},
		"stopped by hand":             {func(r *rig) { r.host.Halt(unitName, "inactive") }, "start", "is inactive", []string{"start web.service", "write RECORD"}},
		"died":                        {func(r *rig) { r.host.Halt(unitName, "failed") }, "start", "is failed", []string{"start web.service", "write RECORD"}},
		"disabled by hand": {func(r *rig) {
			if err := r.host.EnableUnit(context.Background(), unitName, false); err != nil {
				panic(err)
			}
			r.host.Forget()
		}, "enable", "does not start at boot", []string{"enable web.service"}},
		"a package's alias names it": {func(r *rig) {
			st, err := r.host.Unit(context.Background(), unitName)
			if err != nil {
				panic(err)
			}
			st.Enabled, st.FileState = false, "indirect"
			r.host.PutUnit(unitName, st)
		}, "enable", "does not start at boot", []string{"enable web.service"}},
		"config changes": {func(r *rig) { r.web.config = "2" }, "restart", "runs without the change of " + configPath,
			[]string{"write " + configPath, "restart web.service", "write RECORD"}},
		"sites change": {func(r *rig) { r.web.sites = "b" }, "reload", "runs without the change of " + sitesPath,
			[]string{"write " + sitesPath, "reload web.service", "write RECORD"}},
		"both change": {func(r *rig) { r.web.config, r.web.sites = "2", "b" }, "restart", configPath,
			[]string{"write " + configPath, "write " + sitesPath, "restart web.service", "write RECORD"}},
		"config edited by hand, daemon untouched": {func(r *rig) { edit(r, configPath) }, "", "", []string{"write " + configPath}},
		"config edited and daemon restarted by hand": {func(r *rig) { edit(r, configPath); r.host.Bounce(unitName) }, "restart", "is not as it should be",
			[]string{"write " + configPath, "restart web.service", "write RECORD"}},
		"config edited, daemon restarted, config put right by hand": {func(r *rig) {
			good, _ := r.host.ReadFile(configPath)
			edit(r, configPath)
			r.host.Bounce(unitName)
			r.host.PutFile(good)
		}, "restart", "started before " + configPath, []string{"restart web.service", "write RECORD"}},
		"sites edited by hand": {func(r *rig) { edit(r, sitesPath) }, "reload", "written again",
			[]string{"write " + sitesPath, "reload web.service", "write RECORD"}},
		"config edited, reboot": {func(r *rig) { edit(r, configPath); r.host.Reboot() }, "restart", "is not as it should be",
			[]string{"write " + configPath, "restart web.service", "write RECORD"}},
		"reboot after the new file was written, before the restart": {func(r *rig) {
			r.web.config = "2"
			p := planOf(r)
			if _, err := r.x.Apply(context.Background(), r.cluster, r.secrets, p.Ops[0].ID, p.Ops[0].Hash); err != nil {
				panic(err)
			}
			r.host.Forget()
			r.host.Reboot()
		}, "", "", nil},
		"crash after the new file was written, before the restart": {func(r *rig) {
			r.web.config = "2"
			p := planOf(r)
			if _, err := r.x.Apply(context.Background(), r.cluster, r.secrets, p.Ops[0].ID, p.Ops[0].Hash); err != nil {
				panic(err)
			}
			r.host.Forget()
			r.restartAgent()
		}, "restart", "runs without the change of", []string{"restart web.service", "write RECORD"}},
		"record lost": {func(r *rig) { r.host.DropFile("/var/lib/nines/units/web.service.json") }, "", "", nil},
		"record lost and config changes": {func(r *rig) {
			r.host.DropFile("/var/lib/nines/units/web.service.json")
			r.web.config = "2"
		}, "restart", "is not as it should be", []string{"write " + configPath, "restart web.service", "write RECORD"}},
		"record damaged": {func(r *rig) {
			r.host.PutFile(host.File{Path: "/var/lib/nines/units/web.service.json", Content: []byte("{")})
		}, "", "", nil},
		"shall stop": {func(r *rig) { r.web.stopped = true }, "stop", "is active", []string{"stop web.service", "disable web.service"}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			r := newRig(&web{config: "1", sites: "a", ready: true})
			r.host.PutFile(host.File{Path: siteMark})
			r.mustApply(t)
			r.host.Forget()
			tc.happen(r)
			st := r.status(t, id("unit", unitName))
			if st.Change != tc.change || !strings.Contains(st.Reason, tc.reason) || (tc.change == "") != (st.State == plan.InSync) {
				t.Errorf("status %+v, want change %q, reason ~%q", st, tc.change, tc.reason)
			}
			r.mustApply(t)
			calls := r.host.Calls()
			for i, c := range calls {
				calls[i] = strings.Replace(c, "/var/lib/nines/units/web.service.json", "RECORD", 1)
			}
			if diff := cmp.Diff(tc.calls, calls); diff != "" {
				t.Errorf("calls (-want +got):\n%s", diff)
			}
		})
	}
}

// What a daemon takes up while it runs is written and restarts nothing, whoever started the daemon last; what
// it reads at its start only does.
func TestLivePartOfAFile(t *testing.T) {
	tests := map[string]struct {
		happen func(r *rig)
		change string
		calls  []string
	}{
		"live part":                  {func(r *rig) { r.web.tunables = "a/2" }, "", []string{"write " + tunedPath}},
		"live part after a reboot":   {func(r *rig) { r.host.Reboot(); r.web.tunables = "a/2" }, "", []string{"write " + tunedPath}},
		"fixed part":                 {func(r *rig) { r.web.tunables = "b/1" }, "restart", []string{"write " + tunedPath, "restart web.service", "write RECORD"}},
		"fixed part after a reboot":  {func(r *rig) { r.host.Reboot(); r.web.tunables = "b/1" }, "restart", []string{"write " + tunedPath, "restart web.service", "write RECORD"}},
		"live part, then a reboot":   {func(r *rig) { r.web.tunables = "a/2"; r.mustApply(panics{}); r.host.Forget(); r.host.Reboot() }, "", nil},
		"fixed part, other change":   {func(r *rig) { r.web.tunables, r.web.config = "b/2", "2" }, "restart", []string{"write " + tunedPath, "write " + configPath, "restart web.service", "write RECORD"}},
		"edited by hand, same start": {func(r *rig) { edit(r, tunedPath) }, "", []string{"write " + tunedPath}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			r := newRig(&web{config: "1", sites: "a", tunables: "a/1", ready: true})
			r.mustApply(t)
			r.host.Forget()
			tc.happen(r)
			if st := r.status(t, id("unit", unitName)); st.Change != tc.change {
				t.Errorf("status %+v, want change %q", st, tc.change)
			}
			r.mustApply(t)
			calls := r.host.Calls()
			for i, c := range calls {
				calls[i] = strings.Replace(c, "/var/lib/nines/units/web.service.json", "RECORD", 1)
			}
			if diff := cmp.Diff(tc.calls, calls); diff != "" {
				t.Errorf("calls (-want +got):\n%s", diff)
			}
		})
	}
}

func edit(r *rig, path string) {
	r.host.PutFile(host.File{Path: path, Mode: 0o640, Owner: "root", Group: "web", Content: []byte("edited")})
}

func planOf(r *rig) plan.Plan { return r.plan(panics{}) }

type panics struct{}

func (panics) Helper()                           {}
func (panics) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }
func (panics) Errorf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

func TestFileReasonsHoldNoContent(t *testing.T) {
	r := newRig(&web{config: "1", sites: "a"})
	r.mustApply(t)
	for name, tc := range map[string]struct {
		file host.File
		want string
	}{
		"mode":    {host.File{Path: sitesPath, Mode: 0o644, Group: "web", Content: []byte("sites = a\n")}, "mode 644, want 640"},
		"owner":   {host.File{Path: sitesPath, Mode: 0o640, Owner: "bob", Content: []byte("sites = a\n")}, "owner bob:root, want root:web"},
		"content": {host.File{Path: sitesPath, Mode: 0o640, Group: "web", Content: []byte("x")}, "content differs"},
		"all":     {host.File{Path: sitesPath, Content: []byte("x")}, "content differs; mode 0, want 640; owner root:root, want root:web"},
	} {
		t.Run(name, func(t *testing.T) {
			r.host.PutFile(tc.file)
			if st := r.status(t, id("file", sitesPath)); st.State != plan.Drifted || st.Reason != tc.want {
				t.Errorf("got %+v, want %q", st, tc.want)
			}
		})
	}
}

func TestSecretsAreRedacted(t *testing.T) {
	r := newRig(&web{config: "1", sites: "a", validate: []string{"webcheck", "{}"}})
	r.host.Handle("webcheck", func(cmd host.Cmd) (host.Output, error) {
		return host.Output{}, &host.ExitError{Args: cmd.Args, Code: 1, Stderr: "line 1: " + string(cmd.Stdin)}
	})
	err := r.apply(t)
	var v *host.ValidationError
	if err == nil || strings.Contains(err.Error(), password) || !strings.Contains(err.Error(), "<secret:web/password>") || errors.As(err, &v) {
		t.Errorf("error: %v", err)
	}
	var h interface{ Hint() string }
	if !errors.As(err, &h) || h.Hint() == "" {
		t.Errorf("%v has no hint", err)
	}
}

func TestHashMismatch(t *testing.T) {
	r := newRig(&web{config: "1", sites: "a"})
	for _, op := range []plan.ID{id("file", configPath), id("file", "/etc/other")} {
		res, err := r.x.Apply(context.Background(), r.cluster, r.secrets, op, "0123")
		if !errors.Is(err, node.ErrHashMismatch) || !strings.Contains(res.Hint, "nines upgrade agents") || res.Error == "" {
			t.Errorf("%s: %v, result %+v", op, err, res)
		}
	}
	other := plan.Make("web", "n2", "file", configPath)
	rs, _ := r.web.Resources(r.cluster, r.secrets)
	if _, err := r.x.Apply(context.Background(), r.cluster, r.secrets, other, plan.Index(rs)[other].Hash(plan.Index(rs))); err == nil {
		t.Error("an op of another node was done")
	}
	if got := r.host.Calls(); len(got) > 0 {
		t.Errorf("refused ops did %v", got)
	}
}

func TestFailuresCarryHints(t *testing.T) {
	for name, tc := range map[string]struct {
		break_ func(r *rig)
		want   string
	}{
		"disk full": {func(r *rig) {
			r.host.Fail(hosttest.Write, configPath, &host.WriteError{Path: configPath, Err: errors.New("no space")})
		}, "no space"},
		"package source": {func(r *rig) {
			r.host.Fail(hosttest.Install, "", &host.PackageError{Reason: host.SourceUnreachable, Detail: "Could not connect"})
		}, "does not answer"},
		"masked": {func(r *rig) {
			r.host.PutUnit(unitName, host.UnitState{Loaded: true, Active: "inactive", FileState: "masked"})
		}, "is masked"},
		"start fails": {func(r *rig) {
			r.host.Fail(hosttest.Start, unitName, &host.UnitError{Unit: unitName, Verb: "start", Result: "failed", Lines: []string{"port taken"}})
		}, "port taken"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(&web{config: "1", sites: "a"})
			tc.break_(r)
			err := r.apply(t)
			var h interface{ Hint() string }
			if err == nil || !strings.Contains(err.Error(), tc.want) || !errors.As(err, &h) || h.Hint() == "" {
				t.Errorf("error %v, want ~%q with a hint", err, tc.want)
			}
		})
	}
}

func TestSlowCheckIsUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &web{config: "1", sites: "a", slowCheck: make(chan struct{})}
		r := newRig(w)
		begin := time.Now()
		st := r.status(t, id("action", "site"))
		if st.State != plan.Unknown || !strings.Contains(st.Reason, "no answer within 5s") {
			t.Errorf("got %+v", st)
		}
		if took := time.Since(begin); took > 5*time.Second {
			t.Errorf("waited %s", took)
		}
		close(w.slowCheck)
	})
}

func TestReadiness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var readyAt time.Time
		w := &web{config: "1", sites: "a", ready: true, notReady: func() bool { return time.Now().Before(readyAt) }}
		r := newRig(w)
		readyAt = time.Now().Add(4 * time.Second)
		begin := time.Now()
		r.mustApply(t)
		if took := time.Since(begin); took < 4*time.Second || took > 4500*time.Millisecond {
			t.Errorf("ready was noticed after %s", took)
		}

		// An interrupted apply waits again, without another restart.
		readyAt = time.Now().Add(3 * time.Second)
		r.host.Forget()
		r.restartAgent()
		if st := r.status(t, id("unit", unitName)); st.Change != "wait" || st.Reason != "not ready: still thinking" {
			t.Errorf("got %+v", st)
		}
		r.mustApply(t)
		if got := r.host.Calls(); len(got) > 0 {
			t.Errorf("waiting did %v", got)
		}

		readyAt = time.Now().Add(time.Hour)
		begin = time.Now()
		err := r.apply(t)
		if err == nil || !strings.Contains(err.Error(), "not ready after 10s: still thinking") {
			t.Errorf("error %v", err)
		}
		if took := time.Since(begin); took > 11*time.Second {
			t.Errorf("gave up after %s", took)
		}
	})
}

// A unit that an interruption left running and not ready may need more than to be waited for.
func TestStartKnowsWhatIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &web{config: "1", sites: "a", ready: true, start: true}
		w.notReady = func() bool { return w.joins < 2 }
		r := newRig(w)
		if err := r.apply(t); err == nil || w.joins != 1 {
			t.Fatalf("error %v after %d starts", err, w.joins)
		}
		if err := r.apply(t); err != nil || w.joins != 2 {
			t.Errorf("error %v after %d starts, want none after the second", err, w.joins)
		}
		if err := r.apply(t); err != nil || w.joins != 2 {
			t.Errorf("error %v after %d starts: what serves is left alone", err, w.joins)
		}
	})
}

// Everything on a node starts at once, so a unit that has just answered may be late with the next answer.
func TestReadyOnceThenLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		looks := 0
		w := &web{config: "1", sites: "a", ready: true, notReady: func() bool { looks++; return looks == 1 || looks == 3 }}
		r := newRig(w)
		r.mustApply(t)
		if looks < 4 {
			t.Errorf("%d looks, the late one was not among them", looks)
		}
	})
}

func TestReadinessEndsWhenTheUnitDies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &web{config: "1", sites: "a", ready: true, notReady: func() bool { return true }}
		r := newRig(w)
		r.host.Answer("journalctl -u web.service", "cannot bind to port 80\n", 0)
		time.AfterFunc(2*time.Second, func() { r.host.Halt(unitName, "failed") })
		begin := time.Now()
		err := r.apply(t)
		if err == nil || !strings.Contains(err.Error(), "cannot bind to port 80") {
			t.Errorf("error %v", err)
		}
		if took := time.Since(begin); took > 3*time.Second {
			t.Errorf("noticed after %s", took)
		}
	})
}

func TestStartAction(t *testing.T) {
	r := newRig(&web{config: "1", sites: "a", ready: true, start: true})
	r.mustApply(t)
	if !slices.Contains(r.host.Calls(), "start web.service") {
		t.Errorf("calls %v", r.host.Calls())
	}
	r.host.Forget()
	r.web.config = "2"
	r.mustApply(t)
	if !slices.Contains(r.host.Calls(), "restart web.service") {
		t.Errorf("calls %v", r.host.Calls())
	}
}

func TestUnverifiedActionFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &web{config: "1", sites: "a"}
		r := newRig(w)
		w.runErr = errors.New("boom")
		if err := r.apply(t); err == nil || !strings.Contains(err.Error(), "create-site: boom") {
			t.Errorf("error %v", err)
		}
	})
}

// TestCrashAnywhere: whatever happens behind nines's back, and wherever it crashes, applying again
// ends in the desired state, and once there nothing is done any more.
func TestCrashAnywhere(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := newRig(&web{config: "0", sites: "0", ready: rapid.Bool().Draw(t, "ready"), start: rapid.Bool().Draw(t, "start")})
		for round := range rapid.IntRange(1, 6).Draw(t, "rounds") {
			switch rapid.SampledFrom([]string{"config", "sites", "both", "none", "stopped"}).Draw(t, "spec") {
			case "config":
				r.web.config = fmt.Sprint(round)
			case "sites":
				r.web.sites = fmt.Sprint(round)
			case "both":
				r.web.config, r.web.sites = fmt.Sprint(round), fmt.Sprint(round)
			case "stopped":
				r.web.stopped = !r.web.stopped
			}
			for rapid.Bool().Draw(t, "crash") {
				r.host.CrashAfter(rapid.IntRange(0, 10).Draw(t, "after"), rapid.Bool().Draw(t, "applied"))
				_ = r.apply(t)
				r.host.Revive()
				r.restartAgent()
				meddle(t, r)
			}
			meddle(t, r)
			r.mustApply(t)
			r.host.Forget()
			r.restartAgent()
			r.mustApply(t)
			if got := r.host.Calls(); len(got) > 0 {
				t.Fatalf("an apply with nothing to do did %v", got)
			}
		}
	})
}

// meddle changes the node behind nines's back.
func meddle(t *rapid.T, r *rig) {
	for range rapid.IntRange(0, 3).Draw(t, "meddle") {
		switch rapid.IntRange(0, 7).Draw(t, "what") {
		case 0:
			r.host.Reboot()
		case 1:
			r.host.Bounce(unitName)
		case 2:
			r.host.Halt(unitName, rapid.SampledFrom([]string{"inactive", "failed"}).Draw(t, "state"))
		case 3:
			edit(r, configPath)
		case 4:
			edit(r, sitesPath)
		case 5:
			r.host.DropFile(dropInPath)
		case 6:
			r.host.DropFile("/var/lib/nines/units/web.service.json")
		case 7:
			if f, err := r.host.ReadFile(configPath); err == nil {
				edit(r, configPath)
				r.host.Bounce(unitName)
				r.host.PutFile(f)
			}
		}
	}
}
