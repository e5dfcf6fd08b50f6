package agent

import (
	"fmt"
	"slices"
	"sync"

	"nines/internal/api"
	"nines/internal/converge"
	"nines/internal/heal"
	"nines/internal/health"
	"nines/internal/model"
	"nines/internal/secret"
	"nines/internal/service"
)

// shape is what the services of a cluster declare of themselves.
type shape struct {
	// needs maps a service to those that provide what it needs.
	needs map[string][]string
	// members that serve are needed at least.
	needed map[string]int
	// nodes have units of the service.
	nodes map[string][]string
	// quorums maps each service whose members carry the cluster's state to their nodes.
	quorums map[string][]string
	// address is the service without which nobody holds the VIP.
	address string
}

// shapes knows the shape of the cluster, worked out once for each spec.
type shapes struct {
	services []service.Service

	mu   sync.Mutex
	spec string
	last shape
}

func (s *shapes) of(c *model.Cluster, secrets secret.Source) (shape, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	hash := converge.SpecHash(c)
	if hash == s.spec {
		return s.last, nil
	}
	last, err := shapeOf(s.services, c, secrets)
	if err == nil {
		s.spec, s.last = hash, last
	}
	return last, err
}

// everywhere are capabilities of the machine: what lacks them is told by the node's own conditions.
var everywhere = []string{service.CapPackages, service.CapBase}

func shapeOf(services []service.Service, c *model.Cluster, secrets secret.Source) (shape, error) {
	out := shape{needs: map[string][]string{}, needed: map[string]int{}, nodes: map[string][]string{}, quorums: map[string][]string{}}
	provides, wants := map[string][]string{}, map[string][]string{}
	add := func(to map[string][]string, key, value string) {
		if !slices.Contains(to[key], value) {
			to[key] = append(to[key], value)
		}
	}
	for _, s := range services {
		if !c.Runs(s.Name()) {
			continue
		}
		rs, err := s.Resources(c, secrets)
		if err != nil {
			return shape{}, fmt.Errorf("the shape of %s: %w", s.Name(), err)
		}
		for _, r := range rs {
			for _, capability := range r.Provides {
				add(provides, capability, s.Name())
			}
			for _, capability := range r.Needs {
				add(wants, s.Name(), capability)
			}
			if r.Unit == nil || !r.Unit.Running {
				continue
			}
			add(out.nodes, s.Name(), r.Node)
			if m := r.Unit.Member; m != nil {
				out.needed[s.Name()] = m.Needed
				if m.Needed > 1 {
					add(out.quorums, s.Name(), r.Node)
				}
			}
		}
	}
	for name, capabilities := range wants {
		for _, capability := range capabilities {
			if slices.Contains(everywhere, capability) {
				continue
			}
			for _, provider := range provides[capability] {
				if provider != name {
					add(out.needs, name, provider)
				}
			}
		}
	}
	if p := provides[service.CapVIP]; len(p) > 0 {
		out.address = p[0]
	}
	return out, nil
}

// standings says how each service stands.
func (s shape) standings(st *api.Status, recoveries map[string]heal.Record) map[string]health.Standing {
	seen := observationsOf(st.Nodes)
	out := map[string]health.Standing{}
	for name, nodes := range s.nodes {
		x := health.Standing{Needs: s.needs[name], Needed: s.needed[name]}
		for _, n := range nodes {
			o, answered := seen[name][n]
			switch {
			case o.Serving:
				x.Serving++
			case !answered:
				x.Away = append(x.Away, n)
			}
		}
		slices.Sort(x.Away)
		// Only where a service is observed can it be missed.
		if len(seen[name]) > 0 {
			x.Members = len(nodes)
		}
		if m := recoveries[name].Move; m.Diagnosis != "" {
			x.Held = m.Reason
		}
		if name == s.address && len(st.VIPHolders) == 0 {
			x.Lacking = "nobody holds the VIP"
		}
		out[name] = x
	}
	return out
}

// lacking says of each service which of those that it needs does not serve, where that is known.
func (s shape) lacking(nodes []api.NodeStatus) map[string]string {
	standings := s.standings(&api.Status{Nodes: nodes}, nil)
	out := map[string]string{}
	for name, needs := range s.needs {
		for _, need := range needs {
			x := standings[need]
			x.Lacking = "" // who holds the VIP was not asked
			if why := x.Down(); why != "" {
				out[name] = need + ": " + why
			}
		}
	}
	return out
}

// foldWaits says what waits for what, and takes out of the conditions those that say no more.
func (a *Agent) foldWaits(c *model.Cluster, st *api.Status, recoveries map[string]heal.Record) {
	shape, err := a.shapes.of(c, a.secrets)
	if err != nil {
		a.Log.Debug("what waits for what", "err", err)
		return
	}
	st.Conditions, st.Waits = health.Fold(st.Conditions, health.Waits(shape.standings(st, recoveries)))
}
