package cli

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"nines/internal/lab"
)

// onLab makes a command that does something to the network of a lab.
func onLab(name *string, cmd *cobra.Command, do func(ctx context.Context, l *lab.Lab, args []string) error) *cobra.Command {
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		l, err := lab.Find(*name)
		if err != nil {
			return err
		}
		return do(cmd.Context(), l, args)
	}
	return cmd
}

func newLabCutCommand(name *string) *cobra.Command {
	var oneWay bool
	cmd := onLab(name, &cobra.Command{
		Use:   "cut NODE NODE",
		Short: "Cut two machines off from each other, on all networks",
		Long: `No packet gets from the one machine to the other. Clients, the operator and BMCs reach both. With --one-way only what the first sends
to the second is lost (ARP still passes). 'nines lab heal' ends it.`,
		Args: cobra.ExactArgs(2),
	}, func(ctx context.Context, l *lab.Lab, args []string) error {
		return l.CutOff(ctx, args[0], args[1], oneWay)
	})
	cmd.Flags().BoolVar(&oneWay, "one-way", false, "only what the first sends to the second is lost")
	return cmd
}

func newLabIsolateCommand(name *string) *cobra.Command {
	return onLab(name, &cobra.Command{
		Use:   "isolate NODE",
		Short: "Cut a machine off from all others, but not from clients",
		Args:  cobra.ExactArgs(1),
	}, func(ctx context.Context, l *lab.Lab, args []string) error { return l.Isolate(ctx, args[0]) })
}

func newLabLossCommand(name *string) *cobra.Command {
	return onLab(name, &cobra.Command{
		Use:   "loss NODE PERCENT",
		Short: "Lose some of a machine's packets, each way, at random; 0 ends it",
		Args:  cobra.ExactArgs(2),
	}, func(ctx context.Context, l *lab.Lab, args []string) error {
		percent, err := strconv.Atoi(strings.TrimSuffix(args[1], "%"))
		if err != nil {
			return fmt.Errorf("%q is not a percentage: a whole number from 0 to 100", args[1])
		}
		return l.LosePackets(ctx, args[0], percent)
	})
}

func newLabClaimCommand(name *string) *cobra.Command {
	return onLab(name, &cobra.Command{
		Use:   "claim [ADDRESS]",
		Short: "Have a foreign machine claim an address by ARP (default: the VIP)",
		Long:  "A machine of nobody's on the management network says by ARP that the address is its own, and answers who asks for it. 'nines lab heal' ends it.",
		Args:  cobra.MaximumNArgs(1),
	}, func(ctx context.Context, l *lab.Lab, args []string) error {
		return l.Claim(ctx, strings.Join(args, ""))
	})
}

func newLabHealCommand(name *string) *cobra.Command {
	return onLab(name, &cobra.Command{
		Use:   "heal",
		Short: "End all cuts, losses and claims",
		Args:  cobra.NoArgs,
	}, func(ctx context.Context, l *lab.Lab, _ []string) error { return l.Mend(ctx) })
}

// writeDisorder shows what was done to the network between the machines.
func writeDisorder(w io.Writer, s lab.Status) {
	for _, c := range s.Cuts {
		back := slices.Contains(s.Cuts, lab.Cut{From: c.To, To: c.From})
		switch {
		case !back:
			fmt.Fprintf(w, "cut\t%s does not reach %s\n", c.From, c.To)
		case c.From < c.To:
			fmt.Fprintf(w, "cut\t%s and %s do not reach each other\n", c.From, c.To)
		}
	}
	for _, node := range slices.Sorted(maps.Keys(s.Loss)) {
		fmt.Fprintf(w, "loss\t%d %% of the packets of %s\n", s.Loss[node], node)
	}
	if s.Impostor != "" {
		fmt.Fprintf(w, "impostor\tclaims %s\n", s.Impostor)
	}
}
