package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"nines/internal/host"
	"nines/internal/model"
	"nines/internal/plan"
	"nines/internal/secret"
)

// Apply brings one resource into its desired state, if the leader's hash says that it means the
// same. What is already done is not done again (Changed is false). The result's Error and Hint
// are those of the error.
func (x *Executor) Apply(ctx context.Context, c *model.Cluster, s secret.Source, id plan.ID, hash string) (plan.Result, error) {
	mu, _ := x.locks.LoadOrStore(id, &sync.Mutex{})
	mu.(*sync.Mutex).Lock()
	defer mu.(*sync.Mutex).Unlock()

	started := x.now()
	changed, err := x.apply(ctx, c, s, id, hash)
	res := plan.Result{ID: id, Started: started, Took: x.now().Sub(started), Changed: changed}
	if err != nil {
		res.Error, res.Hint = err.Error(), hintOf(err)
	}
	return res, err
}

func (x *Executor) apply(ctx context.Context, c *model.Cluster, s secret.Source, id plan.ID, hash string) (bool, error) {
	d, err := x.desired(c, s)
	if err != nil {
		return false, err
	}
	r, ok := d.all[id]
	if !ok {
		return false, &HashMismatchError{ID: id, Want: hash}
	}
	if have := r.Hash(d.all); have != hash {
		return false, &HashMismatchError{ID: id, Want: hash, Have: have}
	}
	if r.Node != x.node {
		return false, fmt.Errorf("%s belongs to node %s, this is %s", id, r.Node, x.node)
	}
	before := x.newLook(d).status(ctx, r)
	if before.State == plan.InSync {
		return false, nil
	}
	x.log.Debug("applying", "id", id, "state", before.State, "change", before.Change, "reason", before.Reason)
	switch {
	case r.Packages != nil:
		err = x.host.InstallPackages(ctx, r.Packages.Names)
	case r.File != nil:
		err = x.applyFile(ctx, *r.File)
	case r.Unit != nil:
		err = x.applyUnit(ctx, d, r)
	case r.Action != nil:
		err = x.runAction(ctx, d, r.Service, *r.Action)
	}
	if err == nil {
		err = x.verify(ctx, d, r)
	}
	return true, d.redact.err(err)
}

// verify observes again. An action may take a moment until its effect is seen, and a unit that
// has just answered may be late once while everything else on the node starts.
func (x *Executor) verify(ctx context.Context, d *desired, r plan.Resource) error {
	patience := time.Duration(0)
	if r.Action != nil || r.Unit != nil && r.Unit.Ready != nil {
		patience = settleTime
	}
	var st plan.Status
	err := poll(ctx, patience, func() (bool, error) {
		st = x.newLook(d).status(ctx, r)
		return st.State == plan.InSync, nil
	})
	if errors.Is(err, errPatience) {
		return &hinted{text: fmt.Sprintf("%s was applied and is still %s: %s", r.ID, st.State, st.Reason),
			hint: "is something else on the node changing it (another configuration program)? apply again"}
	}
	return err
}

// errPatience says that poll gave up.
var errPatience = errors.New("not done in time")

// poll calls done at once and then every checkInterval, until it is true or fails, or
// patience is over (errPatience).
func poll(ctx context.Context, patience time.Duration, done func() (bool, error)) error {
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(checkInterval)
	defer tick.Stop()
	for {
		ok, err := done()
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case ok || err != nil:
			return err
		case patience == 0:
			return errPatience
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-deadline.C:
			patience = 0 // one last look
		case <-tick.C:
		}
	}
}

// unitDirs hold what systemd reads again only when told to.
var unitDirs = []string{"/etc/systemd/system/", "/run/systemd/system/", "/usr/local/lib/systemd/system/"}

func (x *Executor) applyFile(ctx context.Context, f plan.File) error {
	err := x.host.WriteFile(ctx, host.File{Path: f.Path, Mode: f.Mode, Owner: f.Owner, Group: f.Group, Content: f.Content}, f.Validate)
	if err != nil {
		return err
	}
	for _, dir := range unitDirs {
		if strings.HasPrefix(f.Path, dir) {
			// A crash before this is harmless: the host looks whether it is needed before it starts a unit.
			return x.host.ReloadUnitFiles(ctx)
		}
	}
	return nil
}

// runAction runs an action of a service within its time.
func (x *Executor) runAction(ctx context.Context, d *desired, svc string, a plan.Action) error {
	act, err := d.action(svc, a)
	if err != nil {
		return err
	}
	if act.Run == nil {
		return fmt.Errorf("action %s of %s cannot be run", a.Name, svc)
	}
	limit := timeout(a)
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not done within %s", limit))
	defer cancel()
	if err := act.Run(ctx, d.env, a.Args); err != nil {
		if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) {
			err = fmt.Errorf("%w (%w)", cause, err)
		}
		return fmt.Errorf("%s: %w", a.Name, err)
	}
	return nil
}

func timeout(a plan.Action) time.Duration {
	if a.Timeout > 0 {
		return a.Timeout
	}
	return plan.DefaultTimeout
}

// applyUnit does what decide said, records what the unit runs with, enables it, and waits until it serves.
func (x *Executor) applyUnit(ctx context.Context, d *desired, r plan.Resource) error {
	v, err := x.newLook(d).unitView(ctx, r)
	if err != nil {
		return err
	}
	st := v.decide()
	if err := refuse(v, st); err != nil {
		return err
	}
	switch st.Change {
	case changeStart, changeRestart:
		err = x.start(ctx, d, r, st.Change == changeRestart)
	case changeReload:
		err = x.host.ReloadUnit(ctx, r.Unit.Name)
	case changeStop:
		err = x.host.StopUnit(ctx, r.Unit.Name)
	default:
		err = x.nudge(ctx, d, r)
	}
	if err != nil {
		return err
	}
	if r.Unit.Running {
		if err := x.remember(ctx, v, r, st.Change); err != nil {
			return err
		}
	}
	if err := x.enable(ctx, *r.Unit); err != nil {
		return err
	}
	if !r.Unit.Running || r.Unit.Ready == nil {
		return nil
	}
	return x.waitReady(ctx, d, r)
}

// nudge runs the Start of a unit that runs and is not ready: it may know that waiting would be in vain.
func (x *Executor) nudge(ctx context.Context, d *desired, r plan.Resource) error {
	if !r.Unit.Running || r.Unit.Start == nil || r.Unit.Ready == nil {
		return nil
	}
	if ready, _, err := x.newLook(d).check(ctx, r.Service, *r.Unit.Ready); err != nil || ready {
		return err
	}
	return x.start(ctx, d, r, false)
}

// refuse stops an op that cannot end well.
func refuse(v unitView, st plan.Status) error {
	if strings.HasPrefix(v.state.FileState, "masked") && st.Change == changeStart {
		return &hinted{text: v.want.Name + " is masked: somebody forbade it to start",
			hint: fmt.Sprintf("if that is over, run 'systemctl unmask %s' on the node and apply again", v.want.Name)}
	}
	if st.Change != changeStart && st.Change != changeRestart && st.Change != changeReload {
		return nil
	}
	for _, in := range append(append([]input{}, v.restartOn...), v.reloadOn...) {
		if !in.inPlace {
			return &hinted{text: fmt.Sprintf("%s %s: %s is not as it should be", st.Change, v.want.Name, in.name),
				hint: "it changed since the plan was made: apply again"}
		}
	}
	return nil
}

// start starts or restarts the unit, by the service's own action where it has one.
func (x *Executor) start(ctx context.Context, d *desired, r plan.Resource, restart bool) error {
	if a := r.Unit.Start; a != nil {
		start := *a
		start.Args = maps.Clone(a.Args)
		if start.Args == nil {
			start.Args = map[string]string{}
		}
		start.Args["restart"] = strconv.FormatBool(restart)
		return x.runAction(ctx, d, r.Service, start)
	}
	if restart {
		return x.host.RestartUnit(ctx, r.Unit.Name)
	}
	return x.host.StartUnit(ctx, r.Unit.Name)
}

// remember records what the unit runs with. The view is from before the unit read its files: what
// changed since then does not count as read.
func (x *Executor) remember(ctx context.Context, v unitView, r plan.Resource, change string) error {
	st, err := x.host.Unit(ctx, r.Unit.Name)
	if err != nil {
		return err
	}
	if !running(st) && (st.Active != "activating" || r.Unit.Ready == nil) {
		return x.died(ctx, r.Unit.Name, change, st)
	}
	if change != changeStart && change != changeRestart && change != changeReload {
		return nil // nothing was read
	}
	rec := v.newRecord()
	if change == changeReload && v.record != nil {
		rec.keepStarted(v)
	}
	rec.Invocation = st.Invocation
	return x.writeRecord(ctx, r.Unit.Name, rec)
}

// keepStarted leaves in the record what a reload does not read again.
func (r *record) keepStarted(v unitView) {
	if !v.ours() {
		return // decide has found that it started with the files as they are
	}
	r.Restart = v.record.Restart
	for _, in := range v.restartOn {
		if was, ok := v.record.Inputs[in.id]; ok {
			r.Inputs[in.id] = was
		}
	}
}

func (x *Executor) enable(ctx context.Context, u plan.Unit) error {
	st, err := x.host.Unit(ctx, u.Name)
	if err != nil || !canEnable(st) || st.Enabled == u.Enabled {
		return err
	}
	return x.host.EnableUnit(ctx, u.Name, u.Enabled)
}

// maxRestarts is how often a unit may start anew while its readiness is waited for.
const maxRestarts = 3

// waitReady waits until the unit's Ready says that it serves. A unit that dies meanwhile ends the wait.
func (x *Executor) waitReady(ctx context.Context, d *desired, r plan.Resource) error {
	limit := timeout(*r.Unit.Ready)
	l := x.newLook(d)
	invocations := map[string]bool{}
	reason := ""
	err := poll(ctx, limit, func() (bool, error) {
		st, err := x.host.Unit(ctx, r.Unit.Name)
		if err != nil {
			return false, err
		}
		invocations[st.Invocation] = true
		if st.Active == "failed" || st.Active == "inactive" || len(invocations) > maxRestarts {
			return false, x.died(ctx, r.Unit.Name, "wait for", st)
		}
		done, why, err := l.check(ctx, r.Service, *r.Unit.Ready)
		if reason = why; err != nil {
			reason = err.Error()
		}
		return done && err == nil, nil
	})
	if errors.Is(err, errPatience) {
		return &hinted{text: fmt.Sprintf("%s runs, but is not ready after %s: %s", r.Unit.Name, limit, oneLine(reason)),
			hint: fmt.Sprintf("look at 'journalctl -u %s' on the node and at the other members, then apply again", r.Unit.Name)}
	}
	return err
}

// died makes the error of a unit that does not stay up.
func (x *Executor) died(ctx context.Context, unit, verb string, st host.UnitState) error {
	if verb == changeEnable || verb == changeWait {
		verb = "wait for"
	}
	result := "the unit " + stateReason(st)
	if running(st) {
		result = "the unit dies and is started again and again"
	}
	return &host.UnitError{Unit: unit, Verb: verb, Result: result, Lines: x.journal(ctx, unit)}
}

// journalLines is how much of a unit's log an error carries.
const journalLines = 15

func (x *Executor) journal(ctx context.Context, unit string) []string {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	out, err := x.host.Run(ctx, host.Cmd{Args: []string{"journalctl", "-u", unit, "-n", strconv.Itoa(journalLines),
		"-o", "cat", "--no-pager", "--quiet", "--boot"}})
	if err != nil {
		return nil
	}
	return strings.Split(strings.TrimSpace(string(out.Stdout)), "\n")
}

func (x *Executor) recordPath(unit string) string {
	return filepath.Join(x.state, "units", unit+".json")
}

// readRecord returns what the unit was started with; nil when that is not known (a
// damaged record is none: the rule for units that others started is then used).
func (x *Executor) readRecord(unit string) *record {
	f, err := x.host.ReadFile(x.recordPath(unit))
	if err != nil {
		return nil
	}
	var r record
	if json.Unmarshal(f.Content, &r) != nil {
		return nil
	}
	return &r
}

func (x *Executor) writeRecord(ctx context.Context, unit string, r record) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	f := host.File{Path: x.recordPath(unit), Mode: 0o600, Content: append(b, '\n')}
	if err := x.host.WriteFile(ctx, f, nil); err != nil {
		return fmt.Errorf("remember what %s was started with: %w", unit, err)
	}
	return nil
}
