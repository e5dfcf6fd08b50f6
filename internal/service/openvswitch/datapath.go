package openvswitch

import (
	"context"
	"errors"
	"fmt"

	"nines/internal/host"
	"nines/internal/model"
	"nines/internal/service"
)

// The kinds of datapath, as Open vSwitch names them.
const (
	datapathKernel = "system"
	datapathUser   = "netdev"
)

// modules are what the kernel needs to forward for the switch, tunnels included.
func modules(c *model.Cluster) []string {
	if c.Neutron.Agents() {
		return []string{"openvswitch", "vxlan"}
	}
	return []string{"openvswitch", "geneve"}
}

// datapath decides what the node's switch forwards with: the kernel where it can, else userspace. It is a fact of the
// node: loaded modules are seen in /sys without a process; modprobe knows those that can be loaded or are built in.
func datapath(ctx context.Context, env service.Env) (string, error) {
	for _, m := range modules(env.Cluster) {
		if _, err := env.Host.ReadFile("/sys/module/" + m + "/initstate"); err == nil {
			continue
		}
		_, err := env.Host.Run(ctx, host.Cmd{Args: []string{"modprobe", "--dry-run", "--quiet", m}})
		var exit *host.ExitError
		if errors.As(err, &exit) {
			return datapathUser, nil
		}
		if err != nil {
			return "", fmt.Errorf("look for the kernel's module %s: %w", m, err)
		}
	}
	return datapathKernel, nil
}
