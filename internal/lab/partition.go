package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Cut is a direction in which no packet gets from one machine to another, on any network.
type Cut struct {
	From string `json:"from"`
	To   string `json:"to"`
}

// disorder is what was done to the network between machines. It lives as long as the network does.
type disorder struct {
	Cuts []Cut `json:"cuts,omitempty"`
	// Loss is how many of a hundred packets get lost, by machine, each way.
	Loss map[string]int `json:"loss,omitempty"`
	// Impostor is the address that a machine of nobody's claims.
	Impostor string `json:"impostor,omitempty"`
}

// CutOff cuts two machines off from each other, on all networks; oneWay: only what from sends to the other is lost.
// Clients, the operator and BMCs reach both.
func (l *Lab) CutOff(ctx context.Context, from, to string, oneWay bool) error {
	if from == to {
		return fmt.Errorf("%s cannot be cut off from itself", from)
	}
	for _, name := range []string{from, to} {
		if _, err := l.node(name); err != nil {
			return err
		}
	}
	return l.disturb(ctx, func(d *disorder) error {
		d.cut(from, to)
		if !oneWay {
			d.cut(to, from)
		}
		return nil
	})
}

// Isolate cuts a machine off from all others. Clients, the operator and BMCs still reach it.
func (l *Lab) Isolate(ctx context.Context, node string) error {
	if _, err := l.node(node); err != nil {
		return err
	}
	return l.disturb(ctx, func(d *disorder) error {
		for _, other := range l.Nodes() {
			if other != node {
				d.cut(node, other)
				d.cut(other, node)
			}
		}
		return nil
	})
}

// LosePackets has percent of a machine's packets get lost, each way; 0 ends it.
func (l *Lab) LosePackets(ctx context.Context, node string, percent int) error {
	if _, err := l.node(node); err != nil {
		return err
	}
	if percent < 0 || percent > 100 {
		return fmt.Errorf("%d percent of packets cannot be lost: from 0 to 100", percent)
	}
	return l.disturb(ctx, func(d *disorder) error {
		delete(d.Loss, node)
		if percent > 0 {
			if d.Loss == nil {
				d.Loss = map[string]int{}
			}
			d.Loss[node] = percent
		}
		return nil
	})
}

// Mend puts the network between the machines right again.
func (l *Lab) Mend(ctx context.Context) error {
	return l.disturb(ctx, func(d *disorder) error {
		if d.Impostor != "" {
			if err := l.removeImpostor(); err != nil {
				return err
			}
		}
		*d = disorder{}
		return nil
	})
}

// cut adds a cut that is not there yet.
func (d *disorder) cut(from, to string) {
	if c := (Cut{from, to}); !slices.Contains(d.Cuts, c) {
		d.Cuts = append(d.Cuts, c)
	}
}

// bothWays reports whether the machines of the cut do not reach each other either way.
func (d *disorder) bothWays(c Cut) bool { return slices.Contains(d.Cuts, Cut{c.To, c.From}) }

func (l *Lab) disorderFile() string { return filepath.Join(l.runDir(), "disorder.json") }

// disorderNow is what was done to the network and was not mended.
func (l *Lab) disorderNow() (disorder, error) {
	var d disorder
	raw, err := os.ReadFile(l.disorderFile())
	if errors.Is(err, fs.ErrNotExist) {
		return d, nil
	}
	if err == nil {
		err = json.Unmarshal(raw, &d)
	}
	if err != nil {
		return d, fmt.Errorf("network of lab %s: %w", l.Name(), err)
	}
	return d, nil
}

// disturb changes what is done to the network.
func (l *Lab) disturb(ctx context.Context, change func(*disorder) error) error {
	if !isNetworkNamespace(l.Netns()) {
		return fmt.Errorf("lab %s has no network: nines lab up --name %s makes it", l.Name(), l.Name())
	}
	unlock, err := lockFile(ctx, l.disorderFile()+".lock")
	if err != nil {
		return err
	}
	defer unlock()
	d, err := l.disorderNow()
	if err != nil {
		return err
	}
	if err := change(&d); err != nil {
		return err
	}
	if err := l.filter(ctx, l.rules(d)); err != nil {
		return err
	}
	raw, err := json.Marshal(d)
	if err != nil {
		return err
	}
	return writeFileAtomic(l.disorderFile(), raw, 0o600)
}

// tableName is the table of rules in the lab's namespace.
const tableName = "nines-lab"

// rules writes the disorder as one transaction for nft. What a machine sends comes from one of its ports of a bridge, and what
// it hears leaves through one. A direction that is cut alone still lets ARP pass: without it the other direction would
// fall silent too, once the neighbours' memory has run out.
func (l *Lab) rules(d disorder) string {
	var b strings.Builder
	fmt.Fprintf(&b, "table bridge %s\ndelete table bridge %[1]s\n", tableName)
	if len(d.Cuts) == 0 && len(d.Loss) == 0 {
		return b.String()
	}
	fmt.Fprintf(&b, "table bridge %s {\n\tchain cuts {\n\t\ttype filter hook forward priority 0\n", tableName)
	for _, c := range d.Cuts {
		match := "meta protocol != arp "
		if d.bothWays(c) {
			match = ""
		}
		fmt.Fprintf(&b, "\t\t%siifname %s oifname %s drop\n", match, l.ports(c.From), l.ports(c.To))
	}
	b.WriteString("\t}\n")
	for _, chain := range []struct{ name, hook, side string }{{"lost-from", "prerouting", "iifname"}, {"lost-to", "postrouting", "oifname"}} {
		fmt.Fprintf(&b, "\tchain %s {\n\t\ttype filter hook %s priority 0\n", chain.name, chain.hook)
		for _, node := range slices.Sorted(maps.Keys(d.Loss)) {
			fmt.Fprintf(&b, "\t\t%s %s numgen random mod 100 < %d drop\n", chain.side, l.ports(node), d.Loss[node])
		}
		b.WriteString("\t}\n")
	}
	return b.String() + "}\n"
}

// ports are the bridges' ends of a machine's interfaces, as a set of nft.
func (l *Lab) ports(node string) string {
	n, err := l.node(node)
	if err != nil {
		return "{ }" // only names that were looked up get here
	}
	var out []string
	for _, p := range n.plugs() {
		out = append(out, `"`+p.outer(node)+`"`)
	}
	return "{ " + strings.Join(out, ", ") + " }"
}

// filter loads rules in the lab's namespace.
func (l *Lab) filter(ctx context.Context, rules string) error {
	var out strings.Builder
	cmd := exec.CommandContext(ctx, "nft", "-f", "-")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(rules), &out, &out
	err := onLabNetwork(l.Netns(), func() error {
		if err := cmd.Start(); err != nil { // a child is born in the network of the thread that starts it
			return err
		}
		return cmd.Wait()
	})
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return errors.New("the program nft is missing on this host: install the package nftables")
	case err != nil && strings.Contains(rules, "numgen") && strings.Contains(out.String(), "numgen"):
		return fmt.Errorf("this kernel cannot lose packets at random (nftables' numgen, module nft_numgen): %w\n%s", err, lastLines([]byte(out.String()), 3))
	case err != nil:
		return fmt.Errorf("this kernel's filter refuses the rules of lab %s (nftables, family bridge): %w\n%s", l.Name(), err, lastLines([]byte(out.String()), 3))
	}
	return nil
}
