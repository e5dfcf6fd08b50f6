package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"

	"github.com/coreos/go-systemd/v22/daemon"

	"nines/internal/agent"
	"nines/internal/host"
	"nines/internal/model"
	"nines/internal/secret"
	"nines/internal/service/keepalived"
)

// agentMemory is the soft limit of the Go heap, bytes: etcd's caches grow into
// whatever they are given, and a controller has better use for it.
const agentMemory = 80 << 20

// agentProcessors is how much of Go runs at once. An agent is woken dozens of times a second for a few
// microseconds; with more than one processor each time wakes threads that find nothing to do, and the
// more, the more cores the machine has: measured a seventh of its processor time on two. Nothing it does
// needs a second core, and what blocks in the kernel (etcd's log on disk) does not count.
const agentProcessors = 1

// RunAgent is the process of `nines agent`: it runs until ctx ends.
func RunAgent(ctx context.Context, file, version string, log *slog.Logger) error {
	debug.SetMemoryLimit(agentMemory)
	runtime.GOMAXPROCS(agentProcessors)
	conf, err := agentConfig(file)
	if err != nil {
		return err
	}
	key, err := os.ReadFile(filepath.Join(model.PathConfig, "cluster.key"))
	if err != nil {
		return fmt.Errorf("the cluster's key: %w", err)
	}
	server, err := secret.ServerTLS(model.PathCA, model.PathCert, model.PathKey)
	if err != nil {
		return err
	}
	client, err := secret.ClientTLS(model.PathCA, model.PathCert, model.PathKey)
	if err != nil {
		return err
	}
	linux := host.NewLinux(log)
	defer linux.Close()
	if err := linux.Recover(ctx); err != nil {
		log.Warn("leftovers of an interrupted installation", "err", err) // the next installation tries again
	}
	restarting, err := ownUnits(ctx, conf, linux, log)
	if err != nil {
		log.Error("the agent's own units are not as they should be; mend the cause and restart nines-agent", "err", err) // an agent with old ones is better than none
	}
	if restarting {
		<-ctx.Done()
		return nil
	}
	a := agent.New(agent.Options{Config: conf, Services: Services(), Host: linux, Guard: keepalived.Guard,
		Server: server, Client: client, Key: key, Version: version, Log: log})
	err = a.Run(ctx, func() {
		if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
			log.Debug("sd_notify", "err", err)
		}
	})
	if errors.Is(err, agent.ErrNewBinary) {
		return nil
	}
	return err
}

func agentConfig(file string) (model.AgentConfig, error) {
	var conf model.AgentConfig
	b, err := os.ReadFile(file)
	if err != nil {
		return conf, fmt.Errorf("agent configuration: %w", err)
	}
	if err := json.Unmarshal(b, &conf); err != nil {
		return conf, fmt.Errorf("agent configuration %s: %w", file, err)
	}
	return conf, nil
}
