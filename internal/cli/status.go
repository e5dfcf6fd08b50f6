package cli

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"nines/internal/api"
	"nines/internal/app"
	"nines/internal/cli/view"
	"nines/internal/health"
	"nines/internal/render"
)

func newStatusCommand(g *globals) *cobra.Command {
	var watch bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show nodes, members, the VIP's holder, what is wrong and what to do",
		Long:  "Shows the cluster as its agents see it now. Exit code 0: healthy, 2: not healthy, 1: an error.",
		Example: `  nines status
  nines status --watch
  nines status --json | jq '.conditions[]'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, agents, err := g.deployed()
			if err != nil {
				return err
			}
			defer s.Close()
			ask := func(ctx context.Context) (api.Status, error) { return statusOf(ctx, s, agents) }
			if watch {
				return g.watchStatus(cmd.Context(), ask)
			}
			st, err := ask(cmd.Context())
			if err != nil {
				return err
			}
			if g.json {
				err = g.print(st)
			} else {
				view.Status(g.out, st, time.Now())
			}
			if err == nil && !st.Healthy {
				return exitCode(2)
			}
			return err
		},
	}
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "show it again every second until interrupted")
	return cmd
}

// statusOf is the cluster as its agents see it, and what is wrong on this side.
func statusOf(ctx context.Context, s *app.Session, agents *api.Client) (api.Status, error) {
	st, err := agents.Status(ctx, api.LookForDrift)
	if err != nil {
		return st, err
	}
	st.Conditions = append(st.Conditions, s.Conditions(time.Now())...)
	health.Sort(st.Conditions)
	st.Healthy = health.Healthy(st.Conditions)
	return st, nil
}

// watchStatus redraws the status every second, in place on a terminal.
func (g *globals) watchStatus(ctx context.Context, ask func(context.Context) (api.Status, error)) error {
	every := time.NewTicker(time.Second)
	defer every.Stop()
	for {
		st, err := ask(ctx)
		if ctx.Err() != nil {
			return nil
		}
		var screen bytes.Buffer
		switch {
		case g.json && err == nil:
			if err := g.print(st); err != nil {
				return err
			}
		case err != nil:
			fmt.Fprintf(&screen, "%v\n", err)
		default:
			view.Status(&screen, st, time.Now())
		}
		if isTerminal(g.out) {
			fmt.Fprint(g.out, "\x1b[H\x1b[2J") // home, clear
		}
		if _, err := g.out.Write(screen.Bytes()); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-every.C:
		}
	}
}

func newRenderCommand(g *globals) *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "render -o DIR",
		Short: "Write every file of every node into a folder, without touching a node",
		Long: `Writes every file of every node below DIR/NODE, with a mark in the place of each secret. Needs no root,
no network and no lab: for reviews and version control.`,
		Example: `  nines render -o rendered
  git diff rendered`,
		Args: cobra.NoArgs,
		RunE: func(_ *cobra.Command, _ []string) error {
			s, err := g.open()
			if err != nil {
				return err
			}
			defer s.Close()
			files, err := render.Files(app.Services(), s.Cluster)
			if err != nil {
				return err
			}
			if err := render.Write(dir, files); err != nil {
				return err
			}
			fmt.Fprintf(g.out, "%d files of %d nodes are in %s.\n", len(files), len(s.Cluster.Nodes), dir)
			return nil
		},
	}
	cmd.Flags().StringVarP(&dir, "output", "o", "", "folder to write to (required)")
	_ = cmd.MarkFlagRequired("output") // the flag exists
	return cmd
}

func newAgentCommand(g *globals) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:    "agent",
		Short:  "Run the agent of this node (systemd does)",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, os.Interrupt)
			defer stop()
			level := slog.LevelInfo
			if g.verbose {
				level = slog.LevelDebug
			}
			log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level, ReplaceAttr: withoutTime}))
			return app.RunAgent(ctx, file, Version(), log)
		},
	}
	cmd.Flags().StringVar(&file, "config", "/etc/nines/agent.json", "the agent's configuration")
	return cmd
}

// withoutTime drops the time of log lines: the journal has its own.
func withoutTime(groups []string, a slog.Attr) slog.Attr {
	if a.Key == slog.TimeKey && len(groups) == 0 {
		return slog.Attr{}
	}
	return a
}
