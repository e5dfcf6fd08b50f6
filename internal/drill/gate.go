package drill

import (
	"fmt"
	"slices"
	"strings"

	"nines/internal/api"
	"nines/internal/converge"
	"nines/internal/health"
	"nines/internal/model"
	"nines/internal/service"
	"nines/internal/supervise"
)

// Snapshot is the cluster as its agents see it at one moment.
type Snapshot struct {
	// Nodes holds the observations by node and service; a node that did not answer is missing.
	Nodes      map[string]map[string]service.Observation
	VIPHolders []string
	Conditions []health.Condition
	// Ailing are units that do nothing, as their agents see it.
	Ailing []supervise.Ailing
	// Leader is the node that plans; empty: nobody.
	Leader string
	// Busy says that an apply is under way, and whose.
	Busy string
}

// FromStatus makes a snapshot of what the API says.
func FromStatus(st api.Status) Snapshot {
	s := Snapshot{Nodes: map[string]map[string]service.Observation{}, VIPHolders: st.VIPHolders, Conditions: st.Conditions, Leader: st.Leader}
	if st.Apply != nil && st.Apply.State == converge.Converging {
		s.Busy = st.Apply.Who
	}
	for _, n := range st.Nodes {
		if n.Report != nil {
			s.Nodes[n.Node] = n.Report.Services
			s.Ailing = append(s.Ailing, n.Report.Ailing...)
		}
	}
	for _, m := range st.Store {
		if !m.Healthy {
			s.Conditions = append(s.Conditions, health.Condition{Code: "store-member-away", Severity: health.Warning, Node: m.Name, Text: "the member of etcd does not answer"})
		}
	}
	return s
}

// clockCodes begin the codes of conditions about the time. A node that has just booted needs
// minutes to call its clock good; nothing in the control plane is less redundant meanwhile.
const clockCodes = "time-"

// Gate says why the cluster is not whole; nothing: it is. A drill on a cluster that is not
// whole would measure another fault than its own, and could be the second failure that
// takes it down.
func Gate(c *model.Cluster, s Snapshot) []string {
	var why []string
	for _, n := range c.Controllers() {
		seen, ok := s.Nodes[n.Name]
		if !ok {
			why = append(why, n.Name+" does not answer")
			continue
		}
		for name, o := range seen {
			if !o.Serving {
				why = append(why, fmt.Sprintf("%s on %s does not serve: %s", name, n.Name, o.Reason))
			}
		}
	}
	switch len(s.VIPHolders) {
	case 1:
	case 0:
		why = append(why, "nobody holds the VIP")
	default:
		why = append(why, fmt.Sprintf("more than one node holds the VIP: %v", s.VIPHolders))
	}
	if s.Busy != "" {
		why = append(why, "an apply by "+s.Busy+" is under way")
	}
	if s.Leader == "" {
		why = append(why, "no agent leads")
	}
	for _, cond := range s.Conditions {
		if cond.Ails() && !strings.HasPrefix(cond.Code, clockCodes) {
			why = append(why, cond.Code+where(cond)+": "+cond.Text)
		}
	}
	slices.Sort(why)
	return slices.Compact(why)
}

func where(c health.Condition) string {
	if c.Node == "" {
		return ""
	}
	return " on " + c.Node
}
