package haproxy

import (
	"context"
	"fmt"
	"time"

	"nines/internal/model"
	"nines/internal/service"
)

// shown asks the statistics page for its certificate: all listeners have the same, and
// the one that HAProxy shows to agents when it asks them is loaded with it.
func shown(ctx context.Context, env service.Env) ([]byte, error) {
	return service.ShownAt(ctx, fmt.Sprintf("%s:%d", env.Node.Address(), model.PortHAProxyStats))
}

// readyPause lies between two looks at a reloaded instance.
const readyPause = 100 * time.Millisecond

// loadCertificate reloads HAProxy, which refuses no connection by that, and waits until
// the new worker knows its servers.
func (s *Service) loadCertificate(ctx context.Context, env service.Env) error {
	if err := env.Host.ReloadUnit(ctx, Unit); err != nil {
		return err
	}
	tick := time.NewTicker(readyPause)
	defer tick.Stop()
	for {
		ready, reason, err := s.ready(ctx, env, nil)
		if ready || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("after its reload: %s: %w", reason, context.Cause(ctx))
		case <-tick.C:
		}
	}
}
