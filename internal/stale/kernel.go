package stale

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"nines/internal/host"
)

// Kernel implements Connections with ss(8) and nft(8).
type Kernel struct{ Host host.Host }

// Close implements Connections. The program at this end is told "connection aborted" at once (SOCK_DESTROY).
func (k Kernel) Close(ctx context.Context, remote netip.Addr) error {
	_, err := k.Host.Run(ctx, host.Cmd{Args: []string{"ss", "--kill", "--tcp", "--no-header", "dst", remote.String()}})
	return err
}

// Abandon implements Connections.
func (k Kernel) Abandon(ctx context.Context, remote netip.Addr) error {
	_, err := k.Host.Run(ctx, host.Cmd{Args: []string{"ss", "--kill", "--tcp", "--no-header", "state", "syn-sent", "dst", remote.String()}})
	return err
}

// table is ours alone.
const table = "inet nines-stale"

// Refuse implements Connections. The rules replace those of before in one step.
func (k Kernel) Refuse(ctx context.Context, remotes []netip.Addr, held time.Duration) error {
	_, err := k.Host.Run(ctx, host.Cmd{Args: []string{"nft", "-f", "-"}, Stdin: []byte(rules(remotes, held))})
	return err
}

// rules are the lines for nft. The elements of a set vanish by themselves after their time.
func rules(remotes []netip.Addr, held time.Duration) string {
	var b strings.Builder
	// A table that is not there cannot be deleted.
	fmt.Fprintf(&b, "table %s\ndelete table %s\n", table, table)
	if len(remotes) == 0 {
		return b.String()
	}
	set := func(name, kind string, is6 bool) {
		var elements []string
		for _, a := range remotes {
			if a.Is6() == is6 {
				elements = append(elements, fmt.Sprintf("%s timeout %ds", a, int(held.Seconds())))
			}
		}
		fmt.Fprintf(&b, "\tset %s { type %s; flags timeout;", name, kind)
		if len(elements) > 0 {
			fmt.Fprintf(&b, " elements = { %s };", strings.Join(elements, ", "))
		}
		b.WriteString(" }\n")
	}
	fmt.Fprintf(&b, "table %s {\n", table)
	set("dead4", "ipv4_addr", false)
	set("dead6", "ipv6_addr", true)
	b.WriteString("\tchain output {\n\t\ttype filter hook output priority filter; policy accept;\n")
	b.WriteString("\t\tmeta l4proto tcp ip daddr @dead4 reject with tcp reset\n")
	b.WriteString("\t\tmeta l4proto tcp ip6 daddr @dead6 reject with tcp reset\n\t}\n}\n")
	return b.String()
}
