// Package nova is everything nines knows of OpenStack's compute service: the APIs, conductor, scheduler and console
// proxy on the controllers, nova-compute with libvirt on the computes, one cell beside cell0.
//
// Invariants: nova-compute has no way to the database; a cell is mapped before its database is migrated and before
// anything starts that reads the mapping; libvirt listens on no network. What depends on how a node can run guests is
// decided on the node. The package must never touch an instance.
package nova

import (
	"embed"
	"slices"
	"time"

	"nines/internal/model"
	"nines/internal/openstack"
	"nines/internal/plan"
	"nines/internal/secret"
	"nines/internal/service"
)

// Name of the service.
const Name = "nova"

// SecretMetadata is what Neutron's metadata agents prove with that they speak for an instance: they read it
// under this name.
const SecretMetadata = Name + "/metadata-secret"

const (
	user         = "nova"
	confPath     = "/etc/nova/nova.conf"
	databasePath = "/etc/nova/nines-database.conf"
	// virtualizationPath decides on the node how guests run; virtPath is what it writes for nova-compute.
	virtualizationPath = "/usr/local/lib/nines/virtualization"
	virtPath           = "/run/nines-virtualization.conf"
	// computePath is nova-compute, with libvirt's events from its first start on.
	computePath = "/usr/local/lib/nines/nova-compute"
)

// The databases.
const (
	databaseAPI   = "nova_api"
	databaseCell0 = "nova_cell0"
	databaseCell1 = "nova"
)

// Units that others are tied to.
const (
	unitCompute   = "nova-compute.service"
	unitConductor = "nova-conductor.service"
	unitLibvirt   = "libvirtd.service"
)

//go:embed templates
var templateFiles embed.FS

var templates = openstack.Templates(templateFiles)

// Service is Nova. Use New.
type Service struct {
	*openstack.Service
	cells cells
}

var _ interface {
	service.Service
	service.SecretUser
	service.Actor
	service.Observer
	service.Composite
	service.Published
	service.Faulty
} = (*Service)(nil)

// New returns the service. It does no I/O.
func New() *Service { return &Service{Service: openstack.New(description())} }

func description() openstack.Description {
	migrations := "/usr/lib/python3/dist-packages/nova/db/"
	daemon := func(name, title string, args ...string) openstack.Daemon {
		return openstack.Daemon{Role: model.RoleController, Unit: name + ".service", Description: "OpenStack Nova " + title, Manual: name + "(1)",
			User: user, Command: append([]string{"/usr/bin/" + name, "--config-file", confPath, "--config-file"}, args...)}
	}
	conductor := daemon("nova-conductor", "Conductor", databasePath)
	scheduler := daemon("nova-scheduler", "Scheduler", databasePath)
	console := daemon("nova-novncproxy", "noVNC Proxy", databasePath)
	compute := daemon("nova-compute", "Compute", virtPath)
	compute.Role, compute.Root = model.RoleCompute, true
	compute.Uses = []string{unitLibvirt}
	compute.Command[0] = computePath
	compute.Prepare = []string{virtualizationPath, "nova", virtPath}
	conductor.Reports, scheduler.Reports, compute.Reports = "nova-conductor", "nova-scheduler", "nova-compute"
	return openstack.Description{
		Service: Name, Type: "compute", Path: "/v2.1", Messaging: true,
		APIs: []openstack.WSGI{
			// The list of versions needs no token and no database.
			api("nova-api", "API", "/usr/bin/nova-api-wsgi", model.PortNova, "/", 3),
			api("nova-api-metadata", "Metadata API", "/usr/bin/nova-metadata-wsgi", model.PortNovaMetadata, "/healthcheck", 2),
		},
		Daemons: []openstack.Daemon{conductor, scheduler, console, compute},
		Schemas: []openstack.Schema{
			{Database: databaseAPI, Sections: map[string]string{"api_database": databaseAPI}, Scripts: migrations + "api/migrations/versions", Command: manage("api_db", "sync")},
			// This command migrates cell0 and the database of the configuration, which is cell0's here, too.
			{Database: databaseCell0, Sections: sections(databaseCell0), Scripts: migrations + "main/migrations/versions", Command: manage("db", "sync")},
			{Database: databaseCell1, Sections: sections(databaseCell1), Scripts: migrations + "main/migrations/versions", Command: manage("db", "sync")},
		},
		Reports: &openstack.Reports{Database: databaseCell1, Limit: 45 * time.Second, // service_down_time
			Query: "SELECT `binary`, host, TIMESTAMPDIFF(SECOND, COALESCE(last_seen_up, created_at), UTC_TIMESTAMP()), disabled OR forced_down " +
				"FROM services WHERE deleted = 0"},
	}
}

// sections are those that name a database, with a cell's.
func sections(cell string) map[string]string {
	return map[string]string{"api_database": databaseAPI, "database": cell}
}

// api is one of the APIs. They have a thread a process: eventlet replaces Python's threads in them, and does not go
// together with those of uWSGI.
func api(name, title, script string, port int, health string, processes int) openstack.WSGI {
	return openstack.WSGI{Name: name, Unit: name + ".service", Description: "OpenStack Nova " + title, Manual: name + "(1)",
		User: user, Home: "/var/lib/nova", Script: script, Ini: "/etc/nova/nines-" + name + "-uwsgi.ini",
		Port: port, Health: health, Processes: processes, Threads: 1, Messaging: true,
		Env: []string{
			"OS_NOVA_CONFIG_FILES=api-paste.ini;nova.conf;nines-database.conf",
			// Between requests eventlet does not run, and the broker would miss its heartbeats.
			"OS_OSLO_MESSAGING_RABBIT__HEARTBEAT_IN_PTHREAD=true",
		}}
}

// manage is a command of nova-manage.
func manage(args ...string) []string {
	return append([]string{"nova-manage", "--config-file", confPath, "--config-file", databasePath}, args...)
}

// Secrets implements service.SecretUser.
func (s *Service) Secrets(c *model.Cluster) []secret.Spec {
	return append(s.Service.Secrets(c), secret.Spec{Name: SecretMetadata, Kind: secret.Password})
}

// Faults implements service.Faulty.
func (s *Service) Faults(c *model.Cluster) []service.Fault {
	out := s.Service.Faults(c)
	for _, f := range openstack.Faults(unitLibvirt) {
		f.Role = model.RoleCompute
		out = append(out, f)
	}
	return out
}

// Actions implements service.Actor.
func (s *Service) Actions() map[string]service.Action {
	actions := s.Service.Actions()
	actions[actionCells] = service.Action{Check: s.cells.check, Run: s.cells.run}
	actions[actionMapCompute] = service.Action{Check: s.cells.checkCompute, Run: s.cells.mapCompute}
	return actions
}

// Resources implements service.Service.
func (s *Service) Resources(c *model.Cluster, secrets secret.Source) ([]plan.Resource, error) {
	if len(c.Controllers()) == 0 {
		return nil, nil
	}
	cells := s.cellsResource(c)
	rs, err := s.Service.Resources(c, openstack.Configuration{
		After:       []plan.ID{cells.ID},
		SchemaAfter: map[string][]plan.ID{databaseCell0: {cells.ID}},
		Files:       func(n model.Node) ([]plan.File, error) { return s.files(c, n, secrets) },
	})
	if err != nil {
		return nil, err
	}
	rs = append(rs, cells)
	for _, n := range c.Nodes {
		if n.Has(model.RoleController) {
			rs = append(rs, s.unwanted(n, "nova-serialproxy.service", "nova-spicehtml5proxy.service")...)
		}
		if !n.Has(model.RoleCompute) {
			continue
		}
		rs = append(rs, s.unwanted(n, "libvirt-guests.service")...)
		libvirt, err := s.libvirt(n)
		if err != nil {
			return nil, err
		}
		rs = append(rs, libvirt...)
	}
	s.orderComputes(c, rs)
	return append(rs, s.computeResources(c)...), nil
}

// unwanted keeps units of the packages from running, which would listen on every address with settings of their
// own, or (libvirt-guests) save and restore instances behind Nova's back.
func (s *Service) unwanted(n model.Node, units ...string) []plan.Resource {
	var out []plan.Resource
	for _, u := range units {
		out = append(out, plan.Resource{ID: s.ID(n.Name, "unit", u), Service: Name, Node: n.Name, Unit: &plan.Unit{Name: u},
			After: []plan.ID{s.ID(n.Name, "packages", Name)}})
	}
	return out
}

// libvirt are the files and the unit of libvirt.
func (s *Service) libvirt(n model.Node) ([]plan.Resource, error) {
	packages := s.ID(n.Name, "packages", Name)
	unit := plan.Unit{Name: unitLibvirt, Enabled: true, Running: true,
		RestartOn: []plan.ID{packages, s.ID(n.Name, "file", virtualizationPath)}}
	var out []plan.Resource
	for _, f := range [][2]string{
		{"/etc/libvirt/libvirtd.conf", "libvirtd.conf"},
		{"/etc/systemd/system/libvirtd.service.d/nines-service.conf", "libvirtd.service.conf"},
		{"/etc/systemd/system/libvirtd.socket.d/nines-socket.conf", "libvirtd.socket.conf"},
	} {
		content, err := templateFiles.ReadFile("templates/" + f[1])
		if err != nil {
			return nil, err
		}
		id := s.ID(n.Name, "file", f[0])
		out = append(out, plan.Resource{ID: id, Service: Name, Node: n.Name, After: []plan.ID{packages},
			File: &plan.File{Path: f[0], Mode: 0o644, Owner: "root", Group: "root", Content: content}})
		unit.RestartOn = append(unit.RestartOn, id)
	}
	return append(out, plan.Resource{ID: s.ID(n.Name, "unit", unitLibvirt), Service: Name, Node: n.Name, Unit: &unit}), nil
}

// orderComputes lets nova-compute start after its libvirt, and after the conductors, without which it cannot.
func (s *Service) orderComputes(c *model.Cluster, rs []plan.Resource) {
	for i, r := range rs {
		if r.Unit == nil || r.Unit.Name != unitCompute {
			continue
		}
		after := []plan.ID{s.ID(r.Node, "unit", unitLibvirt)}
		for _, n := range c.Controllers() {
			after = append(after, s.ID(n.Name, "unit", unitConductor))
		}
		rs[i].After = append(slices.Clone(r.After), after...)
	}
}
