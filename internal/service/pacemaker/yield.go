package pacemaker

import (
	"context"
	"fmt"
	"strings"
	"time"

	"nines/internal/host"
	"nines/internal/model"
	"nines/internal/service"
)

const (
	ringsTable = "inet nines-rings"
	// quietFor is longer than it takes until a node that yields stands aside, or hears the other one again: a rule that an agent leaves behind must end.
	quietFor = 15 * time.Second
)

// Yield implements service.Yielder. Of two members that do not hear each other Corosync may leave out either, and Pacemaker has that one's power taken
// away: if it is not this node, which is about to stand aside, the third is left alone. So this node leaves the ring before another one is formed,
// once Corosync itself has lost the other one too.
func (*Service) Yield(ctx context.Context, env service.Env, on bool) error {
	if on {
		if u, err := env.Host.Unit(ctx, UnitCorosync); err != nil || u.Active != "active" {
			return err // in no ring
		}
		links, err := disconnected(ctx, env)
		if err != nil {
			return err
		}
		if lost := unlinked(links, len(networks(env.Cluster))); len(lost) != 1 {
			return nil // Corosync hears it by another way, or nobody at all
		}
	}
	_, err := env.Host.Run(ctx, host.Cmd{Args: []string{"nft", "-f", "-"}, Stdin: []byte(quiet(on))})
	if err != nil {
		return fmt.Errorf("leave or join Corosync's ring: %w", err)
	}
	return nil
}

// unlinked are the node IDs that answer Corosync on none of so many links.
func unlinked(links map[int][]int, many int) []int {
	times := map[int]int{}
	var out []int
	for _, ids := range links {
		for _, id := range ids {
			if times[id]++; times[id] == many {
				out = append(out, id)
			}
		}
	}
	return out
}

// quiet are the lines for nft by which Corosync hears nobody and is heard by nobody, or does again.
func quiet(on bool) string {
	var b strings.Builder
	// A table that is not there cannot be deleted.
	fmt.Fprintf(&b, "table %s\ndelete table %[1]s\n", ringsTable)
	if !on {
		return b.String()
	}
	var ports []string
	for _, p := range model.PortsCorosync {
		ports = append(ports, fmt.Sprintf("%d timeout %ds", p, int(quietFor.Seconds())))
	}
	fmt.Fprintf(&b, "table %s {\n\tset ports { type inet_service; flags timeout; elements = { %s } }\n", ringsTable, strings.Join(ports, ", "))
	for _, hook := range []string{"input", "output"} {
		fmt.Fprintf(&b, "\tchain %s {\n\t\ttype filter hook %[1]s priority filter; policy accept;\n\t\tudp dport @ports drop\n\t}\n", hook)
	}
	b.WriteString("}\n")
	return b.String()
}
