package base

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"nines/internal/model"
	"nines/internal/secret"
	"nines/internal/service/servicetest"
)

// Each controller starts all units, each once, and two of them begin with the same one only where there are fewer units than controllers.
func TestTurns(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		of := rapid.IntRange(1, 7).Draw(t, "controllers")
		var units []string
		for i := range rapid.IntRange(0, 20).Draw(t, "units") {
			units = append(units, fmt.Sprintf("u%02d.service", i))
		}
		first := map[string]int{}
		for i := range of {
			order := turns(units, i, of)
			if !slices.Equal(slices.Sorted(slices.Values(order)), units) {
				t.Fatalf("%d of %d: %v", i, of, order)
			}
			if len(order) > 0 {
				first[order[0]]++
			}
		}
		if len(units) >= of && len(first) != of {
			t.Fatalf("%d units, %d controllers begin with %v", len(units), of, first)
		}
	})
}

func TestTurnsOfNodes(t *testing.T) {
	c := servicetest.Cluster()
	units := []string{"a.service", "b.service", "c.service"}
	rs, err := New(func(*model.Cluster, model.Node) []string { return units }).Resources(c, secret.Map{})
	if err != nil {
		t.Fatal(err)
	}
	after := map[string]string{}
	for _, r := range rs {
		if r.File == nil || !strings.HasSuffix(r.File.Path, "/nines-turn.conf") {
			continue
		}
		_, before, _ := strings.Cut(string(r.File.Content), "After=")
		after[r.Node+" "+strings.Split(r.File.Path, "/")[4]] = strings.TrimSpace(before)
	}
	want := map[string]string{
		"ctl1 a.service.d": "", "ctl1 b.service.d": "a.service", "ctl1 c.service.d": "b.service",
		"ctl2 b.service.d": "", "ctl2 c.service.d": "b.service", "ctl2 a.service.d": "c.service",
		"ctl3 c.service.d": "", "ctl3 a.service.d": "c.service", "ctl3 b.service.d": "a.service",
	}
	if fmt.Sprint(after) != fmt.Sprint(want) {
		t.Errorf("%v", after)
	}
}
