package smoke

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"nines/internal/progress"
)

// Loop says how a loop goes.
type Loop struct {
	// Length is when it ends; 0: when it is interrupted.
	Length time.Duration
	// Limit is how long an operation may take before it has failed.
	Limit time.Duration
}

// OperationLimit is the usual limit: who waits longer has given up.
const OperationLimit = 30 * time.Second

// LoopReport is what users felt while a loop ran.
type LoopReport struct {
	// Steps are what was done before and after; they do not count.
	Steps      []Step      `json:"steps"`
	Operations []Operation `json:"operations"`
	Count      int         `json:"count"`
	Failed     int         `json:"failed"`
	LongestMS  int64       `json:"longest_ms"`
	Longest    string      `json:"longest,omitempty"` // the operation that took so long
	Failures   []Failure   `json:"failures"`
	OK         bool        `json:"ok"`
	TookMS     int64       `json:"took_ms"`
}

// Operation is all operations of one name.
type Operation struct {
	Name      string `json:"name"`
	Count     int    `json:"count"`
	Failed    int    `json:"failed"`
	MedianMS  int64  `json:"median_ms"`
	LongestMS int64  `json:"longest_ms"`

	took []int64
}

// Failure is one operation that failed.
type Failure struct {
	Name   string    `json:"name"`
	At     time.Time `json:"at"` // when it began
	TookMS int64     `json:"took_ms"`
	Error  string    `json:"error"`
}

// Loop makes, reaches and deletes a few things over and over, until ctx ends or the time is over.
func (r *Runner) Loop(ctx context.Context, how Loop) LoopReport {
	began := time.Now()
	r.begin()
	r.removeLeftovers(ctx)
	t := &things{names: names{id: r.ID}}
	l := &loop{Runner: r, base: t, limit: how.Limit}
	err := r.do(ctx, t, r.base())
	if err == nil {
		if how.Length > 0 {
			l.until = time.Now().Add(how.Length)
		}
		l.rounds(ctx)
	}
	l.background.Wait()
	r.cleanUp(ctx)
	report := l.report()
	report.Steps, report.TookMS = r.steps.all(), time.Since(began).Milliseconds()
	report.OK = err == nil && report.Failed == 0 && report.Count > 0 && !r.steps.failed()
	return report
}

// loop is a loop at work.
type loop struct {
	*Runner
	base  *things
	until time.Time // zero: without end
	limit time.Duration

	background sync.WaitGroup // rounds that are cleared up
	operations []*Operation
	failures   []Failure
	longest    Failure // the operation that took longest, failed or not
}

func (l *loop) over(ctx context.Context) bool {
	return ctx.Err() != nil || !l.until.IsZero() && !time.Now().Before(l.until)
}

func (l *loop) rounds(ctx context.Context) {
	for n := 1; !l.over(ctx); n++ {
		failures := len(l.failures)
		l.round(ctx, n)
		if len(l.failures) > failures && ctx.Err() == nil {
			l.background.Go(func() { l.clear(ctx, n) })
		}
	}
}

// round is one set of operations. What needs a thing that could not be made is left out.
func (l *loop) round(ctx context.Context, n int) {
	name := func(what string) string { return l.base.names.of(roundMark(n) + what) }
	var volume, port, server, address Thing
	if l.operation(ctx, "make volume", l.making(&volume, name("volume"), VolumeSpec{GB: 1}, volumeReady)) {
		l.operation(ctx, "delete volume", l.removing(&volume))
	}
	if !l.operation(ctx, "make port", l.making(&port, name("port"), PortSpec{Network: l.base.network, Group: l.base.group}, "")) {
		return
	}
	if l.operation(ctx, "boot instance", l.making(&server, name("instance"), l.base.serverSpec(port), serverReady)) {
		if l.operation(ctx, "make floating address", l.making(&address, name("address"), AddressSpec{External: l.base.external, Port: port}, "")) {
			l.operation(ctx, "reach instance", func(ctx context.Context) (string, error) {
				_, err := l.awaitAnswer(ctx, address.Address, func(a Answer) string { return a.lacks(server.Name, port.Address, l.base.publicKey) })
				return address.Address.String(), err
			})
			l.operation(ctx, "delete floating address", l.removing(&address))
		}
		l.operation(ctx, "delete instance", l.removing(&server))
	}
	l.operation(ctx, "delete port", l.removing(&port))
}

func roundMark(n int) string { return fmt.Sprintf("r%d-", n) }

func (l *loop) making(to *Thing, name string, spec Spec, want string) func(ctx context.Context) (string, error) {
	return func(ctx context.Context) (detail string, err error) {
		*to, err = l.Cloud.Make(ctx, name, spec)
		if err == nil && want != "" {
			err = l.await(ctx, *to, want)
		}
		return to.Name, err
	}
}

func (l *loop) removing(t *Thing) func(ctx context.Context) (string, error) {
	return func(ctx context.Context) (string, error) { return t.Name, l.remove(ctx, *t) }
}

// operation does one operation and counts it, unless the loop is over. It reports whether it was done well.
func (l *loop) operation(ctx context.Context, name string, f func(ctx context.Context) (string, error)) bool {
	if l.over(ctx) {
		return false
	}
	id := "operation/" + name
	l.Emit(progress.Event{ID: id, Title: name, State: progress.Running})
	at := time.Now()
	took, detail, err := timed(ctx, l.limit, f)
	end := progress.Event{ID: id, Title: name, State: progress.Done, Detail: detail, Took: took}
	if ctx.Err() != nil {
		end.State, end.Detail = progress.Skipped, "interrupted"
		l.Emit(end)
		return false
	}
	if err != nil {
		end.State, end.Detail = progress.Failed, err.Error()
	}
	l.Emit(end)
	l.count(Failure{Name: name, At: at.UTC(), TookMS: took.Milliseconds()}, err)
	return err == nil
}

func (l *loop) count(f Failure, err error) {
	i := slices.IndexFunc(l.operations, func(o *Operation) bool { return o.Name == f.Name })
	if i < 0 {
		i = len(l.operations)
		l.operations = append(l.operations, &Operation{Name: f.Name})
	}
	o := l.operations[i]
	o.Count++
	o.took = append(o.took, f.TookMS)
	if l.longest.Name == "" || f.TookMS > l.longest.TookMS {
		l.longest = f
	}
	if err != nil {
		o.Failed++
		f.Error = err.Error()
		l.failures = append(l.failures, f)
	}
}

// clear removes what a round with a failure has left, beside the next rounds: it must not use up the quotas. What it cannot remove
// waits for the end.
func (l *loop) clear(ctx context.Context, n int) {
	ctx, cancel := context.WithTimeout(ctx, limitCleanup)
	defer cancel()
	quiet := *l.Runner
	quiet.steps = &recorder{emit: progress.Discard, log: l.Log}
	_ = quiet.sweep(ctx, func(owner names, what string) bool { return owner.id == l.ID && strings.HasPrefix(what, roundMark(n)) })
}

func (l *loop) report() LoopReport {
	r := LoopReport{Operations: []Operation{}, Failures: append([]Failure{}, l.failures...), Longest: l.longest.Name, LongestMS: l.longest.TookMS}
	for _, o := range l.operations {
		slices.Sort(o.took)
		o.MedianMS, o.LongestMS = o.took[len(o.took)/2], o.took[len(o.took)-1]
		r.Count += o.Count
		r.Failed += o.Failed
		r.Operations = append(r.Operations, *o)
	}
	return r
}
