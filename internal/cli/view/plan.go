package view

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"nines/internal/plan"
)

// Plan shows what would change, node by node, and then in which order daemons
// restart and what stays of each quorum meanwhile.
func Plan(w io.Writer, p plan.Plan) {
	if p.Empty() && len(p.Blocked) == 0 {
		fmt.Fprintln(w, "No changes. The nodes are as cluster.yaml wants them.")
		return
	}
	for _, node := range nodesOf(p.Ops) {
		fmt.Fprintf(w, "%s\n", node)
		var rows [][]string
		for _, op := range p.Ops {
			if op.Node == node {
				rows = append(rows, []string{mark(op), op.Service, op.Summary, op.Reason})
			}
		}
		table(w, "  ", rows)
	}
	restarts(w, p)
	fmt.Fprintf(w, "\n%s on %s.\n", count(len(p.Ops), "change", "changes"), count(len(nodesOf(p.Ops)), "node", "nodes"))
	for _, b := range p.Blocked {
		fmt.Fprintf(w, "\nBlocked: %s\n  -> %s\n", b.Text, b.Hint)
	}
}

// mark is + for new, ~ for changed, ! for a restart.
func mark(op plan.Op) string {
	switch {
	case op.Restarts != "":
		return "!"
	case strings.HasPrefix(op.Summary, "change "), strings.HasPrefix(op.Summary, "reload "):
		return "~"
	}
	return "+"
}

func restarts(w io.Writer, p plan.Plan) {
	var rows [][]string
	for _, op := range p.Ops {
		if op.Restarts == "" {
			continue
		}
		left := ""
		if q := op.Quorum; q != nil {
			left = fmt.Sprintf("%d of %d %s left, %d needed", q.Left, q.Size, q.Name, q.Needed)
		}
		rows = append(rows, []string{fmt.Sprintf("%d.", len(rows)+1), op.Node, op.Restarts, left})
	}
	if len(rows) > 0 {
		fmt.Fprintln(w, "\nRestarts, in this order:")
		table(w, "  ", rows)
	}
}

func nodesOf(ops []plan.Op) []string {
	var nodes []string
	for _, op := range ops {
		if !slices.Contains(nodes, op.Node) {
			nodes = append(nodes, op.Node)
		}
	}
	slices.Sort(nodes)
	return nodes
}

// Applied shows what an apply did: its failures with hints, and the chain of ops that decided its duration.
func Applied(w io.Writer, ops []plan.Op, results map[plan.ID]plan.Result, took time.Duration) {
	byID := map[plan.ID]plan.Op{}
	failed, skipped := 0, 0
	for _, op := range ops {
		byID[op.ID] = op
		r := results[op.ID]
		switch {
		case r.Skipped:
			skipped++
		case r.Error != "":
			failed++
			fmt.Fprintf(w, "FAILED  %s on %s: %s\n", op.Summary, op.Node, r.Error)
			if r.Hint != "" {
				fmt.Fprintf(w, "        -> %s\n", r.Hint)
			}
		}
	}
	path := plan.CriticalPath(ops, results)
	if len(path) > 0 {
		fmt.Fprintf(w, "\nCritical path of %s:\n", Duration(took))
		var rows [][]string
		for _, id := range path {
			rows = append(rows, []string{Duration(results[id].Took), byID[id].Node, byID[id].Summary})
		}
		table(w, "  ", rows)
	}
	fmt.Fprintf(w, "\n%s done", count(len(ops)-failed-skipped, "change", "changes"))
	if failed > 0 {
		fmt.Fprintf(w, ", %d failed, %d waited for them and were not tried", failed, skipped)
	}
	fmt.Fprintf(w, " in %s.\n", Duration(took))
}
