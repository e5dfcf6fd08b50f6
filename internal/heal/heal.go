// Package heal is the leader's side of a recovery: it collects evidence from the agents, has the service decide, writes down
// what it is about to do, and has agents do it.
//
// A recovery is one record in the store. It has an epoch, which grows with each attempt, and names the one node that may found in
// that epoch before that node is told to. Every write of it is a compare-and-swap under the leader's fence, and agents
// look at the record and at the fence before each step (Check). So a leader that was replaced changes nothing any more, and a new
// one goes on from the record alone: each Tick decides anew from evidence.
//
// It must never know one service from another, and never decide anything about data itself.
package heal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"nines/internal/model"
	"nines/internal/service"
	"nines/internal/store"
)

// Keys of the store, by service.
const (
	prefixRecord  = "recovery/record/"
	prefixLineage = "recovery/lineage/"
)

// Record is the present, or the last, recovery of a service.
type Record struct {
	Service string `json:"service"`
	Epoch   int64  `json:"epoch"`
	// Open: members may be told to do something under this epoch.
	Open   bool        `json:"open"`
	Leader string      `json:"leader"`
	Fence  store.Fence `json:"fence"`
	// Founder is the only node that may found in this epoch. Pinned is that of the epoch before, if nobody saw what came of it.
	Founder string `json:"founder,omitempty"`
	Pinned  string `json:"pinned,omitempty"`
	Renew   bool   `json:"renew,omitempty"`
	// Settled: what the founder founded was seen at work in this epoch.
	Settled bool `json:"settled,omitempty"`
	// Fenced are nodes whose power was to be taken away, while nothing was at work.
	Fenced map[string]Fencing `json:"fenced,omitempty"`
	// Choice is a person's word, Who said it. Who without a choice: a person wanted it to begin.
	Choice string `json:"choice,omitempty"`
	Who    string `json:"who,omitempty"`
	// Move is what was decided last, on the ground of Evidence. An empty one: all is well.
	Move     service.Move               `json:"move"`
	Evidence map[string]json.RawMessage `json:"evidence,omitempty"`
	Absent   map[string]string          `json:"absent,omitempty"`
	Since    time.Time                  `json:"since,omitzero"`
	Updated  time.Time                  `json:"updated,omitzero"`
	Finished time.Time                  `json:"finished,omitzero"`
	// Log says what was done, the latest last.
	Log []Line `json:"log,omitempty"`
}

// Fencing is how the attempt ended to take a node's power away and give it back.
type Fencing struct {
	At    time.Time `json:"at"`
	Error string    `json:"error,omitempty"`
	// Over: it says nothing any more, because the node was heard of since, or something was at work. It is kept: the next attempt must not be taken for this one.
	Over bool `json:"over,omitempty"`
}

// Line is one thing that a recovery did.
type Line struct {
	At    time.Time `json:"at"`
	Epoch int64     `json:"epoch"`
	Text  string    `json:"text"`
}

// maxLog bounds the log of a record.
const maxLog = 60

func (r *Record) note(now time.Time, text string) {
	r.Log = append(r.Log, Line{At: now, Epoch: r.Epoch, Text: text})
	if n := len(r.Log) - maxLog; n > 0 {
		r.Log = slices.Delete(r.Log, 0, n)
	}
}

// StepRequest asks an agent to do a step.
type StepRequest struct {
	Spec    *model.Cluster   `json:"spec"`
	Service string           `json:"service"`
	Fence   store.Fence      `json:"fence"`
	Epoch   int64            `json:"epoch"`
	Step    service.HealStep `json:"step"`
	// Founding: the step makes a Primary. It is refused on every node but the record's founder.
	Founding bool `json:"founding,omitempty"`
}

// FenceRequest wants a node's power taken away and given back.
type FenceRequest struct {
	ID    string // the same for whoever leads
	Node  string
	Who   string
	Fence store.Fence
}

// Agents reaches the nodes.
type Agents interface {
	// Evidence asks every node that runs the service, side by side. absent says why some did not answer.
	Evidence(ctx context.Context, c *model.Cluster, svc string, epoch int64) (found map[string]json.RawMessage, absent map[string]string)
	// Steps has steps done side by side and returns when all have ended. A step may go on after its caller has gone away.
	Steps(ctx context.Context, steps []StepRequest) error
	// Cycle returns when the power of the node was seen to be off and was given back, or why not. Asked for the same ID again it does nothing more.
	Cycle(ctx context.Context, req FenceRequest) error
}

// State is what a recovery needs of the store.
type State interface {
	store.Reader
	PutFenced(ctx context.Context, lease string, fence store.Fence, key string, value []byte, revision int64) (int64, error)
}

// ErrNothing: there is nothing to recover.
var ErrNothing = errors.New("nothing to recover")

// ErrStale: the step belongs to a recovery, or to a leader, that is over.
var ErrStale = errors.New("the recovery is not the present one")

// Load returns the record of a service and its revision; a service that never was recovered has an empty one.
func Load(ctx context.Context, s store.Reader, svc string) (Record, int64, error) {
	r := Record{Service: svc}
	revision, err := store.ReadJSON(ctx, s, prefixRecord+svc, &r)
	if err != nil {
		return Record{}, 0, fmt.Errorf("read the recovery of %s: %w", svc, err)
	}
	return r, revision, nil
}

// Check is what an agent asks before it does a step: does it belong to the present leader's present epoch?
func Check(ctx context.Context, s store.Reader, fence store.Fence, req StepRequest) error {
	r, _, err := Load(ctx, s, req.Service)
	switch {
	case err != nil:
		return err
	case req.Fence != fence:
		return fmt.Errorf("%w: the leader's fence is %d, the step's %d", ErrStale, fence, req.Fence)
	case !r.Open || r.Epoch != req.Epoch:
		return fmt.Errorf("%w: epoch %d (open: %t), the step's is %d", ErrStale, r.Epoch, r.Open, req.Epoch)
	case req.Founding && r.Founder != req.Step.Node:
		return fmt.Errorf("%w: %q founds in epoch %d", ErrStale, r.Founder, r.Epoch)
	}
	return nil
}

// Engine heals one service while its leader leads.
type Engine struct {
	Name   string
	Healer service.Healer
	State  State
	Agents Agents
	Lease  string
	Fence  store.Fence
	Leader string
	Log    *slog.Logger
	Now    func() time.Time
}

// Lineage is what was written down of the healthy service; nil: nothing.
func (e *Engine) Lineage(ctx context.Context) (json.RawMessage, error) {
	entry, err := e.State.Get(ctx, prefixLineage+e.Name)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the lineage of %s: %w", e.Name, err)
	}
	return entry.Value, nil
}

// Remember writes the lineage.
func (e *Engine) Remember(ctx context.Context, lineage json.RawMessage) error {
	if _, err := e.State.PutFenced(ctx, e.Lease, e.Fence, prefixLineage+e.Name, lineage, store.Any); err != nil {
		return fmt.Errorf("write the lineage of %s: %w", e.Name, err)
	}
	return nil
}

// Look collects evidence and decides, without changing anything.
func (e *Engine) Look(ctx context.Context, c *model.Cluster, waited time.Duration) (Record, service.Move, error) {
	r, _, err := Load(ctx, e.State, e.Name)
	if err != nil {
		return r, service.Move{}, err
	}
	return e.look(ctx, c, r, waited)
}

func (e *Engine) look(ctx context.Context, c *model.Cluster, r Record, waited time.Duration) (Record, service.Move, error) {
	lineage, err := e.Lineage(ctx)
	if err != nil {
		return r, service.Move{}, err
	}
	o := service.Outage{Lineage: lineage, Waited: waited}
	if r.Open {
		o.Epoch, o.Founder, o.Pinned, o.Choice, o.Renew, o.Settled = r.Epoch, r.Founder, r.Pinned, r.Choice, r.Renew, r.Settled
	}
	o.Evidence, r.Absent = e.Agents.Evidence(ctx, c, e.Name, o.Epoch)
	r.Evidence = o.Evidence
	o.Fenced, r.Fenced = e.fenced(r)
	return r, e.Healer.Next(c, o), nil
}

// fenced says of whom it is still true that the power was taken away, and what is to be written down of all.
func (e *Engine) fenced(r Record) (map[string]service.Fenced, map[string]Fencing) {
	known, noted := map[string]service.Fenced{}, maps.Clone(r.Fenced)
	for node, f := range noted {
		if _, answers := r.Evidence[node]; answers {
			f.Over = true
			noted[node] = f
		}
		if r.Open && !f.Over {
			known[node] = service.Fenced{Ago: e.Now().Sub(f.At), Error: f.Error}
		}
	}
	return known, noted
}

// fencedNow reports whether an attempt to take somebody's power away still says something.
func (r Record) fencedNow() bool {
	for _, f := range r.Fenced {
		if !f.Over {
			return true
		}
	}
	return false
}

// Tick does what is to be done next and returns the record as it is then. Without act nothing is begun: the
// record only says what was seen.
func (e *Engine) Tick(ctx context.Context, c *model.Cluster, waited time.Duration, act bool) (Record, service.Move, error) {
	r, rev, err := Load(ctx, e.State, e.Name)
	if err != nil {
		return r, service.Move{}, err
	}
	before := r
	r, m, err := e.look(ctx, c, r, waited)
	if err != nil {
		return r, m, err
	}
	if act && m.Open {
		r = e.opened(r, m)
		return r, m, e.save(ctx, &r, rev)
	}
	wants := m.Done || len(m.Steps) > 0 || m.Open || m.Fence != "" || m.Settled && (!r.Settled || r.fencedNow())
	if !act || !wants {
		return r, m, e.show(ctx, before, &r, m, rev)
	}
	r.Move = m
	if m.Founder != "" && r.Founder != m.Founder {
		if r.Founder != "" {
			return r, m, fmt.Errorf("epoch %d is %s's to found in, not %s's", r.Epoch, r.Founder, m.Founder)
		}
		r.Founder = m.Founder
		r.note(e.Now(), fmt.Sprintf("%s goes first: %s", m.Founder, m.Reason))
	}
	r.Renew, r.Settled = r.Renew || m.Renew, r.Settled || m.Settled
	if m.Settled { // the next outage is another one
		for node, f := range r.Fenced {
			f.Over = true
			r.Fenced[node] = f
		}
	}
	if m.Done {
		r.Open, r.Finished, r.Move = false, e.Now(), service.Move{Left: m.Left}
		r.note(e.Now(), "done: "+m.Reason)
		return r, m, e.save(ctx, &r, rev)
	}
	if m.Fence != "" {
		r.note(e.Now(), "takes the power of "+m.Fence+" away: "+m.Reason)
	}
	for _, batch := range m.Steps {
		for _, s := range batch {
			r.note(e.Now(), inWords(s))
		}
	}
	// Written down first: it is what the agents compare the steps with, and the proof that this leader still leads.
	if err := e.save(ctx, &r, rev); err != nil {
		return r, m, err
	}
	if m.Fence != "" {
		return r, m, e.cycle(ctx, r, m.Fence)
	}
	return r, m, e.do(ctx, c, r, m)
}

// cycle takes a node's power away, gives it back, and writes down what came of it. A leader that takes over in between gives the same order, whose
// ID tells the attempts apart.
func (e *Engine) cycle(ctx context.Context, r Record, node string) error {
	e.Log.Warn("recovery", "service", e.Name, "epoch", r.Epoch, "fences", node)
	attempt := fmt.Sprintf("recovery-%s-%d-%s", e.Name, r.Epoch, node)
	if last, ok := r.Fenced[node]; ok {
		attempt += "-after-" + last.At.UTC().Format(time.RFC3339Nano)
	}
	failure := e.Agents.Cycle(ctx, FenceRequest{ID: attempt, Node: node, Who: "the leader, to recover " + e.Name, Fence: e.Fence})
	now, rev, err := Load(ctx, e.State, e.Name)
	if err != nil {
		return err
	}
	if !now.Open || now.Epoch != r.Epoch {
		return fmt.Errorf("%w: the power of %s was taken away in epoch %d", ErrStale, node, r.Epoch)
	}
	f, text := Fencing{At: e.Now()}, "the power of "+node+" was seen to be off"
	if failure != nil {
		f.Error, text = failure.Error(), "failed: "+failure.Error()
	}
	if now.Fenced == nil {
		now.Fenced = map[string]Fencing{}
	}
	now.Fenced[node] = f
	now.note(e.Now(), text)
	return e.save(ctx, &now, rev)
}

// inWords is a step: "forget ctl1 member=ctl3".
func inWords(s service.HealStep) string {
	text := s.Name + " " + s.Node
	for _, k := range slices.Sorted(maps.Keys(s.Args)) {
		text += " " + k + "=" + s.Args[k]
	}
	return text
}

// opened is the record of the next epoch.
func (e *Engine) opened(r Record, m service.Move) Record {
	next := Record{Service: e.Name, Epoch: r.Epoch + 1, Open: true, Pinned: m.Pinned, Evidence: r.Evidence, Absent: r.Absent,
		Move: m, Since: e.Now(), Log: r.Log}
	if r.Open { // one outage, another attempt
		next.Since, next.Choice, next.Who, next.Renew, next.Fenced = r.Since, r.Choice, r.Who, r.Renew, r.Fenced
	}
	next.note(e.Now(), fmt.Sprintf("epoch %d begins: %s", next.Epoch, m.Reason))
	return next
}

// show writes down what is waited for, if that is news.
func (e *Engine) show(ctx context.Context, before Record, r *Record, m service.Move, rev int64) error {
	if m.Act == "nothing" && !r.Open {
		m = service.Move{Left: before.Move.Left}
	}
	same := before.Move.Diagnosis == m.Diagnosis && before.Move.Act == m.Act && before.Move.Node == m.Node && before.Fence == e.Fence
	if same && (before.Move.Reason == m.Reason || e.Now().Sub(before.Updated) < 5*time.Second) {
		return nil
	}
	if rev == 0 && m.Act == "" {
		return nil
	}
	r.Move = m
	return e.save(ctx, r, rev)
}

func (e *Engine) save(ctx context.Context, r *Record, rev int64) error {
	r.Leader, r.Fence, r.Updated = e.Leader, e.Fence, e.Now()
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("record the recovery of %s: %w", e.Name, err)
	}
	if _, err := e.State.PutFenced(ctx, e.Lease, e.Fence, prefixRecord+e.Name, b, rev); err != nil {
		return fmt.Errorf("record the recovery of %s: %w", e.Name, err)
	}
	return nil
}

// do has the steps done. The first batch with a failure is the last.
func (e *Engine) do(ctx context.Context, c *model.Cluster, r Record, m service.Move) error {
	for _, batch := range m.Steps {
		var reqs []StepRequest
		for _, s := range batch {
			e.Log.Info("recovery", "service", e.Name, "epoch", r.Epoch, "step", s.Name, "node", s.Node)
			reqs = append(reqs, StepRequest{Spec: c, Service: e.Name, Fence: e.Fence, Epoch: r.Epoch, Step: s, Founding: s.Node == m.Founder})
		}
		if err := e.Agents.Steps(ctx, reqs); err != nil {
			return err
		}
	}
	return nil
}

// Failed writes down why a step failed.
func (e *Engine) Failed(ctx context.Context, failure error) error {
	r, rev, err := Load(ctx, e.State, e.Name)
	if err != nil || !r.Open {
		return err
	}
	r.note(e.Now(), "failed: "+failure.Error())
	return e.save(ctx, &r, rev)
}

// Begin opens an epoch at a person's word: at once, and from choice if that is not empty.
func (e *Engine) Begin(ctx context.Context, c *model.Cluster, choice, who string) (Record, error) {
	r, rev, err := Load(ctx, e.State, e.Name)
	if err != nil {
		return r, err
	}
	r, m, err := e.look(ctx, c, r, 0)
	if err != nil {
		return r, err
	}
	if m.Act == "nothing" || m.Done {
		return r, fmt.Errorf("%w: %s", ErrNothing, m.Reason)
	}
	if choice == "" && r.Open {
		return r, nil // it has begun
	}
	m.Reason = "at the word of " + who
	if choice != "" {
		m.Reason += ", from the data of " + choice
	}
	// What was asked of a person has been answered; what follows is decided at the next look.
	m = service.Move{Diagnosis: m.Diagnosis, Act: "wait", Reason: m.Reason}
	if choice == "" {
		m.Pinned = r.Pinned
	}
	// Renew stays: what showed another history may have been cleared away in the epoch before.
	next := e.opened(r, m)
	next.Choice, next.Who = choice, who
	return next, e.save(ctx, &next, rev)
}
