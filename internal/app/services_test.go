package app

import (
	"slices"
	"testing"

	"nines/internal/model"
	"nines/internal/plan"
	"nines/internal/service/servicetest"
)

// overAgents is the sample cluster with the other backend of Neutron.
func overAgents() *model.Cluster {
	c := servicetest.Cluster()
	c.Neutron.Backend = model.BackendOVS
	c.Services = slices.DeleteFunc(c.Services, func(s string) bool { return s == "ovn" })
	return c
}

func TestServicesConform(t *testing.T) {
	for name, c := range map[string]*model.Cluster{"ovn": servicetest.Cluster(), "ovs": overAgents()} {
		all := Services()
		secrets := servicetest.Secrets(t, c, all...)
		for _, s := range all {
			if c.Runs(s.Name()) {
				t.Run(name+"/"+s.Name(), func(t *testing.T) { servicetest.Conform(t, s, c, secrets) })
			}
		}
	}
}

// Together they form one graph: everything needed is provided, nothing is declared twice.
func TestServicesFitTogether(t *testing.T) {
	fitTogether(t, servicetest.Cluster())
	fitTogether(t, overAgents())
}

func fitTogether(t *testing.T, c *model.Cluster) {
	t.Helper()
	all := Services()
	secrets := servicetest.Secrets(t, c, all...)
	var rs []plan.Resource
	names, files := map[string]bool{}, map[string]plan.ID{}
	for _, s := range all {
		if names[s.Name()] || !slices.Contains(model.KnownServices, s.Name()) {
			t.Errorf("the service %s stands there twice or is not in cluster.yaml's vocabulary", s.Name())
		}
		names[s.Name()] = true
		if !c.Runs(s.Name()) {
			continue
		}
		own, err := s.Resources(c, secrets)
		if err != nil {
			t.Fatal(err)
		}
		rs = append(rs, own...)
	}
	if _, err := plan.Graph(rs); err != nil {
		t.Error(err)
	}
	for _, r := range rs {
		if r.File == nil {
			continue
		}
		where := r.Node + ":" + r.File.Path
		if other, ok := files[where]; ok {
			t.Errorf("%s and %s both write %s", r.ID, other, where)
		}
		files[where] = r.ID
	}
}

// What status tells after a power cut comes from what the services declare.
func TestServicesDeclareWhatTheyWaitFor(t *testing.T) {
	c := servicetest.Cluster()
	all := Services()
	secrets := servicetest.Secrets(t, c, all...)
	provides, needs := map[string]string{}, map[string][]string{}
	for _, s := range all {
		if !c.Runs(s.Name()) {
			continue
		}
		rs, err := s.Resources(c, secrets)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rs {
			for _, p := range r.Provides {
				provides[p] = s.Name()
			}
			needs[s.Name()] = append(needs[s.Name()], r.Needs...)
		}
	}
	for name, others := range map[string][]string{"keystone": {"galera", "keepalived"}, "glance": {"keystone", "galera"}, "placement": {"keystone", "galera"},
		"nova": {"keystone", "galera", "rabbitmq"}, "neutron": {"keystone", "galera", "rabbitmq"}, "cinder": {"keystone", "galera", "rabbitmq"}, "heat": {"keystone", "galera", "rabbitmq"}} {
		for _, other := range others {
			if !slices.ContainsFunc(needs[name], func(capability string) bool { return provides[capability] == other }) {
				t.Errorf("%s does not declare that it needs %s", name, other)
			}
		}
	}
}
