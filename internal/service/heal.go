package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"nines/internal/model"
)

// Healer is a Service whose members can all be down, or all cut off, in such a way that none of them may go on by itself: somebody
// who sees all of them has to say which one goes first. The leader asks for evidence, has Next decide, and has
// agents do the steps, each under the epoch of the recovery. Evidence is the service's own: nobody else reads it.
type Healer interface {
	// Watch looks at the latest observations. well: a part of the service is at work, so that nothing is to be recovered. lineage
	// is what must be remembered of it for the day when it is not, nil if that has not changed enough to be written.
	Watch(c *model.Cluster, seen map[string]Observation, last json.RawMessage, now time.Time) (lineage json.RawMessage, well bool)
	// Evidence says what is known of this node's member. It changes nothing and is asked for again and again.
	Evidence(ctx context.Context, env Env, epoch int64) (json.RawMessage, error)
	// Next says what is the matter and what is to be done now. Pure.
	Next(c *model.Cluster, o Outage) Move
	// Step does a step of the recovery with this epoch on this node. It is safe to repeat after a crash at any point. It asks
	// allowed after it has begun to say in its evidence that it is at work: whoever is told that nothing is under way here can
	// rely on it, because a step that comes later asks later, and is told if it belongs to a recovery that is over.
	Step(ctx context.Context, env Env, epoch int64, s HealStep, allowed func(context.Context) error) error
}

// Steps are the steps of a Healer on a node, by name. Whoever holds them does one at a time.
type Steps struct {
	atWork atomic.Pointer[string]
}

// AtWork says which step is under way on this node; "": none.
func (s *Steps) AtWork() string {
	if what := s.atWork.Load(); what != nil {
		return *what
	}
	return ""
}

// Do is Healer.Step for a service whose steps are do.
func (s *Steps) Do(ctx context.Context, env Env, epoch int64, step HealStep, allowed func(context.Context) error,
	do map[string]func(ctx context.Context, env Env, epoch int64, args map[string]string) error) error {
	f, ok := do[step.Name]
	if !ok {
		return fmt.Errorf("there is no step %q: the leader's nines is another one than this node's ('nines upgrade agents')", step.Name)
	}
	what := fmt.Sprintf("%s, epoch %d", step.Name, epoch)
	if !s.atWork.CompareAndSwap(nil, &what) {
		return errors.New("another step of a recovery is under way on this node")
	}
	defer s.atWork.Store(nil)
	if err := allowed(ctx); err != nil {
		return err
	}
	return f(ctx, env, epoch, step.Args)
}

// Outage is what a decision about a recovery is made of.
type Outage struct {
	// Evidence by node; who did not answer is missing.
	Evidence map[string]json.RawMessage
	Lineage  json.RawMessage
	// Epoch of the recovery under way, 0: none. The others are those of its record (heal.Record).
	Epoch                   int64
	Founder, Pinned, Choice string
	Renew, Settled          bool
	// Waited: so long nothing has been at work, as far as this leader has seen.
	Waited time.Duration
	// Fenced are nodes whose power was to be taken away in this outage.
	Fenced map[string]Fenced
}

// Fenced is what came of taking a node's power away and giving it back.
type Fenced struct {
	Ago   time.Duration
	Error string // empty: the power was seen to be off
}

// HealStep is one step on one node.
type HealStep struct {
	Node string            `json:"node"`
	Name string            `json:"name"`
	Args map[string]string `json:"args,omitempty"`
}

// Move is what a recovery does next.
type Move struct {
	Diagnosis string `json:"diagnosis"`
	Act       string `json:"act"`
	Node      string `json:"node,omitempty"`
	Reason    string `json:"reason"`
	Hint      string `json:"hint,omitempty"`
	// Choices are what a person may choose between, where only a person can.
	Choices []Choice `json:"choices,omitempty"`
	// Open: a new epoch is opened before anything else, bound to go on with Pinned if that is not empty.
	Open   bool   `json:"open,omitempty"`
	Pinned string `json:"pinned,omitempty"`
	// Founder is written down before the steps are done: nobody else may found in this epoch. Renew goes with it.
	Founder string `json:"founder,omitempty"`
	Renew   bool   `json:"renew,omitempty"`
	// Fence is a node that does not answer and may yet be at work: its power is taken away, and given back.
	Fence string `json:"fence,omitempty"`
	// Steps are done batch after batch, those of a batch side by side; the first failure ends them.
	Steps [][]HealStep `json:"steps,omitempty"`
	// Left are members that stay stopped until a person has looked at them.
	Left []string `json:"left,omitempty"`
	// Rest: the service is at work again; whoever is still missing is waited for, and need not keep anybody from applying.
	Rest bool `json:"rest,omitempty"`
	// Settled: what the founder founded was seen at work.
	Settled bool `json:"settled,omitempty"`
	// Done: the recovery is over.
	Done bool `json:"done,omitempty"`
}

// Choice is one way for a person to go on: from the data of Node.
type Choice struct {
	Node string `json:"node"`
	// Members have that data, or a part of it.
	Members []string `json:"members"`
	// Data says which it is, in the service's words.
	Data string `json:"data"`
}
