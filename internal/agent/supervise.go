package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"time"

	"nines/internal/api"
	"nines/internal/converge"
	"nines/internal/heal"
	"nines/internal/health"
	"nines/internal/model"
	"nines/internal/store"
	"nines/internal/supervise"
)

// keySupervision holds the supervise.Record.
const keySupervision = "supervision"

// supervision keeps applies away while a member is restarted, as a recovery does.
const supervision = "frozen daemons"

// supervise has frozen daemons restarted while this node leads.
func (a *Agent) supervise(ctx context.Context, s store.Store, fence store.Fence, apart *noApply) {
	defer apart.letGo(supervision)
	for pause(ctx, lookAgain) {
		c, err := converge.LastSpec(ctx, s)
		if err != nil {
			continue // nothing applied yet, or etcd is away: the next look tells
		}
		if err := a.superviseOnce(ctx, c, s, fence, apart); err != nil && ctx.Err() == nil {
			a.Log.Warn("supervision", "err", err)
		}
	}
}

// superviseOnce looks at all nodes, and does what is to be done about frozen units.
func (a *Agent) superviseOnce(ctx context.Context, c *model.Cluster, s store.Store, fence store.Fence, apart *noApply) error {
	r, revision, err := loadSupervision(ctx, s)
	if err != nil {
		return err
	}
	known := len(r.Units) > 0 || len(r.Decisions) > 0
	if !known && len(viewOf(a.lookAtAll(ctx, c, atRest), time.Now()).Ailing) == 0 {
		apart.letGo(supervision)
		return nil
	}
	nodes := a.lookAtAll(ctx, c, 0)
	v := viewOf(nodes, time.Now())
	shape, err := a.shapes.of(c, a.secrets)
	if err != nil {
		return err
	}
	v.Quorums, v.Lacking = shape.quorums, shape.lacking(nodes)
	if v.Recovering, err = a.recoveringNow(ctx, c, s); err != nil {
		return err
	}
	next := supervise.Next(v, r)
	switch {
	case len(next.Restarts()) == 0 && !next.Holds(v):
		apart.letGo(supervision)
	case !apart.held(supervision) && !apart.hold(supervision):
		v.Busy = "an apply is under way"
		next = supervise.Next(v, r)
	}
	// Written down first: it is what agents compare a restart with, and the proof that this leader still leads.
	if !reflect.DeepEqual(inJSON(next), inJSON(r)) {
		if _, err := s.PutFenced(ctx, converge.LeaderLease, fence, keySupervision, inJSON(next), revision); err != nil {
			return fmt.Errorf("record the supervision: %w", err)
		}
	}
	var failed []error
	for _, d := range next.Restarts() {
		a.Log.Warn("supervision", "restart", d.Unit, "node", d.Node, "try", d.Try, "sign", d.Sign, "reason", d.Reason)
		n, _ := c.Node(d.Node)
		if err := a.peers.Restart(ctx, n, api.RestartRequest{Node: d.Node, Unit: d.Unit, Fence: fence, Try: d.Try}); err != nil {
			failed = append(failed, fmt.Errorf("restart %s on %s: %w", d.Unit, d.Node, err))
		}
	}
	return errors.Join(failed...)
}

func inJSON(r supervise.Record) []byte {
	b, err := json.Marshal(r)
	if err != nil {
		panic(fmt.Sprintf("agent: the record of the supervision is not JSON: %v", err)) // plain structs: cannot happen
	}
	return b
}

func loadSupervision(ctx context.Context, s store.Reader) (r supervise.Record, revision int64, err error) {
	if revision, err = store.ReadJSON(ctx, s, keySupervision, &r); err != nil {
		return supervise.Record{}, 0, fmt.Errorf("read the record of the supervision: %w", err)
	}
	return r, revision, nil
}

// viewOf is what the nodes that answered say.
func viewOf(nodes []api.NodeStatus, now time.Time) supervise.View {
	v := supervise.View{Now: now, Nodes: map[string]supervise.Node{}}
	for _, n := range nodes {
		if n.Report == nil {
			continue
		}
		serving := map[string]bool{}
		for name, o := range n.Report.Services {
			serving[name] = o.Serving
		}
		v.Nodes[n.Node] = supervise.Node{Serving: serving, Silent: n.Report.Silent}
		v.Ailing = append(v.Ailing, n.Report.Ailing...)
	}
	return v
}

// recoveringNow are the services whose recovery is under way: the members are its own then.
func (a *Agent) recoveringNow(ctx context.Context, c *model.Cluster, s store.Reader) (map[string]bool, error) {
	out := map[string]bool{}
	for name := range a.healers(c) {
		r, _, err := heal.Load(ctx, s, name)
		if err != nil {
			return nil, err
		}
		out[name] = r.Open
	}
	return out, nil
}

// postRestart restarts a unit that is frozen, if the present leader's record says so. It answers when the restart has begun: that
// takes as long as it takes, and the next looks show what came of it.
func (a *Agent) postRestart(w http.ResponseWriter, r *http.Request) error {
	var req api.RestartRequest
	if err := decode(w, r, &req); err != nil {
		return err
	}
	if req.Node != a.Config.Node || !a.frozen.knows(req.Unit) {
		return &api.Error{Status: http.StatusBadRequest, Code: api.CodeInvalid, Text: fmt.Sprintf("%s on %s is no unit of this node", req.Unit, req.Node)}
	}
	s, err := a.openedStore()
	if err != nil {
		return err
	}
	if err := mayRestart(r.Context(), s, req); err != nil {
		return err
	}
	if !a.frozen.begin(req.Unit) {
		return &api.Error{Status: http.StatusConflict, Code: api.CodeBusy, Text: req.Unit + " is being restarted"}
	}
	go func() {
		ctx, cancel := context.WithTimeout(a.life, stepTimeout)
		defer cancel()
		defer a.frozen.end(req.Unit)
		a.Log.Warn("supervision: frozen, restarted", "unit", req.Unit, "try", req.Try)
		if err := a.frozen.restart(ctx, req.Unit); err != nil {
			a.Log.Warn("supervision", "unit", req.Unit, "err", err)
		}
	}()
	api.WriteJSON(w, struct{}{})
	return nil
}

// mayRestart: the fence is the present leader's, and what it wrote down last says that this is to be done.
func mayRestart(ctx context.Context, s store.Store, req api.RestartRequest) error {
	fence, err := leadersFence(ctx, s)
	if err != nil {
		return err
	}
	record, _, err := loadSupervision(ctx, s)
	if err != nil {
		return err
	}
	if req.Fence != fence || !record.Allows(req.Node, req.Unit, req.Try) {
		return &api.Error{Status: http.StatusConflict, Code: api.CodeFenced,
			Text: fmt.Sprintf("the restart of %s on %s is not what the present leader wants", req.Unit, req.Node)}
	}
	return nil
}

// supervised says in status what is frozen and what is done about it.
func (a *Agent) supervised(ctx context.Context, s store.Reader) []health.Condition {
	r, _, err := loadSupervision(ctx, s)
	if err != nil {
		a.Log.Debug("supervision", "err", err)
		return nil
	}
	return frozenConditions(r)
}

func frozenConditions(r supervise.Record) []health.Condition {
	var out []health.Condition
	for _, d := range r.Decisions {
		cond := health.Condition{Code: "daemon-frozen", Severity: health.Warning, Node: d.Node, Service: d.Service, Hint: "wait: it is restarted as soon as it may be"}
		switch d.Act {
		case supervise.Restart:
			cond.Text = fmt.Sprintf("%s does nothing any more, %s; it is restarted (%d of %d): %s", d.Unit, d.Sign, d.Try, supervise.Tries(), d.Reason)
		case supervise.Wait:
			cond.Text = fmt.Sprintf("%s does nothing any more, %s; it is not restarted yet: %s", d.Unit, d.Sign, d.Reason)
		case supervise.GiveUp:
			cond.Code = "restart-given-up"
			cond.Text = fmt.Sprintf("%s does nothing any more, %s: %s", d.Unit, d.Sign, d.Reason)
			cond.Hint = "find out why ('journalctl -u " + d.Unit + "' on the node), then 'systemctl restart " + d.Unit + "' there"
		}
		out = append(out, cond)
	}
	return out
}
