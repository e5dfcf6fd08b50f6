package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"nines/internal/api"
	"nines/internal/converge"
	"nines/internal/etcd"
	"nines/internal/fence"
	"nines/internal/heal"
	"nines/internal/health"
	"nines/internal/model"
	"nines/internal/plan"
	"nines/internal/secret"
	"nines/internal/service"
	"nines/internal/store"
)

func (a *Agent) version(ctx context.Context) api.Version {
	v := api.Version{Node: a.Config.Node, Version: a.Version, ClusterID: a.Config.ClusterID, Binary: a.binary(), Started: a.started, Store: storeReady}
	s, err := a.openedStore()
	if err == nil {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		if _, e := s.List(ctx, converge.KeySpec); e != nil {
			err = e
		}
	}
	if err != nil {
		v.Store = err.Error()
	}
	v.Certificate, v.Authority = a.validity(model.PathCert), a.validity(model.PathCA)
	_, err = a.Host.ReadFile(model.PathAuthorityKey)
	v.Renews = err == nil
	return v
}

// versionAge is how old the version in a report may be.
const versionAge = 5 * time.Second

// timedVersion is a version and when it was found out.
type timedVersion struct {
	api.Version
	at time.Time
}

// recentVersion is the version as it was at most versionAge ago. A leader asks for reports several times a second, and to find it out
// asks a majority of etcd and parses certificates. That etcd does not answer is not remembered.
func (a *Agent) recentVersion(ctx context.Context) api.Version {
	if known := a.known.Load(); known != nil && time.Since(known.at) < versionAge {
		return known.Version
	}
	v := a.version(ctx)
	if v.Store == storeReady {
		a.known.Store(&timedVersion{v, time.Now()})
	}
	return v
}

const storeReady = "ready"

// validity is the span of a certificate on this node; zero when it cannot be read.
func (a *Agent) validity(path string) model.Validity {
	f, err := a.Host.ReadFile(path)
	if err != nil {
		return model.Validity{}
	}
	v, err := secret.Validity(f.Content)
	if err != nil {
		a.Log.Debug("certificate", "path", path, "err", err)
	}
	return v
}

func (a *Agent) getNode(w http.ResponseWriter, r *http.Request) error {
	api.WriteJSON(w, a.report(r.Context(), api.LookOf(r)))
	return nil
}

// report is this node as it is now, with what drifted since the last apply if that is asked for.
func (a *Agent) report(ctx context.Context, look api.Look) api.NodeReport {
	version := a.version
	if look == api.LookAtHealth {
		version = a.recentVersion
	}
	rep := api.NodeReport{Version: version(ctx), Services: a.watch.all(), Disks: a.disks.all()}
	if m := a.member.Load(); m != nil {
		rep.Quorum, _ = m.HasQuorum()
	}
	rep.Ailing, rep.Silent = a.frozen.ailing(ctx, a.Config.Node, time.Now())
	if c := a.spec.Load(); c != nil {
		rep.Conditions = slices.Concat(a.duplicates.conditions(c.VIP), a.aside.conditions(c), a.outside.conditions())
		nic, _ := a.outside.down()
		rep.PublicLinkDown = nic != ""
	}
	if look == api.LookAtHealth {
		return rep
	}
	c, err := a.cache.spec()
	if err != nil {
		return rep
	}
	ctx, cancel := context.WithTimeout(ctx, driftTimeout)
	defer cancel()
	seen, err := a.executor.Observe(ctx, c, a.secrets)
	if err != nil {
		a.Log.Debug("drift", "err", err)
		return rep
	}
	for _, id := range slices.Sorted(maps.Keys(seen)) {
		if st := seen[id]; st.State != plan.InSync && (st.State != plan.Unknown || ctx.Err() == nil) {
			rep.Drift = append(rep.Drift, api.Drift{ID: id, State: st.State, Reason: st.Reason})
		}
	}
	return rep
}

// driftTimeout bounds the look at what drifted: a step that asks a service which hangs must not
// keep the node's report from arriving. What was not answered by then is left out.
const driftTimeout = 1500 * time.Millisecond

// statusTimeout bounds the answer of one agent to another.
const statusTimeout = 3 * time.Second

func (a *Agent) getStatus(w http.ResponseWriter, r *http.Request) error {
	ctx, cancel := context.WithTimeout(r.Context(), statusTimeout+time.Second)
	defer cancel()
	s, starting := a.openedStore()
	c, err := a.lastSpec(ctx, s, starting)
	if err != nil {
		return err
	}
	st := api.Status{Cluster: a.Config.ClusterName, ClusterID: a.Config.ClusterID, VIP: c.VIP.Address.Addr().String()}
	if c.VIP.Public.IsValid() {
		st.PublicVIP = c.VIP.Public.Addr().String()
	}
	var known recorded
	var wg sync.WaitGroup
	wg.Go(func() { st.Nodes = a.askAll(ctx, c, api.LookOf(r)) })
	if starting == nil {
		wg.Go(func() { known = a.recorded(ctx, c, s) })
	}
	wg.Wait()
	st.Leader, st.Apply, st.Store = known.leader, known.apply, known.members
	out := known.drained.Node
	st.Conditions = slices.Concat(a.meant(c, a.judge(c, &st, starting), out), a.diskConditions(c, st.Nodes, out), recovering(known.recoveries), known.frozen, bmcConditions(c, known.tests))
	health.Sort(st.Conditions)
	st.Healthy = health.Healthy(st.Conditions)
	a.foldWaits(c, &st, known.recoveries)
	api.WriteJSON(w, st)
	return nil
}

// lastSpec is the cluster as last applied: etcd's, or what this node kept of it where etcd does not answer or is still starting.
func (a *Agent) lastSpec(ctx context.Context, s store.Store, starting error) (*model.Cluster, error) {
	err := starting
	if err == nil {
		var c *model.Cluster
		if c, err = converge.LastSpec(ctx, s); err == nil {
			return c, nil
		}
	}
	if errors.Is(err, converge.ErrNoApply) {
		return nil, &api.Error{Status: http.StatusNotFound, Code: api.CodeInvalid, Text: errNotObserved.Error(), Next: "run 'nines apply'"}
	}
	c, unkept := a.cache.spec()
	if unkept != nil {
		return nil, fmt.Errorf("this node knows no cluster: %w", errors.Join(err, unkept))
	}
	return c, nil
}

// recorded is what etcd says of the cluster. What could not be read is empty.
type recorded struct {
	leader     string
	apply      *api.ApplySummary
	members    []etcd.Member
	recoveries map[string]heal.Record
	frozen     []health.Condition
	drained    drained
	tests      map[string]fence.Result
}

// recorded reads it side by side: without a majority each read takes the whole time.
func (a *Agent) recorded(ctx context.Context, c *model.Cluster, s *etcd.Client) recorded {
	var out recorded
	var wg sync.WaitGroup
	read := func(what string, f func() error) {
		wg.Go(func() {
			if err := f(); err != nil {
				a.Log.Debug("status", "unread", what, "err", err)
			}
		})
	}
	read("leader", func() (err error) { out.leader, _, err = s.Holder(ctx, converge.LeaderLease); return err })
	read("apply", func() error {
		rec, err := converge.Current(ctx, s)
		if err == nil {
			out.apply = &api.ApplySummary{ID: rec.ID, State: rec.State, Who: rec.Who, Since: rec.Since, Finished: rec.Finished, Error: rec.Error}
		}
		return err
	})
	read("members", func() (err error) { out.members, err = s.Members(ctx); return err })
	read("recoveries", func() error { out.recoveries = a.recoveries(ctx, c, s); return nil })
	read("frozen daemons", func() error { out.frozen = a.supervised(ctx, s); return nil })
	read("the node that is out for its disk", func() (err error) { out.drained, _, err = loadDrained(ctx, s); return err })
	read("tests of BMCs", func() (err error) { out.tests, _, err = bmcTests(ctx, s); return err })
	wg.Wait()
	return out
}

// askAll asks the agent of every node, side by side.
func (a *Agent) askAll(ctx context.Context, c *model.Cluster, look api.Look) []api.NodeStatus {
	out := make([]api.NodeStatus, len(c.Nodes))
	var wg sync.WaitGroup
	for i, n := range c.Nodes {
		out[i] = api.NodeStatus{Node: n.Name, Roles: n.Roles}
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, statusTimeout)
			defer cancel()
			rep, err := a.peers.NodeReport(ctx, api.NodeAddr(n), look)
			if err != nil {
				out[i].Error, out[i].Expired = err.Error(), api.Expired(err)
				return
			}
			out[i].Report = &rep
		})
	}
	wg.Wait()
	return out
}

// judge collects what is not as it should be: what each node said of itself, and what
// only shows when all are seen together. Without a leader in st it matters whether this node's etcd is still starting.
func (a *Agent) judge(c *model.Cluster, st *api.Status, starting error) []health.Condition {
	var out []health.Condition
	seen := observationsOf(st.Nodes)
	for _, n := range st.Nodes {
		if n.Report == nil {
			out = append(out, unreachable(n))
			continue
		}
		out = append(out, nodeConditions(n)...)
		for _, o := range n.Report.Services {
			if o.Facts["vip-holder"] == "true" {
				st.VIPHolders = append(st.VIPHolders, n.Node)
			}
		}
	}
	out = append(out, certificates(st.Nodes, c.Certificates.RenewedBy, time.Now())...)
	out = append(out, health.Fencing(c)...)
	for _, s := range a.Services {
		if j, ok := s.(service.ClusterJudge); ok && c.Runs(s.Name()) {
			for _, cond := range j.Judge(c, seen[s.Name()]) {
				cond.Service = s.Name()
				out = append(out, cond)
			}
		}
	}
	for _, m := range st.Store {
		if !m.Healthy {
			out = append(out, health.Condition{Code: "etcd-member-down", Severity: health.Warning, Node: m.Name, Service: "etcd",
				Text: "this member of etcd does not answer", Hint: "its agent embeds it: 'systemctl status nines-agent' on " + m.Name})
		}
	}
	switch {
	case starting != nil:
		out = append(out, health.Condition{Code: "etcd-starting", Severity: health.Critical, Node: a.Config.Node, Service: "etcd",
			Text: "etcd is starting; who leads, and what applies and recoveries do, is not known here until then", Hint: "it needs a majority of the controllers; bring them back"})
	case st.Leader == "":
		out = append(out, health.Condition{Code: "no-leader", Severity: health.Critical, Text: "no agent leads the cluster",
			Hint: "etcd needs a majority of the controllers; bring them back"})
	}
	if st.Apply != nil && st.Apply.State == converge.Failed {
		out = append(out, health.Condition{Code: "apply-failed", Severity: health.Warning, Text: "the last apply failed: " + st.Apply.Error, Hint: "run 'nines plan' to see what is left, then 'nines apply'"})
	}
	health.Sort(out)
	return out
}

// unreachable says why a node could not be asked.
func unreachable(n api.NodeStatus) health.Condition {
	if n.Expired {
		return health.Condition{Code: "certificate-expired", Severity: health.Critical, Node: n.Node, Text: n.Error,
			Hint: "is its clock right? then 'nines apply' renews the certificate over SSH"}
	}
	return health.Condition{Code: "node-unreachable", Severity: health.Critical, Node: n.Node,
		Text: "its agent does not answer: " + n.Error, Hint: "is the machine up? 'systemctl status nines-agent' there"}
}

// certificates judges the certificates of the nodes and, once, that of the authority all have.
func certificates(nodes []api.NodeStatus, by model.Renewer, now time.Time) []health.Condition {
	var out []health.Condition
	var authority model.Validity
	for _, n := range nodes {
		if n.Report == nil {
			continue
		}
		out = append(out, health.Certificate(n.Node, n.Report.Certificate, n.Report.Authority, by, now)...)
		if !n.Report.Authority.NotAfter.IsZero() {
			authority = n.Report.Authority
		}
	}
	return append(out, health.Authority(authority, secret.DefaultTTL, now)...)
}

// observationsOf maps services to nodes to their latest observation.
func observationsOf(nodes []api.NodeStatus) map[string]map[string]service.Observation {
	seen := map[string]map[string]service.Observation{}
	for _, n := range nodes {
		if n.Report == nil {
			continue
		}
		for name, o := range n.Report.Services {
			if seen[name] == nil {
				seen[name] = map[string]service.Observation{}
			}
			seen[name][n.Node] = o
		}
	}
	return seen
}

func nodeConditions(n api.NodeStatus) []health.Condition {
	var out []health.Condition
	for _, name := range slices.Sorted(maps.Keys(n.Report.Services)) {
		o := n.Report.Services[name]
		for _, cond := range o.Conditions {
			cond.Node = n.Node
			out = append(out, cond)
		}
		if !o.Serving && len(o.Conditions) == 0 {
			out = append(out, health.Condition{Code: "service-not-serving", Follows: name, Severity: health.Warning, Node: n.Node, Service: name,
				Text: o.Reason, Hint: "look at its log on " + n.Node})
		}
	}
	for _, cond := range n.Report.Conditions {
		cond.Node = n.Node
		out = append(out, cond)
	}
	for _, d := range n.Report.Drift {
		out = append(out, health.Condition{Code: "drift", Severity: health.Warning, Node: n.Node, Follows: idle(d.ID),
			Text: fmt.Sprintf("%s: %s", d.ID, d.Reason), Hint: "'nines plan' shows what apply would put back"})
	}
	return out
}

// idle is the service of a unit or an action that is not as it should be: while the service waits, it cannot be. A file or a package always can.
func idle(id plan.ID) string {
	parts := strings.SplitN(string(id), "/", 3)
	if len(parts) == 3 && (strings.HasPrefix(parts[2], "unit:") || strings.HasPrefix(parts[2], "action:")) {
		return parts[0]
	}
	return ""
}

// faultKnown reports whether a service of the cluster lists the signal to the unit among its faults.
func (a *Agent) faultKnown(c *model.Cluster, req api.SignalRequest) bool {
	for _, s := range a.Services {
		f, ok := s.(service.Faulty)
		if !ok {
			continue
		}
		for _, fault := range f.Faults(c) {
			if fault.Unit == req.Unit && (req.Signal == fault.Signal || (req.Signal == fault.Heal && fault.Heal != 0)) {
				return true
			}
		}
	}
	return false
}

// executableHash is the SHA-256 of the running executable, hex.
func executableHash() string {
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		return ""
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return ""
	}
	return hex.EncodeToString(h.Sum(nil))
}
