// Package health is the closed vocabulary of what may be wrong: conditions
// with a code, a severity and a hint. It is pure.
package health

import (
	"cmp"
	"slices"
)

// Severity orders conditions by how much they matter to users.
type Severity string

// The severities, from worst to least.
const (
	Critical Severity = "critical" // users feel it, or the next failure will
	Warning  Severity = "warning"  // redundancy or a rule is broken; nobody feels it yet
	Notice   Severity = "notice"   // worth knowing
)

// Condition is one thing that is not as it should be.
type Condition struct {
	Code     string   `json:"code"` // closed set, "galera-not-synced"; documented in docs/operations.md
	Severity Severity `json:"severity"`
	Node     string   `json:"node,omitempty"`
	Service  string   `json:"service,omitempty"`
	Text     string   `json:"text"` // what is, with numbers
	Hint     string   `json:"hint"` // what to do now
	// Follows is the service that does not serve, if it says no more than that. While that one waits for another
	// the condition is folded into what it waits for.
	Follows string `json:"follows,omitempty"`
	// Standing: it follows from what cluster.yaml asks for, and stays until that is changed. It is always shown,
	// but the cluster is as it was asked to be.
	Standing bool `json:"standing,omitempty"`
}

var rank = map[Severity]int{Critical: 0, Warning: 1, Notice: 2}

// Sort orders conditions: worst first, then node, service and code.
func Sort(cs []Condition) {
	slices.SortStableFunc(cs, func(a, b Condition) int {
		return cmp.Or(rank[a.Severity]-rank[b.Severity], cmp.Compare(a.Node, b.Node),
			cmp.Compare(a.Service, b.Service), cmp.Compare(a.Code, b.Code))
	})
}

// Healthy reports whether no condition is among them that takes health away.
func Healthy(cs []Condition) bool { return !slices.ContainsFunc(cs, Condition.Ails) }

// Ails reports whether the condition takes the cluster's health away: it is worse than a notice, and nobody asked for it.
func (c Condition) Ails() bool { return c.Severity != Notice && !c.Standing }
