// Package api is the words on the wire between the CLI and the agents, and between
// agents: requests, replies, errors, and the client that speaks them over mutual TLS.
// The handlers are the agent's. It must never hold a secret in an error.
package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"nines/internal/converge"
	"nines/internal/disk"
	"nines/internal/etcd"
	"nines/internal/health"
	"nines/internal/model"
	"nines/internal/plan"
	"nines/internal/service"
	"nines/internal/store"
	"nines/internal/supervise"
)

// Paths of the API. Those of agents are open to nodes and operators, the
// rest to operators only, unless said otherwise.
const (
	PathVersion     = "/v1/version"     // GET, any
	PathNode        = "/v1/node"        // GET, nodes and operators: this node's report
	PathHeard       = "/v1/heard"       // GET ?about=, nodes: how long ago another controller answered this one
	PathServing     = "/v1/serving"     // GET, nodes: which services of this node serve, a line with all of them at each change
	PathObserve     = "/v1/observe"     // POST, nodes: resources of this node
	PathOp          = "/v1/op"          // POST, nodes: bring one resource into its desired state
	PathStatus      = "/v1/status"      // GET: the cluster
	PathPlan        = "/v1/plan"        // POST, answered by the leader
	PathApply       = "/v1/apply"       // POST, answered by the leader; GET: the current record
	PathEvents      = "/v1/events"      // GET ?id=: the apply's events, one JSON value a line
	PathCredentials = "/v1/credentials" // GET ?name=: one secret
	PathSignal      = "/v1/signal"      // POST: a fault
	PathBinary      = "/v1/binary"      // PUT: a new agent
	PathDrain       = "/v1/drain"       // POST, nodes: stop this node's members, or start them
)

// DrainRequest has an agent stop its node's members of quorums, or start them again.
type DrainRequest struct {
	Spec    *model.Cluster `json:"spec"`
	Fence   store.Fence    `json:"fence"`
	Restore bool           `json:"restore,omitempty"`
}

// Version says who answers.
type Version struct {
	Node      string `json:"node"`
	Version   string `json:"version"`
	ClusterID string `json:"cluster_id"`
	// Store is "ready" when the agent reaches a quorum of etcd, else the reason why not.
	Store string `json:"store"`
	// Binary is the SHA-256 of the running executable, hex.
	Binary  string    `json:"binary"`
	Started time.Time `json:"started"`
	// Certificate is the node's, Authority the one that issued it; zero when they cannot be read.
	Certificate model.Validity `json:"certificate,omitzero"`
	Authority   model.Validity `json:"authority,omitzero"`
	// Renews: the node has the authority's key, and renews certificates while it leads.
	Renews bool `json:"renews,omitempty"`
}

// Look says how closely agents look before they report.
type Look int

const (
	// LookForDrift compares every resource with the last apply. It costs a node about a tenth of a second of a core.
	LookForDrift Look = iota
	// LookAtHealth takes what the agents' observations have told: for who asks again and again.
	LookAtHealth
)

// query of the paths that take a Look.
func (l Look) query() string {
	if l == LookAtHealth {
		return "?look=health"
	}
	return ""
}

// LookOf reads the Look of a request.
func LookOf(r *http.Request) Look {
	if r.URL.Query().Get("look") == "health" {
		return LookAtHealth
	}
	return LookForDrift
}

// NodeReport is one node as its own agent sees it.
type NodeReport struct {
	Version
	Quorum   bool                           `json:"quorum"` // in the majority of etcd
	Services map[string]service.Observation `json:"services"`
	Drift    []Drift                        `json:"drift,omitempty"`
	// PublicLinkDown: users do not come to this node, for want of a link.
	PublicLinkDown bool `json:"public_link_down,omitempty"`
	// Ailing are units that do nothing any more, Silent is how many observations have no answer.
	Ailing []supervise.Ailing `json:"ailing,omitempty"`
	Silent int                `json:"silent,omitempty"`
	Disks  []disk.Level       `json:"disks,omitempty"`
	// Conditions are what is wrong that no service is about; Node is filled in by whoever asks.
	Conditions []health.Condition `json:"conditions,omitempty"`
}

// Heard says how long ago a controller answered another one.
type Heard struct {
	Age time.Duration `json:"age"`
}

// Drift is one resource that is not as it was last applied.
type Drift struct {
	ID     plan.ID    `json:"id"`
	State  plan.State `json:"state"`
	Reason string     `json:"reason"`
}

// NodeStatus is one node as another agent sees it.
type NodeStatus struct {
	Node  string       `json:"node"`
	Roles []model.Role `json:"roles"`
	// Error says why there is no Report. Expired: because the node's certificate has expired.
	Error   string `json:"error,omitempty"`
	Expired bool   `json:"expired,omitempty"`

	Report *NodeReport `json:"report,omitempty"`
}

// Status is the cluster.
type Status struct {
	Cluster    string             `json:"cluster"`
	ClusterID  string             `json:"cluster_id"`
	Healthy    bool               `json:"healthy"`
	Leader     string             `json:"leader"` // node; empty: nobody
	VIP        string             `json:"vip"`
	PublicVIP  string             `json:"public_vip,omitempty"` // that users come to, where it is another
	VIPHolders []string           `json:"vip_holders"`
	Store      []etcd.Member      `json:"store"`
	Nodes      []NodeStatus       `json:"nodes"`
	Conditions []health.Condition `json:"conditions"`
	// Waits says which services wait for what. Conditions that say no more than that stand there.
	Waits []health.Wait `json:"waits,omitempty"`
	Apply *ApplySummary `json:"apply,omitempty"`
}

// ApplySummary is the latest apply without its plan.
type ApplySummary struct {
	ID       string         `json:"id"`
	State    converge.State `json:"state"`
	Who      string         `json:"who"`
	Since    time.Time      `json:"since"`
	Finished time.Time      `json:"finished,omitzero"`
	Error    string         `json:"error,omitempty"`
}

// PlanReply is a plan and its name, to be handed to apply.
type PlanReply struct {
	Plan plan.Plan `json:"plan"`
	Hash string    `json:"hash"`
}

// SpecRequest carries the cluster as the operator wants it.
type SpecRequest struct {
	Spec *model.Cluster `json:"spec"`
}

// SignalRequest asks the agent to send a signal to a unit: a drill's fault.
type SignalRequest struct {
	Unit   string `json:"unit"`
	Signal int    `json:"signal"`
}

// Error is an error on the wire.
type Error struct {
	Status int    `json:"-"`
	Code   string `json:"code"`
	Text   string `json:"error"`
	Next   string `json:"hint,omitempty"`
	// Leader is the address to ask instead (Code "not-leader").
	Leader string `json:"leader,omitempty"`
}

func (e *Error) Error() string { return e.Text }

// Hint says what to do now.
func (e *Error) Hint() string { return e.Next }

// Passing implements converge.Passing: an election takes seconds.
func (e *Error) Passing() bool { return e.Code == CodeNoLeader }

// Codes of errors that clients act on.
const (
	CodeBusy      = "busy"
	CodeStale     = "stale-plan"
	CodeBlocked   = "blocked"
	CodeNotLeader = "not-leader"
	CodeNoLeader  = "no-leader"
	CodeFenced    = "fenced"
	CodeForbidden = "forbidden"
	CodeInvalid   = "invalid"
	CodeFailed    = "failed"
)

// WriteError answers a request with an error.
func WriteError(w http.ResponseWriter, err error) {
	var e *Error
	if !errors.As(err, &e) {
		e = wrap(err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(e.Status)
	_ = json.NewEncoder(w).Encode(e) // the client is gone: nobody left to tell
}

// wrap turns what converge says into words on the wire.
func wrap(err error) *Error {
	e := &Error{Status: http.StatusInternalServerError, Code: CodeFailed, Text: err.Error()}
	var h interface{ Hint() string }
	if errors.As(err, &h) {
		e.Next = h.Hint()
	}
	var busy *converge.BusyError
	var stale *converge.StaleError
	var blocked *converge.BlockedError
	switch {
	case errors.As(err, &busy):
		e.Status, e.Code = http.StatusConflict, CodeBusy
	case errors.As(err, &stale):
		e.Status, e.Code = http.StatusPreconditionFailed, CodeStale
	case errors.As(err, &blocked):
		e.Status, e.Code = http.StatusFailedDependency, CodeBlocked
	}
	return e
}

// WriteJSON answers a request.
func WriteJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the client is gone: nobody left to tell
}

// UnreachableError says that an agent did not answer at all: the request may or may not have arrived.
type UnreachableError struct {
	Addr string
	Err  error
}

func (e *UnreachableError) Error() string {
	if text := certificateTrouble(e.Err, time.Now()); text != "" {
		return fmt.Sprintf("agent %s cannot be spoken to: %s", e.Addr, text)
	}
	return fmt.Sprintf("agent %s does not answer: %v", e.Addr, e.Err)
}

// Unwrap returns the cause.
func (e *UnreachableError) Unwrap() error { return e.Err }

// Passing implements converge.Passing.
func (e *UnreachableError) Passing() bool { return true }

// Hint says what to do now.
func (e *UnreachableError) Hint() string {
	if Expired(e.Err) || refused(e.Err) {
		return hintExpired
	}
	return "look at the node: is it up, does 'systemctl status nines-agent' say active?"
}
