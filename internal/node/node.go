// Package node is the node side of a plan: it observes the resources of one node
// and brings one at a time into its desired state.
//
// Invariants: what is already as it should be is not touched (an op is safe to repeat,
// after a crash at any point too); a resource counts as applied only when it was
// observed to be so afterwards; the resources are computed here, and an op whose
// hash says that the leader computed others is refused. It must never put a secret or a
// file's content into a reason or an error, and never decide about other nodes.
package node

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"nines/internal/host"
	"nines/internal/model"
	"nines/internal/plan"
	"nines/internal/secret"
	"nines/internal/service"
)

// Times that bound what the executor waits for.
const (
	checkTimeout  = 5 * time.Second        // one Check of an action; no answer is "unknown"
	checkInterval = 250 * time.Millisecond // between two looks at something that is waited for
	settleTime    = 5 * time.Second        // for an action's Check to say "done" after its Run
)

// Options of an Executor.
type Options struct {
	Host     host.Host
	Services []service.Service
	// Node needs a name only: the rest comes from the cluster of each call.
	Node model.Node
	// StateDir is where it remembers what units were started with; model.PathState if empty.
	StateDir string
	Log      *slog.Logger
	Now      func() time.Time // time.Now if nil
}

// Executor observes and applies resources of one node. It is safe for concurrent use.
type Executor struct {
	host     host.Host
	services []service.Service
	node     string
	state    string
	log      *slog.Logger
	now      func() time.Time

	locks sync.Map // plan.ID -> *sync.Mutex: an op that is sent again waits for the first
}

// New returns an executor; it does no I/O.
func New(o Options) *Executor {
	if o.StateDir == "" {
		o.StateDir = model.PathState
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Executor{host: o.Host, services: o.Services, node: o.Node.Name, state: o.StateDir, log: o.Log, now: o.Now}
}

// ErrHashMismatch is what a HashMismatchError is.
var ErrHashMismatch = errors.New("this agent computes another resource than the leader")

// HashMismatchError says that leader and agent do not mean the same thing by an op: their
// versions differ, or their secrets.
type HashMismatchError struct {
	ID         plan.ID
	Want, Have string // the leader's hash, and this agent's; empty: it knows no such resource
}

func (e *HashMismatchError) Error() string {
	if e.Have == "" {
		return fmt.Sprintf("%s: this agent knows no such resource", e.ID)
	}
	return fmt.Sprintf("%s: %v (%s, not %s)", e.ID, ErrHashMismatch, e.Have, e.Want)
}

// Is makes it an ErrHashMismatch.
func (e *HashMismatchError) Is(target error) bool { return target == ErrHashMismatch }

// Hint says what to do now.
func (e *HashMismatchError) Hint() string {
	return "the agent's version differs: run 'nines upgrade agents', then apply again"
}

// hinted is an error with what to do about it.
type hinted struct {
	text string
	hint string
	err  error
}

func (e *hinted) Error() string {
	if e.err == nil {
		return e.text
	}
	return e.text + ": " + e.err.Error()
}

func (e *hinted) Unwrap() error { return e.err }

// Hint says what to do now.
func (e *hinted) Hint() string { return e.hint }

// hintOf returns the hint nearest to the surface of err.
func hintOf(err error) string {
	var h interface{ Hint() string }
	if errors.As(err, &h) {
		return h.Hint()
	}
	return ""
}

// desired is what the services want for one cluster, seen from this node.
type desired struct {
	all    map[plan.ID]plan.Resource // of all nodes
	here   []plan.Resource           // of this node, in the order of declaration
	env    service.Env
	actors map[string]map[string]service.Action // service -> action -> functions
	redact redactor
}

func (x *Executor) desired(c *model.Cluster, s secret.Source) (*desired, error) {
	n, ok := c.Node(x.node)
	if !ok {
		return nil, &hinted{text: fmt.Sprintf("node %s is not in cluster %s", x.node, c.Name),
			hint: "check the nodes in cluster.yaml: was this one removed or renamed?"}
	}
	d := &desired{all: map[plan.ID]plan.Resource{}, actors: map[string]map[string]service.Action{},
		env:    service.Env{Host: x.host, Cluster: c, Node: n, Secrets: s, Log: x.log},
		redact: newRedactor(x.services, c, s)}
	for _, svc := range x.services {
		if !c.Runs(svc.Name()) {
			continue
		}
		rs, err := svc.Resources(c, s)
		if err != nil {
			return nil, fmt.Errorf("resources of %s: %w", svc.Name(), d.redact.err(err))
		}
		for _, r := range rs {
			d.all[r.ID] = r
			if r.Node == x.node {
				d.here = append(d.here, r)
			}
		}
		if a, ok := svc.(service.Actor); ok {
			d.actors[svc.Name()] = a.Actions()
		}
	}
	return d, nil
}

// action finds the functions of an action of the service that owns the resource.
func (d *desired) action(svc string, a plan.Action) (service.Action, error) {
	act, ok := d.actors[svc][a.Name]
	if !ok {
		return service.Action{}, &hinted{text: fmt.Sprintf("service %s has no action %q", svc, a.Name),
			hint: "the agent's version differs: run 'nines upgrade agents', then apply again"}
	}
	return act, nil
}
