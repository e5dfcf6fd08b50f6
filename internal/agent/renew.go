package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strings"
	"time"

	"nines/internal/api"
	"nines/internal/converge"
	"nines/internal/host"
	"nines/internal/model"
	"nines/internal/plan"
	"nines/internal/secret"
	"nines/internal/service"
	"nines/internal/store"
)

const (
	// fresh is how long after a certificate was issued a new leader looks whether daemons have yet to load it.
	fresh = 24 * time.Hour
	// loadAgain is the longest pause between two tries to have daemons load a certificate. Each has all nodes compare all that they have.
	loadAgain = 15 * time.Minute
)

// loading is how far the daemons are with the certificates.
type loading struct {
	known time.Time // when the newest certificate was issued that all are known to use
	wait  time.Duration
	next  time.Time // not before
}

// due reports whether daemons may have yet to load one that was issued then.
func (l *loading) due(issued, now time.Time) bool {
	return issued.After(l.known) && now.Sub(issued) <= fresh && !now.Before(l.next)
}

// tried notes a try. What keeps daemons from it, a node that is away for one, is seldom over in seconds.
func (l *loading) tried(done bool, issued, now time.Time) {
	if done {
		*l = loading{known: issued}
		return
	}
	l.wait = min(max(2*l.wait, renewEvery), loadAgain)
	l.next = now.Add(l.wait)
}

// renewDue renews the certificates that are due, one node after the other, and has the daemons load them by an apply of the spec as it
// stands. A node that does not answer keeps no other from being renewed; one that refuses does, until a person has looked.
func (a *Agent) renewDue(ctx context.Context, s store.Store, l *converge.Leader, fence store.Fence, load *loading) error {
	c, err := converge.LastSpec(ctx, s)
	if errors.Is(err, converge.ErrNoApply) {
		return nil
	}
	if err != nil || c.Certificates.RenewedBy != model.RenewedByLeader {
		return err
	}
	ca, err := a.authority()
	if ca == nil || err != nil {
		return err
	}
	due, newest := dueOf(a.lookAtAll(ctx, c, atRest), ca.Validity(), time.Now())
	if len(due) > 0 {
		// An apply has daemons load the pair that is being replaced.
		release, ok := l.Hold("the renewal of certificates")
		if !ok {
			return nil
		}
		err := a.renewNodes(ctx, c, ca, due, fence)
		release()
		if err != nil {
			return err
		}
		newest, load.wait, load.next = time.Now(), 0, time.Time{}
	}
	if !load.due(newest, time.Now()) {
		return nil
	}
	done, err := a.loadCertificates(ctx, s, l, c)
	load.tried(done, newest, time.Now())
	return err
}

// dueOf are the nodes that answer and need a new certificate, and when the newest of those in use was issued.
func dueOf(nodes []api.NodeStatus, authority model.Validity, now time.Time) (due []api.NodeStatus, newest time.Time) {
	for _, n := range nodes {
		if n.Report == nil {
			continue
		}
		v := n.Report.Certificate
		if v.NotBefore.After(newest) {
			newest = v.NotBefore
		}
		if !v.NotAfter.IsZero() && v.Renewable(authority, now) {
			due = append(due, n)
		}
	}
	return due, newest
}

// authority is the cluster's, if this node has its key.
func (a *Agent) authority() (*secret.CA, error) {
	key, err := a.Host.ReadFile(model.PathAuthorityKey)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // an operator renews, or has yet to bring it: the condition tells
	}
	if err != nil {
		return nil, err
	}
	cert, err := a.Host.ReadFile(model.PathCA)
	if err != nil {
		return nil, err
	}
	return secret.ParseCA(secret.Pair{Cert: cert.Content, Key: key.Content})
}

func (a *Agent) renewNodes(ctx context.Context, c *model.Cluster, ca *secret.CA, due []api.NodeStatus, fence store.Fence) error {
	for _, n := range due {
		if err := a.renewNode(ctx, c, ca, n, fence); err != nil {
			return fmt.Errorf("the certificate of %s, which ends at %s: %w", n.Node, n.Report.Certificate.NotAfter.UTC().Format(time.RFC3339), err)
		}
	}
	return nil
}

// renewNode brings a node a new pair, unless somebody has just done so, and looks whether it uses it.
func (a *Agent) renewNode(ctx context.Context, c *model.Cluster, ca *secret.CA, n api.NodeStatus, fence store.Fence) error {
	node, _ := c.Node(n.Node)
	ctx, cancel := context.WithTimeout(ctx, 2*statusTimeout)
	defer cancel()
	if v, err := a.peers.Version(ctx, api.NodeAddr(node)); err != nil || !v.Certificate.Renewable(ca.Validity(), time.Now()) {
		return err
	}
	pair, err := ca.IssueNode(secret.NodeRequest(c, node))
	if err != nil {
		return err
	}
	if err := a.peers.Certificate(ctx, node, api.CertificateRequest{Node: n.Node, Fence: fence, Cert: pair.Cert, Key: pair.Key}); err != nil {
		return err
	}
	v, err := a.peers.Version(ctx, api.NodeAddr(node))
	if err != nil {
		return err
	}
	if !v.Certificate.NotAfter.After(n.Report.Certificate.NotAfter) {
		return errors.New("the node still has the old one")
	}
	a.Log.Info("certificate renewed", "node", n.Node, "ends", v.Certificate.NotAfter)
	return nil
}

// loadCertificates has the daemons load what is new, if nothing else is to be done: what a person changed by hand, or what is broken, is not
// mended in passing. done: there is nothing to be done.
func (a *Agent) loadCertificates(ctx context.Context, s store.Store, l *converge.Leader, c *model.Cluster) (done bool, err error) {
	record, err := converge.Current(ctx, s)
	if err != nil || record.State == converge.Converging {
		return false, err // an apply loads them, too
	}
	if _, err := a.secrets.refresh(ctx); err != nil {
		return false, err
	}
	p, err := l.Plan(ctx, c)
	if err != nil || p.Empty() && len(p.Blocked) == 0 {
		return err == nil, err
	}
	if why := onlyLoads(p); why != "" {
		return false, fmt.Errorf("daemons have yet to load the renewed certificates, and that waits: %s", why)
	}
	_, err = l.Apply(ctx, ctx, converge.Request{Spec: c, Who: "certificate renewal", Plan: converge.PlanHash(p)})
	return false, err
}

// onlyLoads says what else than loading certificates the plan would do.
func onlyLoads(p plan.Plan) string {
	if len(p.Blocked) > 0 {
		return p.Blocked[0].Text
	}
	for _, op := range p.Ops {
		if op.Kind != "action" || !strings.HasSuffix(string(op.ID), service.CertificateSuffix) {
			return fmt.Sprintf("the nodes are not as last applied (%s; see 'nines plan')", op.Summary)
		}
	}
	return ""
}

// postCertificate takes a renewed pair of this node's, from the present leader. Daemons load it later, by a plan.
func (a *Agent) postCertificate(w http.ResponseWriter, r *http.Request) error {
	var req api.CertificateRequest
	if err := decode(w, r, &req); err != nil {
		return err
	}
	if req.Node != a.Config.Node {
		return &api.Error{Status: http.StatusBadRequest, Code: api.CodeInvalid, Text: "the certificate is for " + req.Node}
	}
	if err := a.fromLeader(r.Context(), req.Fence); err != nil {
		return err
	}
	if err := installCertificate(r.Context(), a.Host, req, time.Now()); err != nil {
		return err
	}
	a.Log.Info("certificate renewed by the leader")
	api.WriteJSON(w, struct{}{})
	return nil
}

// installCertificate puts a pair in the place of the node's. Whoever reads between the two writes finds a pair that does not fit, and keeps
// the one it has.
func installCertificate(ctx context.Context, h host.Host, req api.CertificateRequest, now time.Time) error {
	ca, err := h.ReadFile(model.PathCA)
	if err != nil {
		return err
	}
	have, err := h.ReadFile(model.PathCert)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	pair := secret.Pair{Cert: req.Cert, Key: req.Key}
	if err := secret.CheckRenewal(ca.Content, have.Content, pair, req.Node, now); err != nil {
		return &api.Error{Status: http.StatusBadRequest, Code: api.CodeInvalid, Text: err.Error(), Next: "'nines apply' renews it over SSH"}
	}
	key := host.File{Path: model.PathKey, Mode: 0o640, Owner: "root", Group: model.GroupTLS, Content: pair.Key}
	if err := h.WriteFile(ctx, key, nil); err != nil {
		return err
	}
	return h.WriteFile(ctx, host.File{Path: model.PathCert, Mode: 0o644, Owner: "root", Group: "root", Content: pair.Cert}, nil)
}

// dropAuthority forgets the authority's key where the operator wants to have it alone.
func (a *Agent) dropAuthority(c *model.Cluster) {
	if c.Certificates.RenewedBy != model.RenewedByOperator {
		return
	}
	if err := a.Host.RemoveFile(model.PathAuthorityKey); err != nil {
		a.Log.Warn("the authority's key stays here", "err", err)
	}
}
