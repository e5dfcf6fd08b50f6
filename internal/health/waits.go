package health

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Standing is how a service stands in the whole cluster.
type Standing struct {
	// Needs are the services without which it is of no use.
	Needs []string
	// Serving of its Members serve, Needed must. Away are the nodes of members whose agent does not answer.
	Serving, Members, Needed int
	Away                     []string
	// Held is what its recovery waits for, or does; empty: there is none.
	Held string
	// Lacking says what else it lacks to be of use to others; empty: nothing.
	Lacking string
}

// Down says why the service is of no use to others; empty: it is, or nobody knows.
func (s Standing) Down() string {
	switch {
	case s.Members == 0:
		return ""
	case s.Serving < max(s.Needed, 1):
		return fmt.Sprintf("%d of %d members serve, %d must", s.Serving, s.Members, max(s.Needed, 1))
	}
	return s.Lacking
}

// Wait says what a service waits for: others, or what its members wait for themselves.
type Wait struct {
	Service string `json:"service"`
	// For are the services that have to serve first. Reason says what is waited for if that is no service.
	For    []string `json:"for,omitempty"`
	Reason string   `json:"reason,omitempty"`
	// Folded are the conditions that say no more than that the service waits.
	Folded []Condition `json:"folded,omitempty"`
}

// Waits says which services wait, and for what. One that is down and waits for nothing that is known, is a fault of its own: only its
// dependants wait.
func Waits(services map[string]Standing) []Wait {
	var out []Wait
	for _, name := range slices.Sorted(maps.Keys(services)) {
		s := services[name]
		w := Wait{Service: name, For: roots(services, name)}
		if len(w.For) == 0 {
			if s.Down() == "" {
				continue
			}
			switch {
			case s.Held != "":
				w.Reason = s.Held
			case len(s.Away) > 0:
				w.Reason = fmt.Sprintf("no answer from %s; %s", strings.Join(s.Away, " and "), s.Down())
			default:
				continue
			}
		}
		out = append(out, w)
	}
	return out
}

// roots are the services that a service needs, directly or by way of others, and that are down without needing another one that is.
func roots(services map[string]Standing, name string) []string {
	found, seen := map[string]bool{}, map[string]bool{name: true}
	var visit func(string) (any bool)
	visit = func(at string) (any bool) {
		for _, need := range services[at].Needs {
			if seen[need] {
				any = any || found[need]
				continue
			}
			seen[need] = true
			below := visit(need)
			if !below && services[need].Down() != "" {
				found[need], below = true, true
			}
			any = any || below
		}
		return any
	}
	visit(name)
	return slices.Sorted(maps.Keys(found))
}

// Fold takes the conditions out that say no more than that a service waits, and puts them to what it waits for.
func Fold(cs []Condition, waits []Wait) (left []Condition, folded []Wait) {
	folded = slices.Clone(waits)
	for _, c := range cs {
		about, _, _ := strings.Cut(c.Follows, "/")
		i := slices.IndexFunc(folded, func(w Wait) bool { return w.Service == about })
		if i < 0 || about == "" {
			left = append(left, c)
			continue
		}
		folded[i].Folded = append(slices.Clone(folded[i].Folded), c)
	}
	return left, folded
}
