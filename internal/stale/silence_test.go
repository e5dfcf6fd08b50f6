package stale

import (
	"context"
	"net/netip"
	"slices"
	"testing"
	"time"
)

var (
	one   = netip.MustParseAddr("198.18.0.11")
	two   = netip.MustParseAddr("198.18.0.12")
	three = netip.MustParseAddr("198.18.0.13")
)

func always(netip.Addr) time.Duration { return patience }

func TestSilence(t *testing.T) {
	type at = map[netip.Addr][2]time.Duration // answers each tick, from and until
	const throughout = time.Hour
	for name, tc := range map[string]struct {
		peers  []netip.Addr
		answer at
		stops  [2]time.Duration // this process does not run
		died   []netip.Addr     // all that were taken for dead, in order
		gone   []netip.Addr     // at the end, after 10 s
		when   time.Duration    // of the first
	}{
		"all are there":              {peers: []netip.Addr{one, two}, answer: at{one: {0, throughout}, two: {0, throughout}}},
		"one dies":                   {peers: []netip.Addr{one, two}, answer: at{one: {0, throughout}, two: {0, 3 * time.Second}}, died: []netip.Addr{two}, gone: []netip.Addr{two}, when: 3*time.Second + patience + every},
		"a short pause":              {peers: []netip.Addr{one, two}, answer: at{one: {0, throughout}, two: {0, 9 * time.Second}}},
		"the only other dies":        {peers: []netip.Addr{one}, answer: at{one: {0, 3 * time.Second}}, died: []netip.Addr{one}, gone: []netip.Addr{one}, when: 3*time.Second + patience + every},
		"this node is cut off":       {peers: []netip.Addr{one, two}, answer: at{one: {0, 3 * time.Second}, two: {0, 3 * time.Second}}, died: []netip.Addr{one, two}, gone: []netip.Addr{one, two}, when: 3*time.Second + patience + every},
		"echo requests are dropped":  {peers: []netip.Addr{one, two}, answer: at{one: {0, throughout}}},
		"this process is frozen":     {peers: []netip.Addr{one, two}, answer: at{one: {0, throughout}, two: {0, throughout}}, stops: [2]time.Duration{2 * time.Second, 7 * time.Second}},
		"it comes after a long time": {peers: []netip.Addr{one, two}, answer: at{one: {0, throughout}, two: {7 * time.Second, throughout}}},
	} {
		t.Run(name, func(t *testing.T) {
			s, start := newSilence(tc.peers), time.Now()
			var died []netip.Addr
			var when time.Duration
			for d := time.Duration(0); d <= 10*time.Second; d += every {
				if d > tc.stops[0] && d < tc.stops[1] {
					continue
				}
				if d >= tc.stops[1] || tc.stops[1] == 0 || d <= tc.stops[0] {
					if found := s.judge(start.Add(d), always); len(found) > 0 {
						if died = append(died, found...); when == 0 {
							when = d
						}
					}
				}
				for p, span := range tc.answer {
					if d >= span[0] && d <= span[1] {
						s.answered(p, start.Add(d))
					}
				}
			}
			if !slices.Equal(died, tc.died) || !slices.Equal(s.dead(), tc.gone) || when != tc.when {
				t.Errorf("died %v after %s, gone %v; want %v after %s, %v", died, when, s.dead(), tc.died, tc.when, tc.gone)
			}
		})
	}
}

func TestReturn(t *testing.T) {
	s, now := newSilence([]netip.Addr{one}), time.Now()
	s.answered(one, now)
	for past := time.Duration(0); past <= patience; past += every {
		now = now.Add(every)
		s.judge(now, always)
	}
	if !slices.Equal(s.dead(), []netip.Addr{one}) {
		t.Fatalf("dead: %v", s.dead())
	}
	if s.answered(two, now) || !s.answered(one, now) || s.answered(one, now) || len(s.dead()) > 0 {
		t.Error("a return must be told once, and only of a peer that was dead")
	}
}

func TestHolder(t *testing.T) {
	var h holder
	a, b := []byte{2, 0, 0, 0, 0, 1}, []byte{2, 0, 0, 0, 0, 2}
	for i, step := range []struct {
		to   []byte
		want bool
	}{{a, false}, {a, false}, {nil, false}, {a, false}, {b, true}, {nil, false}, {a, true}} {
		if got := h.moved(step.to); got != step.want {
			t.Errorf("step %d: %v", i, got)
		}
	}
}

func TestRollCall(t *testing.T) {
	for name, tc := range map[string]struct {
		answers []netip.Addr  // to each call, at once
		pause   time.Duration // this process stands still, once, after the first call
		absent  []netip.Addr
		calls   int
	}{
		"all are there":            {answers: []netip.Addr{one, two}, calls: rollCalls},
		"one is not":               {answers: []netip.Addr{two}, absent: []netip.Addr{one}, calls: rollCalls},
		"nobody is":                {absent: []netip.Addr{one, two}, calls: rollCalls},
		"this process stood still": {answers: []netip.Addr{two}, pause: time.Second, absent: []netip.Addr{one}, calls: 1 + rollCalls},
	} {
		t.Run(name, func(t *testing.T) {
			now := time.Now()
			s := newSilence([]netip.Addr{one, two, three})
			s.answered(one, now) // the third has never answered: it is not judged
			s.answered(two, now)
			now = now.Add(every)
			var absent []netip.Addr
			calls, told := 0, 0
			w := &watch{silence: s, Options: Options{Peers: []netip.Addr{one}, Connections: untouched{t, tc.absent},
				Absent: func(_ context.Context, peers []netip.Addr) { absent, told = peers, told+1 }}}
			w.askOne = func(netip.Addr) { calls++ }
			w.beginRoll(t.Context(), now, true)
			for i := 0; w.roll.next != nil; i++ {
				if i > 0 || tc.pause == 0 { // what came while it stood still is not read yet
					for _, p := range tc.answers {
						s.answered(p, now)
					}
				}
				now = now.Add(rollEvery)
				if i == 0 {
					now = now.Add(tc.pause)
				}
				w.callRoll(t.Context(), now)
			}
			if !slices.Equal(absent, tc.absent) || calls != tc.calls || told > 1 {
				t.Errorf("absent %v after %d calls, told %d times; want %v after %d", absent, calls, told, tc.absent, tc.calls)
			}
		})
	}
}

// Requests go past a peer that falls silent: the roll is called once, and again only after it has answered.
func TestRollCallForWhoFallsSilent(t *testing.T) {
	now := time.Now()
	s := newSilence([]netip.Addr{one, two})
	absent := 0
	w := &watch{silence: s, Options: Options{Peers: []netip.Addr{one, two}, Connections: untouched{t, []netip.Addr{one}},
		Absent: func(_ context.Context, peers []netip.Addr) {
			if !slices.Equal(peers, []netip.Addr{one}) {
				t.Errorf("absent: %v", peers)
			}
			absent++
		}}}
	w.askOne = func(netip.Addr) {}
	live := func(long time.Duration, there ...netip.Addr) {
		for end := now.Add(long); now.Before(end); now = now.Add(rollEvery) {
			for _, p := range there {
				s.answered(p, now)
			}
			w.rollSilent(t.Context(), now)
			if w.roll.next != nil {
				w.callRoll(t.Context(), now)
			}
		}
	}
	live(time.Second, one, two)
	live(suspect, two)
	if absent > 0 {
		t.Error("passed over though only one or two answers are missing")
	}
	live(patience, two)
	if absent != 1 {
		t.Errorf("passed over %d times, want once", absent)
	}
	live(time.Second, one, two)
	live(patience, two)
	if absent != 2 {
		t.Errorf("passed over %d times after it had come back and left again, want twice", absent)
	}
}

// untouched are connections of which only those that are being opened to the absent may be closed.
type untouched struct {
	t      *testing.T
	absent []netip.Addr
}

func (u untouched) Close(context.Context, netip.Addr) error {
	u.t.Error("connections are closed")
	return nil
}

func (u untouched) Refuse(context.Context, Refusal) error {
	u.t.Error("connections are refused")
	return nil
}

func (u untouched) Abandon(_ context.Context, remote netip.Addr) error {
	if !slices.Contains(u.absent, remote) {
		u.t.Errorf("connections to %s are abandoned", remote)
	}
	return nil
}
