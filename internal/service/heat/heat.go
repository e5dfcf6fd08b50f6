// Package heat is everything nines knows of OpenStack's orchestration: an API and an engine on every
// controller, one database.
//
// Invariant: engines are active on all controllers; they lock a stack in the database while they work on it.
package heat

import (
	"embed"
	"time"

	"nines/internal/model"
	"nines/internal/openstack"
	"nines/internal/plan"
	"nines/internal/secret"
)

// Name of the service.
const Name = "heat"

const confPath = "/etc/heat/heat.conf"

// secretKey encrypts what stacks keep of their users in the database. Heat wants 32 characters.
const secretKey = Name + "/encryption-key"

//go:embed templates
var templateFiles embed.FS

var templates = openstack.Templates(templateFiles)

// Service is Heat. Use New.
type Service struct{ *openstack.Service }

// New returns the service. It does no I/O.
func New() *Service {
	return &Service{openstack.New(openstack.Description{
		Service: Name,
		APIs: []openstack.WSGI{{
			Name: "heat-api", Unit: "heat-api.service", Description: "OpenStack Heat API", Manual: "heat-api(1)",
			User: Name, Home: "/var/lib/heat", Script: "/usr/bin/heat-wsgi-api", Imports: []string{"heat.api.openstack.wsgi", "heat.api.openstack.v1", "keystonemiddleware.auth_token"}, Ini: "/etc/heat/nines-uwsgi.ini",
			// Each request waits for an engine.
			Port: model.PortHeat, Health: "/healthcheck", Processes: 2, Threads: 4, Messaging: true,
		}},
		Daemons: []openstack.Daemon{{Role: model.RoleController, Unit: "heat-engine.service", Description: "OpenStack Heat engine", Manual: "heat-engine(1)",
			User: Name, Command: []string{"/usr/bin/heat-engine", "--config-file", confPath}, Reports: "heat-engine"}},
		Type: "orchestration", Path: "/v1/%(tenant_id)s",
		Messaging: true,
		Schemas: []openstack.Schema{{
			Database: Name, Sections: map[string]string{"database": Name},
			Scripts: "/usr/lib/python3/dist-packages/heat/db/migrations/versions",
			Command: []string{"heat-manage", "--config-file", confPath, "db_sync"},
		}},
		Reports: &openstack.Reports{Database: Name, Limit: 2 * time.Minute, // twice its interval
			// Each start of an engine has a row of its own.
			Query: "SELECT `binary`, hostname, MIN(TIMESTAMPDIFF(SECOND, COALESCE(updated_at, created_at), UTC_TIMESTAMP())), FALSE" +
				" FROM service WHERE deleted_at IS NULL GROUP BY `binary`, hostname"},
	})}
}

// Secrets implements service.SecretUser.
func (s *Service) Secrets(c *model.Cluster) []secret.Spec {
	return append(s.Service.Secrets(c), secret.Spec{Name: secretKey, Kind: secret.Password})
}

// Resources implements service.Service.
func (s *Service) Resources(c *model.Cluster, secrets secret.Source) ([]plan.Resource, error) {
	values, err := s.Config(c, secrets)
	if err != nil {
		return nil, err
	}
	key, err := secrets.Get(secretKey)
	if err != nil {
		return nil, err
	}
	conf, err := openstack.Render(templates, "heat.conf.tmpl", struct {
		openstack.Config
		Key string
	}{values, key})
	if err != nil {
		return nil, err
	}
	return s.Service.Resources(c, openstack.Configuration{Files: func(model.Node) ([]plan.File, error) {
		return []plan.File{s.ConfigFile(confPath, conf)}, nil
	}})
}
