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

// filled: a northd has written what every southbound database begins with, and it has reached this node's member.
func (s *Service) filled(ctx context.Context, _ service.Env, _ map[string]string) (bool, string, error) {
	global, err := ovsdb.Rows(ctx, s.rpc, south.socket, south.name, "SB_Global", []string{"nb_cfg"})
	if err != nil {
		return false, oneLine(err), nil
	}
	if len(global) == 0 {
		return false, "no northd has written to the southbound database", nil
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
