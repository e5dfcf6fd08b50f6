// Package service says what a service is to nines: the contract that each
// folder below it fulfils for one real component, and the small words services meet
// in. Services never import each other; they meet through the model and through
// what app hands them (listeners, databases, broker users).
package service

import (
	"context"
	"log/slog"
	"time"

	"nines/internal/health"
	"nines/internal/host"
	"nines/internal/model"
	"nines/internal/plan"
	"nines/internal/secret"
)

// Service is one real component: configuration, order, observation, health, faults.
type Service interface {
	// Name is the folder's name and the word in cluster.yaml.
	Name() string
	// Resources returns all the service wants, on all nodes. It is a pure
	// function of its arguments: every agent computes the same.
	Resources(c *model.Cluster, s secret.Source) ([]plan.Resource, error)
}

// SecretUser is a Service that uses secrets.
type SecretUser interface {
	Secrets(c *model.Cluster) []secret.Spec
}

// Actor is a Service with actions of its own.
type Actor interface {
	Actions() map[string]Action
}

// Action is a step only its service knows. Both functions run on the resource's node.
type Action struct {
	// Check says whether the step is already done; reason says why not, in one
	// line. A component that is down or absent is "not done", not an error. It
	// must be cheap (tens of milliseconds) and must change nothing.
	Check func(ctx context.Context, env Env, args map[string]string) (done bool, reason string, err error)
	// Run does it. It must be safe to repeat after a crash at any point.
	Run func(ctx context.Context, env Env, args map[string]string) error
}

// Env is what a service may use on a node.
type Env struct {
	Host    host.Host
	Cluster *model.Cluster
	Node    model.Node
	Secrets secret.Source
	Log     *slog.Logger
}

// Rotator is a Service with secrets that change on schedule. The leader calls Rotate at
// next (and when it becomes leader), stores the changed secrets under its fence, and hands them out
// by an apply.
type Rotator interface {
	// Rotate returns the secrets to replace, by name (none: nothing is due), and when to
	// ask again (zero: never). seen holds the latest observation of each node that
	// answered: a rotation may have to wait until all nodes have the present secret.
	Rotate(c *model.Cluster, have secret.Source, seen map[string]Observation, now time.Time) (changed map[string]string, next time.Time, err error)
}

// Observer is a Service that can tell how its part on a node is doing. The agent
// calls Observe every Interval, answers HAProxy's health checks with
// Serving and Reason, and shows the rest in status.
type Observer interface {
	Interval() time.Duration
	// Observe must return within its context (the agent sets a time-out of 1 s; no answer counts as not serving).
	Observe(ctx context.Context, env Env) Observation
}

// Observation is how a service does on one node.
type Observation struct {
	// Serving: this node's instance may be given work.
	Serving bool `json:"serving"`
	// Reason says in one line why (not): "Synced, 3 members".
	Reason string `json:"reason"`
	// Stuck says why the instance, which runs, comes back only with a new start; empty: it does not need one.
	Stuck string `json:"stuck,omitempty"`
	// Facts are what status and the drills' gate show or compare: "wsrep_cluster_state_uuid".
	Facts map[string]string `json:"facts,omitempty"`
	// Conditions are what is not as it should be; Node and Service are filled in by the agent.
	Conditions []health.Condition `json:"conditions,omitempty"`
}

// Drainable is a Service with a member on each controller that a full disk would harm, or that would harm the others with one. It is stopped
// before, and started again when there is room, one node at a time and only while the others have a majority without it.
type Drainable interface {
	// Room is the directory that must not be full.
	Room() string
	// Drain stops this node's member cleanly. Restore starts it again and returns when it takes part. Both may be repeated.
	Drain(ctx context.Context, env Env) error
	Restore(ctx context.Context, env Env) error
}

// Composite is a Service of several programs that HAProxy sends requests to: each does well or badly by itself.
type Composite interface {
	// Parts are the programs besides the one that the service's own observation is about, by name. The
	// observation of a part is called SERVICE/PART.
	Parts() map[string]Part
}

// Part is one program of a Composite. It is observed on the nodes that have its unit.
type Part struct {
	Unit string
	Observer
}

// MainUnit is an Observer with more units than one on a node, whose observation is about one of them.
type MainUnit interface {
	// MainUnit is that unit; empty: no single one.
	MainUnit(n model.Node) string
}

// ClusterJudge is a Service that can tell more from all nodes' observations than from
// one: members missing, histories that differ, two holders of the VIP. Pure.
type ClusterJudge interface {
	// Judge gets the latest observation of each node that answered.
	Judge(c *model.Cluster, seen map[string]Observation) []health.Condition
}

// Listener is a port on the VIP that HAProxy serves from backends on the controllers.
type Listener struct {
	Name string // unique: "keystone", "mariadb"
	Port int    // on the VIP
	// BackendPort is the port on the controllers' management addresses.
	BackendPort int
	// Health is the name of the service whose observation decides: the agent's /health/NAME; "NAME/PART"
	// for a part of a Composite.
	Health string
	HTTP   bool // layer 7: TLS ends at HAProxy, requests are re-dispatched
	// Public: for users. It listens on the VIP's public address too, where there is one.
	Public bool
	// Repeatable are paths whose requests do no harm when they arrive twice, whatever the method (HTTP
	// listeners only): unanswered, they are sent to another server, as reads are.
	Repeatable []string
	// BackendTLS: HAProxy speaks TLS to the backend (HTTP listeners only; TCP passes through).
	BackendTLS bool
	// MaxConn is how many connections a server is sent at a time (HTTP listeners only); more wait in HAProxy. 0: no limit.
	MaxConn int
	// SingleWriter sends everything to one member, the rest is backup, without fail-back.
	SingleWriter bool
	// IdleTimeout of established connections; zero: HAProxy service's default.
	IdleTimeout time.Duration
	// Probe is a path that answers 200 to anybody; drills ask for it (HTTP listeners only). Empty: none.
	Probe string
}

// Balancer is a Service that sends requests to all controllers.
type Balancer interface {
	// PassOver sends no requests to these nodes until they have passed a health check again. They answer no echo request.
	PassOver(ctx context.Context, env Env, nodes []string) error
	// Heed takes what a node's agent has just said of the services there (Listener.Health): true, it serves. It may be repeated.
	Heed(ctx context.Context, env Env, node string, serving map[string]bool) error
}

// Yielder is a Service whose members take a silent one for dead, each by itself.
type Yielder interface {
	// Yield has this node's member be late to do so (on), or as configured. It is on while the network to another controller may be broken, which a third
	// controller hears, and this node would be the one to stand aside (package stale). It may be repeated.
	Yield(ctx context.Context, env Env, on bool) error
}

// Starter is a Service with units that take much processor time to start. They take turns when a machine boots.
type Starter interface {
	// Starts are these units of a node. None may be told to start after another one of them.
	Starts(c *model.Cluster, n model.Node) []string
}

// Reporter is a Service with daemons that answer nobody, and note now and then that they work.
type Reporter interface {
	// Unreported are the units of the node's daemons that have not done so for too long, and for how long, by what was observed there.
	Unreported(c *model.Cluster, n model.Node, seen Observation) map[string]time.Duration
}

// Published is a Service that wants listeners on the VIP.
type Published interface {
	Listeners(c *model.Cluster) []Listener
}

// Database is a schema with its one user.
type Database struct {
	Name   string // also the user's name
	Secret string // name of the user's password
}

// DatabaseUser is a Service that needs databases.
type DatabaseUser interface {
	Databases(c *model.Cluster) []Database
}

// BrokerUser is a user of the message broker with full permissions on one virtual host.
type BrokerUser struct {
	Name   string
	Secret string
	VHost  string // "/" by default
}

// Messaging is a Service that needs broker users.
type Messaging interface {
	BrokerUsers(c *model.Cluster) []BrokerUser
}

// Fault is something a drill may do to a service on a node: a signal to a unit.
type Fault struct {
	Name   string // "kill", "freeze"
	Unit   string
	Role   model.Role // of the nodes that have the unit; empty: the controllers
	Signal int        // sent at injection
	// Heal, if not 0, is the signal that ends the fault (SIGCONT for a freeze).
	Heal int
	// Mended: the agents end it by themselves, by a restart. A drill waits for that, and ends it only if they do not.
	Mended bool
	// AtVIP: the unit is at work only where the VIP is; elsewhere nobody would feel its fault. Drills strike
	// there too.
	AtVIP bool
}

// Faulty is a Service that drills can hurt.
type Faulty interface {
	Faults(c *model.Cluster) []Fault
}

// Fencer is a Service whose component takes the power of machines away by itself, and leaves it to the leader to switch them on again.
type Fencer interface {
	// Fenced says whose power was taken away, and when that was done last. Pure.
	Fenced(seen map[string]Observation) map[string]time.Time
}

// SwitchUser is a Service that programs the virtual switches of the nodes.
type SwitchUser interface {
	// SwitchIDs are what it reads in the database of a node's switch (external_ids). datapath is what the switch forwards
	// with, a fact of the node. An empty value: the key must not be there.
	SwitchIDs(c *model.Cluster, n model.Node, datapath string) map[string]string
}

// SwitchOf is the capability that the node's virtual switch forwards.
func SwitchOf(n model.Node) string { return "switch of " + n.Name }

// Capabilities that resources provide and need.
const (
	CapPackages   = "packages" // the package source is in place: every service's packages need it
	CapBase       = "base"     // hosts file, sysctl, time
	CapSQL        = "sql"      // every database member serves and databases and users exist
	CapBroker     = "broker"   // the broker is whole, users exist
	CapCache      = "cache"    // memcached runs on every controller
	CapProxyFiles = "files"    // HAProxy can be started on every controller: its files are in place
	CapEngine     = "engine"   // the engine of the VIP has said who runs HAProxy: no other one does
	CapProxy      = "proxy"    // HAProxy runs on every controller
	CapVIP        = "vip"      // the VIP answers
	CapIdentity   = "identity" // Keystone answers behind the VIP
	CapOverlay    = "overlay"  // OVN's databases are whole
)
