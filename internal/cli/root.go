// Package cli turns arguments into calls of app and results into text or JSON.
//
// A command is one file (its constructor takes the globals) and one line in
// commands. Exit codes: 0 success; 1 failure; 2 success with something to look at
// (plan: there are changes, status: not healthy, drill: failed verdict, smoke: failed step);
// 64 wrong usage; 130 interrupted. What was asked for goes to standard output,
// everything else (progress, errors, logs) to standard error.
//
// It must never decide anything about a cluster, and never print a secret.
package cli

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// group is a heading of the help text with the commands below it.
type group struct {
	id, title    string
	constructors []func(*globals) *cobra.Command
}

// commands lists every command once. A group without commands must not be listed.
func commands() []group {
	return []group{
		{"describe", "Describe a cluster:", []func(*globals) *cobra.Command{
			newInitCommand, newSchemaCommand, newRenderCommand, newCheckCommand}},
		{"operate", "Deploy and run it:", []func(*globals) *cobra.Command{
			newPlanCommand, newApplyCommand, newStatusCommand, newRecoverCommand, newFenceCommand, newUpgradeCommand}},
		{"prove", "Try it and prove it:", []func(*globals) *cobra.Command{
			func(g *globals) *cobra.Command { return newLabCommand(g.deployLab) },
			func(g *globals) *cobra.Command { return newSmokeCommand(g, g.smokeHere) },
			func(g *globals) *cobra.Command { return newDrillCommand(g, g.drillsHere) }}},
		{"", "", []func(*globals) *cobra.Command{newAgentCommand, newExclusiveCommand, newMeasureCommand, newVersionCommand}},
	}
}

// globals is what all commands share: the global flags and the world around.
type globals struct {
	cluster string // -c
	json    bool
	verbose bool

	in  io.Reader
	out io.Writer
	err io.Writer
	log *slog.Logger
	// onlyLab returns the cluster.yaml of the only lab on this machine.
	onlyLab func() (string, bool)
}

// Run runs the command the arguments name and returns the exit code.
func Run(args []string) int {
	ctx, stop := interruptible()
	defer stop()
	g := &globals{in: os.Stdin, out: os.Stdout, err: os.Stderr, onlyLab: onlyLab}
	return run(ctx, g, args)
}

// interruptible returns a context that the first interrupt ends. The second one
// leaves at once: the work that goes on elsewhere does not need this process.
func interruptible() (context.Context, func()) {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	done := make(chan struct{})
	go func() {
		select {
		case <-signals:
			cancel()
		case <-done:
			return
		}
		select {
		case <-signals:
			if isTerminal(os.Stderr) {
				_, _ = os.Stderr.WriteString("\x1b[?25h\n") // the cursor, which a live view hides
			}
			os.Exit(exitInterrupted)
		case <-done:
		}
	}()
	return ctx, func() { signal.Stop(signals); close(done); cancel() }
}

// run is Run without the process around it.
func run(ctx context.Context, g *globals, args []string) int {
	began := false
	root := newRoot(g)
	mark(root, &began)
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	if !began {
		// Nothing of ours has run: cobra did not like the arguments.
		err = &usageError{err, cmd.CommandPath() + " --help"}
	}
	return g.fail(err)
}

// mark notes when a command's own code begins.
func mark(cmd *cobra.Command, began *bool) {
	if inner := cmd.RunE; inner != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			*began = true
			return inner(cmd, args)
		}
	}
	for _, sub := range cmd.Commands() {
		mark(sub, began)
	}
}

func newRoot(g *globals) *cobra.Command {
	root := &cobra.Command{
		Use:   "nines",
		Short: "A highly available OpenStack control plane, deployed, healed and proved",
		Long: `nines deploys a highly available OpenStack control plane from one
cluster.yaml, keeps it healthy, and proves it with failure drills.

Which cluster a command means: -c FILE, else $NINES_CLUSTER, else
./cluster.yaml, else the only lab on this machine.

Exit codes: 0 success, 1 failure, 2 success with something to look at (plan:
there are changes; status: not healthy; drill: failed verdict; smoke: failed
step), 64 wrong usage, 130 interrupted.`,
		Example: `  nines init                 # write a commented cluster.yaml
  nines plan                 # what would change
  nines apply                # change it
  nines status --watch       # see how it is doing`,
		Version:          Version(),
		SilenceErrors:    true,
		SilenceUsage:     true,
		TraverseChildren: true,
	}
	root.SetVersionTemplate("nines {{.Version}}\n")
	root.SetOut(g.out)
	root.SetErr(g.err)
	root.SetIn(g.in)
	flags := root.PersistentFlags()
	flags.StringVarP(&g.cluster, "cluster", "c", "", "the `FILE` that describes the cluster")
	flags.BoolVar(&g.json, "json", false, "print JSON for programs")
	flags.BoolVarP(&g.verbose, "verbose", "v", false, "log what happens to standard error")
	root.PersistentPreRun = func(*cobra.Command, []string) { g.prepare() }
	for _, group := range commands() {
		if group.id != "" {
			root.AddGroup(&cobra.Group{ID: group.id, Title: group.title})
		}
		for _, construct := range group.constructors {
			cmd := construct(g)
			cmd.GroupID = group.id
			root.AddCommand(cmd)
		}
	}
	withoutCommand(root)
	return root
}

// withoutCommand makes a command that only has subcommands say which there are, and
// refuse a word that is none of them instead of taking it for a question.
func withoutCommand(cmd *cobra.Command) {
	for _, sub := range cmd.Commands() {
		withoutCommand(sub)
	}
	if cmd.Runnable() || !cmd.HasSubCommands() {
		return
	}
	cmd.Args = cobra.ArbitraryArgs
	cmd.SuggestionsMinimumDistance = 2
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		err := fmt.Errorf("unknown command %q for %q", args[0], cmd.CommandPath())
		if close := cmd.SuggestionsFor(args[0]); len(close) > 0 {
			err = fmt.Errorf("%w; did you mean %s?", err, strings.Join(close, " or "))
		}
		return &usageError{err, cmd.CommandPath() + " --help"}
	}
}

// prepare sets up logging once the flags are known.
func (g *globals) prepare() {
	level := slog.LevelWarn
	if g.verbose {
		level = slog.LevelDebug
		// Log lines and a view that redraws itself do not go together: without
		// its file, standard error is no terminal and progress is shown as lines.
		g.err = struct{ io.Writer }{g.err}
	}
	g.log = slog.New(slog.NewTextHandler(g.err, &slog.HandlerOptions{Level: level}))
}

// isTerminal reports whether a stream is a terminal.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// clusterFile says which cluster.yaml the command means.
func (g *globals) clusterFile() (string, error) {
	if g.cluster != "" {
		return g.cluster, nil
	}
	if file := os.Getenv("NINES_CLUSTER"); file != "" {
		return file, nil
	}
	const here = "cluster.yaml"
	if _, err := os.Stat(here); err == nil {
		return here, nil
	}
	if file, ok := g.onlyLab(); ok {
		return file, nil
	}
	return "", &hinted{"there is no cluster.yaml here and no single lab on this machine",
		strings.Join([]string{"'nines init' writes one", "'nines lab up' makes a lab", "or name one with -c FILE"}, "; ")}
}
