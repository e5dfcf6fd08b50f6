package agent

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"nines/internal/api"
	"nines/internal/disk"
	"nines/internal/health"
	"nines/internal/host/hosttest"
	"nines/internal/model"
	"nines/internal/plan"
	"nines/internal/secret"
	"nines/internal/service"
)

// full is a service that a full disk would harm.
type full struct {
	name  string
	calls []string
	fails error
	seen  func()
}

func (f *full) Name() string { return f.name }
func (*full) Resources(*model.Cluster, secret.Source) ([]plan.Resource, error) {
	return nil, nil
}
func (*full) Interval() time.Duration { return time.Second }
func (*full) Observe(context.Context, service.Env) service.Observation {
	return service.Observation{Serving: true}
}
func (f *full) Room() string { return "/var/lib/" + f.name }
func (f *full) Drain(context.Context, service.Env) error {
	if f.seen != nil {
		f.seen()
	}
	f.calls = append(f.calls, "drain")
	return f.fails
}
func (f *full) Restore(context.Context, service.Env) error {
	f.calls = append(f.calls, "restore")
	return f.fails
}

func drainAgent(f *full) (*Agent, *model.Cluster) {
	c := &model.Cluster{Services: []string{f.name}}
	for _, n := range []string{"ctl1", "ctl2", "ctl3"} {
		c.Nodes = append(c.Nodes, model.Node{Name: n, Roles: []model.Role{model.RoleController}})
	}
	a := &Agent{Options: Options{Services: []service.Service{f}}, disks: &disks{host: hosttest.New()}}
	a.watch = newWatchers(a.Services, nil, slog.New(slog.DiscardHandler))
	a.watch.keep(f.name, time.Hour, service.Observation{Serving: true}, true)
	return a, c
}

// TestDrainSaysItLeavesFirst: HAProxy must have moved the clients before the member stops. One that could not be
// stopped goes on, and is seen to.
func TestDrainSaysItLeavesFirst(t *testing.T) {
	for _, fails := range []error{nil, errors.New("queues would lose their majority")} {
		synctest.Test(t, func(t *testing.T) {
			f := &full{name: "db", fails: fails}
			a, c := drainAgent(f)
			serving := func() bool { return a.watch.all()["db"].Serving }
			f.seen = func() {
				if serving() {
					t.Error("it is stopped while clients are sent to it")
				}
			}
			start := time.Now()
			err := a.drain(t.Context(), service.Env{Cluster: c})
			if (err == nil) != (fails == nil) || len(f.calls) != 1 || time.Since(start) < leaveTime {
				t.Errorf("%v after %v: %q", err, time.Since(start), f.calls)
			}
			if serving() != (fails != nil) {
				t.Errorf("serving %t, and draining it said %v", serving(), fails)
			}
			if fails == nil { // an apply, or the machine's boot, starts it again: it must be seen to go on, and is drained anew
				a.watch.keep("db", time.Hour, service.Observation{}, true)
				a.watch.keep("db", time.Hour, service.Observation{Serving: true}, true)
				if !serving() {
					t.Error("a member that was started again is not seen to serve")
				}
			}
			f.fails = nil
			if err := a.restore(t.Context(), service.Env{Cluster: c}); err != nil || !serving() || f.calls[len(f.calls)-1] != "restore" {
				t.Errorf("%v: %q", err, f.calls)
			}
		})
	}
}

// TestDrainedIsSaidOnce: what follows from a member that was stopped on purpose does not hide anything else.
func TestDrainedIsSaidOnce(t *testing.T) {
	a, c := drainAgent(&full{name: "db"})
	all := []health.Condition{
		{Code: "db-down", Service: "db", Node: "ctl1"},
		{Code: "drift", Node: "ctl1", Text: "db/ctl1/unit:db.service: is inactive"},
		{Code: "drift", Node: "ctl1", Text: "haproxy/ctl1/file:haproxy.cfg: content differs"},
		{Code: "db-down", Service: "db", Node: "ctl2"},
		{Code: "db-degraded", Service: "db"},
	}
	var left []string
	for _, cond := range a.meant(c, all, "ctl1") {
		left = append(left, cond.Code+cond.Node)
	}
	if got := strings.Join(left, " "); got != "driftctl1 db-downctl2 db-degraded" {
		t.Errorf("left: %s", got)
	}
}

// TestShortDiskIsTold: of a short disk status says whether anything is done for it, and why not.
func TestShortDiskIsTold(t *testing.T) {
	a, c := drainAgent(&full{name: "db"})
	report := func(short, serving bool) *api.NodeReport {
		return &api.NodeReport{Disks: []disk.Level{{Path: "/var/lib", Free: 1 << 29, Total: 1 << 34, Short: short}},
			Services: map[string]service.Observation{"db": {Serving: serving}}}
	}
	nodes := []api.NodeStatus{{Node: "ctl1", Report: report(true, true)}, {Node: "ctl2", Report: report(false, false)}, {Node: "ctl3"}}
	var told string
	for _, cond := range a.diskConditions(c, nodes, "") {
		if cond.Node == "ctl1" {
			told += string(cond.Severity) + " " + cond.Text
		}
	}
	if !strings.HasPrefix(told, "critical ") || !strings.Contains(told, "its members go on: without it 0 of 3 members of db serve") {
		t.Error(told)
	}
	nodes[1].Report, nodes[2].Report = report(false, true), report(false, true)
	if d := disk.Decide(a.quorumMembers(c, nodes), ""); d.Act != disk.Drain || d.Node != "ctl1" {
		t.Errorf("%+v", d)
	}
}

func TestOneFileSystemIsMeasuredOnce(t *testing.T) {
	d := &disks{host: hosttest.New()}
	d.measure(time.Now(), []string{"/var/lib/nines", "/var/lib/mysql"})
	if got := d.all(); len(got) != 1 || got[0].Free == 0 || got[0].Path != "/var/lib/nines" {
		t.Errorf("%+v", got)
	}
}
