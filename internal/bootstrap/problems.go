package bootstrap

import (
	"errors"
	"fmt"
	"strings"
)

// Problem is one thing that stands in the way of a bootstrap.
type Problem struct {
	Node string `json:"node"`
	Text string `json:"problem"`
	Next string `json:"hint,omitempty"` // what to do now
}

// PreflightError lists everything that stands in the way, on all nodes. No node was changed.
type PreflightError struct {
	Problems []Problem
	Nodes    int // that were looked at
}

func (e *PreflightError) Error() string {
	nodes := map[string]bool{}
	var b strings.Builder
	for _, p := range e.Problems {
		nodes[p.Node] = true
		fmt.Fprintf(&b, "\n  %s: %s", p.Node, indent(p.Text))
		if p.Next != "" {
			fmt.Fprintf(&b, "\n      %s", indent(p.Next))
		}
	}
	return fmt.Sprintf("%s on %d of %d nodes:%s", count(len(e.Problems), "problem"), len(nodes), e.Nodes, b.String())
}

// Hint says what to do now.
func (e *PreflightError) Hint() string {
	return "no machine was changed; put these right and run the same command again"
}

func indent(s string) string { return strings.ReplaceAll(s, "\n", "\n      ") }

func count(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}

// problemOf turns an error into a Problem, with its own hint where it has one.
func problemOf(node string, err error) Problem {
	p := Problem{Node: node, Text: err.Error()}
	var h interface{ Hint() string }
	if errors.As(err, &h) {
		p.Next = h.Hint()
	}
	return p
}
