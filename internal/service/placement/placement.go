// Package placement is everything nines knows of OpenStack's Placement, which counts what computes
// have and what instances take: one API, one database.
//
// Invariant: the schema is in place before the API starts for the first time, because it reads
// its tables while it loads.
package placement

import (
	"embed"

	"nines/internal/model"
	"nines/internal/openstack"
	"nines/internal/plan"
	"nines/internal/secret"
)

// Name of the service.
const Name = "placement"

const confPath = "/etc/placement/placement.conf"

//go:embed templates
var templateFiles embed.FS

var templates = openstack.Templates(templateFiles)

// Service is Placement. Use New.
type Service struct{ *openstack.Service }

// New returns the service. It does no I/O.
func New() *Service {
	return &Service{openstack.New(openstack.Description{
		Service: Name,
		APIs: []openstack.WSGI{{
			Name: "placement-api", Unit: "placement-api.service", Description: "OpenStack Placement API", Manual: "placement-manage(1)",
			User: Name, Home: "/var/lib/placement", Script: "/usr/bin/placement-api", Imports: []string{"placement.wsgi", "keystonemiddleware.auth_token"}, Ini: "/etc/placement/nines-uwsgi.ini",
			// It has no health check of its own; the list of its versions needs no token and no database.
			Port: model.PortPlacement, Health: "/", Processes: 2,
			// Nova's scheduler asks for each instance, every compute each minute: short requests.
			Threads: 4,
		}},
		Type: "placement",
		Schemas: []openstack.Schema{{
			Database: Name, Sections: map[string]string{"placement_database": Name},
			Scripts: "/usr/lib/python3/dist-packages/placement/db/sqlalchemy/alembic/versions",
			Command: []string{"placement-manage", "--config-file", confPath, "db", "sync"},
		}},
	})}
}

// Resources implements service.Service.
func (s *Service) Resources(c *model.Cluster, secrets secret.Source) ([]plan.Resource, error) {
	values, err := s.Config(c, secrets)
	if err != nil {
		return nil, err
	}
	conf, err := openstack.Render(templates, "placement.conf.tmpl", values)
	if err != nil {
		return nil, err
	}
	return s.Service.Resources(c, openstack.Configuration{Files: func(model.Node) ([]plan.File, error) {
		return []plan.File{s.ConfigFile(confPath, conf)}, nil
	}})
}
