package etcd

import (
	"testing"
	"time"
)

func TestJudge(t *testing.T) {
	now := time.Now()
	const never = -1
	for _, c := range []struct {
		name                         string
		looked, led, proven, contact time.Duration // ago
		want                         bool
	}{
		{"just started", 0, 0, never, never, false},
		{"healthy", 0, 0, time.Second, never, true},
		{"reads missed on a busy machine", 0, 0, proofAge, never, true},
		{"raft stands still and believes in its leader", 0, 0, proofAge + 1, never, false},
		{"leader lost, the others are being asked", 0, leaderAge, time.Second, never, true},
		{"cut off", 0, leaderAge + 1, time.Second, never, false},
		{"cut off, others answered before the cut", 0, leaderAge + 1, time.Second, contactAge + 1, false},
		{"election", 0, 3 * time.Second, 4 * time.Second, 300 * time.Millisecond, true},
		{"election that does not end", 0, electionGrace + 1, electionGrace + 2, 300 * time.Millisecond, false},
		{"frozen", lookAge + 1, lookAge + 1, lookAge + 1, never, false},
		{"woken, not heard from anybody yet", 0, never, never, never, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			ago := func(d time.Duration) time.Time {
				if d == never {
					return time.Time{}
				}
				return now.Add(-d)
			}
			got, reason := judge(now, evidence{looked: ago(c.looked), led: ago(c.led), proven: ago(c.proven), contact: ago(c.contact)})
			if got != c.want {
				t.Errorf("judge is %v (%s), want %v", got, reason, c.want)
			}
			if !got && reason == "" {
				t.Error("no without a reason")
			}
		})
	}
}
