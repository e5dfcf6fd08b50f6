// Package horizon is everything nines knows of OpenStack's dashboard: one web application on every controller, and the
// database of its sessions.
//
// Invariants: a login belongs to no controller: sessions are in the replicated database and signed with one
// key, so the next request may go to any controller. The health check renders no page. The package must never keep a
// session in memory, in memcached or in the browser (see docs/adr/0012).
package horizon

import (
	"embed"
	"net/netip"

	"nines/internal/model"
	"nines/internal/openstack"
	"nines/internal/plan"
	"nines/internal/secret"
	"nines/internal/service"
)

// Name of the service.
const Name = "horizon"

const (
	// user is who Debian's package gives the static files to.
	user = "www-data"
	home = "/var/lib/openstack-dashboard"
	// settingsPath comes after the package's own snippets, and is read with them.
	settingsPath = "/etc/openstack-dashboard/local_settings.d/_9999_nines.py"
	localPath    = "/etc/openstack-dashboard/local_settings.py"
	scriptPath   = "/etc/openstack-dashboard/nines_wsgi.py"
	managePath   = "/usr/share/openstack-dashboard/manage.py"
	cleanTimer   = "horizon-sessions.timer"
	cleanService = "horizon-sessions.service"
)

// secretKey signs sessions and forms on all controllers.
const secretKey = Name + "/signing-key"

//go:embed templates
var templateFiles embed.FS

var templates = openstack.Templates(templateFiles)

// Service is Horizon. Use New.
type Service struct{ *openstack.Service }

var _ interface {
	service.Service
	service.SecretUser
	service.Published
	service.Observer
} = (*Service)(nil)

// New returns the service. It does no I/O.
func New() *Service {
	return &Service{openstack.New(openstack.Description{
		Service: Name,
		APIs: []openstack.WSGI{{
			Name: "horizon", Unit: "horizon.service", Description: "OpenStack Horizon", Manual: "uwsgi(1)",
			User: user, Home: home, Script: scriptPath, Imports: []string{"django.core.wsgi", "django.contrib.sessions.middleware", "openstack"}, Ini: "/etc/openstack-dashboard/nines-uwsgi.ini",
			// Browsers find it on the port of https; the application's user may not bind that one.
			Port: model.PortHorizon, PublicPort: model.PortHTTPS,
			Health: "/healthcheck", Processes: 2,
			// Most of a page is waiting for the APIs.
			Threads: 4,
			Static:  map[string]string{"/static": home + "/static"},
		}},
		Schemas: []openstack.Schema{{
			Database: Name,
			Done:     "SELECT id FROM django_migrations WHERE app = 'sessions' AND name = '0001_initial'",
			// Of all that Django would make, sessions alone are used.
			Command: []string{"python3", managePath, "migrate", "--noinput", "sessions"},
		}},
	})}
}

// Secrets implements service.SecretUser.
func (s *Service) Secrets(c *model.Cluster) []secret.Spec {
	return append(s.Service.Secrets(c), secret.Spec{Name: secretKey, Kind: secret.Password})
}

// settings is what the template of the settings needs.
type settings struct {
	VIP                 netip.Addr
	KeystoneURL, Region string
	CA, SecretKey       string
	Database, Password  string
	DatabasePort        int
	Memcached           []string
}

// Resources implements service.Service.
func (s *Service) Resources(c *model.Cluster, secrets secret.Source) ([]plan.Resource, error) {
	v := settings{VIP: c.VIP.Address.Addr(), KeystoneURL: openstack.IdentityURL(c), Region: openstack.Region, CA: model.PathCA,
		Database: Name, DatabasePort: model.PortMariaDB}
	var err error
	if v.SecretKey, err = secrets.Get(secretKey); err != nil {
		return nil, err
	}
	if v.Password, err = secrets.Get(s.SecretDatabase()); err != nil {
		return nil, err
	}
	for _, n := range c.Controllers() {
		v.Memcached = append(v.Memcached, openstack.HostPort(n.Address(), model.PortMemcached))
	}
	conf, err := openstack.Render(templates, "settings.py.tmpl", v)
	if err != nil {
		return nil, err
	}
	script, err := templateFiles.ReadFile("templates/wsgi.py")
	if err != nil {
		return nil, err
	}
	local, err := templateFiles.ReadFile("templates/local_settings.py")
	if err != nil {
		return nil, err
	}
	files := []plan.File{s.ConfigFile(settingsPath, conf), rootFile(localPath, local), rootFile(scriptPath, script)}
	rs, err := s.Service.Resources(c, openstack.Configuration{Files: func(model.Node) ([]plan.File, error) { return files, nil }})
	if err != nil {
		return nil, err
	}
	for _, n := range c.Controllers() {
		clean, err := s.cleaning(c, n)
		if err != nil {
			return nil, err
		}
		rs = append(rs, clean...)
	}
	return rs, nil
}

// cleaning removes sessions that have ended from the database, once a day. Each controller may: it can be repeated.
func (s *Service) cleaning(c *model.Cluster, n model.Node) ([]plan.Resource, error) {
	packages := s.ID(n.Name, "packages", Name)
	unit := plan.Resource{ID: s.ID(n.Name, "unit", cleanTimer), Service: Name, Node: n.Name, After: []plan.ID{packages, s.SchemaID(c, Name)},
		Unit: &plan.Unit{Name: cleanTimer, Enabled: true, Running: true}}
	var out []plan.Resource
	for _, name := range []string{cleanService, cleanTimer} {
		content, err := openstack.Render(templates, name+".tmpl", struct{ User, Manage string }{user, managePath})
		if err != nil {
			return nil, err
		}
		f := rootFile("/etc/systemd/system/"+name, content)
		r := plan.Resource{ID: s.ID(n.Name, "file", f.Path), Service: Name, Node: n.Name, After: []plan.ID{packages}, File: &f}
		out = append(out, r)
		unit.Unit.RestartOn = append(unit.Unit.RestartOn, r.ID)
	}
	return append(out, unit), nil
}

func rootFile(path string, content []byte) plan.File {
	return plan.File{Path: path, Mode: 0o644, Owner: "root", Group: "root", Content: content}
}
