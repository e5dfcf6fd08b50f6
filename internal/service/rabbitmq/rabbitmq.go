// Package rabbitmq is all that nines knows of RabbitMQ: a cluster of disc nodes on
// the controllers with quorum queues, TLS everywhere, and a failure detector
// tuned so that a quorum queue has a leader again about two seconds after its node lost power.
//
// Invariants: a node never starts a second cluster (a fresh one waits for its
// peers without end); a member is not restarted while a queue would lose its
// majority by it; passwords reach the broker as salted hashes in a file or over TLS,
// never in an argument list; a member is forced to boot only at a person's word (recovery), and forgotten
// only when it has lost its state. It must never reset a node.
package rabbitmq

import (
	"context"
	"fmt"
	"sync"
	"time"

	"nines/internal/model"
	"nines/internal/plan"
	"nines/internal/secret"
	"nines/internal/service"
	"nines/internal/service/rabbitmq/recovery"
)

// Name is the service's name.
const Name = "rabbitmq"

// Unit is RabbitMQ's systemd unit.
const Unit = "rabbitmq-server.service"

const unitEPMD = "epmd.socket"

// Secrets and users of nines itself.
const (
	SecretCookie = "rabbitmq/erlang-cookie"
	SecretAdmin  = "rabbitmq/admin" // of AdminUser: checks and definitions
	SecretProbe  = "rabbitmq/probe" // of ProbeUser

	AdminUser  = "nines"
	ProbeUser  = "nines_probe" // publishes and consumes in drills
	ProbeVHost = "nines-probe"
)

// PortVIP is RabbitMQ's port on the VIP, the one of the reference design.
const PortVIP = 5673

// Names of the service's actions.
const (
	actionGroup  = "join-tls-group"
	actionStart  = "start-broker"
	actionReady  = "broker-member-ready"
	actionBroker = "define-users"
)

// Service implements service.Service for RabbitMQ.
type Service struct {
	users func(*model.Cluster) []service.BrokerUser

	mu      sync.Mutex
	clients map[string]*client // by node; keeps connections between observations
	past    map[string]history // by node
	noted   recovery.Broker    // for which state of this node's broker lastFile was seen to
	// healing does the steps of a recovery on this node.
	healing  service.Steps
	replicas replicas
	// answers reports whether a machine is up.
	answers func(context.Context, model.Node) bool
}

// New makes the service. users tells which users other services want.
func New(users func(*model.Cluster) []service.BrokerUser) *Service {
	if users == nil {
		users = func(*model.Cluster) []service.BrokerUser { return nil }
	}
	return &Service{users: users, clients: map[string]*client{}, past: map[string]history{}, answers: machineAnswers}
}

// Name implements service.Service.
func (*Service) Name() string { return Name }

// Secrets implements service.SecretUser.
func (*Service) Secrets(*model.Cluster) []secret.Spec {
	return []secret.Spec{
		{Name: SecretCookie, Kind: secret.Cookie},
		{Name: SecretAdmin, Kind: secret.Password},
		{Name: SecretProbe, Kind: secret.Password},
	}
}

// Listeners implements service.Published: clients that know one address only. Those that
// know a list (oslo.messaging) do better with the members themselves.
func (*Service) Listeners(*model.Cluster) []service.Listener {
	return []service.Listener{{
		Name: Name, Port: PortVIP, BackendPort: model.PortAMQP, Health: Name,
		// Heartbeats every 5 s keep a living connection from being idle.
		IdleTimeout: time.Minute,
	}}
}

// Faults implements service.Faulty.
func (*Service) Faults(*model.Cluster) []service.Fault {
	return []service.Fault{
		{Name: "kill", Unit: Unit, Signal: 9},
		{Name: "freeze", Unit: Unit, Signal: 19, Heal: 18, Mended: true},
	}
}

// Resources implements service.Service.
func (s *Service) Resources(c *model.Cluster, secrets secret.Source) ([]plan.Resource, error) {
	nodes := c.Controllers()
	if len(nodes) == 0 {
		return nil, nil
	}
	var out []plan.Resource
	var units []plan.ID
	for _, n := range nodes {
		rs, unit, err := s.node(c, n, secrets)
		if err != nil {
			return nil, fmt.Errorf("rabbitmq on %s: %w", n.Name, err)
		}
		out = append(out, rs...)
		units = append(units, unit)
	}
	users, err := s.accounts(c, secrets)
	if err != nil {
		return nil, err
	}
	first := nodes[0].Name
	return append(out, plan.Resource{
		ID: plan.Make(Name, first, "action", actionBroker), Service: Name, Node: first,
		// The digest makes a changed password or user a changed resource.
		Action: &plan.Action{Name: actionBroker, Args: map[string]string{"users": digest(users)}, Timeout: 3 * time.Minute},
		After:  units, Provides: []string{service.CapBroker},
	}), nil
}

// node returns the resources of one member and the ID of its unit.
func (s *Service) node(c *model.Cluster, n model.Node, secrets secret.Source) ([]plan.Resource, plan.ID, error) {
	files, err := s.files(c, n, secrets)
	if err != nil {
		return nil, "", err
	}
	id := func(kind, name string) plan.ID { return plan.Make(Name, n.Name, kind, name) }
	res := func(id plan.ID, after ...plan.ID) plan.Resource {
		return plan.Resource{ID: id, Service: Name, Node: n.Name, After: after}
	}
	pkg := res(id("packages", Name))
	pkg.Packages = &plan.Packages{Names: c.Facts().Packages[Name]}
	pkg.Needs = []string{service.CapPackages}
	out := []plan.Resource{pkg}

	restart := []plan.ID{pkg.ID}
	var epmd plan.ID
	for _, f := range files {
		r := res(id("file", f.name), pkg.ID)
		r.File = &f.File
		out = append(out, r)
		switch {
		case f.name == fileEPMD:
			epmd = r.ID
		case f.name != fileDefinitions: // read at first start; later changes go through the API
			restart = append(restart, r.ID)
		}
	}
	group := res(id("action", actionGroup), pkg.ID)
	group.Action = &plan.Action{Name: actionGroup}
	mapper := res(id("unit", unitEPMD))
	mapper.Unit = &plan.Unit{Name: unitEPMD, Enabled: true, Running: true, RestartOn: []plan.ID{epmd}}

	unit := res(id("unit", Unit), group.ID, mapper.ID, id("file", fileDefinitions))
	unit.Needs = []string{service.CapBase} // names of the peers, clock
	unit.Unit = s.unit(c, restart)
	return append(out, group, mapper, unit), unit.ID, nil
}

func (*Service) unit(c *model.Cluster, restart []plan.ID) *plan.Unit {
	n := len(c.Controllers())
	return &plan.Unit{
		Name: Unit, Enabled: true, Running: true, RestartOn: restart,
		Member: &plan.Member{Quorum: Name, Size: n, Needed: model.Quorum(n)},
		// A fresh member waits for its peers, whose packages may take a while.
		Start: &plan.Action{Name: actionStart, Timeout: 8 * time.Minute},
		Ready: &plan.Action{Name: actionReady, Timeout: 3 * time.Minute},
	}
}
