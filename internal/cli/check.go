package cli

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"nines/internal/app"
	"nines/internal/check"
	"nines/internal/cli/live"
	"nines/internal/cli/view"
	"nines/internal/health"
	"nines/internal/measure"
	"nines/internal/progress"
)

func newCheckCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Measure the nodes and compare them with the hardware and network rules",
		Long: `Measures every node over SSH (cores, memory, disks, interfaces, latency between controllers, clocks, ports,
package source) and leaves nothing there. What would make a deployment fail is an error; sizes and
latency are errors too unless cluster.yaml says 'checks: {severity: warning}'. Exit code 0: no error, 2: errors.`,
		Example: "  nines check\n  nines check --json | jq '.conditions[]'",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := g.open()
			if err != nil {
				return err
			}
			defer s.Close()
			measured, conditions, err := g.check(cmd.Context(), s)
			if err != nil {
				return err
			}
			if g.json {
				err = g.print(map[string]any{"measured": measured, "conditions": conditions})
			} else {
				view.Conditions(g.out, conditions)
				fmt.Fprintf(g.out, "%d nodes measured.\n", len(measured))
			}
			if err == nil && critical(conditions) > 0 {
				return exitCode(2)
			}
			return err
		},
	}
}

func (g *globals) check(ctx context.Context, s *app.Session) (measured []check.Measured, conditions []health.Condition, err error) {
	err = live.Show(ctx, g.err, "Measuring the nodes", func(ctx context.Context, emit progress.Emit) (err error) {
		measured, conditions, err = s.Check(ctx, emit)
		return err
	})
	return measured, conditions, err
}

// checkFirst measures the nodes of a cluster that is not deployed yet: nothing changes on
// them while something stands in the way.
func (g *globals) checkFirst(ctx context.Context, s *app.Session) error {
	_, conditions, err := g.check(ctx, s)
	if err != nil {
		return err
	}
	if n := critical(conditions); n > 0 {
		view.Conditions(g.err, conditions)
		broken := "1 of the rules above is broken"
		if n > 1 {
			broken = fmt.Sprintf("%d of the rules above are broken", n)
		}
		return &hinted{"nothing was changed: " + broken, "mend what they name, then look with 'nines check'"}
	}
	if n := len(conditions); n > 0 {
		fmt.Fprintf(g.err, "%d warnings about the machines: 'nines check' shows them.\n", n)
	}
	return nil
}

func critical(cs []health.Condition) int {
	n := 0
	for _, c := range cs {
		if c.Severity == health.Critical {
			n++
		}
	}
	return n
}

func newMeasureCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:    "measure",
		Short:  "Measure this machine as the request on standard input says (nines check runs it on nodes)",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var req measure.Request
			if err := json.NewDecoder(g.in).Decode(&req); err != nil {
				return fmt.Errorf("request: %w", err)
			}
			return g.print(measure.Local(cmd.Context(), req))
		},
	}
}
