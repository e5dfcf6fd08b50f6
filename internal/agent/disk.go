package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"nines/internal/api"
	"nines/internal/converge"
	"nines/internal/disk"
	"nines/internal/health"
	"nines/internal/host"
	"nines/internal/model"
	"nines/internal/service"
	"nines/internal/store"
)

const (
	measureEvery = time.Second
	// drainEvery is how often the leader looks whether a disk is short: what fills a disk in half a minute must be seen in time.
	drainEvery = 2 * time.Second
	// leaveTime is how long a member goes on after its node's health checks have said that it leaves: HAProxy's have been done by then.
	leaveTime = 2 * time.Second
	// drainTimeout bounds stopping members, restoreTimeout starting them: one may have to take a whole copy.
	drainTimeout   = 2 * time.Minute
	restoreTimeout = 15 * time.Minute
)

// keyDrained is the node whose members are stopped for its disk. No key: none.
const keyDrained = "disk/drained"

// drained is the value of keyDrained.
type drained struct {
	Node  string    `json:"node"`
	Since time.Time `json:"since"`
}

// drainable are the services of the cluster that a full disk would harm.
func (a *Agent) drainable(c *model.Cluster) map[string]service.Drainable {
	out := map[string]service.Drainable{}
	for _, s := range a.Services {
		if d, ok := s.(service.Drainable); ok && c.Runs(s.Name()) {
			out[s.Name()] = d
		}
	}
	return out
}

// disks measures the room of a node's file systems.
type disks struct {
	host host.Host

	mu     sync.Mutex
	meters map[string]*disk.Meter
	levels []disk.Level
}

// measure takes one measurement of each file system.
func (d *disks) measure(now time.Time, dirs []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.meters == nil {
		d.meters = map[string]*disk.Meter{}
	}
	d.levels = nil
	seen := map[uint64]bool{}
	for _, dir := range dirs {
		room, err := d.host.Room(dir)
		if err != nil || seen[room.Device] {
			continue // not there yet, or measured
		}
		seen[room.Device] = true
		if d.meters[dir] == nil {
			d.meters[dir] = &disk.Meter{}
		}
		d.levels = append(d.levels, d.meters[dir].Note(now, dir, room.Free, room.Total))
	}
}

func (d *disks) all() []disk.Level {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.levels
}

// measureDisks measures until ctx ends. A node without members is measured too: somebody must make room there as well.
func (a *Agent) measureDisks(ctx context.Context) {
	for pause(ctx, measureEvery) {
		dirs := []string{model.PathState}
		if c := a.spec.Load(); c != nil {
			for _, d := range a.drainable(c) {
				dirs = append(dirs, d.Room())
			}
		}
		a.disks.measure(time.Now(), dirs)
	}
}

// quorumMembers is what disk.Decide needs of the controllers.
func (a *Agent) quorumMembers(c *model.Cluster, nodes []api.NodeStatus) []disk.Member {
	reports := map[string]*api.NodeReport{}
	for _, n := range nodes {
		reports[n.Node] = n.Report
	}
	var out []disk.Member
	for _, n := range c.Controllers() {
		m := disk.Member{Name: n.Name, Serves: map[string]bool{}}
		r := reports[n.Name]
		for name := range a.drainable(c) {
			m.Serves[name] = r != nil && r.Services[name].Serving
		}
		if r != nil {
			m.Known = true
			for i, l := range r.Disks {
				m.Short = m.Short || l.Short
				if i == 0 || l.Free < m.Free {
					m.Free = l.Free
				}
			}
		}
		out = append(out, m)
	}
	return out
}

func loadDrained(ctx context.Context, s store.Reader) (d drained, rev int64, err error) {
	if rev, err = store.ReadJSON(ctx, s, keyDrained, &d); err != nil {
		return drained{}, 0, fmt.Errorf("read which node is out for its disk: %w", err)
	}
	return d, rev, nil
}

// careForDisks has the members of a node stopped before its disk is full, and started when there is room, while this node leads.
func (a *Agent) careForDisks(ctx context.Context, s store.Store, l *converge.Leader, fence store.Fence) {
	for pause(ctx, drainEvery) {
		c, err := converge.LastSpec(ctx, s)
		if err != nil || len(a.drainable(c)) == 0 {
			continue // nothing applied yet, or etcd is away: the next look tells
		}
		if err := a.careForDisk(ctx, s, l, fence, c); err != nil && ctx.Err() == nil {
			a.Log.Warn("a disk is short", "err", err)
		}
	}
}

func (a *Agent) careForDisk(ctx context.Context, s store.Store, l *converge.Leader, fence store.Fence, c *model.Cluster) error {
	out, rev, err := loadDrained(ctx, s)
	if err != nil {
		return err
	}
	d := disk.Decide(a.quorumMembers(c, a.lookAtAll(ctx, c, drainEvery/2)), out.Node)
	if d.Act == disk.Nothing {
		return nil
	}
	// Applies and recoveries start and stop the same members.
	release, ok := l.Hold("making room on " + d.Node)
	if !ok {
		return nil
	}
	defer release()
	// What was seen before the others were kept from beginning may be over.
	if again := disk.Decide(a.quorumMembers(c, a.lookAtAll(ctx, c, 0)), out.Node); again != d {
		return nil
	}
	a.Log.Warn("a disk is short", "act", d.Act, "node", d.Node, "why", d.Reason)
	n, _ := c.Node(d.Node)
	req := api.DrainRequest{Spec: c, Fence: fence, Restore: d.Act == disk.Restore}
	if req.Restore {
		if err := a.peers.Drain(ctx, n, req); err != nil {
			return fmt.Errorf("start the members of %s again: %w", d.Node, err)
		}
		return a.saveDrained(ctx, s, fence, drained{}, rev)
	}
	// Written down first: whoever leads next must know who is out, and take nobody else out.
	if err := a.saveDrained(ctx, s, fence, drained{Node: d.Node, Since: time.Now()}, rev); err != nil {
		return err
	}
	if err := a.peers.Drain(ctx, n, req); err != nil {
		return fmt.Errorf("stop the members of %s: %w", d.Node, err)
	}
	return nil
}

// saveDrained writes the record under the leader's fence. One without a node says that nobody is out.
func (a *Agent) saveDrained(ctx context.Context, s store.Store, fence store.Fence, d drained, rev int64) error {
	b, err := json.Marshal(d)
	if err != nil {
		return err
	}
	if _, err := s.PutFenced(ctx, converge.LeaderLease, fence, keyDrained, b, rev); err != nil {
		return fmt.Errorf("record which node is out for its disk: %w", err)
	}
	return nil
}

// postDrain stops this node's members, or starts them again, at the present leader's word.
func (a *Agent) postDrain(w http.ResponseWriter, r *http.Request) error {
	var req api.DrainRequest
	if err := decode(w, r, &req); err != nil {
		return err
	}
	if err := a.fromLeader(r.Context(), req.Fence); err != nil {
		return err
	}
	env, err := a.env(req.Spec)
	if err != nil {
		return err
	}
	do := a.drain
	if req.Restore {
		do = a.restore
	}
	if err := do(r.Context(), env); err != nil {
		return err
	}
	api.WriteJSON(w, struct{}{})
	return nil
}

// drain stops the members after the health checks have said that they leave.
func (a *Agent) drain(ctx context.Context, env service.Env) error {
	ctx, cancel := context.WithTimeout(ctx, drainTimeout)
	defer cancel()
	services := a.drainable(env.Cluster)
	for name := range services {
		a.watch.leave(name, "its disk is nearly full: the member is stopped until there is room")
	}
	if !pause(ctx, leaveTime) {
		return ctx.Err()
	}
	err := each(services, func(d service.Drainable) error { return d.Drain(ctx, env) })
	if err != nil { // whoever goes on must be seen to, so that it is tried again
		for name := range services {
			a.watch.leave(name, "")
		}
	}
	return err
}

func (a *Agent) restore(ctx context.Context, env service.Env) error {
	ctx, cancel := context.WithTimeout(ctx, restoreTimeout)
	defer cancel()
	services := a.drainable(env.Cluster)
	for name := range services {
		a.watch.leave(name, "")
	}
	return each(services, func(d service.Drainable) error { return d.Restore(ctx, env) })
}

// each does something with all, side by side.
func each(services map[string]service.Drainable, f func(service.Drainable) error) error {
	errs := make(chan error, len(services))
	for name, d := range services {
		go func() {
			err := f(d)
			if err != nil {
				err = fmt.Errorf("%s: %w", name, err)
			}
			errs <- err
		}()
	}
	var all error
	for range services {
		all = errors.Join(all, <-errs)
	}
	return all
}

// meant leaves out what is so because the members of a node were stopped for its disk: one line says that. What the
// others lack for it stays.
func (a *Agent) meant(c *model.Cluster, all []health.Condition, out string) []health.Condition {
	if out == "" {
		return all
	}
	stopped := a.drainable(c)
	return slices.DeleteFunc(all, func(cond health.Condition) bool {
		svc := cond.Service
		if cond.Code == "drift" { // "ctl1: galera/ctl1/unit:mariadb.service: is inactive"
			svc, _, _ = strings.Cut(cond.Text, "/")
		}
		_, ok := stopped[svc]
		return ok && cond.Node == out
	})
}

// diskConditions says which disks fill, and what was done about it. out is the node that is out for its disk.
func (a *Agent) diskConditions(c *model.Cluster, nodes []api.NodeStatus, out string) []health.Condition {
	decided := disk.Decide(a.quorumMembers(c, nodes), out)
	var list []health.Condition
	for _, n := range nodes {
		if n.Report == nil && n.Node != out {
			continue
		}
		var levels []disk.Level
		if n.Report != nil {
			levels = n.Report.Disks
		}
		why := ""
		if decided.Act == disk.Nothing {
			why = decided.Reason
		}
		list = append(list, disk.Conditions(n.Node, levels, n.Node == out, why)...)
	}
	return list
}
