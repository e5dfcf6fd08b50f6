package cli

import (
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"nines/internal/app"
	"nines/internal/exclusive"
)

func newExclusiveCommand(g *globals) *cobra.Command {
	var members []string
	var p exclusive.Program
	cmd := &cobra.Command{
		Use:    "exclusive --lease NAME --holder NODE --member ADDRESS:PORT... -- PROGRAM [ARGUMENT...]",
		Short:  "Run a program while this node holds a lease (systemd does)",
		Hidden: true,
		Args:   cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, os.Interrupt)
			defer stop()
			level := slog.LevelInfo
			if g.verbose {
				level = slog.LevelDebug
			}
			log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level, ReplaceAttr: withoutTime}))
			p.Command = args
			return app.RunExclusive(ctx, members, p, log)
		},
	}
	cmd.Flags().StringSliceVar(&members, "member", nil, "client address of a member of etcd; all of them")
	cmd.Flags().StringVar(&p.Lease, "lease", "", "name of the lease")
	cmd.Flags().StringVar(&p.Holder, "holder", "", "this node")
	cmd.Flags().StringVar(&p.Needs, "needs", "", "file without which this node does not compete for the lease")
	cmd.Flags().DurationVar(&p.Patience, "patience", 20*time.Second, "how long the program may take to end")
	for _, name := range []string{"member", "lease", "holder"} {
		if err := cmd.MarkFlagRequired(name); err != nil {
			panic(err) // the flag stands above
		}
	}
	return cmd
}
