package ovn

import (
	"context"
	"strings"

	"nines/internal/ovsdb"
	"nines/internal/service"
)

const (
	pidController = ovnRun + "/ovn-controller.pid"
	pidNorthd     = ovnRun + "/ovn-northd.pid"
)

// connected: ovn-controller has its connection to the southbound database.
func (s *Service) connected(ctx context.Context, env service.Env, _ map[string]string) (bool, string, error) {
	status, err := ovsdb.Control(ctx, s.rpc, env.Host, pidController, "connection-status")
	if err != nil {
		return false, oneLine(err), nil
	}
	if status != "connected" {
		return false, "its connection to the southbound database is " + status, nil
	}
	return true, "", nil
}

// northd returns "active", "standby" or "paused".
func (s *Service) northd(ctx context.Context, env service.Env) (string, error) {
	answer, err := ovsdb.Control(ctx, s.rpc, env.Host, pidNorthd, "status")
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(strings.TrimPrefix(answer, "Status:")), nil
}
