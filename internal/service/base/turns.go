package base

import (
	"slices"

	"nines/internal/model"
	"nines/internal/plan"
)

// turnResources have the units of a controller start one after the other when it boots, each controller beginning with another one (ADR 26). All of
// them at once keep a machine so busy that none gets ready, and all controllers in the same order get the same ones ready last.
func turnResources(c *model.Cluster, n model.Node, units []string) ([]plan.Resource, error) {
	nodes := c.Controllers()
	index := slices.IndexFunc(nodes, func(m model.Node) bool { return m.Name == n.Name })
	if index < 0 {
		return nil, nil
	}
	var out []plan.Resource
	order := turns(units, index, len(nodes))
	for i, unit := range order {
		before := ""
		if i > 0 {
			before = order[i-1]
		}
		r, err := file(n, "turn-"+unit, "/etc/systemd/system/"+unit+".d/nines-turn.conf", "turn.conf.tmpl", before)
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, nil
}

// turns is the order for the controller of that index: everybody's, begun at another place.
func turns(units []string, index, of int) []string {
	at := index * len(units) / max(of, 1)
	return slices.Concat(units[at:], units[:at])
}
