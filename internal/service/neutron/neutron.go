// Package neutron is all that nines knows of OpenStack's Neutron: the API, its workers, and what its backend needs. With
// OVN that is an agent on computes that answers instances' questions for metadata; what moves packets is package ovn's. Without it
// agents (agents.go) program the switches and keep routers, DHCP and metadata on the controllers.
//
// Invariants: the API starts when its schema is in place and, with OVN, its databases are whole; the
// password of the database is on controllers alone. A backend is a set of daemons and an ml2_conf.ini: the rest is the same.
package neutron

import (
	"embed"

	"nines/internal/model"
	"nines/internal/openstack"
	"nines/internal/plan"
	"nines/internal/secret"
	"nines/internal/service"
)

// Name of the service.
const Name = "neutron"

const (
	confPath = "/etc/neutron/neutron.conf"
	ml2Path  = "/etc/neutron/plugins/ml2/ml2_conf.ini"

	ovnMetadataPath = "/etc/neutron/neutron_ovn_metadata_agent.ini"
)

// Services that Neutron works with where they run, and what it shares with them.
const (
	nova         = "nova"
	novaMetadata = "nova/metadata-secret" // Nova's secret: it trusts what was signed with it
	placement    = "placement"

	portNovaMetadata = 8775
)

// haproxyUnit comes with the package that answers instances on computes, where it is started for
// each network: the package's own unit has nothing to do there, and would fail.
const haproxyUnit = "haproxy.service"

//go:embed templates
var templateFiles embed.FS

var templates = openstack.Templates(templateFiles)

// Service is Neutron. Use New.
type Service struct{ *openstack.Service }

// controllerFiles are read by the API and its workers.
var controllerFiles = []string{confPath, ml2Path}

func withOVN(c *model.Cluster) bool { return !c.Neutron.Agents() }

// New returns the service. It does no I/O.
func New() *Service {
	controller := func(in func(*model.Cluster) bool, name, description string) openstack.Daemon {
		return openstack.Daemon{In: in, Role: model.RoleController, Unit: name + ".service", Description: description, Manual: name + "(1)", User: Name, Reads: controllerFiles,
			Command: []string{"/usr/bin/" + name, "--config-file", confPath, "--config-file", ml2Path}}
	}
	return &Service{openstack.New(openstack.Description{
		Service: Name,
		APIs: []openstack.WSGI{{
			Name: "neutron-api", Unit: "neutron-api.service", Description: "OpenStack Neutron API", Manual: "neutron-server(1)",
			User: Name, Home: "/var/lib/neutron", Script: "/usr/bin/neutron-api", Imports: []string{"neutron.cmd.server", "neutron.plugins.ml2.plugin", "keystonemiddleware.auth_token"}, Ini: "/etc/neutron/nines-uwsgi.ini",
			Port: model.PortNeutron, Health: "/healthcheck", Processes: 2, Threads: 4, Messaging: true, Reads: controllerFiles,
			// Workers that share out OVN's events know by it which of them were started together.
			Options: []string{"start-time = %t"},
		}},
		Daemons: append([]openstack.Daemon{
			// Debian has no units for these two.
			controller(nil, "neutron-periodic-workers", "OpenStack Neutron periodic workers"),
			controller(withOVN, "neutron-ovn-maintenance-worker", "OpenStack Neutron OVN maintenance worker"),
			// The API under uWSGI answers no agents.
			controller(withAgents, "neutron-rpc-server", "OpenStack Neutron RPC server"),
			{In: withOVN, Role: model.RoleCompute, Unit: "neutron-ovn-metadata-agent.service", Description: "OpenStack Neutron OVN metadata agent",
				Manual: "neutron-ovn-metadata-agent(1)",
				// Makes network namespaces that others enter, and runs a proxy in each.
				User: "root", Root: true, Uses: []string{unitSwitchDatabase, unitSwitch},
				Command: []string{"/usr/bin/neutron-ovn-metadata-agent", "--config-file", ovnMetadataPath}},
		}, agents()...),
		Reports: &reports,
		Type:    "network", Messaging: true,
		Schemas: []openstack.Schema{{
			Database: Name, Sections: map[string]string{"database": Name},
			Scripts: "/usr/lib/python3/dist-packages/neutron/db/migration/alembic_migrations/versions",
			Command: []string{"neutron-db-manage", "--config-file", confPath, "--config-file", ml2Path, "upgrade", "heads"},
		}},
	})}
}

// values is what the templates need.
type values struct {
	openstack.Config
	Neutron      model.Neutron
	Domain       string
	North, South string // OVN's databases, with commas
	CA, Cert     string
	Key          string
	Nova         bool
	Placement    bool
	MetadataHost string
	MetadataPort int
	Metadata     string // secret, where Nova runs
}

// Resources implements service.Service.
func (s *Service) Resources(c *model.Cluster, secrets secret.Source) ([]plan.Resource, error) {
	common, err := s.Config(c, secrets)
	if err != nil {
		return nil, err
	}
	v := values{Config: common, Neutron: c.Neutron, Domain: c.Name + ".internal.",
		North: remotes(c, model.PortOVNNorth), South: remotes(c, model.PortOVNSouth),
		CA: model.PathCA, Cert: model.PathCert, Key: model.PathKey,
		Nova: c.Runs(nova), Placement: c.Runs(placement),
		MetadataHost: c.VIP.Address.Addr().String(), MetadataPort: portNovaMetadata}
	if v.Nova {
		if v.Metadata, err = secrets.Get(novaMetadata); err != nil {
			return nil, err
		}
	}
	conf := openstack.Configuration{Files: func(n model.Node) ([]plan.File, error) { return s.files(v, n) }}
	if c.Neutron.Agents() {
		conf.Packages = agentsPackages
	} else {
		conf.Needs = []string{service.CapOverlay}
	}
	out, err := s.Service.Resources(c, conf)
	if err != nil {
		return nil, err
	}
	if c.Neutron.Agents() {
		s.orderAgents(c, out)
		return out, nil
	}
	return append(out, s.idle(c)...), nil
}

// files are those of a node.
func (s *Service) files(v values, n model.Node) ([]plan.File, error) {
	var wanted [][2]string
	switch {
	case n.Has(model.RoleController) && v.Neutron.Agents():
		wanted = [][2]string{{confPath, "neutron.conf.tmpl"}, {ml2Path, "ml2_agents.ini.tmpl"}}
	case n.Has(model.RoleController):
		wanted = [][2]string{{confPath, "neutron.conf.tmpl"}, {ml2Path, "ml2_conf.ini.tmpl"}}
	}
	if n.Has(model.RoleCompute) && !v.Neutron.Agents() {
		wanted = append(wanted, [2]string{ovnMetadataPath, "ovn_metadata_agent.ini.tmpl"})
	}
	out, err := s.rendered(wanted, v)
	if err != nil || !v.Neutron.Agents() {
		return out, err
	}
	agents, err := s.agentFiles(v, n)
	return append(out, agents...), err
}

// rendered are configuration files: each a path and its template.
func (s *Service) rendered(wanted [][2]string, values any) ([]plan.File, error) {
	var out []plan.File
	for _, w := range wanted {
		content, err := openstack.Render(templates, w[1], values)
		if err != nil {
			return nil, err
		}
		out = append(out, s.ConfigFile(w[0], content))
	}
	return out, nil
}

// idle keeps units of packages from running where others start their programs.
func (s *Service) idle(c *model.Cluster) []plan.Resource {
	var out []plan.Resource
	for _, n := range c.With(model.RoleCompute) {
		if !n.Has(model.RoleController) {
			out = append(out, plan.Resource{ID: s.ID(n.Name, "unit", haproxyUnit), Service: Name, Node: n.Name,
				After: []plan.ID{s.ID(n.Name, "packages", Name)}, Unit: &plan.Unit{Name: haproxyUnit}})
		}
	}
	return out
}

// remotes is where clients find one of OVN's databases.
func remotes(c *model.Cluster, port int) string {
	out := ""
	for i, n := range c.Controllers() {
		if i > 0 {
			out += ","
		}
		out += "ssl:" + openstack.HostPort(n.Address(), port)
	}
	return out
}
