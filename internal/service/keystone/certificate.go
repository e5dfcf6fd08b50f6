package keystone

import (
	"context"

	"nines/internal/model"
	"nines/internal/openstack"
	"nines/internal/service"
)

// shown asks this node's Keystone for its certificate. Only a worker that has loaded the
// application answers.
func shown(ctx context.Context, env service.Env) ([]byte, error) {
	return service.ShownAt(ctx, openstack.HostPort(env.Node.Address(), model.PortKeystone))
}

// loadCertificate reloads uWSGI: it reads certificate and key only when it starts. Requests under way
// are finished, and its port stays open; new ones wait the seconds that loading the application takes.
func loadCertificate(ctx context.Context, env service.Env) error {
	return env.Host.ReloadUnit(ctx, Unit)
}
