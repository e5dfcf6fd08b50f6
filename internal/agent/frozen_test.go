package agent

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"nines/internal/api"
	"nines/internal/converge"
	"nines/internal/health"
	"nines/internal/host"
	"nines/internal/host/hosttest"
	"nines/internal/model"
	"nines/internal/plan"
	"nines/internal/secret"
	"nines/internal/service"
	"nines/internal/store/memstore"
	"nines/internal/supervise"
)

// processes are what the kernel says: unit -> state of each of its processes.
func processes(t *testing.T, f *frozen, units map[string]string) {
	t.Helper()
	f.groups, f.processes = t.TempDir(), t.TempDir()
	put := func(path, content string) {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for unit, states := range units {
		var list []string
		for i, state := range states {
			pid := unit + "-" + string(rune('a'+i))
			list = append(list, pid)
			put(filepath.Join(f.processes, pid, "stat"), "12 (a) R (b) "+string(state)+" 1 12")
		}
		put(filepath.Join(f.groups, unit, "cgroup.procs"), strings.Join(list, "\n")+"\n")
	}
}

func TestStoppedUnits(t *testing.T) {
	for name, tc := range map[string]struct {
		states          string
		stopped, traced bool
	}{
		"running":               {"S", false, false},
		"stopped":               {"T", true, false},
		"all stopped":           {"TTT", true, false},
		"one still runs":        {"TST", false, false},
		"a debugger":            {"t", true, true},
		"a dead child":          {"TZ", true, false},
		"only dead ones":        {"ZZ", false, false},
		"nothing of it is left": {"", false, false},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFrozen(nil, hosttest.New(), nil, slog.New(slog.DiscardHandler))
			processes(t, f, map[string]string{"x.service": tc.states})
			if stopped, traced := f.unitStopped("x.service"); stopped != tc.stopped || traced != tc.traced {
				t.Errorf("stopped %v, traced %v", stopped, traced)
			}
			if stopped, _ := f.unitStopped("y.service"); stopped {
				t.Error("a unit that does not run is stopped")
			}
		})
	}
}

// manyUnits is a service with more units than one.
type manyUnits struct {
	moody
	main string
}

func (m manyUnits) MainUnit(model.Node) string { return m.main }
func (manyUnits) Resources(c *model.Cluster, _ secret.Source) ([]plan.Resource, error) {
	var rs []plan.Resource
	for _, n := range c.Nodes {
		for _, u := range []plan.Unit{{Name: "moody.service", Running: true}, {Name: "worker.service", Running: true, Member: &plan.Member{Quorum: "moody", Size: 3, Needed: 2}},
			{Name: "api.service", Running: true}, {Name: "moody.socket", Running: true}, {Name: "off.service"}} {
			rs = append(rs, plan.Resource{ID: plan.Make("moody", n.Name, "unit", u.Name), Service: "moody", Node: n.Name, Unit: &u})
		}
	}
	return rs, nil
}

func TestWhichObservationIsAboutWhichUnit(t *testing.T) {
	c := cluster()
	for main, want := range map[string]string{
		"":            "moody.service=moody/here worker.service= api.service=",
		"api.service": "moody.service=moody/here worker.service= api.service=moody",
	} {
		units, err := daemons([]service.Service{manyUnits{main: main}}, service.Env{Cluster: c, Node: c.Nodes[0]})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, d := range units {
			got = append(got, d.unit+"="+d.answers)
			if (d.needed == 2) != (d.unit == "worker.service") {
				t.Errorf("%s: %d members are needed", d.unit, d.needed)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("main unit %q: %q, want %q", main, got, want)
		}
	}
}

// A unit that owes answers is told of with how long, and no more when it answers again.
func TestAiling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var hangs, stuck atomic.Bool
		w := watching(t, func(ctx context.Context) service.Observation {
			if hangs.Load() {
				<-ctx.Done()
			}
			if stuck.Load() {
				return service.Observation{Stuck: "it left"}
			}
			return service.Observation{Serving: !hangs.Load()}
		})
		defer w.stop()
		h := hosttest.New()
		h.PutUnit("moody.service", host.UnitState{Active: "active"})
		f := newFrozen([]service.Service{running{moody{}}}, h, w, slog.New(slog.DiscardHandler))
		f.follow(cluster())
		f.list(func(c *model.Cluster) (service.Env, error) { return service.Env{Cluster: c, Node: c.Nodes[0]}, nil })
		see := func() []supervise.Ailing {
			out, _ := f.ailing(t.Context(), "ctl1", time.Now())
			return out
		}
		time.Sleep(2 * time.Second)
		if got := see(); len(got) != 0 {
			t.Errorf("well: %+v", got)
		}
		hangs.Store(true)
		time.Sleep(30 * time.Second)
		got := see()
		if len(got) != 1 || got[0].Silent < 28*time.Second || got[0].Silent > 31*time.Second || got[0].Active != "active" || got[0].Service != "moody" {
			t.Errorf("silent for 30 s: %+v", got)
		}
		hangs.Store(false)
		time.Sleep(3 * time.Second)
		if got := see(); len(got) != 0 {
			t.Errorf("well again: %+v", got)
		}
		stuck.Store(true)
		time.Sleep(20 * time.Second)
		got = see()
		if len(got) != 1 || got[0].Silent != 0 || got[0].Stuck < 18*time.Second || got[0].Stuck > 21*time.Second || got[0].Why != "it left" {
			t.Errorf("stuck for 20 s: %+v", got)
		}
		stuck.Store(false)
		time.Sleep(3 * time.Second)
		if got := see(); len(got) != 0 {
			t.Errorf("not stuck any more: %+v", got)
		}
	})
}

type unreporting struct{ running }

func (unreporting) Unreported(*model.Cluster, model.Node, service.Observation) map[string]time.Duration {
	return map[string]time.Duration{"moody.service": time.Minute, "not.here": time.Hour}
}

// A daemon that does not note that it works is told of, whatever its service answers.
func TestUnreportedAil(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watching(t, func(context.Context) service.Observation { return service.Observation{Serving: true} })
		defer w.stop()
		h := hosttest.New()
		h.PutUnit("moody.service", host.UnitState{Active: "active"})
		f := newFrozen([]service.Service{unreporting{running{moody{}}}}, h, w, slog.New(slog.DiscardHandler))
		f.follow(cluster())
		f.list(func(c *model.Cluster) (service.Env, error) { return service.Env{Cluster: c, Node: c.Nodes[0]}, nil })
		time.Sleep(2 * time.Second)
		got, owed := f.ailing(t.Context(), "ctl1", time.Now())
		if len(got) != 1 || got[0].Unit != "moody.service" || got[0].Unreported != time.Minute || got[0].Silent != 0 || got[0].Active != "active" || owed != 0 {
			t.Errorf("%+v, %d owed", got, owed)
		}
	})
}

// Who is stopped does not get the second second that a busy one gets.
func TestAStoppedServiceLeavesAtItsFirstMissingAnswer(t *testing.T) {
	for states, want := range map[string]time.Duration{"T": observeTimeout, "S": patience * observeTimeout} {
		synctest.Test(t, func(t *testing.T) {
			var hangs atomic.Bool
			env := func(c *model.Cluster) (service.Env, error) { return service.Env{Cluster: c, Node: c.Nodes[0]}, nil }
			w := newWatchers([]service.Service{moody{func(ctx context.Context) service.Observation {
				if hangs.Load() {
					<-ctx.Done()
				}
				return service.Observation{Serving: !hangs.Load()}
			}}}, env, slog.New(slog.DiscardHandler))
			f := newFrozen([]service.Service{running{moody{}}}, hosttest.New(), w, slog.New(slog.DiscardHandler))
			processes(t, f, map[string]string{"moody.service": states})
			f.follow(cluster())
			f.list(env)
			w.stopped = f.standsStill
			w.follow(t.Context(), cluster())
			defer w.stop()
			time.Sleep(2 * time.Second)
			hangs.Store(true)
			at := time.Now()
			for w.all()["moody"].Serving {
				time.Sleep(10 * time.Millisecond)
			}
			if took := time.Since(at); took < want || took > want+1200*time.Millisecond {
				t.Errorf("processes %s: not serving after %s, want about %s", states, took, want)
			}
			time.Sleep(10 * time.Second)
			if silent := w.silent(time.Now())["moody"]; silent < 9*time.Second || silent > 13*time.Second {
				t.Errorf("silent for %s", silent)
			}
		})
	}
}

// A machine on which nothing runs, the agent neither, makes nobody frozen.
func TestAStarvedAgentBlamesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watching(t, func(ctx context.Context) service.Observation {
			<-ctx.Done()
			return service.Observation{}
		})
		defer w.stop()
		h := hosttest.New()
		h.PutUnit("moody.service", host.UnitState{Active: "active"})
		f := newFrozen([]service.Service{running{moody{}}}, h, w, slog.New(slog.DiscardHandler))
		f.follow(cluster())
		f.list(func(c *model.Cluster) (service.Env, error) { return service.Env{Cluster: c, Node: c.Nodes[0]}, nil })
		for range 20 {
			time.Sleep(stoppedEvery)
			f.look(time.Now())
		}
		silent := func() time.Duration {
			out, _ := f.ailing(t.Context(), "ctl1", time.Now())
			if len(out) != 1 {
				t.Fatalf("%+v", out)
			}
			return out[0].Silent
		}
		if got := silent(); got < 50*time.Second {
			t.Errorf("silent for %s after a minute", got)
		}
		time.Sleep(40 * time.Second) // nobody looked
		f.look(time.Now())
		time.Sleep(2 * time.Second)
		if got := silent(); got != 2*time.Second {
			t.Errorf("silent for %s, 2 s after the agent got a processor again", got)
		}
	})
}

// running is a service whose only unit runs.
type running struct{ moody }

func (running) Parts() map[string]service.Part { return nil }
func (r running) Resources(c *model.Cluster, s secret.Source) ([]plan.Resource, error) {
	rs, err := r.moody.Resources(c, s)
	for i := range rs {
		rs[i].Unit.Running = true
	}
	return rs, err
}

func TestRestartLetsGoFirst(t *testing.T) {
	for name, tc := range map[string]struct {
		state string
		want  []string
	}{
		"stopped": {"T", []string{"signal x.service", "restart x.service"}},
		"silent":  {"S", []string{"restart x.service"}},
	} {
		t.Run(name, func(t *testing.T) {
			h := hosttest.New()
			h.PutUnit("x.service", host.UnitState{Active: "active"})
			f := newFrozen(nil, h, nil, slog.New(slog.DiscardHandler))
			processes(t, f, map[string]string{"x.service": tc.state})
			f.units = []daemon{{service: "x", unit: "x.service"}}
			f.look(time.Now())
			if err := f.restart(t.Context(), "x.service"); err != nil {
				t.Fatal(err)
			}
			if got := h.Calls(); !slices.Equal(got, tc.want) {
				t.Errorf("%q, want %q", got, tc.want)
			}
		})
	}
}

// stubborn is a machine whose unit does not stop before it is killed.
type stubborn struct {
	*hosttest.Host
	killed chan struct{}
}

func (s stubborn) RestartUnit(ctx context.Context, name string) error {
	<-s.killed
	return s.Host.RestartUnit(ctx, name)
}

func (s stubborn) SignalUnit(ctx context.Context, name string, signal int) error {
	if signal == sigkill {
		close(s.killed)
	}
	return s.Host.SignalUnit(ctx, name, signal)
}

func TestRestartKillsWhatDoesNotStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for unit, want := range map[string]time.Duration{"x.service": stopPatience, "member.service": stopMember} {
			h := stubborn{hosttest.New(), make(chan struct{})}
			h.PutUnit(unit, host.UnitState{Active: "active"})
			f := newFrozen(nil, h, nil, slog.New(slog.DiscardHandler))
			f.units = []daemon{{unit: "x.service", needed: 1}, {unit: "member.service", needed: 2}}
			start := time.Now()
			if err := f.restart(t.Context(), unit); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(start); took != want {
				t.Errorf("%s was killed after %s, want %s", unit, took, want)
			}
		}
	})
}

func TestOnlyThePresentLeadersRestart(t *testing.T) {
	s := memstore.New()
	defer s.Close()
	lease, err := s.Campaign(t.Context(), converge.LeaderLease, "ctl1")
	if err != nil {
		t.Fatal(err)
	}
	record := supervise.Record{Units: map[string]supervise.Unit{"ctl2/x.service": {Node: "ctl2", Tries: []time.Time{time.Now()}}},
		Decisions: []supervise.Decision{{Node: "ctl2", Unit: "x.service", Act: supervise.Restart, Try: 1}}}
	if _, err := s.PutFenced(t.Context(), converge.LeaderLease, lease.Fence(), keySupervision, inJSON(record), 0); err != nil {
		t.Fatal(err)
	}
	good := api.RestartRequest{Node: "ctl2", Unit: "x.service", Fence: lease.Fence(), Try: 1}
	if err := mayRestart(t.Context(), s, good); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*api.RestartRequest){
		"another leader's": func(r *api.RestartRequest) { r.Fence-- },
		"another try":      func(r *api.RestartRequest) { r.Try++ },
		"another unit":     func(r *api.RestartRequest) { r.Unit = "y.service" },
	} {
		req := good
		change(&req)
		if err := mayRestart(t.Context(), s, req); err == nil {
			t.Errorf("%s is allowed", name)
		}
	}
}

func TestFrozenConditions(t *testing.T) {
	got := frozenConditions(supervise.Record{Decisions: []supervise.Decision{
		{Node: "ctl1", Service: "galera", Unit: "mariadb.service", Act: supervise.Restart, Sign: "s", Reason: "r", Try: 1},
		{Node: "ctl2", Service: "galera", Unit: "mariadb.service", Act: supervise.Wait, Sign: "s", Reason: "r"},
		{Node: "ctl3", Service: "galera", Unit: "mariadb.service", Act: supervise.GiveUp, Sign: "s", Reason: "r"},
	}})
	want := []string{"daemon-frozen ctl1 galera", "daemon-frozen ctl2 galera", "restart-given-up ctl3 galera"}
	for i, c := range got {
		if is := c.Code + " " + c.Node + " " + c.Service; is != want[i] || c.Severity != health.Warning || c.Text == "" || c.Hint == "" {
			t.Errorf("%+v, want %s", c, want[i])
		}
	}
}
