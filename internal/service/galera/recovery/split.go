package recovery

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"nines/internal/service"
)

// group is the one UUID whose copies count.
func (c Case) group(copies []copyOf) (uuid string, d Decision, ok bool) {
	names := map[string][]string{}
	for _, x := range copies {
		if !x.at.None() {
			names[x.at.UUID] = append(names[x.at.UUID], x.name)
		}
	}
	uuids := slices.Sorted(maps.Keys(names))
	switch {
	case len(uuids) == 1:
		return uuids[0], Decision{}, true
	case len(uuids) == 0:
		for _, x := range copies {
			if x.class == ClassSuspect {
				return "", c.suspicious(x, copyOf{}), false
			}
		}
		return "", Decision{Diagnosis: AllEmpty, Act: Ask, Reason: "no member has a database", Hint: "restore a backup"}, false
	case c.Lineage == nil || len(names[c.Lineage.UUID]) == 0:
		return "", split(byUUID(copies, uuids), "no record says which one lives"), false
	}
	if strayed := c.strayed(copies); len(strayed) > 0 {
		return "", split(byUUID(copies, uuids), strings.Join(strayed, ", ")+" was in the last Primary on record, of "+c.Lineage.UUID+
			", and has another history now: it may have acknowledged writes in the old one that nobody else has, and in the new one"), false
	}
	return c.Lineage.UUID, Decision{}, true
}

// strayed are the members of the last Primary on record whose data belongs to another cluster now. How far they were in the recorded one cannot
// be told any more.
func (c Case) strayed(copies []copyOf) []string {
	var out []string
	for _, x := range copies {
		if slices.Contains(c.Lineage.Members, x.name) && !x.at.None() && x.at.UUID != c.Lineage.UUID {
			out = append(out, x.name)
		}
	}
	return out
}

// byUUID are the copies of each cluster.
func byUUID(copies []copyOf, uuids []string) [][]copyOf {
	var out [][]copyOf
	for _, u := range uuids {
		var have []copyOf
		for _, x := range copies {
			if x.at.UUID == u {
				have = append(have, x)
			}
		}
		out = append(out, have)
	}
	return out
}

// split leaves it to a person which of several histories lives, and says who goes first in each.
func split(histories [][]copyOf, why string) Decision {
	d := Decision{Diagnosis: SplitHistory, Act: Ask}
	var told, hints []string
	for _, have := range histories {
		var choice service.Choice
		for _, x := range have {
			choice.Members = append(choice.Members, x.name)
		}
		best := first(have, slices.MaxFunc(have, func(a, b copyOf) int { return cmp.Compare(a.at.Seqno, b.at.Seqno) }).at.Seqno, "")
		choice.Node, choice.Data = best.name, best.at.String()
		d.Choices = append(d.Choices, choice)
		members := strings.Join(choice.Members, ", ")
		told = append(told, members+": "+choice.Data)
		hints = append(hints, "'nines recover galera --choose "+best.name+"' goes on with what "+members+" has")
	}
	d.Reason = "the members' data has different histories (" + strings.Join(told, "; ") + "); " + why
	d.Hint = "decide which one lives: " + strings.Join(hints, ", ") + "; the other is kept on its nodes ('--explain' shows all that is known)"
	return d
}

// apart tells two histories of one UUID from each other: that of members which went down in a Primary that was no majority, first, and that of
// all others. So small a Primary comes about by itself when members leave one after the other; it was founded by hand, if half of a view before it, or more, went
// down together, and they were in the last Primary on record. If that one was seen to go on without these members, it has another history in any case. Positions do not show it: a copy with one more row is no later one
// then, and Galera would join the two without a word. founder was told to be alone. nil: there is one history, as far as can be told.
func (c Case) apart(copies []copyOf, uuid, founder string) [][]copyOf {
	copies = slices.DeleteFunc(slices.Clone(copies), func(x copyOf) bool { return x.at.UUID != uuid })
	for _, x := range copies {
		v := c.Evidence[x.name].View
		if v == nil || 2*len(v.Members) > len(c.Members) || x.name == founder {
			continue
		}
		var own, others []copyOf
		down := map[string]int{} // by view
		// Whoever founded in the epoch before had nobody beside it with such a view: it was taken from all who were there.
		proved := c.Pinned != "" || c.Lineage != nil && slices.Contains(c.Lineage.PassedOver, x.name)
		for _, y := range copies {
			w := c.Evidence[y.name].View
			if w != nil && w.ID == v.ID {
				own = append(own, y)
				continue
			}
			others = append(others, y)
			if w != nil && c.onRecord(y.name) {
				down[w.ID]++
				proved = proved || 2*down[w.ID] >= len(w.Members)
			}
		}
		if proved && len(others) > 0 {
			return [][]copyOf{own, others}
		}
	}
	return nil
}

// onRecord reports whether the member was in the last Primary that was written down. Without a record it may have been.
func (c Case) onRecord(name string) bool {
	return c.Lineage == nil || slices.Contains(c.Lineage.Members, name)
}

// apartFrom are the members whose copies belong to another history of the same UUID than the chosen one's.
func (c Case) apartFrom(choice, uuid string) []string {
	var out []string
	sides := c.apart(c.copies(), uuid, "")
	for _, side := range sides {
		if slices.ContainsFunc(side, func(x copyOf) bool { return x.name == choice }) {
			continue
		}
		for _, x := range side {
			out = append(out, x.name)
		}
	}
	return out
}
