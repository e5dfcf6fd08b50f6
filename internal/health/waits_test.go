package health

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// site is a control plane of which everything serves.
func site() map[string]Standing {
	whole := func(needed int, needs ...string) Standing {
		return Standing{Needs: needs, Serving: 3, Members: 3, Needed: needed}
	}
	return map[string]Standing{"galera": whole(2), "rabbitmq": whole(2), "keepalived": whole(1),
		"keystone": whole(1, "galera", "keepalived"), "glance": whole(1, "keystone", "galera"), "nova": whole(1, "keystone", "galera", "rabbitmq")}
}

func TestWaits(t *testing.T) {
	change := func(name string, f func(*Standing)) func(map[string]Standing) {
		return func(m map[string]Standing) { s := m[name]; f(&s); m[name] = s }
	}
	dead := func(s *Standing) { s.Serving = 0 }
	for name, tc := range map[string]struct {
		change []func(map[string]Standing)
		want   string
	}{
		"all serve":       {nil, ""},
		"one member away": {[]func(map[string]Standing){change("galera", func(s *Standing) { s.Serving, s.Away = 2, []string{"ctl3"} })}, ""},
		"the database is held by its recovery": {[]func(map[string]Standing){change("galera", func(s *Standing) { s.Serving, s.Held = 0, "ctl3's position" })},
			"galera: ctl3's position; glance for galera; keystone for galera; nova for galera"},
		"machines are away": {[]func(map[string]Standing){change("galera", func(s *Standing) { s.Serving, s.Away = 1, []string{"ctl2", "ctl3"} })},
			"galera: no answer from ctl2 and ctl3; 1 of 3 members serve, 2 must; glance for galera; keystone for galera; nova for galera"},
		"a fault of its own": {[]func(map[string]Standing){change("rabbitmq", dead)}, "nova for rabbitmq"},
		"by way of another":  {[]func(map[string]Standing){change("keystone", dead)}, "glance for keystone; nova for keystone"},
		"what needs another is no root": {[]func(map[string]Standing){change("keystone", dead), change("galera", dead)},
			"glance for galera; keystone for galera; nova for galera"},
		"two": {[]func(map[string]Standing){change("rabbitmq", dead), change("galera", dead)},
			"glance for galera; keystone for galera; nova for galera+rabbitmq"},
		"nobody holds the address": {[]func(map[string]Standing){change("keepalived", func(s *Standing) { s.Lacking = "nobody holds the VIP" })},
			"glance for keepalived; keystone for keepalived; nova for keepalived"},
		"nobody was seen": {[]func(map[string]Standing){change("galera", func(s *Standing) { *s = Standing{} })}, ""},
		"a circle": {[]func(map[string]Standing){change("galera", func(s *Standing) { s.Serving, s.Needs = 0, []string{"nova"} })},
			"glance for galera; keystone for galera; nova for galera"},
	} {
		t.Run(name, func(t *testing.T) {
			m := site()
			for _, f := range tc.change {
				f(m)
			}
			var got []string
			for _, w := range Waits(m) {
				if w.Reason != "" {
					got = append(got, w.Service+": "+w.Reason)
					continue
				}
				got = append(got, w.Service+" for "+strings.Join(w.For, "+"))
			}
			if s := strings.Join(got, "; "); s != tc.want {
				t.Errorf("%s\nwant %s", s, tc.want)
			}
		})
	}
}

// Nobody waits for what serves, or for himself, and everybody whose need is down waits.
func TestWaitsAreTrue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := []string{"a", "b", "c", "d", "e", "f"}
		m := map[string]Standing{}
		for i, n := range names {
			m[n] = Standing{Needs: rapid.SliceOfDistinct(rapid.SampledFrom(names), rapid.ID).Draw(t, "needs"), // circles too
				Members: 3, Needed: rapid.IntRange(1, 2).Draw(t, "needed"), Serving: rapid.IntRange(0, 3).Draw(t, fmt.Sprint("serving", i))}
		}
		waiting := map[string]Wait{}
		for _, w := range Waits(m) {
			waiting[w.Service] = w
			for _, f := range w.For {
				if m[f].Down() == "" || f == w.Service {
					t.Fatalf("%+v waits for what serves, or itself", w)
				}
			}
		}
		for _, n := range slices.Sorted(maps.Keys(m)) {
			for _, need := range m[n].Needs {
				if _, ok := waiting[n]; !ok && need != n && m[need].Down() != "" && len(m[need].Needs) == 0 {
					t.Fatalf("%s does not wait although %s is down", n, need)
				}
			}
		}
	})
}

func TestFold(t *testing.T) {
	cs := []Condition{{Code: "a", Follows: "keystone"}, {Code: "b", Follows: "nova/metadata"}, {Code: "c", Service: "keystone"}, {Code: "d", Follows: "glance"}}
	left, waits := Fold(cs, []Wait{{Service: "keystone", For: []string{"galera"}}, {Service: "nova", For: []string{"galera"}}})
	if len(left) != 2 || left[0].Code != "c" || left[1].Code != "d" {
		t.Errorf("left %+v: what says more, and whoever does not wait, is told", left)
	}
	if len(waits[0].Folded) != 1 || len(waits[1].Folded) != 1 || waits[1].Folded[0].Code != "b" {
		t.Errorf("folded %+v", waits)
	}
	if left, _ := Fold(cs, nil); len(left) != len(cs) {
		t.Errorf("nobody waits, and %+v is left", left)
	}
}
