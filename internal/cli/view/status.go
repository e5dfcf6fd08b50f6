package view

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"nines/internal/api"
	"nines/internal/health"
)

// Status shows the cluster on one screen: members, services by node, what is wrong and what to do.
func Status(w io.Writer, s api.Status, now time.Time) {
	word := "HEALTHY"
	if !s.Healthy {
		word = "NOT HEALTHY"
	}
	vip := s.VIP
	if s.PublicVIP != "" {
		vip += " and " + s.PublicVIP
	}
	holder := strings.Join(s.VIPHolders, " and ")
	if holder == "" {
		holder = "nobody"
	}
	fmt.Fprintf(w, "%s  %s   VIP %s on %s   leader %s\n\n", s.Cluster, word, vip, holder, orNobody(s.Leader))
	services := servicesOf(s)
	head := append([]string{"NODE", "AGENT", "ETCD"}, upper(services)...)
	rows := [][]string{head}
	for _, n := range s.Nodes {
		rows = append(rows, nodeRow(n, s, services, now))
	}
	table(w, "", rows)
	if len(s.Conditions)+len(s.Waits) > 0 {
		fmt.Fprintln(w)
	}
	Waits(w, s.Waits)
	Conditions(w, s.Conditions)
	if a := s.Apply; a != nil {
		fmt.Fprintf(w, "\nlast apply: %s by %s at %s\n", a.State, a.Who, a.Since.Local().Format(time.DateTime))
	}
}

// Waits shows what waits for what, a line for all that wait for the same.
func Waits(w io.Writer, ws []health.Wait) {
	what := func(x health.Wait) string {
		if x.Reason != "" {
			return ": " + x.Reason
		}
		return " for " + strings.Join(x.For, " and ")
	}
	waiting, folded := map[string][]string{}, map[string]int{}
	for _, x := range ws {
		waiting[what(x)] = append(waiting[what(x)], x.Service)
		folded[what(x)] += len(x.Folded)
	}
	for _, x := range ws {
		names := waiting[what(x)]
		if len(names) == 0 {
			continue // told already
		}
		delete(waiting, what(x))
		word := "waits"
		if len(names) > 1 {
			word = "wait"
		}
		fmt.Fprintf(w, "%-8s  %s %s%s\n", "WAITS", strings.Join(names, ", "), word, what(x))
		if n := folded[what(x)]; n > 0 {
			fmt.Fprintf(w, "          -> left out: %s that would say no more; --json has them\n", count(n, "line", "lines"))
		}
	}
}

// Conditions shows what is not as it should be, and what to do about it.
func Conditions(w io.Writer, cs []health.Condition) {
	for _, c := range cs {
		where := strings.TrimSpace(c.Node + " " + c.Service)
		fmt.Fprintf(w, "%-8s  %s  %s: %s\n", strings.ToUpper(string(c.Severity)), c.Code, where, c.Text)
		if c.Hint != "" && c.Severity != health.Notice {
			fmt.Fprintf(w, "          -> %s\n", c.Hint)
		}
	}
}

func orNobody(s string) string {
	if s == "" {
		return "nobody"
	}
	return s
}

func upper(in []string) []string {
	out := make([]string, len(in))
	for i, s := range in {
		out[i] = strings.ToUpper(s)
	}
	return out
}

func servicesOf(s api.Status) []string {
	set := map[string]bool{}
	for _, n := range s.Nodes {
		if n.Report != nil {
			for name := range n.Report.Services {
				set[name] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(set))
}

func nodeRow(n api.NodeStatus, s api.Status, services []string, now time.Time) []string {
	if n.Report == nil {
		return []string{n.Node, "unreachable"}
	}
	row := []string{n.Node, "up " + Duration(now.Sub(n.Report.Started)), "-"}
	for _, m := range s.Store {
		switch {
		case m.Name != n.Node:
		case !m.Healthy:
			row[2] = "DOWN"
		case m.Leader:
			row[2] = "leader"
		default:
			row[2] = "member"
		}
	}
	for _, name := range services {
		o, ok := n.Report.Services[name]
		switch {
		case !ok:
			row = append(row, "-")
		case o.Serving:
			row = append(row, "ok")
		default:
			row = append(row, "DOWN")
		}
	}
	return row
}
