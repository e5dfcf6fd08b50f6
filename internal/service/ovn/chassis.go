package ovn

import (
	"context"
	"fmt"
	"strings"

	"nines/internal/service"
)

const (
	pidSwitch     = ovsRun + "/ovs-vswitchd.pid"
	pidController = ovnRun + "/ovn-controller.pid"
	pidNorthd     = ovnRun + "/ovn-northd.pid"
)

// control asks a daemon whose control socket has its process ID in its name.
func (s *Service) control(ctx context.Context, env service.Env, pidFile, command string, args ...any) (string, error) {
	f, err := env.Host.ReadFile(pidFile)
	if err != nil {
		return "", fmt.Errorf("%s: %w", pidFile, err)
	}
	socket := strings.TrimSuffix(pidFile, "pid") + strings.TrimSpace(string(f.Content)) + ".ctl"
	answer, err := text(ctx, s.rpc, socket, command, args...)
	return strings.TrimSpace(answer), err
}

// forwards: the daemon that forwards answers, and the tunnel address is where packets can reach it.
func (s *Service) forwards(ctx context.Context, env service.Env, _ map[string]string) (bool, string, error) {
	if _, err := s.control(ctx, env, pidSwitch, "version"); err != nil {
		return false, oneLine(err), nil
	}
	why, err := s.tunnelEnd(ctx, env)
	return why == "" && err == nil, why, err
}

// tunnelEnd says what is wrong with the tunnel address.
func (s *Service) tunnelEnd(ctx context.Context, env service.Env) (string, error) {
	device := tunnelInterface(env.Cluster, env.Node)
	path, err := datapath(ctx, env)
	if err != nil {
		return "", err
	}
	if path == datapathUser {
		device = bridgeTunnel
	}
	if device == "" {
		return "", nil // somebody else's matter
	}
	have, err := addresses(ctx, env.Host, device)
	if err != nil {
		return fmt.Sprintf("no interface %s", device), nil
	}
	for _, a := range have {
		if a == tunnelAddress(env.Node) {
			return "", nil
		}
	}
	return fmt.Sprintf("%s lacks the tunnel address %s", device, tunnelAddress(env.Node)), nil
}

// connected: ovn-controller has its connection to the southbound database.
func (s *Service) connected(ctx context.Context, env service.Env, _ map[string]string) (bool, string, error) {
	status, err := s.control(ctx, env, pidController, "connection-status")
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
	global, err := rows(ctx, s.rpc, south.socket, south.name, "SB_Global", []string{"nb_cfg"})
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
	answer, err := s.control(ctx, env, pidNorthd, "status")
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(strings.TrimPrefix(answer, "Status:")), nil
}
