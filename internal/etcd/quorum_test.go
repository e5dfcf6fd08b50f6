package etcd

import (
	"testing"
	"time"
)

func TestJudge(t *testing.T) {
	const never = time.Hour
	for _, c := range []struct {
		name           string
		proof, contact time.Duration
		want           bool
	}{
		{"fresh proof", 100 * time.Millisecond, never, true},
		{"proof as old as it may be", proofAge, never, true},
		{"cut off", proofAge + 1, never, false},
		{"cut off, others answered before the cut", proofAge + 1, contactAge + 1, false},
		{"election", 3 * time.Second, 300 * time.Millisecond, true},
		{"election that does not end", electionGrace + 1, 300 * time.Millisecond, false},
		{"frozen for long", never, never, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, reason := judge(c.proof, c.contact)
			if got != c.want {
				t.Errorf("judge is %v, want %v", got, c.want)
			}
			if !got && reason == "" {
				t.Error("no without a reason")
			}
		})
	}
}
