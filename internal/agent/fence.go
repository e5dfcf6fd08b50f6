package agent

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"nines/internal/api"
	"nines/internal/converge"
	"nines/internal/fence"
	"nines/internal/health"
	"nines/internal/model"
	"nines/internal/service"
	"nines/internal/store"
)

// Keys of the store.
const (
	keyOrder    = "fence/order" // the latest order, fence.Order
	keyBMCTests = "fence/tests" // what the leader's latest tests showed, by model.Level.Key
)

// How often the leader tests the BMCs, those in trouble more often, and how often it looks whether an order lost its executor. A BMC is a slow
// computer, and one that broke is rarely needed within minutes; one that is back (its machine may have been without any power) should be said to be.
const (
	testBMCsEvery   = 3 * time.Minute
	testTroubled    = 20 * time.Second
	lookAfterOrders = 15 * time.Second
	// answersWithin bounds the question whether the agent of a machine whose power is said to be off answers.
	answersWithin = 2 * time.Second
)

// device is a BMC with what this node knows to be let in.
func (a *Agent) device(l model.Level) (fence.Device, error) {
	password, err := a.secrets.Get(l.PasswordSecret())
	if err != nil {
		return fence.Device{}, &fence.Error{Level: l, Trouble: fence.Credentials, Err: errors.New("its password was never handed over")}
	}
	certificate, _ := a.secrets.Get(l.CertificateSecret()) // none before the first test
	return fence.Device{Level: l, Password: password, Certificate: certificate}, nil
}

// withBMC returns the named nodes, or all, that have a BMC.
func withBMC(c *model.Cluster, names []string) ([]model.Node, error) {
	var out []model.Node
	for _, name := range names {
		n, ok := c.Node(name)
		if !ok {
			return nil, &api.Error{Status: http.StatusBadRequest, Code: api.CodeInvalid, Text: "the cluster has no node " + name}
		}
		if !n.HasBMC() {
			return nil, noBMC(name)
		}
		out = append(out, n)
	}
	if len(names) > 0 {
		return out, nil
	}
	return slices.DeleteFunc(slices.Clone(c.Nodes), func(n model.Node) bool { return !n.HasBMC() }), nil
}

// bmcsOf is withBMC of the cluster as it was last applied.
func bmcsOf(ctx context.Context, s store.Store, names []string) (*model.Cluster, []model.Node, error) {
	c, err := converge.LastSpec(ctx, s)
	if err != nil {
		return nil, nil, err
	}
	nodes, err := withBMC(c, names)
	return c, nodes, err
}

// leading is what a request to the leader needs, if this agent is it.
func (a *Agent) leading(ctx context.Context) (*leadership, store.Store, error) {
	l, err := a.leaderOrRedirect(ctx)
	if err != nil {
		return nil, nil, err
	}
	s, err := a.openedStore()
	return l, s, err
}

func noBMC(node string) error {
	return &api.Error{Status: http.StatusBadRequest, Code: api.CodeInvalid, Text: node + " has no bmc in cluster.yaml as it was last applied",
		Next: "add bmc: {protocol: ..., address: ..., user: ...} to the node, then 'nines apply'"}
}

// testBMCs tests the nodes' BMCs from this node, side by side.
func (a *Agent) testBMCs(ctx context.Context, nodes []model.Node) []fence.Result {
	var tests []func() fence.Result
	for _, n := range nodes {
		for _, l := range n.Levels() {
			tests = append(tests, func() fence.Result { return a.testBMC(ctx, n, l) })
		}
	}
	out := make([]fence.Result, len(tests))
	var wg sync.WaitGroup
	for i, test := range tests {
		wg.Go(func() { out[i] = test() })
	}
	wg.Wait()
	return out
}

func (a *Agent) testBMC(ctx context.Context, n model.Node, l model.Level) fence.Result {
	d, err := a.device(l)
	var e *fence.Error
	if errors.As(err, &e) {
		return fence.Result{Node: l.Node, Level: l.Number, Address: l.BMC.Address, Protocol: l.BMC.Protocol, At: time.Now().UTC(), Trouble: e.Trouble, Text: e.Err.Error()}
	}
	r := fence.Test(ctx, d)
	if r.Power == fence.Off && a.answers(ctx, n) {
		// It may have booted between the two questions.
		if r = fence.Test(ctx, d); r.Power == fence.Off {
			r.Trouble, r.Text = fence.OtherMachine, "it says that the power is off, but the machine's agent answers"
		}
	}
	return r
}

func (a *Agent) answers(ctx context.Context, n model.Node) bool {
	ctx, cancel := context.WithTimeout(ctx, answersWithin)
	defer cancel()
	_, err := a.peers.Version(ctx, api.NodeAddr(n))
	return err == nil
}

// testAsLeader tests BMCs, keeps certificates that are seen for the first time, and notes the results for everybody's status.
func (a *Agent) testAsLeader(ctx context.Context, s store.Store, lease store.Fence, nodes []model.Node) ([]fence.Result, error) {
	if _, err := a.secrets.refresh(ctx); err != nil {
		return nil, err
	}
	results := a.testBMCs(ctx, nodes)
	fresh := map[string]string{}
	for _, r := range results {
		if r.Certificate != "" {
			fresh[r.Of().CertificateSecret()] = r.Certificate
		}
	}
	if len(fresh) > 0 {
		if err := a.secrets.Merge(ctx, fresh); err != nil {
			return results, err
		}
	}
	return results, a.noteBMCs(ctx, s, lease, results)
}

func (a *Agent) noteBMCs(ctx context.Context, s store.Store, lease store.Fence, results []fence.Result) error {
	for {
		known, rev, err := bmcTests(ctx, s)
		if err != nil {
			return err
		}
		for _, r := range results {
			// A test of a BMC that hung ends after one that began later. One from the future had a wrong clock.
			if at := known[r.Of().Key()].At; !at.After(r.At) || at.After(time.Now()) {
				known[r.Of().Key()] = r
			}
		}
		raw, err := json.Marshal(known)
		if err != nil {
			return err
		}
		if _, err = s.PutFenced(ctx, converge.LeaderLease, lease, keyBMCTests, raw, rev); !errors.Is(err, store.ErrConflict) {
			return err
		}
	}
}

// bmcTests reads what the latest tests showed.
func bmcTests(ctx context.Context, s store.Reader) (map[string]fence.Result, int64, error) {
	known := map[string]fence.Result{}
	rev, err := store.ReadJSON(ctx, s, keyBMCTests, &known)
	if err != nil {
		return nil, 0, fmt.Errorf("tests of BMCs: %w", err)
	}
	return known, rev, nil
}

// watchBMCs tests the BMCs while this node leads, after each apply and every few minutes.
func (a *Agent) watchBMCs(ctx context.Context, s store.Store, lease store.Fence) {
	changes := s.Watch(ctx, converge.KeySpec, 0)
	var due testsDue
	for ctx.Err() == nil {
		c, err := converge.LastSpec(ctx, s)
		if err == nil {
			nodes, _ := withBMC(c, nil) // without names it does not fail
			if nodes = due.of(nodes, time.Now()); len(nodes) > 0 {
				var results []fence.Result
				results, err = a.testAsLeader(ctx, s, lease, nodes)
				due.note(results)
			}
		}
		if err != nil && !errors.Is(err, converge.ErrNoApply) && ctx.Err() == nil {
			a.Log.Warn("tests of BMCs", "err", err)
		}
		again := time.NewTimer(due.in(time.Now()))
		select {
		case <-ctx.Done():
		case <-again.C:
		case _, open := <-changes:
			due = testsDue{}
			if !open {
				pause(ctx, time.Second)
				changes = s.Watch(ctx, converge.KeySpec, 0)
			}
		}
		again.Stop()
	}
}

// testsDue knows whose BMCs are to be tested next. The zero value: all.
type testsDue struct {
	all      time.Time // when all were
	troubled map[string]bool
}

func (d *testsDue) of(nodes []model.Node, now time.Time) []model.Node {
	if now.Sub(d.all) >= testBMCsEvery {
		*d = testsDue{all: now}
		return nodes
	}
	return slices.DeleteFunc(nodes, func(n model.Node) bool { return !d.troubled[n.Name] })
}

func (d *testsDue) note(results []fence.Result) {
	d.troubled = map[string]bool{}
	for _, r := range results {
		if r.Trouble != "" {
			d.troubled[r.Node] = true
		}
	}
}

// in is when the next tests are due.
func (d *testsDue) in(now time.Time) time.Duration {
	if len(d.troubled) > 0 {
		return testTroubled
	}
	return max(testTroubled, d.all.Add(testBMCsEvery).Sub(now))
}

// bmcConditions says what is wrong with BMCs, as their latest tests showed. Only who fences needs them.
func bmcConditions(c *model.Cluster, tests map[string]fence.Result) []health.Condition {
	if !c.Fences() {
		return nil
	}
	var out []health.Condition
	for _, n := range c.Nodes {
		for _, l := range n.Levels() {
			r, tested := tests[l.Key()]
			if !tested || r.Trouble == "" || r.Address != l.BMC.Address || r.Protocol != l.BMC.Protocol {
				continue // not tested since it was described so
			}
			out = append(out, bmcCondition(l, r))
		}
	}
	return out
}

func bmcCondition(l model.Level, r fence.Result) health.Condition {
	cond := health.Condition{Severity: health.Warning, Node: l.Node, Service: "bmc", Text: fmt.Sprintf("%s (%s): %s", r.Address, r.Protocol, r.Text), Hint: fence.Hint(r.Trouble, l)}
	if l.Number > 1 {
		cond.Text = "the second, " + cond.Text
	}
	switch r.Trouble {
	case fence.Credentials:
		cond.Code = "bmc-credentials"
	case fence.Certificate:
		cond.Code = "bmc-certificate"
	case fence.Slow:
		cond.Code = "bmc-slow"
	case fence.OtherMachine:
		cond.Code = "bmc-other-machine"
	default:
		cond.Code = "bmc-unreachable"
	}
	return cond
}

// lastOrder reads the latest order; a zero one if there was none.
func lastOrder(ctx context.Context, s store.Reader) (o fence.Order, rev int64, err error) {
	if rev, err = store.ReadJSON(ctx, s, keyOrder, &o); err != nil {
		return fence.Order{}, 0, fmt.Errorf("orders to BMCs: %w", err)
	}
	return o, rev, nil
}

// order begins an order: it is written down under the leader's fence before anybody acts.
func (a *Agent) order(ctx context.Context, s store.Store, lease store.Fence, req api.FenceRequest) (fence.Order, error) {
	last, rev, err := lastOrder(ctx, s)
	if err != nil || last.ID == req.ID {
		return last, err
	}
	if last.Open() && !last.Orphaned(time.Now()) {
		return last, &api.Error{Status: http.StatusConflict, Code: api.CodeBusy, Text: fmt.Sprintf("%s of %s by %s is under way", last.Action, last.Node, last.Who), Next: "one at a time: wait until it has ended"}
	}
	c, err := converge.LastSpec(ctx, s)
	if err != nil {
		return last, err
	}
	if _, err := withBMC(c, []string{req.Node}); err != nil {
		return last, err
	}
	o, err := fence.NewOrder(req.ID, req.Node, req.Action, req.Who, time.Now().UTC())
	if err != nil {
		return o, &api.Error{Status: http.StatusBadRequest, Code: api.CodeInvalid, Text: err.Error()}
	}
	nodes := a.lookAtAll(ctx, c, 0)
	if req.Action != fence.TurnOn {
		if err := fence.Spare(c, req.Node, servingOn(nodes)); err != nil {
			var q *fence.QuorumError
			errors.As(err, &q)
			return o, &api.Error{Status: http.StatusFailedDependency, Code: api.CodeBlocked, Text: q.Error(), Next: q.Hint()}
		}
	}
	if o.Executor = a.executorFor(c, req.Node, nodes); o.Executor == "" {
		return o, &api.Error{Status: http.StatusFailedDependency, Code: api.CodeBlocked, Text: "no other controller's agent answers: nobody is left to switch the power of " + req.Node,
			Next: "bring another controller back, or use the BMC yourself"}
	}
	o.Fence = int64(lease)
	return o, a.hand(ctx, s, lease, c, o, rev)
}

// hand writes the order down and gives it to its executor.
func (a *Agent) hand(ctx context.Context, s store.Store, lease store.Fence, c *model.Cluster, o fence.Order, rev int64) error {
	raw, err := json.Marshal(o)
	if err != nil {
		return err
	}
	if _, err := s.PutFenced(ctx, converge.LeaderLease, lease, keyOrder, raw, rev); err != nil {
		return fmt.Errorf("write the order down: %w", err)
	}
	a.Log.Warn("fencing", "node", o.Node, "action", o.Action, "who", o.Who, "executor", o.Executor)
	if o.Executor == a.Config.Node {
		go a.carryOut(a.life, s, o.ID)
		return nil
	}
	n, _ := c.Node(o.Executor) // it was chosen from the spec
	return a.peers.CarryOut(ctx, n, api.OrderRequest{ID: o.ID})
}

// cycleTimeout bounds an order that is waited for: two steps, and the time until another executor takes them over from one that died.
const cycleTimeout = 5 * time.Minute

// cycle gives an order and waits until the power was seen to be off and was given back. It is carried out by whoever has it, also when this leader goes away;
// one that was given before is only waited for.
func (a *Agent) cycle(ctx context.Context, s store.Store, lease store.Fence, req api.FenceRequest) error {
	ctx, cancel := context.WithTimeout(ctx, cycleTimeout)
	defer cancel()
	changes := s.Watch(ctx, keyOrder, 0)
	o, err := a.order(ctx, s, lease, req)
	for err == nil && o.ID == req.ID && o.Open() {
		if _, open := <-changes; !open {
			return fmt.Errorf("nothing was heard of the order to switch the power of %s: %w", req.Node, cmp.Or(ctx.Err(), store.ErrNoQuorum))
		}
		o, _, err = lastOrder(ctx, s)
	}
	switch {
	case err != nil:
		return err
	case o.ID != req.ID:
		return fmt.Errorf("%s of %s by %s took the place of the order", o.Action, o.Node, o.Who)
	case o.Error != "" && !o.WasOff():
		return errors.New(o.Error)
	}
	return nil
}

// executorFor chooses who switches the node's power: the leader itself, unless it is about its own.
func (a *Agent) executorFor(c *model.Cluster, node string, nodes []api.NodeStatus) string {
	if node != a.Config.Node {
		return a.Config.Node
	}
	for _, n := range nodes {
		if spec, _ := c.Node(n.Node); n.Report != nil && n.Report.Quorum && n.Node != node && spec.Has(model.RoleController) {
			return n.Node
		}
	}
	return ""
}

// servingOn says which nodes do their part in each service. etcd is one of them.
func servingOn(nodes []api.NodeStatus) map[string][]string {
	out := map[string][]string{}
	for _, n := range nodes {
		if n.Report == nil {
			continue
		}
		if n.Report.Quorum {
			out["etcd"] = append(out["etcd"], n.Node)
		}
		for name, o := range n.Report.Services {
			if o.Serving {
				out[name] = append(out[name], n.Node)
			}
		}
	}
	return out
}

// carryOut does the open order of that ID, step by step, and writes down each. It goes on when the leader that gave
// it is gone: that may be the machine whose power it took.
func (a *Agent) carryOut(ctx context.Context, s store.Store, id string) {
	for ctx.Err() == nil {
		o, rev, err := lastOrder(ctx, s)
		if err != nil {
			if !pause(ctx, time.Second) {
				return
			}
			continue
		}
		if o.ID != id || !o.Open() || o.Executor != a.Config.Node {
			return
		}
		err = a.step(ctx, s, o)
		if err != nil {
			a.Log.Warn("fencing", "node", o.Node, "power", o.Todo[0], "err", err)
		}
		if !a.noteStep(ctx, s, o.Stepped(err, time.Now().UTC()), rev) {
			return
		}
	}
}

// step does the order's next step.
func (a *Agent) step(ctx context.Context, s store.Store, o fence.Order) error {
	c, nodes, err := bmcsOf(ctx, s, []string{o.Node})
	if err != nil {
		return err
	}
	if o.Action == fence.Cycle && o.Todo[0] == fence.On {
		a.awaitFencers(ctx, c, o)
	}
	return fence.SwitchBy(ctx, nodes[0].Levels(), a.device, o.Todo[0])
}

// fencersLimit is how long a machine stays off for a fencer that says nothing: one that had counted it out before does not do so again.
const fencersLimit = 20 * time.Second

// awaitFencers waits until whoever else takes power away (Pacemaker) has done so with a machine that an order has switched off. That is harmless now;
// a second after the machine was given its power back, it would be off once more.
func (a *Agent) awaitFencers(ctx context.Context, c *model.Cluster, o fence.Order) {
	n, _ := c.Node(o.Node)
	if !c.Fences() || !n.Has(model.RoleController) {
		return
	}
	for _, svc := range a.Services {
		f, ok := svc.(service.Fencer)
		if !ok || !c.Runs(svc.Name()) {
			continue
		}
		for deadline := time.Now().Add(fencersLimit); time.Now().Before(deadline); {
			if f.Fenced(observationsOf(a.lookAtAll(ctx, c, 0))[svc.Name()])[o.Node].After(o.Since) {
				break
			}
			if !pause(ctx, time.Second) {
				return
			}
		}
	}
}

// noteStep writes an order down; false: somebody else has taken it over. While etcd elects anew, because a
// member lost its power, it is tried again.
func (a *Agent) noteStep(ctx context.Context, s store.Store, o fence.Order, rev int64) bool {
	raw, err := json.Marshal(o)
	if err != nil {
		a.Log.Error("fencing", "err", err)
		return false
	}
	for pause(ctx, 0) {
		_, err := s.Put(ctx, keyOrder, raw, rev)
		if err == nil {
			return true
		}
		if have, _, e := lastOrder(ctx, s); e == nil {
			if have.Touched.Equal(o.Touched) {
				return true // the write took place, its answer was lost
			}
			if errors.Is(err, store.ErrConflict) {
				return false
			}
		}
		if !pause(ctx, time.Second) {
			return false
		}
	}
	return false
}

// adoptOrders gives an order whose executor is gone to another, while this node leads.
func (a *Agent) adoptOrders(ctx context.Context, s store.Store, lease store.Fence) {
	for pause(ctx, lookAfterOrders) {
		o, rev, err := lastOrder(ctx, s)
		if err != nil || !o.Orphaned(time.Now()) {
			continue
		}
		c, err := converge.LastSpec(ctx, s)
		if err != nil {
			continue
		}
		if o.Executor = a.executorFor(c, o.Node, a.lookAtAll(ctx, c, 0)); o.Executor == "" {
			continue
		}
		o.Fence, o.Touched = int64(lease), time.Now().UTC()
		if err := a.hand(ctx, s, lease, c, o, rev); err != nil {
			a.Log.Warn("fencing", "node", o.Node, "err", err)
		}
	}
}

func (a *Agent) postFence(w http.ResponseWriter, r *http.Request) error {
	var req api.FenceRequest
	if err := decode(w, r, &req); err != nil {
		return err
	}
	if req.ID == "" || req.Node == "" {
		return &api.Error{Status: http.StatusBadRequest, Code: api.CodeInvalid, Text: "an order needs an id and a node"}
	}
	l, s, err := a.leading(r.Context())
	if err != nil {
		return err
	}
	o, err := a.order(r.Context(), s, l.fence, req)
	if err != nil {
		return err
	}
	api.WriteJSON(w, o)
	return nil
}

func (a *Agent) getFence(w http.ResponseWriter, r *http.Request) error {
	s, err := a.openedStore()
	if err != nil {
		return err
	}
	o, _, err := lastOrder(r.Context(), s)
	if err != nil {
		return err
	}
	api.WriteJSON(w, o)
	return nil
}

// postFenceTest has every controller test the BMCs: any of them may have to use them. The leader goes first, because it
// keeps the certificates that nobody has seen yet.
func (a *Agent) postFenceTest(w http.ResponseWriter, r *http.Request) error {
	var req api.FenceTestRequest
	if err := decode(w, r, &req); err != nil {
		return err
	}
	l, s, err := a.leading(r.Context())
	if err != nil {
		return err
	}
	c, nodes, err := bmcsOf(r.Context(), s, req.Nodes)
	if err != nil {
		return err
	}
	results, err := a.testAsLeader(r.Context(), s, l.fence, nodes)
	if err != nil {
		return err
	}
	out := []api.FenceTest{{From: a.Config.Node, Results: results}}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, n := range c.Controllers() {
		if n.Name == a.Config.Node {
			continue
		}
		wg.Go(func() {
			t, err := a.peers.TestBMCs(r.Context(), n, req)
			if err != nil {
				t = api.FenceTest{From: n.Name, Error: err.Error()}
			}
			mu.Lock()
			defer mu.Unlock()
			out = append(out, t)
		})
	}
	wg.Wait()
	slices.SortFunc(out[1:], func(x, y api.FenceTest) int { return strings.Compare(x.From, y.From) })
	api.WriteJSON(w, out)
	return nil
}

// postBMC tests BMCs from this node.
func (a *Agent) postBMC(w http.ResponseWriter, r *http.Request) error {
	var req api.FenceTestRequest
	if err := decode(w, r, &req); err != nil {
		return err
	}
	s, err := a.openedStore()
	if err != nil {
		return err
	}
	_, nodes, err := bmcsOf(r.Context(), s, req.Nodes)
	if err != nil {
		return err
	}
	if _, err := a.secrets.refresh(r.Context()); err != nil {
		return err
	}
	api.WriteJSON(w, api.FenceTest{From: a.Config.Node, Results: a.testBMCs(r.Context(), nodes)})
	return nil
}

// postBMCOrder has this node carry out an order, if it is the one the store has for it.
func (a *Agent) postBMCOrder(w http.ResponseWriter, r *http.Request) error {
	var req api.OrderRequest
	if err := decode(w, r, &req); err != nil {
		return err
	}
	s, err := a.openedStore()
	if err != nil {
		return err
	}
	o, _, err := lastOrder(r.Context(), s)
	if err != nil {
		return err
	}
	if o.ID != req.ID || !o.Open() || o.Executor != a.Config.Node {
		return &api.Error{Status: http.StatusConflict, Code: api.CodeFenced, Text: "the order is not this node's to carry out"}
	}
	if _, err := a.secrets.refresh(r.Context()); err != nil {
		return err
	}
	go a.carryOut(a.life, s, o.ID)
	api.WriteJSON(w, struct{}{})
	return nil
}

// putFencePassword keeps a BMC's password in the sealed bundle, and tests it at once. One that does not work is kept
// all the same: the BMC may only be away, and status tells until it works.
func (a *Agent) putFencePassword(w http.ResponseWriter, r *http.Request) error {
	var req api.FencePassword
	if err := decode(w, r, &req); err != nil {
		return err
	}
	l, s, err := a.leading(r.Context())
	if err != nil {
		return err
	}
	n := model.Node{Name: req.Node, BMC: req.BMC}
	if req.Second {
		n = model.Node{Name: req.Node, SecondBMC: req.BMC}
	}
	levels := n.Levels()
	if req.Node == "" || req.Password == "" || len(levels) != 1 {
		return &api.Error{Status: http.StatusBadRequest, Code: api.CodeInvalid, Text: "a password needs a node, its bmc, and something in it"}
	}
	if _, err := a.secrets.refresh(r.Context()); err != nil {
		return err
	}
	changed := map[string]string{}
	password, certificate := levels[0].PasswordSecret(), levels[0].CertificateSecret()
	if have, err := a.secrets.Get(password); err != nil || have != req.Password {
		changed[password] = req.Password
	}
	if req.NewCertificate {
		changed[certificate] = ""
	}
	if len(changed) > 0 {
		if err := a.secrets.Merge(r.Context(), changed); err != nil {
			return err
		}
		a.Log.Info("BMC", "node", req.Node, "changed", slices.Sorted(maps.Keys(changed)))
	}
	results, err := a.testAsLeader(r.Context(), s, l.fence, []model.Node{n})
	if err != nil {
		return err
	}
	api.WriteJSON(w, results[0])
	return nil
}
