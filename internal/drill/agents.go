package drill

import (
	"context"
	"fmt"

	"nines/internal/api"
	"nines/internal/model"
	"nines/internal/service"
)

// Agents is the cluster's agents as a drill uses them: Observer, Injector, Person and Credentials.
type Agents struct {
	Client  *api.Client
	Cluster *model.Cluster
	// Who is the person that a choice is recorded with.
	Who string
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

// TestBMC implements Person.
func (a Agents) TestBMC(ctx context.Context, node string) error {
	_, err := a.Client.FenceTest(ctx, api.FenceTestRequest{Nodes: []string{node}})
	return err
}

// Asked implements Person.
func (a Agents) Asked(ctx context.Context, svc string) ([]service.Choice, error) {
	r, err := a.Client.Recovery(ctx, svc)
	return r.Now.Choices, err
}

// Choose implements Person.
func (a Agents) Choose(ctx context.Context, svc, node string) error {
	_, err := a.Client.Recover(ctx, api.RecoveryRequest{Service: svc, Choose: node, Who: a.Who})
	return err
}
