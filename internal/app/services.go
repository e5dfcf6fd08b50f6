// Package app is the composition root: it names the services, wires agents and
// sessions, and nothing else decides what depends on what.
package app

import (
	"maps"

	"nines/internal/model"
	"nines/internal/service"
	"nines/internal/service/base"
	"nines/internal/service/cinder"
	"nines/internal/service/galera"
	"nines/internal/service/glance"
	"nines/internal/service/haproxy"
	"nines/internal/service/heat"
	"nines/internal/service/horizon"
	"nines/internal/service/keepalived"
	"nines/internal/service/keystone"
	"nines/internal/service/memcached"
	"nines/internal/service/neutron"
	"nines/internal/service/nova"
	"nines/internal/service/openvswitch"
	"nines/internal/service/ovn"
	"nines/internal/service/pacemaker"
	"nines/internal/service/placement"
	"nines/internal/service/rabbitmq"
)

// Services returns everything nines deploys, in the order of a cold start. A new
// service of OpenStack is one line in openstack.
func Services() []service.Service {
	users := openstack()
	published := users
	mariadb := galera.New(func(c *model.Cluster) []service.Database { return databases(users, c) })
	published = append(published[:len(published):len(published)], mariadb)
	all := []service.Service{
		base.New(func(c *model.Cluster, n model.Node) []string { return starts(users, c, n) }),
		mariadb,
		rabbitmq.New(func(c *model.Cluster) []service.BrokerUser { return brokerUsers(users, c) }),
		memcached.New(),
		haproxy.New(func(c *model.Cluster) []service.Listener { return listeners(published, c) }),
		keepalived.New(func(c *model.Cluster) []service.Listener { return listeners(published, c) }),
		pacemaker.New(func(c *model.Cluster) []service.Listener { return listeners(published, c) }),
		openvswitch.New(func(c *model.Cluster, n model.Node, datapath string) map[string]string {
			return switchIDs(users, c, n, datapath)
		}),
	}
	return append(all, users...)
}

// openstack lists the services that use the infrastructure below them.
func openstack() []service.Service {
	return []service.Service{
		keystone.New(),
		placement.New(),
		glance.New(),
		nova.New(),
		ovn.New(),
		neutron.New(),
		cinder.New(),
		horizon.New(),
		heat.New(),
	}
}

// gather asks those of the services that the cluster runs and that have something to say.
func gather[S, T any](services []service.Service, c *model.Cluster, ask func(S) []T) []T {
	var out []T
	for _, s := range services {
		if u, ok := s.(S); ok && c.Runs(s.Name()) {
			out = append(out, ask(u)...)
		}
	}
	return out
}

func databases(services []service.Service, c *model.Cluster) []service.Database {
	return gather(services, c, func(s service.DatabaseUser) []service.Database { return s.Databases(c) })
}

func switchIDs(services []service.Service, c *model.Cluster, n model.Node, datapath string) map[string]string {
	out := map[string]string{}
	for _, s := range services {
		if u, ok := s.(service.SwitchUser); ok && c.Runs(s.Name()) {
			maps.Copy(out, u.SwitchIDs(c, n, datapath))
		}
	}
	return out
}

func brokerUsers(services []service.Service, c *model.Cluster) []service.BrokerUser {
	return gather(services, c, func(s service.Messaging) []service.BrokerUser { return s.BrokerUsers(c) })
}

func starts(services []service.Service, c *model.Cluster, n model.Node) []string {
	return gather(services, c, func(s service.Starter) []string { return s.Starts(c, n) })
}

func listeners(services []service.Service, c *model.Cluster) []service.Listener {
	return gather(services, c, func(s service.Published) []service.Listener { return s.Listeners(c) })
}
