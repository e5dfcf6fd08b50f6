package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"nines/internal/cli/live"
	"nines/internal/cli/view"
)

func newUpgradeCommand(g *globals) *cobra.Command {
	cmd := &cobra.Command{Use: "upgrade", Short: "Bring new versions to the nodes"}
	cmd.AddCommand(&cobra.Command{
		Use:     "agents",
		Short:   "Bring this executable to every agent, one node at a time",
		Example: "  nines upgrade agents",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, _, err := g.deployed()
			if err != nil {
				return err
			}
			defer s.Close()
			started := time.Now()
			if err := live.Show(cmd.Context(), g.err, "Upgrading agents", s.UpgradeAgents); err != nil {
				return err
			}
			fmt.Fprintf(g.out, "All agents run this version, after %s.\n", view.Duration(time.Since(started)))
			return nil
		},
	})
	return cmd
}
