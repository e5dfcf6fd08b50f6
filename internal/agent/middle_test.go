package agent

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"
)

func TestTheLeadBelongsToWhoHearsAll(t *testing.T) {
	two, three := netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("192.0.2.3")
	const now, long = 200 * time.Millisecond, 5 * time.Second
	for name, c := range map[string]struct {
		own     map[netip.Addr]time.Duration // how long ago each answered here
		theirs  map[netip.Addr]time.Duration // and the one that is asked
		unheard netip.Addr
	}{
		"all are heard":                      {map[netip.Addr]time.Duration{two: now, three: now}, map[netip.Addr]time.Duration{two: now, three: now}, netip.Addr{}},
		"one is dead":                        {map[netip.Addr]time.Duration{two: now, three: long}, map[netip.Addr]time.Duration{three: long}, netip.Addr{}},
		"one has just died":                  {map[netip.Addr]time.Duration{two: now, three: 2 * time.Second}, map[netip.Addr]time.Duration{three: now}, netip.Addr{}},
		"another one hears it":               {map[netip.Addr]time.Duration{two: now, three: long}, map[netip.Addr]time.Duration{three: now}, three},
		"it never answered here":             {map[netip.Addr]time.Duration{two: now}, map[netip.Addr]time.Duration{three: now}, three},
		"nobody is heard":                    {map[netip.Addr]time.Duration{two: long, three: long}, map[netip.Addr]time.Duration{two: now, three: now}, netip.Addr{}},
		"the other one does not know either": {map[netip.Addr]time.Duration{two: now, three: long}, nil, netip.Addr{}},
	} {
		m := middle{peers: []netip.Addr{two, three},
			age: func(peer netip.Addr) (time.Duration, bool) { age, ok := c.own[peer]; return age, ok },
			heard: func(_ context.Context, asked, about netip.Addr) (time.Duration, error) {
				if c.own[asked] != now {
					t.Errorf("%s: %s was asked, and does not answer here", name, asked)
				}
				age, ok := c.theirs[about]
				if !ok {
					return 0, errors.New("it never answered")
				}
				return age, nil
			}}
		if unheard, _, ok := m.elsewhere(t.Context()); unheard != c.unheard || ok != c.unheard.IsValid() {
			t.Errorf("%s: %v, %v", name, unheard, ok)
		}
	}
}
