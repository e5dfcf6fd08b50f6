package galera

import (
	"testing"

	"pgregory.net/rapid"

	"nines/internal/service/galera/recovery"
)

func TestParseGrastate(t *testing.T) {
	g, err := parseGrastate("# GALERA saved state\nversion: 2.1\nuuid:    F8F8FC8F-e559-11f1-8745-67c4afa31da5\nseqno:   42\nsafe_to_bootstrap: 1\n")
	if err != nil || g.UUID != someUUID || g.Seqno != 42 || !g.SafeToBootstrap {
		t.Errorf("%+v, %v", g, err)
	}
	for _, bad := range []string{"", "uuid: x\nseqno: 1", "uuid: " + someUUID, "seqno: 1", "uuid: " + someUUID + "\nseqno: one"} {
		if _, err := parseGrastate(bad); err == nil {
			t.Errorf("%q was understood", bad)
		}
	}
}

// What parses names a history or the zero one, never something else.
func FuzzParseGrastate(f *testing.F) {
	f.Add("uuid: " + someUUID + "\nseqno: -1\nsafe_to_bootstrap: 0\n")
	f.Add("uuid: " + recovery.ZeroUUID + "\nseqno: 9223372036854775807\n")
	f.Fuzz(func(t *testing.T, text string) {
		g, err := parseGrastate(text)
		if err == nil && !uuidPattern.MatchString(g.UUID) {
			t.Errorf("%q gave %+v", text, g)
		}
	})
}

func FuzzParseRecovered(f *testing.F) {
	f.Add("2026-11-21 [Note] WSREP: Recovered position: " + someUUID + ":12\n")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := parseRecovered(text)
		if err == nil && !uuidPattern.MatchString(p.UUID) {
			t.Errorf("%q gave %+v", text, p)
		}
	})
}

func TestRecoveredPositionIsTheLastOne(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		noise := rapid.StringMatching(`([A-Za-z :]{0,40}\n){0,5}`)
		seqno := rapid.Int64Min(-1).Draw(t, "seqno")
		log := noise.Draw(t, "before") + "x WSREP: Recovered position: " + otherUUID + ":3\n" + noise.Draw(t, "between") +
			"x WSREP: Recovered position: " + someUUID + ":" + itoa(seqno) + "\n" + noise.Draw(t, "after")
		p, err := parseRecovered(log)
		if err != nil || p.UUID != someUUID || p.Seqno != seqno {
			t.Fatalf("%+v, %v", p, err)
		}
	})
}
