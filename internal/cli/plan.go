package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"nines/internal/app"
	"nines/internal/cli/view"
)

func newPlanCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "plan",
		Short: "Show what apply would change, in which order, and the quorum left",
		Long:  "Shows what apply would change. Exit code 0: nothing, 2: there are changes, 1: an error.",
		Example: `  nines plan
  nines plan --json | jq '.plan.ops[].summary'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, agents, err := g.deployed()
			if err != nil {
				return err
			}
			defer s.Close()
			reply, err := agents.Plan(cmd.Context(), s.Cluster.Shared())
			if err != nil {
				return err
			}
			ready := s.Ready(cmd.Context())
			if g.json {
				err = g.print(reply)
			} else {
				view.Plan(g.out, reply.Plan)
				switch ready {
				case app.Due:
					fmt.Fprintln(g.out, "Certificates are due: 'nines apply' renews them over SSH first, then the daemons load them, without an outage.")
				case app.Missing:
					fmt.Fprintln(g.out, "Not every agent answers: 'nines apply' brings agents and certificates over SSH first.")
				}
				if !reply.Plan.Empty() && len(reply.Plan.Blocked) == 0 {
					fmt.Fprintf(g.out, "Plan %s: 'nines apply --plan %s' does exactly this.\n", reply.Hash, reply.Hash)
				}
			}
			if err == nil && (ready != app.Ready || !reply.Plan.Empty() || len(reply.Plan.Blocked) > 0) {
				return exitCode(2)
			}
			return err
		},
	}
}
