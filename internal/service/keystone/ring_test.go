package keystone

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"nines/internal/secret"
	"nines/internal/service"
	"nines/internal/service/servicetest"
)

func key(i int) string {
	b := make([]byte, 32)
	b[0], b[1] = byte(i), byte(i>>8)
	return base64.URLEncoding.EncodeToString(b)
}

func newRing() Ring { return Ring{Keys: map[int]string{0: key(0), 1: key(1)}} }

// has reports whether a node with these keys can read what the key encrypted.
func has(keys map[int]string, k string) bool {
	for _, v := range keys {
		if v == k {
			return true
		}
	}
	return false
}

func primary(keys map[int]string) string { return keys[Ring{Keys: keys}.Primary()] }

// Nodes take over each rotation step by step, in any interleaving. At every moment every
// node can read what every other node writes, as long as the next rotation waits for all.
func TestRotationNeverLocksAnybodyOut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ring, keep := newRing(), rapid.IntRange(3, 6).Draw(t, "keep")
		nodes := make([]map[int]string, 3)
		for i := range nodes {
			nodes[i] = map[int]string{}
			apply(nodes[i], ring.steps(nil), 99)
		}
		for round := range rapid.IntRange(1, 8).Draw(t, "rounds") {
			ring = ring.Rotate(key(100+round), keep, time.Unix(int64(round), 0))
			for _, n := range rapid.Permutation([]int{0, 1, 2}).Draw(t, "order") {
				todo := ring.steps(nodes[n])
				for len(todo) > 0 {
					apply(nodes[n], todo, 1)
					todo = ring.steps(nodes[n])
					for a := range nodes {
						for b := range nodes {
							if !has(nodes[b], primary(nodes[a])) {
								t.Fatalf("node %d cannot read what node %d writes", b, a)
							}
						}
					}
				}
			}
			for i := range nodes {
				if (Ring{Keys: nodes[i]}).Hash() != ring.Hash() {
					t.Fatalf("node %d differs after the round", i)
				}
			}
			if len(ring.Keys) > keep {
				t.Fatalf("%d keys, want at most %d", len(ring.Keys), keep)
			}
		}
	})
}

func apply(keys map[int]string, steps []fileStep, n int) {
	for _, s := range steps[:min(n, len(steps))] {
		if s.remove {
			delete(keys, s.index)
		} else {
			keys[s.index] = s.key
		}
	}
}

// A token must be readable for its whole life, however often keys rotate.
func TestKeysOutliveTokens(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lifetime := time.Duration(rapid.IntRange(1, 48).Draw(t, "hours")) * time.Hour
		period := time.Duration(rapid.IntRange(1, 24*14).Draw(t, "period")) * time.Hour
		ring := newRing()
		written := primary(ring.Keys)
		for i := 0; time.Duration(i)*period < lifetime+expiredWindow; i++ {
			if !has(ring.Keys, written) {
				t.Fatalf("the key is gone after %s, tokens live %s", time.Duration(i)*period, lifetime+expiredWindow)
			}
			ring = ring.Rotate(key(i+2), maxKeys(lifetime, period), time.Time{})
		}
	})
}

func TestStepsWriteThePrimaryFirstAndRemoveLast(t *testing.T) {
	have := map[int]string{0: key(0), 1: key(1), 2: key(2)}
	next := Ring{Keys: have}.Rotate(key(9), 3, time.Time{})
	steps := next.steps(have)
	if len(steps) != 3 || steps[0].index != 3 || steps[1].index != 0 || !steps[2].remove || steps[2].index != 1 {
		t.Fatalf("steps %+v, want write 3, write 0, remove 1", steps)
	}
}

func TestRotate(t *testing.T) {
	c, now := servicetest.Cluster(), time.Date(2026, 1, 10, 0, 0, 0, 0, time.UTC)
	period := c.Tuning.Keystone.FernetRotation
	ring := newRing()
	ring.Rotated = now.Add(-period)
	all := map[string]service.Observation{}
	for _, n := range c.Nodes {
		all[n.Name] = service.Observation{Facts: map[string]string{FactFernet: ring.Hash()}}
	}
	partly := map[string]service.Observation{"ctl1": all["ctl1"], "ctl2": all["ctl2"]}
	fresh, young := newRing(), ring
	young.Rotated = now.Add(-time.Hour)
	for name, tc := range map[string]struct {
		ring    Ring
		seen    map[string]service.Observation
		changed bool
		rotated bool
		next    time.Time
	}{
		"due":               {ring, all, true, true, now.Add(period)},
		"a node is missing": {ring, partly, false, false, now.Add(waitForNodes)},
		"not due":           {young, all, false, false, young.Rotated.Add(period)},
		"first look":        {fresh, nil, true, false, now.Add(period)},
	} {
		t.Run(name, func(t *testing.T) {
			changed, next, err := New().Rotate(c, secret.Map{SecretFernet: tc.ring.encode()}, tc.seen, now)
			if err != nil || !next.Equal(tc.next) || (len(changed) > 0) != tc.changed {
				t.Fatalf("changed %d, next %s, error %v", len(changed), next, err)
			}
			if !tc.changed {
				return
			}
			got, err := ParseRing(changed[SecretFernet])
			if err != nil {
				t.Fatal(err)
			}
			if (got.Hash() != tc.ring.Hash()) != tc.rotated || !got.Rotated.Equal(now) {
				t.Errorf("rotated %v at %s", got.Hash() != tc.ring.Hash(), got.Rotated)
			}
		})
	}
}

func FuzzParseRing(f *testing.F) {
	f.Add(`{"keys":{"0":"` + keyA + `","1":"` + keyB + `"},"rotated":"2026-01-01T00:00:00Z"}`)
	f.Add(`{"keys":{"0":"x"}}`)
	f.Fuzz(func(t *testing.T, text string) {
		r, err := ParseRing(text)
		if err != nil {
			if !errors.Is(err, ErrRing) || (len(text) > 40 && strings.Contains(err.Error(), text)) {
				t.Fatalf("error %v", err)
			}
			return
		}
		again, err := ParseRing(r.encode())
		if err != nil || again.Hash() != r.Hash() {
			t.Fatalf("round trip: %v", err)
		}
	})
}
