package openstack

import (
	"cmp"
	"time"

	"nines/internal/model"
	"nines/internal/plan"
	"nines/internal/secret"
	"nines/internal/service"
)

// ActionServes says whether a WSGI application of the node answers. Args: unit.
const ActionServes = "serves"

// Service is what most services of OpenStack consist of: WSGI applications and daemons, databases, a user, an entry
// in the catalogue. It implements most of what package service asks for: a service embeds it, and
// adds its configuration. Use New.
type Service struct {
	Desc Description

	client    *Client
	registrar *Registrar
	reports   reportsReader
	now       func() time.Time
}

// Description is what differs from one service to the next.
type Description struct {
	// Service is the name in cluster.yaml; the users in databases, broker and Keystone have it too.
	Service string
	// APIs run on every controller. The first is the one in the catalogue.
	APIs []WSGI
	// Daemons run on every node with their role.
	Daemons []Daemon
	// Schemas are the databases, migrated in this order.
	Schemas []Schema
	// Type is the service's type in the catalogue, Path what its endpoints add to the URL. Empty: it is not in the catalogue and has no
	// user in Keystone.
	Type, Path string
	// Aliases are older names of the type, which some clients look for.
	Aliases []string
	// Messaging: it has a user in the broker.
	Messaging bool
	// Reports is where the daemons report that they work; nil: they do not.
	Reports *Reports
}

// New returns the service. It does no I/O.
func New(d Description) *Service {
	client := &Client{}
	return &Service{Desc: d, client: client, registrar: &Registrar{Client: client}, now: time.Now}
}

var _ interface {
	service.SecretUser
	service.Actor
	service.Observer
	service.Composite
	service.ClusterJudge
	service.Published
	service.DatabaseUser
	service.Messaging
	service.Faulty
} = (*Service)(nil)

// Name is the service's name.
func (s *Service) Name() string { return s.Desc.Service }

// SecretDatabase is the name of the password of the databases' users, SecretBroker of the broker's, SecretUser
// of Keystone's.
func (s *Service) SecretDatabase() string { return DatabaseSecret(s.Desc.Service) }

// DatabaseSecret is that of the service of that name.
func DatabaseSecret(service string) string { return service + "/database" }

// SecretBroker is the name of the password in the broker.
func (s *Service) SecretBroker() string { return s.Desc.Service + "/broker" }

// SecretUser is the name of the password in Keystone.
func (s *Service) SecretUser() string { return s.Desc.Service + "/user" }

// Secrets implements service.SecretUser.
func (s *Service) Secrets(*model.Cluster) []secret.Spec {
	var out []secret.Spec
	if s.Desc.Type != "" {
		out = append(out, secret.Spec{Name: s.SecretUser(), Kind: secret.Password})
	}
	if len(s.Desc.Schemas) > 0 {
		out = append(out, secret.Spec{Name: s.SecretDatabase(), Kind: secret.Password})
	}
	if s.Desc.Messaging {
		out = append(out, secret.Spec{Name: s.SecretBroker(), Kind: secret.Password})
	}
	return out
}

// Listeners implements service.Published.
func (s *Service) Listeners(*model.Cluster) []service.Listener {
	var out []service.Listener
	for i, w := range s.Desc.APIs {
		l := service.Listener{Name: s.Desc.Service, Port: cmp.Or(w.PublicPort, w.Port), BackendPort: w.Port, Health: s.Desc.Service,
			HTTP: true, BackendTLS: true, Probe: w.Health}
		if i == 0 {
			l.Public = true // the one in the catalogue
		} else {
			l.Name, l.Health = w.Name, s.Desc.Service+"/"+w.Name
		}
		out = append(out, l)
	}
	return out
}

// Databases implements service.DatabaseUser.
func (s *Service) Databases(*model.Cluster) []service.Database {
	var out []service.Database
	for _, schema := range s.Desc.Schemas {
		out = append(out, service.Database{Name: schema.Database, Secret: s.SecretDatabase()})
	}
	return out
}

// BrokerUsers implements service.Messaging.
func (s *Service) BrokerUsers(*model.Cluster) []service.BrokerUser {
	if !s.Desc.Messaging {
		return nil
	}
	return []service.BrokerUser{{Name: s.Desc.Service, Secret: s.SecretBroker(), VHost: "/"}}
}

// Faults implements service.Faulty.
func (s *Service) Faults(c *model.Cluster) []service.Fault {
	var out []service.Fault
	known := map[string]bool{}
	add := func(unit string, r model.Role) {
		if known[unit] {
			return // of another role too
		}
		known[unit] = true
		for _, f := range Faults(unit) {
			f.Role = r
			out = append(out, f)
		}
	}
	for _, w := range s.Desc.APIs {
		add(w.Unit, model.RoleController)
	}
	for _, d := range s.daemons(c) {
		add(d.Unit, d.Role)
	}
	return out
}

// Starts implements service.Starter: the APIs and daemons of the controllers, but for who is first, and what starts after units that it uses.
func (s *Service) Starts(c *model.Cluster, n model.Node) []string {
	if !n.Has(model.RoleController) {
		return nil
	}
	var out []string
	for _, w := range s.Desc.APIs {
		if !w.First {
			out = append(out, w.Unit)
		}
	}
	for _, d := range s.daemons(c) {
		if d.behind() {
			out = append(out, d.Unit)
		}
	}
	return out
}

// Actions implements service.Actor.
func (s *Service) Actions() map[string]service.Action {
	return map[string]service.Action{
		ActionServes:   {Check: s.checkServes},
		ActionSchema:   SchemaAction(s.Desc.Schemas, s.SecretDatabase()),
		ActionRegister: s.registrar.Action(),

		service.ActionCertificate: service.Certificate(s.shown, s.reload),
	}
}

// Config is what the templates of a configuration mostly need.
type Config struct {
	// URL is where the service is found by the others. Links is what links in answers begin with; empty, where the VIP has two addresses: with what the request came by.
	URL, Links string
	Database   Database // the first
	Login      Login
	Messaging  Messaging
}

// Config describes the configuration of the controllers, with its secrets.
func (s *Service) Config(c *model.Cluster, secrets secret.Source) (Config, error) {
	w := s.Desc.APIs[0]
	password, err := secrets.Get(s.SecretUser())
	if err != nil {
		return Config{}, err
	}
	out := Config{URL: URL(c, w.Port), Links: Links(c, w.Port), Login: NewLogin(c, s.Desc.Service, password, w.Threads)}
	if len(s.Desc.Schemas) > 0 {
		if out.Database, err = s.Database(c, secrets, s.Desc.Schemas[0].Database); err != nil {
			return Config{}, err
		}
	}
	if s.Desc.Messaging {
		if out.Messaging, err = s.Broker(c, secrets); err != nil {
			return Config{}, err
		}
	}
	return out, nil
}

// Database describes one of the databases.
func (s *Service) Database(c *model.Cluster, secrets secret.Source, name string) (Database, error) {
	password, err := secrets.Get(s.SecretDatabase())
	if err != nil {
		return Database{}, err
	}
	w := s.Desc.APIs[0]
	queries := w.Threads
	if w.Streams {
		queries = 0 // a transfer holds no connection while it lasts; one for each thread would be too many for the database
	}
	return NewDatabase(c, name, password, queries), nil
}

// Broker describes the way to the broker.
func (s *Service) Broker(c *model.Cluster, secrets secret.Source) (Messaging, error) {
	password, err := secrets.Get(s.SecretBroker())
	if err != nil {
		return Messaging{}, err
	}
	return NewMessaging(c, s.Desc.Service, password), nil
}

// ConfigFile is a file that the processes of the service's system user alone may read.
func (s *Service) ConfigFile(path string, content []byte) plan.File {
	return plan.File{Path: path, Mode: 0o640, Owner: "root", Group: s.Desc.APIs[0].User, Content: content}
}

// ID is the ID of a resource of the service.
func (s *Service) ID(node, kind, name string) plan.ID {
	return plan.Make(s.Desc.Service, node, kind, name)
}

// SchemaID is the ID of the step that migrates a database.
func (s *Service) SchemaID(c *model.Cluster, database string) plan.ID {
	return schemaID(s.Desc.Service, c.Controllers()[0], database)
}
