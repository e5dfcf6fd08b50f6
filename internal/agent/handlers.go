package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"nines/internal/api"
	"nines/internal/converge"
	"nines/internal/secret"
	"nines/internal/store"
)

// role is who may call a path.
type role []secret.Role

var (
	nodes     = role{secret.RoleNode}
	operators = role{secret.RoleOperator}
	both      = role{secret.RoleNode, secret.RoleOperator}
)

// handler serves the API. Every path names who may call it.
func (a *Agent) handler() http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, who role, f func(http.ResponseWriter, *http.Request) error) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if err := who.check(r); err != nil {
				api.WriteError(w, err)
				return
			}
			if err := f(w, r); err != nil {
				api.WriteError(w, passing(err))
			}
		})
	}
	handle("GET "+api.PathVersion, both, a.getVersion)
	handle("GET "+api.PathNode, both, a.getNode)
	handle("GET "+api.PathStatus, both, a.getStatus)
	handle("GET "+api.PathHeard, nodes, a.getHeard)
	handle("GET "+api.PathServing, nodes, a.getServing)
	handle("POST "+api.PathObserve, nodes, a.postObserve)
	handle("POST "+api.PathOp, nodes, a.postOp)
	handle("POST "+api.PathEvidence, nodes, a.postEvidence)
	handle("POST "+api.PathStep, nodes, a.postStep)
	handle("POST "+api.PathCertificate, nodes, a.postCertificate)
	handle("POST "+api.PathRestart, nodes, a.postRestart)
	handle("POST "+api.PathDrain, nodes, a.postDrain)
	handle("GET "+api.PathRecovery, operators, a.getRecovery)
	handle("POST "+api.PathRecovery, operators, a.postRecovery)
	handle("POST "+api.PathPlan, operators, a.postPlan)
	handle("POST "+api.PathApply, operators, a.postApply)
	handle("GET "+api.PathApply, operators, a.getApply)
	handle("GET "+api.PathEvents, operators, a.getEvents)
	handle("GET "+api.PathCredentials, operators, a.getCredential)
	handle("POST "+api.PathSignal, operators, a.postSignal)
	handle("PUT "+api.PathBinary, operators, a.putBinary)
	handle("POST "+api.PathFence, operators, a.postFence)
	handle("GET "+api.PathFence, operators, a.getFence)
	handle("POST "+api.PathFenceTest, operators, a.postFenceTest)
	handle("PUT "+api.PathFencePassword, operators, a.putFencePassword)
	handle("POST "+api.PathBMC, nodes, a.postBMC)
	handle("POST "+api.PathBMCOrder, nodes, a.postBMCOrder)
	return mux
}

// passing tells the client that an error for lack of a quorum may soon be over.
func passing(err error) error {
	if errors.Is(err, store.ErrNoQuorum) {
		return &api.Error{Status: http.StatusServiceUnavailable, Code: api.CodeNoLeader, Text: err.Error(), Next: hintNoLeader}
	}
	return err
}

const hintNoLeader = "try again in a few seconds; 'nines status' shows the members of etcd"

func (who role) check(r *http.Request) error {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return &api.Error{Status: http.StatusUnauthorized, Code: api.CodeForbidden, Text: "no certificate"}
	}
	have, name := secret.PeerRole(r.TLS.PeerCertificates[0])
	if !slices.Contains(who, have) {
		return &api.Error{Status: http.StatusForbidden, Code: api.CodeForbidden, Text: fmt.Sprintf("%s %q may not call %s", have, name, r.URL.Path)}
	}
	return nil
}

// maxRequest bounds a JSON request: a spec of a thousand nodes is far below.
const maxRequest = 8 << 20

func decode(w http.ResponseWriter, r *http.Request, v any) error {
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest)).Decode(v); err != nil {
		return &api.Error{Status: http.StatusBadRequest, Code: api.CodeInvalid, Text: fmt.Sprintf("request: %v", err)}
	}
	return nil
}

func (a *Agent) getVersion(w http.ResponseWriter, r *http.Request) error {
	api.WriteJSON(w, a.version(r.Context()))
	return nil
}

func (a *Agent) postObserve(w http.ResponseWriter, r *http.Request) error {
	var req api.SpecRequest
	if err := decode(w, r, &req); err != nil {
		return err
	}
	if _, err := a.secrets.refresh(r.Context()); err != nil {
		return err
	}
	seen, err := a.executor.Observe(r.Context(), req.Spec, a.secrets)
	if err != nil {
		return err
	}
	api.WriteJSON(w, converge.ObserveReply{Resources: seen, Services: a.watch.all()})
	return nil
}

// leadersFence is what whoever acts for the cluster must show.
func leadersFence(ctx context.Context, s store.Store) (store.Fence, error) {
	_, fence, err := s.Holder(ctx, converge.LeaderLease)
	if err != nil {
		return 0, fmt.Errorf("whose fence is valid: %w", err)
	}
	return fence, nil
}

// fromLeader refuses what somebody wants of this agent who is not the present leader.
func (a *Agent) fromLeader(ctx context.Context, shown store.Fence) error {
	s, err := a.openedStore()
	if err != nil {
		return err
	}
	fence, err := leadersFence(ctx, s)
	if err != nil {
		return err
	}
	if shown != fence {
		return &api.Error{Status: http.StatusConflict, Code: api.CodeFenced, Text: fmt.Sprintf("%v: %d, the leader's is %d", store.ErrFenced, shown, fence)}
	}
	return nil
}

// postOp does an op if it carries the present leader's fence.
func (a *Agent) postOp(w http.ResponseWriter, r *http.Request) error {
	var req converge.OpRequest
	if err := decode(w, r, &req); err != nil {
		return err
	}
	if err := a.fromLeader(r.Context(), req.Fence); err != nil {
		return err
	}
	if _, err := a.secrets.refresh(r.Context()); err != nil {
		return err
	}
	res, err := a.executor.Apply(r.Context(), req.Spec, a.secrets, req.ID, req.Hash)
	if err != nil {
		return err
	}
	api.WriteJSON(w, res)
	return nil
}

func (a *Agent) postPlan(w http.ResponseWriter, r *http.Request) error {
	var req api.SpecRequest
	if err := decode(w, r, &req); err != nil {
		return err
	}
	l, err := a.leaderOrRedirect(r.Context())
	if err != nil {
		return err
	}
	p, err := l.Plan(r.Context(), req.Spec)
	if err != nil {
		return err
	}
	api.WriteJSON(w, api.PlanReply{Plan: p, Hash: converge.PlanHash(p)})
	return nil
}

func (a *Agent) postApply(w http.ResponseWriter, r *http.Request) error {
	var req converge.Request
	if err := decode(w, r, &req); err != nil {
		return err
	}
	l, err := a.leaderOrRedirect(r.Context())
	if err != nil {
		return err
	}
	record, err := l.Apply(r.Context(), l.ctx, req)
	if err != nil {
		return err
	}
	api.WriteJSON(w, record)
	return nil
}

func (a *Agent) getApply(w http.ResponseWriter, r *http.Request) error {
	s, err := a.openedStore()
	if err != nil {
		return err
	}
	record, err := converge.Current(r.Context(), s)
	if err != nil {
		return err
	}
	api.WriteJSON(w, record)
	return nil
}

func (a *Agent) getEvents(w http.ResponseWriter, r *http.Request) error {
	s, err := a.openedStore()
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	flush := http.NewResponseController(w)
	out := json.NewEncoder(w)
	err = converge.Follow(r.Context(), s, r.URL.Query().Get("id"), func(ev converge.Event) error {
		if err := out.Encode(ev); err != nil {
			return err
		}
		return flush.Flush()
	})
	if err != nil {
		a.Log.Debug("events", "err", err) // the stream breaks off: the client asks another agent
	}
	return nil
}

func (a *Agent) getCredential(w http.ResponseWriter, r *http.Request) error {
	if _, err := a.secrets.refresh(r.Context()); err != nil {
		return err
	}
	v, err := a.secrets.Get(r.URL.Query().Get("name"))
	if err != nil {
		return &api.Error{Status: http.StatusNotFound, Code: api.CodeInvalid, Text: err.Error(), Next: "deploy the service first: 'nines apply'"}
	}
	api.WriteJSON(w, map[string]string{"value": v})
	return nil
}

func (a *Agent) postSignal(w http.ResponseWriter, r *http.Request) error {
	var req api.SignalRequest
	if err := decode(w, r, &req); err != nil {
		return err
	}
	c, err := a.cache.spec()
	if err != nil {
		return fmt.Errorf("what the cluster runs is not known here: %w", err)
	}
	if !a.faultKnown(c, req) {
		return &api.Error{Status: http.StatusBadRequest, Code: api.CodeInvalid, Text: fmt.Sprintf("signal %d to %s is no fault of any service", req.Signal, req.Unit)}
	}
	a.Log.Warn("fault injected", "unit", req.Unit, "signal", req.Signal)
	if err := a.Host.SignalUnit(r.Context(), req.Unit, req.Signal); err != nil {
		return err
	}
	api.WriteJSON(w, struct{}{})
	return nil
}

var errNotObserved = errors.New("nothing has been applied yet")
