package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"strings"
	"sync"
	"time"

	"nines/internal/host"
	"nines/internal/model"
	"nines/internal/plan"
	"nines/internal/secret"

	"golang.org/x/sync/errgroup"
)

// Observe says of every resource of this node how it stands to its desired state. What cannot
// be told is Unknown, with the reason; the error is for what the services want not being known at all.
func (x *Executor) Observe(ctx context.Context, c *model.Cluster, s secret.Source) (map[plan.ID]plan.Status, error) {
	d, err := x.desired(c, s)
	if err != nil {
		return nil, err
	}
	l := x.newLook(d)
	var mu sync.Mutex
	out := make(map[plan.ID]plan.Status, len(d.here))
	var g errgroup.Group
	g.SetLimit(2 * runtime.GOMAXPROCS(0)) // most of it is work: more at a time only keep the machine's services waiting
	for _, r := range d.here {
		g.Go(func() error {
			st := l.status(ctx, r)
			mu.Lock()
			defer mu.Unlock()
			out[r.ID] = st
			return nil
		})
	}
	_ = g.Wait() // no function returns an error
	return out, ctx.Err()
}

// look is one look at the node: each file is read once, packages are listed once.
type look struct {
	x        *Executor
	d        *desired
	packages func(context.Context) (map[string]string, error)
	mu       sync.Mutex
	files    map[string]func() (host.File, error)
}

func (x *Executor) newLook(d *desired) *look {
	l := &look{x: x, d: d, files: map[string]func() (host.File, error){}}
	var once sync.Once
	var installed map[string]string
	var err error
	l.packages = func(ctx context.Context) (map[string]string, error) {
		once.Do(func() { installed, err = x.host.Packages(ctx) })
		return installed, err
	}
	return l
}

func (l *look) file(path string) (host.File, error) {
	l.mu.Lock()
	read, ok := l.files[path]
	if !ok {
		read = sync.OnceValues(func() (host.File, error) { return l.x.host.ReadFile(path) })
		l.files[path] = read
	}
	l.mu.Unlock()
	return read()
}

// status observes one resource. Its reason holds no secret.
func (l *look) status(ctx context.Context, r plan.Resource) plan.Status {
	var st plan.Status
	switch {
	case r.Packages != nil:
		st = l.packagesStatus(ctx, *r.Packages)
	case r.File != nil:
		st = l.fileStatus(*r.File)
	case r.Unit != nil:
		st = l.unitStatus(ctx, r)
	case r.Action != nil:
		st = l.actionStatus(ctx, r.Service, *r.Action)
	default:
		st = plan.Status{State: plan.Unknown, Reason: "this agent does not know this kind of resource"}
	}
	st.Reason = oneLine(l.d.redact.text(st.Reason))
	return st
}

func unknown(err error) plan.Status {
	return plan.Status{State: plan.Unknown, Reason: err.Error()}
}

func (l *look) packagesStatus(ctx context.Context, p plan.Packages) plan.Status {
	installed, err := l.packages(ctx)
	if err != nil {
		return unknown(err)
	}
	var missing []string
	for _, n := range p.Names {
		if _, ok := installed[n]; !ok {
			missing = append(missing, n)
		}
	}
	if len(missing) > 0 {
		return plan.Status{State: plan.Missing, Reason: "not installed: " + strings.Join(missing, ", ")}
	}
	return plan.Status{State: plan.InSync}
}

func (l *look) fileStatus(want plan.File) plan.Status {
	f, err := l.file(want.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return plan.Status{State: plan.Missing, Reason: "does not exist"}
	}
	if err != nil {
		return plan.Status{State: plan.Drifted, Reason: err.Error()}
	}
	have := plan.File{Path: want.Path, Mode: f.Mode, Owner: f.Owner, Group: f.Group, Content: f.Content}
	if plan.FileHash(have) == plan.FileHash(want) {
		return plan.Status{State: plan.InSync}
	}
	return plan.Status{State: plan.Drifted, Reason: fileDifference(have, want)}
}

// fileDifference says what differs, never what is in it.
func fileDifference(have, want plan.File) string {
	var diff []string
	if string(have.Content) != string(want.Content) {
		diff = append(diff, "content differs")
	}
	if have.Mode.Perm() != want.Mode.Perm() {
		diff = append(diff, fmt.Sprintf("mode %o, want %o", have.Mode.Perm(), want.Mode.Perm()))
	}
	if have.Owner != want.Owner || have.Group != want.Group {
		diff = append(diff, fmt.Sprintf("owner %s:%s, want %s:%s", have.Owner, have.Group, want.Owner, want.Group))
	}
	return strings.Join(diff, "; ")
}

func (l *look) actionStatus(ctx context.Context, svc string, a plan.Action) plan.Status {
	done, reason, err := l.check(ctx, svc, a)
	switch {
	case err != nil:
		return unknown(err)
	case done:
		return plan.Status{State: plan.InSync}
	}
	return plan.Status{State: plan.Missing, Reason: reason}
}

// check asks the action's Check, but does not wait for it longer than checkTimeout, even if it
// does not honour its context.
func (l *look) check(ctx context.Context, svc string, a plan.Action) (done bool, reason string, err error) {
	act, err := l.d.action(svc, a)
	if err != nil {
		return false, "", err
	}
	if act.Check == nil {
		return false, "", fmt.Errorf("action %s of %s cannot be checked", a.Name, svc)
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	type answer struct {
		done   bool
		reason string
		err    error
	}
	answers := make(chan answer, 1)
	go func() {
		done, reason, err := act.Check(ctx, l.d.env, a.Args)
		answers <- answer{done, reason, err}
	}()
	select {
	case got := <-answers:
		return got.done, got.reason, got.err
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return false, "", fmt.Errorf("%s: no answer within %s", a.Name, checkTimeout)
		}
		return false, "", ctx.Err()
	}
}

// unitStatus says what the unit's op would do.
func (l *look) unitStatus(ctx context.Context, r plan.Resource) plan.Status {
	v, err := l.unitView(ctx, r)
	if err != nil {
		return unknown(err)
	}
	st := v.decide()
	if st.State != plan.InSync || !r.Unit.Running || r.Unit.Ready == nil {
		return st
	}
	done, reason, err := l.check(ctx, r.Service, *r.Unit.Ready)
	switch {
	case ctx.Err() != nil:
		return unknown(ctx.Err())
	case err != nil:
		reason = err.Error()
	case done:
		return st
	}
	return plan.Status{State: plan.Drifted, Change: changeWait, Reason: "not ready: " + reason}
}

// unitView gathers what decides about a unit.
func (l *look) unitView(ctx context.Context, r plan.Resource) (unitView, error) {
	v := unitView{want: *r.Unit, fingerprint: r.Fingerprint(l.d.all)}
	var err error
	if v.state, err = l.x.host.Unit(ctx, r.Unit.Name); err != nil {
		return v, err
	}
	v.record = l.x.readRecord(r.Unit.Name)
	v.restartOn = l.inputs(ctx, r.Unit.RestartOn)
	v.reloadOn = l.inputs(ctx, r.Unit.ReloadOn)
	return v, nil
}

// inputs looks at what a unit reads when it starts or reloads.
func (l *look) inputs(ctx context.Context, ids []plan.ID) []input {
	out := make([]input, 0, len(ids))
	for _, id := range ids {
		r, ok := l.d.all[id]
		if !ok {
			continue // plan.Graph refuses such a plan
		}
		in := input{id: id, hash: r.InputHash(l.d.all)}
		switch {
		case r.File != nil:
			in.live = len(r.File.Fixed) > 0
			in.name = r.File.Path
			in.inPlace = l.fileStatus(*r.File).State == plan.InSync
			if f, err := l.file(r.File.Path); err == nil {
				in.changed = f.Changed
			}
		case r.Packages != nil:
			in.name = "package " + strings.Join(r.Packages.Names, ", ")
			in.inPlace = l.packagesStatus(ctx, *r.Packages).State == plan.InSync
			in.changed = l.unpacked(r.Packages.Names)
		default: // an action: neither a time nor a state of its own that the unit could have read
			in.name, in.inPlace = string(id), true
		}
		out = append(out, in)
	}
	return out
}

// unpacked returns when the last of the packages was unpacked: dpkg writes its list of files
// then. Zero if dpkg has no such list.
func (l *look) unpacked(names []string) time.Time {
	var last time.Time
	for _, n := range names {
		for _, arch := range []string{"", ":amd64", ":arm64"} {
			f, err := l.file("/var/lib/dpkg/info/" + n + arch + ".list")
			if err == nil && f.Changed.After(last) {
				last = f.Changed
			}
		}
	}
	return last
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
