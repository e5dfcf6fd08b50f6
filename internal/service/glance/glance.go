// Package glance is everything nines knows of OpenStack's image service: one API, one database,
// and a place for images that all controllers share.
//
// Invariants: no API starts on a node that does not see the same place as the first
// controller; a node that loses sight of it gets no requests, because it would store images where nobody
// else finds them. The package must never mount, empty or adopt a directory that is another's.
package glance

import (
	"context"
	"embed"

	"nines/internal/model"
	"nines/internal/openstack"
	"nines/internal/plan"
	"nines/internal/secret"
	"nines/internal/service"
)

// Name of the service.
const Name = "glance"

const (
	user       = "glance"
	confPath   = "/etc/glance/glance-api.conf"
	scriptPath = "/etc/glance/nines_wsgi.py"
)

// storeFiles is the name of the store of kind model.StoreDirectory: images remember it.
const storeFiles = "files"

// store is where the content of images is kept.
var store = openstack.SharedDirectory{Service: Name, Content: "image", Option: "images.directory", User: user,
	Folders: []string{"images", "staging", "tasks"}, // as the configuration names them
	Path:    func(c *model.Cluster) string { return c.Images.Directory }}

//go:embed templates
var templateFiles embed.FS

var templates = openstack.Templates(templateFiles)

// Service is Glance. Use New.
type Service struct {
	*openstack.Service
	sight openstack.Sight
}

var _ interface {
	service.Service
	service.SecretUser
	service.Actor
	service.Observer
} = (*Service)(nil)

// New returns the service. It does no I/O.
func New() *Service {
	return &Service{Service: openstack.New(openstack.Description{
		Service: Name,
		APIs: []openstack.WSGI{{
			Name: "glance-api", Unit: "glance-api.service", Description: "OpenStack Glance API", Manual: "glance-api(1)",
			User: user, Home: "/var/lib/glance", Script: scriptPath, Imports: []string{"glance.common.wsgi_app", "glance.api.v2.router", "keystonemiddleware.auth_token"}, Ini: "/etc/glance/nines-uwsgi.ini",
			Port: model.PortGlance, Health: "/healthcheck", Processes: 2,
			// Each transfer of an image occupies a thread for as long as it lasts, and the health check needs one too.
			Threads: 16, Streams: true,
		}},
		Type: "image",
		Schemas: []openstack.Schema{{
			Database: Name, Sections: map[string]string{"database": Name},
			Scripts: "/usr/lib/python3/dist-packages/glance/db/sqlalchemy/alembic_migrations/versions",
			Command: []string{"glance-manage", "--config-file", confPath, "db", "sync"},
		}},
	})}
}

// Secrets implements service.SecretUser.
func (s *Service) Secrets(c *model.Cluster) []secret.Spec {
	return append(s.Service.Secrets(c), store.Secret())
}

// Actions implements service.Actor.
func (s *Service) Actions() map[string]service.Action {
	actions := s.Service.Actions()
	actions[store.ActionName()] = store.Action()
	return actions
}

// Resources implements service.Service.
func (s *Service) Resources(c *model.Cluster, secrets secret.Source) ([]plan.Resource, error) {
	values, err := s.Config(c, secrets)
	if err != nil {
		return nil, err
	}
	conf, err := openstack.Render(templates, "glance-api.conf.tmpl", struct {
		openstack.Config
		Store, Directory string
	}{values, storeFiles, c.Images.Directory})
	if err != nil {
		return nil, err
	}
	script, err := templateFiles.ReadFile("templates/wsgi.py")
	if err != nil {
		return nil, err
	}
	stores, err := store.Resources(c, c.Controllers(), secrets)
	if err != nil {
		return nil, err
	}
	var ready []plan.ID
	for _, r := range stores {
		ready = append(ready, r.ID)
	}
	files := []plan.File{
		s.ConfigFile(confPath, conf),
		{Path: scriptPath, Mode: 0o644, Owner: "root", Group: "root", Content: script},
	}
	rs, err := s.Service.Resources(c, openstack.Configuration{After: ready, Mount: c.Images.Directory,
		Files: func(model.Node) ([]plan.File, error) { return files, nil }})
	return append(rs, stores...), err
}

// Observe asks this node's API and looks for the mark of the image store.
func (s *Service) Observe(ctx context.Context, env service.Env) service.Observation {
	o := s.Service.Observe(ctx, env)
	if c := store.Missing(env, &s.sight); c.Text != "" {
		o.Serving, o.Reason = false, c.Text
		c.Code, c.Hint = "image-store-missing", c.Hint+"; this node gets no requests until then"
		o.Conditions = append(o.Conditions, c)
	}
	return o
}
