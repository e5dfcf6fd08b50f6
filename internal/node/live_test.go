package node_test

import (
	"log/slog"
	"os"
	"testing"

	"nines/internal/host"
	"nines/internal/model"
	"nines/internal/node"
	"nines/internal/plan"
	"nines/internal/secret"
	"nines/internal/service"
)

// sleepy is a unit with two files on a real machine.
type sleepy struct{ config, sites string }

const (
	sleepyUnit   = "nines-live.service"
	sleepyConfig = "/etc/nines-live/config"
	sleepySites  = "/etc/nines-live/sites"
)

func (*sleepy) Name() string { return "sleepy" }

func (s *sleepy) Resources(*model.Cluster, secret.Source) ([]plan.Resource, error) {
	file := func(path, content string) plan.Resource {
		return plan.Resource{ID: plan.Make("sleepy", "n1", "file", path), Service: "sleepy", Node: "n1",
			File: &plan.File{Path: path, Mode: 0o644, Owner: "root", Group: "root", Content: []byte(content)}}
	}
	unit := file("/etc/systemd/system/"+sleepyUnit, "[Service]\nExecStart=/bin/sleep 10000\nExecReload=/bin/true\n[Install]\nWantedBy=multi-user.target\n")
	config, sites := file(sleepyConfig, s.config), file(sleepySites, s.sites)
	return []plan.Resource{unit, config, sites, {ID: plan.Make("sleepy", "n1", "unit", sleepyUnit), Service: "sleepy", Node: "n1",
		Unit: &plan.Unit{Name: sleepyUnit, Enabled: true, Running: true, RestartOn: []plan.ID{unit.ID, config.ID}, ReloadOn: []plan.ID{sites.ID}}}}, nil
}

// TestLiveUnitRule tries, on a real machine, whether the executor knows when a unit has read its files.
func TestLiveUnitRule(t *testing.T) {
	if os.Getenv("NINES_LIVE_HOST") == "" {
		t.Skip("changes the machine: set NINES_LIVE_HOST=1 in a disposable machine, or run TestLive of test/e2e")
	}
	s := &sleepy{"1", "a"}
	l := host.NewLinux(slog.New(slog.DiscardHandler))
	defer l.Close()
	x := node.New(node.Options{Host: l, Services: []service.Service{s}, Node: model.Node{Name: "n1"}})
	c := &model.Cluster{Name: "live", Services: []string{"sleepy"}, Nodes: []model.Node{{Name: "n1"}}}
	unit := plan.Make("sleepy", "n1", "unit", sleepyUnit)

	expect := func(what, change string) {
		t.Helper()
		seen, err := x.Observe(t.Context(), c, secret.Map{})
		if err != nil {
			t.Fatal(err)
		}
		if got := seen[unit]; got.Change != change {
			t.Errorf("%s: %+v, want change %q", what, got, change)
		}
		rs, _ := s.Resources(c, nil)
		for _, r := range rs {
			if _, err := x.Apply(t.Context(), c, secret.Map{}, r.ID, r.Hash(plan.Index(rs))); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
		}
		seen, _ = x.Observe(t.Context(), c, secret.Map{})
		for id, st := range seen {
			if st.State != plan.InSync {
				t.Errorf("%s: afterwards %s is %+v", what, id, st)
			}
		}
	}
	run := func(args ...string) {
		t.Helper()
		if _, err := l.Run(t.Context(), host.Cmd{Args: args}); err != nil {
			t.Fatal(err)
		}
	}
	expect("first", "start")
	expect("again", "")
	run("systemctl", "restart", sleepyUnit)
	expect("restarted by hand", "")
	s.config = "2"
	expect("config changed", "restart")
	s.sites = "b"
	expect("sites changed", "reload")
	run("sh", "-c", "cp -p "+sleepyConfig+" /tmp/keep; echo x >"+sleepyConfig+"; systemctl restart "+sleepyUnit+"; sleep 0.1; cp -p /tmp/keep "+sleepyConfig)
	expect("started with an edited file that was put back with its old mtime", "restart")
	run("systemctl", "kill", "-s", "KILL", sleepyUnit)
	run("sh", "-c", "sleep 0.3")
	expect("killed", "start")
	run("systemctl", "disable", sleepyUnit)
	expect("disabled", "enable")
	run("systemctl", "stop", sleepyUnit)
	run("rm", "/var/lib/nines/units/"+sleepyUnit+".json")
	run("systemctl", "start", sleepyUnit)
	expect("record lost", "")
}
