package recovery

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// corrected is the evidence without claims to be in a Primary that cannot be. A member that hears nobody any more goes on saying so until it has
// given up agreeing with the others on a new view (evs.install_timeout), and has nothing acknowledged meanwhile. It tells how many they were: more
// than can be left beside a majority that is alive in none.
func (c Case) corrected() map[string]Evidence {
	most := c.majority()
	if len(most) == 0 {
		return c.Evidence
	}
	out := maps.Clone(c.Evidence)
	for name, e := range out {
		if e.Server == Primary && e.Size > len(c.Members)-len(most) {
			e.Server, e.Size = NonPrimary, 1
			out[name] = e
		}
	}
	return out
}

// majority are the living members that hear each other, and no one else, if they are most of the last Primary on record and all others are
// known to be in none. Galera would have gone on with them, had each not been alone for a moment: what a link between two members
// that carries one direction only leads to. Nobody else can become a Primary without one of them.
func (c Case) majority() []string {
	if c.Lineage == nil || len(c.absent()) > 0 {
		return nil
	}
	bySize := map[int][]string{}
	for _, name := range c.alive() {
		bySize[c.Evidence[name].Size] = append(bySize[c.Evidence[name].Size], name)
	}
	for size, names := range bySize {
		most := 0
		for _, name := range names {
			if slices.Contains(c.Lineage.Members, name) {
				most++
			}
		}
		if len(names) == size && size < len(c.Members) && 2*most > len(c.Lineage.Members) {
			return names
		}
	}
	return nil
}

// majorityFirst has the majority go on without those that are alive and apart from it, if none of these has more.
func (c Case) majorityFirst(best copyOf, sources []copyOf) (Decision, bool) {
	most := c.majority()
	var among []copyOf
	for _, x := range sources {
		if slices.Contains(most, x.name) && x.at.Seqno == best.at.Seqno {
			among = append(among, x)
		}
	}
	if len(among) == 0 {
		return Decision{}, false
	}
	x := first(among, best.at.Seqno, c.pinned())
	return Decision{Diagnosis: MajorityAlive, Act: Promote, Node: x.name,
		Reason: fmt.Sprintf("%s were most of the last Primary, are alive and hear nobody else; nobody has more than %s (%d)", strings.Join(most, ", "), x.name, x.at.Seqno)}, true
}

// alive are the members that run, are in no Primary and say how far they are.
func (c Case) alive() []string {
	var out []string
	for _, name := range c.known() {
		if class, _ := Classify(c.Evidence[name]); class == ClassAlive {
			out = append(out, name)
		}
	}
	return out
}
