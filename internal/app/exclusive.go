package app

import (
	"context"
	"log/slog"
	"runtime"
	"runtime/debug"

	"nines/internal/etcd"
	"nines/internal/exclusive"
	"nines/internal/model"
	"nines/internal/secret"
)

// exclusiveMemory is the soft limit of the Go heap, bytes: it holds one lease.
const exclusiveMemory = 16 << 20

// RunExclusive is the process of `nines exclusive`. members are the client addresses of etcd, ADDRESS:PORT: all of them, because
// the restart of this node's agent must not move the program.
func RunExclusive(ctx context.Context, members []string, p exclusive.Program, log *slog.Logger) error {
	debug.SetMemoryLimit(exclusiveMemory)
	runtime.GOMAXPROCS(1) // see agentProcessors
	client, err := secret.ClientTLS(model.PathCA, model.PathCert, model.PathKey)
	if err != nil {
		return err
	}
	s, err := etcd.Connect(etcd.ClientConfig{Endpoints: members, TLS: client, Log: log})
	if err != nil {
		return err
	}
	defer s.Close()
	return exclusive.Run(ctx, s, p, log)
}
