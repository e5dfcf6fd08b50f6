package agent

import (
	"context"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"nines/internal/host"
	"nines/internal/model"
	"nines/internal/plan"
	"nines/internal/service"
	"nines/internal/supervise"
)

// stoppedEvery is how often the processes of the node's units are looked at: two small files a unit.
const stoppedEvery = 3 * time.Second

// Files of the kernel (cgroups(7), proc_pid_stat(5)).
const (
	pathGroups    = "/sys/fs/cgroup/system.slice"
	pathProcesses = "/proc"
)

// frozen notices which units of this node do nothing any more: their processes are stopped, or they owe an answer.
type frozen struct {
	services []service.Service
	host     host.Host
	watch    *watchers
	log      *slog.Logger
	// Where the kernel tells of processes; tests have others.
	groups, processes string

	mu      sync.Mutex
	want    *model.Cluster // as last applied
	have    *model.Cluster // that units are of
	units   []daemon
	stopped map[string]stop // by unit
	looked  time.Time
	starved time.Time       // when this agent had last got no processor for a while
	at      map[string]bool // units that are being restarted
}

func newFrozen(services []service.Service, h host.Host, w *watchers, log *slog.Logger) *frozen {
	return &frozen{services: services, host: h, watch: w, log: log, groups: pathGroups, processes: pathProcesses,
		stopped: map[string]stop{}, at: map[string]bool{}}
}

// daemon is a unit of this node that is to run.
type daemon struct {
	service, unit string
	answers       string // the observation that is about it; empty: none
	needed        int
}

type stop struct {
	since  time.Time
	traced bool
}

// daemons are the running units of the node.
func daemons(services []service.Service, env service.Env) ([]daemon, error) {
	var out []daemon
	for _, s := range services {
		if !env.Cluster.Runs(s.Name()) {
			continue
		}
		rs, err := s.Resources(env.Cluster, env.Secrets)
		if err != nil {
			return nil, err
		}
		out = append(out, daemonsOf(s, rs, env)...)
	}
	return out, nil
}

func daemonsOf(s service.Service, rs []plan.Resource, env service.Env) []daemon {
	var out []daemon
	parts := map[string]string{}
	for name, p := range observers(s) {
		if p.Unit != "" {
			parts[p.Unit] = name
		}
	}
	own := 0 // units that no part is about
	for _, r := range rs {
		if r.Node != env.Node.Name || r.Unit == nil || !r.Unit.Running || !strings.HasSuffix(r.Unit.Name, ".service") {
			continue
		}
		d := daemon{service: s.Name(), unit: r.Unit.Name, answers: parts[r.Unit.Name]}
		if r.Unit.Member != nil {
			d.needed = r.Unit.Member.Needed
		}
		if d.answers == "" {
			own++
		}
		out = append(out, d)
	}
	main := ""
	if m, ok := s.(service.MainUnit); ok {
		main = m.MainUnit(env.Node)
	}
	_, observed := s.(service.Observer)
	for i := range out {
		if out[i].answers == "" && observed && (own == 1 || out[i].unit == main) {
			out[i].answers = s.Name()
		}
	}
	return out
}

// follow takes up the cluster as last applied.
func (f *frozen) follow(c *model.Cluster) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.want = c
}

// run looks at the node's processes until ctx ends.
func (f *frozen) run(ctx context.Context, env func(*model.Cluster) (service.Env, error)) {
	for pause(ctx, stoppedEvery) {
		f.list(env)
		f.look(time.Now())
	}
}

// list finds out what the node's units are, once for each spec. Until all secrets are there they are not known.
func (f *frozen) list(env func(*model.Cluster) (service.Env, error)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.want == f.have {
		return
	}
	e, err := env(f.want)
	if err == nil {
		f.units, err = daemons(f.services, e)
	}
	if err != nil {
		f.log.Debug("units of this node", "err", err)
		return
	}
	f.have = f.want
}

// look notes since when units are stopped.
func (f *frozen) look(now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.looked.IsZero() && now.Sub(f.looked) > 3*stoppedEvery {
		f.starved = now
	}
	f.looked = now
	before := f.stopped
	f.stopped = map[string]stop{}
	for _, d := range f.units {
		stopped, traced := f.unitStopped(d.unit)
		if !stopped {
			continue
		}
		at, known := before[d.unit]
		if !known {
			at.since = now
		}
		at.traced = traced
		f.stopped[d.unit] = at
	}
}

// unitStopped reports whether all processes of the unit are stopped, and whether a debugger stopped one of them.
func (f *frozen) unitStopped(unit string) (stopped, traced bool) {
	list, err := os.ReadFile(filepath.Join(f.groups, unit, "cgroup.procs"))
	if err != nil {
		return false, false // it does not run
	}
	for _, pid := range strings.Fields(string(list)) {
		stat, err := os.ReadFile(filepath.Join(f.processes, pid, "stat"))
		if err != nil {
			continue // it has ended
		}
		switch processState(string(stat)) {
		case 'T':
			stopped = true
		case 't':
			stopped, traced = true, true
		case 'Z', 'X':
		default:
			return false, false
		}
	}
	return stopped, traced
}

// standsStill reports whether all units that the observation is about are stopped now.
func (f *frozen) standsStill(name string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	found := false
	for _, d := range f.units {
		if d.answers != name {
			continue
		}
		if found, _ = f.unitStopped(d.unit); !found {
			return false
		}
	}
	return found
}

// processState is the third field of a stat file. The second may hold anything, also brackets and spaces.
func processState(stat string) byte {
	i := strings.LastIndex(stat, ") ")
	if i < 0 || i+2 >= len(stat) {
		return 0
	}
	return stat[i+2]
}

// ailing are the node's units that do nothing any more, and how many observations have no answer.
func (f *frozen) ailing(ctx context.Context, node string, now time.Time) (out []supervise.Ailing, owed int) {
	silent, stuck, unreported := f.watch.silent(now), f.watch.stuck(), f.unreported(node)
	f.mu.Lock()
	for _, d := range f.units {
		// While the agent itself got no processor nobody else did either: who owes an answer from then owes nothing.
		a := supervise.Ailing{Node: node, Service: d.service, Unit: d.unit, Needed: d.needed, Silent: min(silent[d.answers], now.Sub(f.starved))}
		if s, ok := f.stopped[d.unit]; ok {
			a.Stopped, a.Traced = max(now.Sub(s.since), time.Nanosecond), s.traced
		}
		if o, ok := stuck[d.answers]; ok {
			a.Stuck, a.Why = max(now.Sub(o.stuck), time.Nanosecond), o.Stuck
		}
		a.Unreported = unreported[d.unit]
		if a.Stopped > 0 || a.Silent > 0 || a.Stuck > 0 || a.Unreported > 0 {
			out = append(out, a)
		}
	}
	f.mu.Unlock()
	for i := range out {
		a := &out[i]
		u, err := f.host.Unit(ctx, a.Unit)
		if err != nil {
			f.log.Debug("unit", "unit", a.Unit, "err", err)
			continue // not known to be active: nothing is done about it
		}
		a.Active, a.Running = u.Active, now.Sub(u.Started)
	}
	return out, len(silent)
}

// unreported are the units of daemons that do not note that they work, and for how long.
func (f *frozen) unreported(node string) map[string]time.Duration {
	f.mu.Lock()
	c := f.have
	f.mu.Unlock()
	out := map[string]time.Duration{}
	if c == nil {
		return out
	}
	n, _ := c.Node(node)
	seen := f.watch.all()
	for _, s := range f.services {
		if r, ok := s.(service.Reporter); ok && c.Runs(s.Name()) {
			maps.Copy(out, r.Unreported(c, n, seen[s.Name()]))
		}
	}
	return out
}

// knows reports whether the unit is one of this node's.
func (f *frozen) knows(unit string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.ContainsFunc(f.units, func(d daemon) bool { return d.unit == unit })
}

// begin reports whether nobody restarts the unit yet, and that somebody does now, until end.
func (f *frozen) begin(unit string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.at[unit] {
		return false
	}
	f.at[unit] = true
	return true
}

func (f *frozen) end(unit string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.at, unit)
}

// stopPatience is how long a unit may take to stop before its processes are killed. Whoever serves others by its state has more to put away.
const (
	stopPatience = 20 * time.Second
	stopMember   = time.Minute
)

// restart has the unit begin anew. Its processes are let go first, so that they can put away what they hold; those that do not end
// are killed. It returns when the unit has started, or will not.
func (f *frozen) restart(ctx context.Context, unit string) error {
	before, err := f.host.Unit(ctx, unit)
	if err != nil {
		return err
	}
	patience := stopPatience
	f.mu.Lock()
	_, stopped := f.stopped[unit]
	if slices.ContainsFunc(f.units, func(d daemon) bool { return d.unit == unit && d.needed > 1 }) {
		patience = stopMember
	}
	f.mu.Unlock()
	if stopped {
		if err := f.host.SignalUnit(ctx, unit, sigcont); err != nil {
			return err
		}
	}
	done := make(chan error, 1)
	go func() { done <- f.host.RestartUnit(ctx, unit) }()
	kill := time.NewTimer(patience)
	defer kill.Stop()
	for {
		select {
		case err := <-done:
			return err
		case <-kill.C:
			now, err := f.host.Unit(ctx, unit)
			if err == nil && now.Invocation == before.Invocation {
				f.log.Warn("it does not stop and is killed", "unit", unit)
				if err := f.host.SignalUnit(ctx, unit, sigkill); err != nil {
					f.log.Warn("kill", "unit", unit, "err", err)
				}
			}
		}
	}
}

// Signals (signal(7)).
const (
	sigkill = 9
	sigcont = 18
)
