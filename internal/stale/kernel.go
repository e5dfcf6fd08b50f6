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
	_, err := k.Host.Run(ctx, host.Cmd{Args: []string{"nft", "-f", "-"}, Stdin: []byte(rules(r, k.Agents))})
	return err
}

// rules are the lines for nft; agents is the port that stays open to those who are avoided. The elements of a set vanish by themselves
// after their time.
func rules(r Refusal, agents uint16) string {
	var b strings.Builder
	// A table that is not there cannot be deleted.
	fmt.Fprintf(&b, "table %s\ndelete table %s\n", table, table)
	if len(r.Dead)+len(r.Avoided) == 0 {
		return b.String()
	}
	set := func(name, kind string, remotes []netip.Addr, is6 bool) {
		var elements []string
		for _, a := range remotes {
			if a.Is6() == is6 {
				elements = append(elements, fmt.Sprintf("%s timeout %ds", a, int(r.Held.Seconds())))
			}
		}
		fmt.Fprintf(&b, "\tset %s { type %s; flags timeout;", name, kind)
		if len(elements) > 0 {
			fmt.Fprintf(&b, " elements = { %s };", strings.Join(elements, ", "))
		}
		b.WriteString(" }\n")
	}
	fmt.Fprintf(&b, "table %s {\n", table)
	for _, s := range []struct {
		name    string
		remotes []netip.Addr
	}{{"dead", r.Dead}, {"avoided", r.Avoided}} {
		set(s.name+"4", "ipv4_addr", s.remotes, false)
		set(s.name+"6", "ipv6_addr", s.remotes, true)
	}
	b.WriteString("\tchain output {\n\t\ttype filter hook output priority filter; policy accept;\n")
	// A reset tells the other side at once what else it would wait for.
	b.WriteString("\t\ttcp flags & rst == rst accept\n")
	b.WriteString("\t\tmeta l4proto tcp ip daddr @dead4 reject with tcp reset\n")
	b.WriteString("\t\tmeta l4proto tcp ip6 daddr @dead6 reject with tcp reset\n")
	avoid := func(direction string) {
		fmt.Fprintf(&b, "\t\ttcp sport %d accept\n\t\ttcp dport %[1]d accept\n", agents)
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
