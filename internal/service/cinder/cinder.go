// Package cinder is everything nines knows of OpenStack's block storage: an API and a scheduler on every controller, one
// process at a time that works on volumes, one database, and the place where the volumes are.
//
// Invariants: of the processes that work on volumes one runs at most, on a node that sees the cluster's volumes
// (the driver for files does not allow more; see docs/adr/0011); they all have the same name, so that each goes on with
// what the last one began. A volume that is attached is never moved, renamed or unmounted by nines.
package cinder

import (
	"context"
	"embed"
	"time"

	"nines/internal/health"
	"nines/internal/model"
	"nines/internal/openstack"
	"nines/internal/plan"
	"nines/internal/secret"
	"nines/internal/service"
)

// Name of the service.
const Name = "cinder"

const (
	user     = "cinder"
	confPath = "/etc/cinder/cinder.conf"
	// volumeHost is the name of whichever process works on volumes: volumes remember it.
	volumeHost = "shared"
)

//go:embed templates
var templateFiles embed.FS

var templates = openstack.Templates(templateFiles)

// Service is Cinder. Use New.
type Service struct {
	*openstack.Service
	sight openstack.Sight
}

var _ interface {
	service.Service
	service.SecretUser
	service.Actor
	service.Observer
	service.ClusterJudge
} = (*Service)(nil)

// New returns the service. It does no I/O.
func New() *Service {
	return &Service{Service: openstack.New(openstack.Description{
		Service: Name,
		APIs: []openstack.WSGI{{
			Name: "cinder-api", Unit: "cinder-api.service", Description: "OpenStack Cinder API", Manual: "cinder-manage(1)",
			User: user, Home: "/var/lib/cinder", Script: "/usr/bin/cinder-wsgi", Imports: []string{"cinder.wsgi.wsgi", "cinder.db.sqlalchemy.api", "keystonemiddleware.auth_token"}, Ini: "/etc/cinder/nines-uwsgi.ini",
			Port: model.PortCinder, Health: "/healthcheck", Processes: 2,
			// An attachment holds one until cinder-volume has answered.
			Threads: 4, Messaging: true,
		}},
		Daemons: []openstack.Daemon{
			{Role: model.RoleController, Unit: "cinder-scheduler.service", Description: "OpenStack Cinder scheduler", Manual: "cinder-scheduler(1)",
				User: user, Command: []string{"/usr/bin/cinder-scheduler", "--config-file", confPath}, Reports: "cinder-scheduler"},
			{Role: model.RoleController, Unit: "cinder-volume.service", Description: "OpenStack Cinder volume", Manual: "cinder-volume(1)",
				User: user, Command: []string{"/usr/bin/cinder-volume", "--config-file", confPath}, Reports: "cinder-volume", ReportsAs: volumeHost + "@" + backend,
				// qemu-img on files that belong to root or to the hypervisor.
				Root: true, Exclusive: true, Uses: []string{mountUnit()}, Needs: seenMark()},
		},
		// Clients ask the catalogue for "block-storage"; gophercloud, Terraform's provider and older clients for "volumev3".
		Type: "block-storage", Aliases: []string{"volumev3"}, Path: "/v3",
		Messaging: true,
		Reports: &openstack.Reports{Database: Name, Limit: time.Minute, // service_down_time
			Query: "SELECT `binary`, host, TIMESTAMPDIFF(SECOND, COALESCE(updated_at, created_at), UTC_TIMESTAMP()), disabled FROM services WHERE NOT deleted"},
		Schemas: []openstack.Schema{{
			Database: Name, Sections: map[string]string{"database": Name},
			Scripts: "/usr/lib/python3/dist-packages/cinder/db/migrations/versions",
			Command: []string{"cinder-manage", "--config-file", confPath, "db", "sync"},
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
	conf, err := openstack.Render(templates, "cinder.conf.tmpl", struct {
		openstack.Config
		VolumeHost, MountBase, Shares, Locks string
	}{values, volumeHost, model.PathVolumes, sharesPath, c.Volumes.Directory + "/" + locksFolder})
	if err != nil {
		return nil, err
	}
	stores, ready, err := storeResources(c, secrets)
	if err != nil {
		return nil, err
	}
	files := []plan.File{
		s.ConfigFile(confPath, conf),
		s.ConfigFile(sharesPath, []byte("# Written by nines: changes are drift and will be undone.\n"+share+"\n")),
	}
	rs, err := s.Service.Resources(c, openstack.Configuration{After: ready, Mount: c.Volumes.Directory,
		Files: func(model.Node) ([]plan.File, error) { return files, nil }})
	return append(rs, stores...), err
}

// Observe asks this node's API, and looks for the volumes. On computes the volumes are all there is.
func (s *Service) Observe(ctx context.Context, env service.Env) service.Observation {
	missing := store.Missing(env, &s.sight)
	missing.Code = "volume-store-missing"
	if !env.Node.Has(model.RoleController) {
		if missing.Text != "" {
			return service.Observation{Reason: missing.Text, Conditions: []health.Condition{missing}}
		}
		return service.Observation{Serving: true, Reason: "sees the volumes"}
	}
	o := s.Service.Observe(ctx, env)
	if missing.Text != "" { // the API does not need them
		o.Conditions = append(o.Conditions, missing)
	}
	return o
}
