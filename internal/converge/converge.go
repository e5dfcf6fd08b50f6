// Package converge is the leader's side of a plan: it asks every agent what is,
// builds the plan, hands each op to the agent of its node in the order the graph
// allows, and keeps the journal in the store, so that the CLI may go away and a new
// leader may take over in the middle.
//
// Invariants: one apply at a time; every write of the journal and every op carries
// the leader's fence; an op is safe to send again. It must never touch a machine itself.
package converge

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"nines/internal/model"
	"nines/internal/plan"
	"nines/internal/secret"
	"nines/internal/service"
	"nines/internal/store"
)

// LeaderLease is the name of the lease the leader holds.
const LeaderLease = "leader"

// Keys of the store.
const (
	KeySpec    = "spec"    // the Cluster last applied, JSON
	KeySecrets = "secrets" // sealed bundle
	KeyApply   = "apply/current"
	prefixOps  = "apply/ops/"
)

// ObserveReply is what an agent says of its node.
type ObserveReply struct {
	Resources map[plan.ID]plan.Status        `json:"resources"`
	Services  map[string]service.Observation `json:"services"`
}

// OpRequest asks an agent to bring one resource into its desired state.
type OpRequest struct {
	Fence store.Fence    `json:"fence"`
	Spec  *model.Cluster `json:"spec"`
	ID    plan.ID        `json:"id"`
	Hash  string         `json:"hash"`
}

// Agents reaches the agents of the nodes.
type Agents interface {
	Observe(ctx context.Context, node model.Node, spec *model.Cluster) (ObserveReply, error)
	Op(ctx context.Context, node model.Node, req OpRequest) (plan.Result, error)
}

// Secrets is the cluster's bundle of secrets.
type Secrets interface {
	// Ensure makes the secrets that do not exist yet and returns all.
	Ensure(ctx context.Context, specs []secret.Spec) (secret.Source, error)
}

// Leader plans and applies while it holds the lease.
type Leader struct {
	store    store.Store
	services []service.Service
	agents   Agents
	secrets  Secrets
	fence    store.Fence
	log      *slog.Logger
	now      func() time.Time

	mu      sync.Mutex
	current *Record
	wg      sync.WaitGroup
}

// Options of a Leader.
type Options struct {
	Store    store.Store
	Services []service.Service
	Agents   Agents
	Secrets  Secrets
	Fence    store.Fence
	Log      *slog.Logger
	Now      func() time.Time // time.Now if nil
}

// NewLeader returns the leader that holds the lease with the fence.
func NewLeader(o Options) *Leader {
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Leader{store: o.Store, services: o.Services, agents: o.Agents, secrets: o.Secrets,
		fence: o.Fence, log: o.Log, now: o.Now}
}

// Resources returns everything all services of the cluster want.
func Resources(services []service.Service, c *model.Cluster, s secret.Source) ([]plan.Resource, error) {
	var all []plan.Resource
	for _, svc := range services {
		if !c.Runs(svc.Name()) {
			continue
		}
		rs, err := svc.Resources(c, s)
		if err != nil {
			return nil, fmt.Errorf("resources of %s: %w", svc.Name(), err)
		}
		all = append(all, rs...)
	}
	return all, nil
}

// SecretSpecs returns the secrets all services of the cluster use.
func SecretSpecs(services []service.Service, c *model.Cluster) []secret.Spec {
	var specs []secret.Spec
	for _, svc := range services {
		if u, ok := svc.(service.SecretUser); ok && c.Runs(svc.Name()) {
			specs = append(specs, u.Secrets(c)...)
		}
	}
	return specs
}

// SpecHash names a spec.
func SpecHash(c *model.Cluster) string {
	b, err := json.Marshal(c)
	if err != nil {
		panic(fmt.Sprintf("converge: cluster is not JSON: %v", err)) // plain structs: cannot happen
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])[:16]
}

// PlanHash names what a plan would do: its ops and their hashes, not the reasons.
func PlanHash(p plan.Plan) string {
	h := sha256.New()
	fmt.Fprintln(h, p.Spec)
	for _, op := range p.Ops {
		fmt.Fprintln(h, op.ID, op.Hash, op.Summary)
	}
	return hex.EncodeToString(h.Sum(nil))[:16]
}

// Plan observes every node and says what would change.
func (l *Leader) Plan(ctx context.Context, c *model.Cluster) (plan.Plan, error) {
	secrets, err := l.secrets.Ensure(ctx, SecretSpecs(l.services, c))
	if err != nil {
		return plan.Plan{}, err
	}
	rs, err := Resources(l.services, c, secrets)
	if err != nil {
		return plan.Plan{}, err
	}
	return plan.Build(SpecHash(c), rs, l.observe(ctx, c))
}

// observeTimeout bounds the answer of one agent: a node that takes longer counts as unreachable. Its agent answers for each resource within
// 5 s, or says that it could not tell; most of them side by side.
const observeTimeout = 15 * time.Second

func (l *Leader) observe(ctx context.Context, c *model.Cluster) plan.Observed {
	seen := plan.Observed{Resources: map[plan.ID]plan.Status{}, Unreachable: map[string]string{}, Serving: map[string][]string{}}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, n := range c.Nodes {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, observeTimeout)
			defer cancel()
			reply, err := l.agents.Observe(ctx, n, c)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				seen.Unreachable[n.Name] = err.Error()
				return
			}
			for id, st := range reply.Resources {
				seen.Resources[id] = st
			}
			for name, o := range reply.Services {
				if o.Serving {
					seen.Serving[name] = append(seen.Serving[name], n.Name)
				}
			}
		})
	}
	wg.Wait()
	return seen
}
