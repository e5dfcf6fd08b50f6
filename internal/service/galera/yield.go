package galera

import (
	"context"
	"time"

	"nines/internal/model"
	"nines/internal/service"
)

// yieldFactor: before a member that yields suspects another one, that one has suspected it (after suspect_timeout), and a third that hears both
// has struck it from the members for that (after one more: asymmetry_elimination in gcomm's evs_proto.cpp).
const yieldFactor = 3

// yielded is the tuning of a member that yields.
func yielded(t model.GaleraTuning) model.GaleraTuning {
	t.SuspectTimeout = min(yieldFactor*t.SuspectTimeout, max(t.InactiveTimeout, t.SuspectTimeout))
	return t
}

// Yield implements service.Yielder. Two members that suspect each other at the same moment are both struck by the third, and no Primary is left; if one
// of them waits, only that one is.
func (s *Service) Yield(ctx context.Context, env service.Env, on bool) error {
	s.yields.Store(on)
	d, running, err := s.detectorNow(ctx)
	if err != nil || !running {
		return err
	}
	const name = "evs.suspect_timeout"
	from, to := env.Cluster.Tuning.Galera, yielded(env.Cluster.Tuning.Galera)
	if !on {
		from, to = to, from
	}
	if d[name] != from.SuspectTimeout { // set by somebody else, who knows why
		return nil
	}
	return s.turn(ctx, d, func(l dial) time.Duration {
		if l.option == name {
			return to.SuspectTimeout
		}
		return d[l.option]
	})
}

// tuning is what this member should run with now.
func (s *Service) tuning(env service.Env) model.GaleraTuning {
	if s.yields.Load() {
		return yielded(env.Cluster.Tuning.Galera)
	}
	return env.Cluster.Tuning.Galera
}
