package stale

import (
	"net/netip"
	"slices"
	"time"
)

// silence tells from answers, and from their absence, which peers are dead. It does no I/O.
type silence struct {
	peers  []netip.Addr
	heard  map[netip.Addr]time.Time // absent: never
	gone   map[netip.Addr]bool
	fell   map[netip.Addr]bool // fallen has listed it since it answered last
	judged time.Time
}

func newSilence(peers []netip.Addr) *silence {
	return &silence{peers: peers, heard: map[netip.Addr]time.Time{}, gone: map[netip.Addr]bool{}, fell: map[netip.Addr]bool{}}
}

// answered notes an answer, and reports whether the peer had been taken for dead.
func (s *silence) answered(peer netip.Addr, now time.Time) (returned bool) {
	if !slices.Contains(s.peers, peer) {
		return false
	}
	returned = s.gone[peer]
	s.heard[peer] = now
	delete(s.gone, peer)
	delete(s.fell, peer)
	return returned
}

// judge returns the peers that have fallen silent since it was last asked.
func (s *silence) judge(now time.Time, patience func(netip.Addr) time.Duration) (died []netip.Addr) {
	late := !s.judged.IsZero() && now.Sub(s.judged) > 4*every
	s.judged = now
	if late { // this process stood still itself: who has answered meanwhile is not known
		for p := range s.heard {
			if !s.gone[p] { // whoever is gone was so before
				s.heard[p] = now
			}
		}
		return nil
	}
	for _, p := range s.peers {
		at, known := s.heard[p]
		if known && now.Sub(at) > patience(p) && !s.gone[p] {
			s.gone[p] = true
			died = append(died, p)
		}
	}
	return died
}

// since lists the peers that have answered before, but not since then, and are not taken for dead yet.
func (s *silence) since(then time.Time) []netip.Addr {
	var out []netip.Addr
	for _, p := range s.peers {
		if at, known := s.heard[p]; known && at.Before(then) && !s.gone[p] {
			out = append(out, p)
		}
	}
	return out
}

// hears reports whether the peer has answered lately.
func (s *silence) hears(peer netip.Addr, now time.Time) bool {
	at, known := s.heard[peer]
	return known && now.Sub(at) <= suspect
}

// silent lists the peers that have answered before, but not for that long.
func (s *silence) silent(now time.Time, long time.Duration) []netip.Addr {
	var out []netip.Addr
	for _, p := range s.peers {
		if at, known := s.heard[p]; known && now.Sub(at) > long {
			out = append(out, p)
		}
	}
	return out
}

// fallen lists those of the silent that it has not listed since they answered last.
func (s *silence) fallen(now time.Time, long time.Duration) []netip.Addr {
	var out []netip.Addr
	for _, p := range s.silent(now, long) {
		if !s.fell[p] {
			s.fell[p] = true
			out = append(out, p)
		}
	}
	return out
}

// unknown lists the peers that never answered.
func (s *silence) unknown() []netip.Addr {
	var out []netip.Addr
	for _, p := range s.peers {
		if _, known := s.heard[p]; !known {
			out = append(out, p)
		}
	}
	return out
}

// dead lists the peers that are taken for dead, in order.
func (s *silence) dead() []netip.Addr {
	var out []netip.Addr
	for _, p := range s.peers {
		if s.gone[p] {
			out = append(out, p)
		}
	}
	return out
}
