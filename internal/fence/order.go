package fence

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"nines/internal/model"
)

// Action is what is done to a machine's power.
type Action string

// The actions.
const (
	TurnOff Action = "off"
	TurnOn  Action = "on"
	Cycle   Action = "cycle" // off, and on again
)

// steps are the states of power an action goes through.
var steps = map[Action][]Power{TurnOff: {Off}, TurnOn: {On}, Cycle: {Off, On}}

// Order is an action as the store has it: one at a time in a cluster, so that no two of them together take
// a quorum away.
type Order struct {
	ID     string `json:"id"` // of who gave it: the same order given twice is one
	Node   string `json:"node"`
	Action Action `json:"action"`
	Who    string `json:"who"`
	// Fence is the leader's under which it was given.
	Fence int64 `json:"fence"`
	// Executor is the node whose agent does it: never the one whose power is switched.
	Executor string    `json:"executor"`
	Since    time.Time `json:"since"`
	// Touched is when the executor wrote last. Todo is what is left to do.
	Touched  time.Time `json:"touched"`
	Todo     []Power   `json:"todo,omitempty"`
	Finished time.Time `json:"finished,omitzero"`
	Error    string    `json:"error,omitempty"`
	Hint     string    `json:"hint,omitempty"`
}

// NewOrder begins an order.
func NewOrder(id, node string, action Action, who string, now time.Time) (Order, error) {
	todo, ok := steps[action]
	if !ok {
		return Order{}, fmt.Errorf("unknown action %q: off, on or cycle", action)
	}
	return Order{ID: id, Node: node, Action: action, Who: who, Since: now, Touched: now, Todo: todo}, nil
}

// Open reports whether there is something left to do.
func (o Order) Open() bool { return o.Finished.IsZero() && o.ID != "" }

// orphanedAfter is longer than a step may take.
const orphanedAfter = switchLimit + 30*time.Second

// Orphaned reports whether its executor must be gone: another one goes on, which is harmless, because each step
// asks for a state and not for a change.
func (o Order) Orphaned(now time.Time) bool { return o.Open() && now.Sub(o.Touched) > orphanedAfter }

// Stepped is the order after its first step has ended.
func (o Order) Stepped(err error, now time.Time) Order {
	o.Touched = now
	if err != nil {
		o.Finished, o.Error = now, err.Error()
		if h, ok := err.(interface{ Hint() string }); ok {
			o.Hint = h.Hint()
		}
		return o
	}
	if o.Todo = o.Todo[1:]; len(o.Todo) == 0 {
		o.Finished = now
	}
	return o
}

// WasOff reports whether the machine's power was seen to be off. It may not have come back.
func (o Order) WasOff() bool {
	return o.ID != "" && slices.Contains(steps[o.Action], Off) && !slices.Contains(o.Todo, Off)
}

// QuorumError says that a machine's power is needed.
type QuorumError struct {
	Node    string
	Service string
	Left    []string // who would go on
	Need    int
}

func (e *QuorumError) Error() string {
	left := strings.Join(e.Left, ", ")
	if left == "" {
		left = "nobody"
	}
	return fmt.Sprintf("the power of %s is not taken away: of %s only %s would be left, and %d are needed", e.Node, e.Service, left, e.Need)
}

// Hint says what to do now.
func (e *QuorumError) Hint() string {
	return "bring the other members back first; 'nines status' shows them"
}

// Spare returns a *QuorumError if the cluster would lose a quorum with the node's power. serving says, for each
// service, which controllers do their part in it. A quorum that is lost already is no reason to spare anybody.
func Spare(c *model.Cluster, node string, serving map[string][]string) error {
	n, ok := c.Node(node)
	if !ok || !n.Has(model.RoleController) {
		return nil
	}
	need := model.Quorum(len(c.Controllers()))
	for _, service := range slices.Sorted(maps.Keys(serving)) {
		var now, left []string
		for _, m := range c.Controllers() {
			if !slices.Contains(serving[service], m.Name) {
				continue
			}
			now = append(now, m.Name)
			if m.Name != node {
				left = append(left, m.Name)
			}
		}
		if len(now) >= need && len(left) < need {
			return &QuorumError{Node: node, Service: service, Left: left, Need: need}
		}
	}
	return nil
}
