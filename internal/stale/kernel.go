package stale

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"nines/internal/host"
)

// Kernel implements Connections with ss(8) and nft(8).
type Kernel struct {
	Host host.Host
	// Agents is the port that agents speak to each other at.
	Agents uint16
	// Rings are the ports of Corosync's links (UDP).
	Rings []uint16
}

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
func (k Kernel) Refuse(ctx context.Context, r Refusal) error {
	_, err := k.Host.Run(ctx, host.Cmd{Args: []string{"nft", "-f", "-"}, Stdin: []byte(rules(r, k))})
	return err
}

// rules are the lines for nft. The elements of a set vanish by themselves after their time.
func rules(r Refusal, k Kernel) string {
	var b strings.Builder
	// A table that is not there cannot be deleted.
	fmt.Fprintf(&b, "table %s\ndelete table %s\n", table, table)
	if len(r.Dead)+len(r.Avoided) == 0 {
		return b.String()
	}
	set := func(name, kind string, elements []string) {
		fmt.Fprintf(&b, "\tset %s { type %s; flags timeout;", name, kind)
		if len(elements) > 0 {
			until := fmt.Sprintf(" timeout %ds", int(r.Held.Seconds()))
			fmt.Fprintf(&b, " elements = { %s%s };", strings.Join(elements, until+", "), until)
		}
		b.WriteString(" }\n")
	}
	fmt.Fprintf(&b, "table %s {\n", table)
	for _, s := range []struct {
		name    string
		remotes []netip.Addr
	}{{"dead", r.Dead}, {"avoided", r.Avoided}} {
		var v4, v6 []string
		for _, a := range s.remotes {
			if a.Is6() {
				v6 = append(v6, a.String())
			} else {
				v4 = append(v4, a.String())
			}
		}
		set(s.name+"4", "ipv4_addr", v4)
		set(s.name+"6", "ipv6_addr", v6)
	}
	var rings []string
	if len(r.Avoided) > 0 {
		for _, port := range k.Rings {
			rings = append(rings, fmt.Sprint(port))
		}
	}
	set("rings", "inet_service", rings)
	b.WriteString("\tchain output {\n\t\ttype filter hook output priority filter; policy accept;\n")
	// A reset tells the other side at once what else it would wait for.
	b.WriteString("\t\ttcp flags & rst == rst accept\n")
	b.WriteString("\t\tmeta l4proto tcp ip daddr @dead4 reject with tcp reset\n")
	b.WriteString("\t\tmeta l4proto tcp ip6 daddr @dead6 reject with tcp reset\n")
	avoid := func(direction string) {
		b.WriteString("\t\tudp dport @rings drop\n")
		fmt.Fprintf(&b, "\t\ttcp sport %d accept\n\t\ttcp dport %[1]d accept\n", k.Agents)
		fmt.Fprintf(&b, "\t\tmeta l4proto tcp ip %s @avoided4 reject with tcp reset\n", direction)
		fmt.Fprintf(&b, "\t\tmeta l4proto tcp ip6 %s @avoided6 reject with tcp reset\n", direction)
	}
	avoid("daddr")
	b.WriteString("\t}\n\tchain input {\n\t\ttype filter hook input priority filter; policy accept;\n")
	b.WriteString("\t\ttcp flags & rst == rst accept\n")
	avoid("saddr")
	b.WriteString("\t}\n}\n")
	return b.String()
}
