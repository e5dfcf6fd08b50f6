package galera

import (
	"context"
	"errors"

	"nines/internal/service"
)

var _ service.Drainable = (*Service)(nil)

// Room implements service.Drainable. MariaDB on a full disk stays Synced and answers every write with "table is full"; as a member that only
// applies it cannot, and leaves with a copy that has to be made anew. One that is stopped before takes only what it missed.
func (*Service) Room() string { return dataDir }

// Drain implements service.Drainable.
func (s *Service) Drain(ctx context.Context, env service.Env) error {
	if st, err := s.server.Status(ctx); err == nil && st.primary() && st.size() < 2 {
		return errors.New("the member is alone in its Primary: it is not stopped")
	}
	return s.stop(ctx, env)
}

// Restore implements service.Drainable.
func (s *Service) Restore(ctx context.Context, env service.Env) error {
	if err := s.start(ctx, env, nil); err != nil {
		return err
	}
	return s.awaitSynced(ctx, env, nil)
}
