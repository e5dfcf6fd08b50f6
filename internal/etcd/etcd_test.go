package etcd

import (
	"testing"

	"nines/internal/store"
	"nines/internal/store/storetest"
)

func TestConformanceOneMember(t *testing.T) {
	noLeaks(t)
	conform(t, 1)
}

func TestConformanceThreeMembers(t *testing.T) {
	t.Parallel()
	conform(t, 3)
}

func conform(t *testing.T, members int) {
	a := newAuthority(t)
	cfgs := configs(t, a, members)
	startAll(t, cfgs)
	storetest.Run(t, func(t *testing.T) store.Store {
		s := erasable{connect(t, a, cfgs...)}
		s.erase(t)
		return s
	})
}
