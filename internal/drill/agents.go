package drill

import (
	"context"
	"fmt"

	"nines/internal/api"
	"nines/internal/model"
)

// Agents is the cluster's agents as a drill uses them: Observer, Injector and Credentials.
type Agents struct {
	Client  *api.Client
	Cluster *model.Cluster
}

// Snapshot implements Observer.
func (a Agents) Snapshot(ctx context.Context) (Snapshot, error) { return a.look(ctx, api.LookAtHealth) }

// Inspect implements Observer.
func (a Agents) Inspect(ctx context.Context) (Snapshot, error) { return a.look(ctx, api.LookForDrift) }

func (a Agents) look(ctx context.Context, look api.Look) (Snapshot, error) {
	st, err := a.Client.Status(ctx, look)
	if err != nil {
		return Snapshot{}, err
	}
	return FromStatus(st), nil
}

// Signal implements Injector.
func (a Agents) Signal(ctx context.Context, node, unit string, signal int) error {
	n, ok := a.Cluster.Node(node)
	if !ok {
		return fmt.Errorf("%s is no node of the cluster", node)
	}
	return a.Client.Signal(ctx, n, api.SignalRequest{Unit: unit, Signal: signal})
}

// Secret implements Credentials.
func (a Agents) Secret(ctx context.Context, name string) (string, error) {
	return a.Client.Credential(ctx, name)
}
