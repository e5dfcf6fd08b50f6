package rabbitmq

import (
	"context"
	"fmt"

	"nines/internal/service"
)

var _ service.Drainable = (*Service)(nil)

// Room implements service.Drainable. A member with less than diskLimit blocks all publishers of the cluster, for as long as it runs: what is full
// on one machine would stop the messages of all. Nor is it enough to move its queues away.
func (*Service) Room() string { return dirState }

// Drain implements service.Drainable.
func (s *Service) Drain(ctx context.Context, env service.Env) error {
	u, err := env.Host.Unit(ctx, Unit)
	if err != nil {
		return fmt.Errorf("ask for the state of %s: %w", Unit, err)
	}
	if u.Active == "active" {
		if err := s.awaitDispensable(ctx, env); err != nil {
			return err
		}
	}
	if err := env.Host.StopUnit(ctx, Unit); err != nil {
		return fmt.Errorf("stop the broker: %w", err)
	}
	return nil
}

// Restore implements service.Drainable.
func (s *Service) Restore(ctx context.Context, env service.Env) error {
	if err := s.start(ctx, env, nil); err != nil {
		return err
	}
	return s.awaitServing(ctx, env)
}
