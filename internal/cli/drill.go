package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"nines/internal/cli/live"
	"nines/internal/cli/view"
	"nines/internal/drill"
	"nines/internal/progress"
)

// drillSite is what the drill command works on.
type drillSite interface {
	// Drills lists what can be drilled here. It needs no agent.
	Drills() ([]drill.Drill, error)
	// Open connects to the cluster for these drills, before anything is shown: the process may be replaced by one
	// that lives in the lab's network. Close drops the connection.
	Open(ctx context.Context, drills []drill.Drill) error
	Close()
	// Run does one run and keeps its evidence.
	Run(ctx context.Context, d drill.Drill, seed uint64, emit progress.Emit) (drill.Report, error)
}

// newDrillCommand makes the drill command. site opens the cluster the command means.
func newDrillCommand(g *globals, site func() (drillSite, error)) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "drill",
		Short: "Inject a real fault under load and measure what clients feel",
		Long: `A drill puts load on the cluster from outside the controllers, injects one real fault, and measures what
clients felt, whether every acknowledged write survived, and how long the cluster was not whole. It starts
only on a whole cluster and takes the fault back at the end, also when it is interrupted.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newDrillListCommand(g, site), newDrillRunCommand(g, site))
	return cmd
}

func newDrillListCommand(g *globals, site func() (drillSite, error)) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "Show the drills, with what clients may feel at most",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			s, err := site()
			if err != nil {
				return err
			}
			drills, err := s.Drills()
			if err != nil {
				return err
			}
			if g.json {
				return g.print(drillList(drills))
			}
			t := tabwriter.NewWriter(g.out, 0, 0, 2, ' ', 0)
			for _, d := range drills {
				fmt.Fprintf(t, "%s\t%s\n", d.Name, d.Title)
			}
			return t.Flush()
		},
	}
}

// listed is a drill as drill list --json prints it.
type listed struct {
	Name   string   `json:"name"`
	Title  string   `json:"title"`
	Limits []string `json:"limits"`
}

func drillList(drills []drill.Drill) []listed {
	out := []listed{}
	for _, d := range drills {
		l := listed{Name: d.Name, Title: d.Title}
		for _, limit := range d.Limits {
			l.Limits = append(l.Limits, limit.String())
		}
		out = append(out, l)
	}
	return out
}

func newDrillRunCommand(g *globals, site func() (drillSite, error)) *cobra.Command {
	var repeat int
	var seed uint64
	var all bool
	cmd := &cobra.Command{
		Use:   "run NAME... | --all",
		Short: "Run drills and print what clients felt",
		Long: `Runs drills one after the other, each on a whole cluster. Exit code 0: every run passed, 2: a run failed its
limits, 1: something could not be measured.`,
		Example: `  nines drill run vip-holder-power-off
  nines drill run kill-keystone --repeat 10 --json
  nines drill run --all`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := drillArguments(args, all, repeat); err != nil {
				return &usageError{err, cmd.CommandPath() + " --help"}
			}
			s, err := site()
			if err != nil {
				return err
			}
			drills, err := chosenDrills(s, args)
			if err != nil {
				return err
			}
			if err := s.Open(cmd.Context(), drills); err != nil {
				return err
			}
			defer s.Close()
			if !cmd.Flags().Changed("seed") {
				seed = uint64(rand.Uint32()) // short enough to be typed again
			}
			var runs []drill.Report
			for _, d := range drills {
				var done []drill.Report
				done, err = g.drill(cmd.Context(), s, d, seed, repeat)
				if runs = append(runs, done...); err != nil {
					break
				}
			}
			return g.drilled(runs, all || len(drills) > 1 || cmd.Flags().Changed("repeat"), err)
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "run every drill that 'nines drill list' shows")
	cmd.Flags().IntVar(&repeat, "repeat", 1, "how many runs; run `N` has the seed plus N-1")
	cmd.Flags().Uint64Var(&seed, "seed", 0, "`SEED` of a run to do again: same moment, same choice of node (default: random)")
	return cmd
}

// drillArguments says what is wrong with the arguments of drill run.
func drillArguments(names []string, all bool, repeat int) error {
	switch {
	case repeat < 1:
		return fmt.Errorf("--repeat %d: at least one run", repeat)
	case all && len(names) > 0:
		return errors.New("--all runs every drill: name none beside it")
	case !all && len(names) == 0:
		return errors.New("name a drill, or say --all")
	}
	return nil
}

// chosenDrills are the drills of these names, or all where none is named.
func chosenDrills(s drillSite, names []string) ([]drill.Drill, error) {
	all, err := s.Drills()
	if err != nil || len(names) == 0 {
		return all, err
	}
	var out []drill.Drill
	for _, name := range names {
		d, ok := drill.Named(all, name)
		if !ok {
			return nil, &hinted{fmt.Sprintf("there is no drill %q", name), "'nines drill list' shows them"}
		}
		out = append(out, d)
	}
	return out, nil
}

// drill does the runs of one drill one after the other, until one cannot be measured.
func (g *globals) drill(ctx context.Context, s drillSite, d drill.Drill, seed uint64, repeat int) ([]drill.Report, error) {
	var runs []drill.Report
	for i := range uint64(repeat) {
		title := fmt.Sprintf("Drill %s, seed %d", d.Name, seed+i)
		if repeat > 1 {
			title += fmt.Sprintf(" (%d of %d)", i+1, repeat)
		}
		var r drill.Report
		err := live.Show(ctx, g.err, title, func(ctx context.Context, emit progress.Emit) (err error) {
			r, err = s.Run(ctx, d, seed+i, emit)
			return err
		})
		if err != nil {
			return runs, err
		}
		runs = append(runs, r)
		if !g.json {
			showDrill(g.out, r)
		}
	}
	return runs, nil
}

// drilled prints the runs that were measured, and says how the command ends.
func (g *globals) drilled(runs []drill.Report, repeated bool, err error) error {
	if g.json && len(runs) > 0 {
		err = errors.Join(err, drill.WriteJSON(g.out, runs, repeated))
	}
	if !g.json && len(runs) > 1 {
		showDrills(g.out, runs)
	}
	if err != nil {
		return err
	}
	if slices.ContainsFunc(runs, func(r drill.Report) bool { return r.Verdict != drill.Pass }) {
		return exitCode(2)
	}
	return nil
}

// showDrill writes one run for people.
func showDrill(w io.Writer, r drill.Report) {
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "PROBE\tREQUESTS\tFAILED\tLONGEST OUTAGE\tIN ALL\tSLOWEST ANSWER")
	for _, p := range r.Probes {
		fmt.Fprintf(t, "%s\t%d\t%d\t%s\t%s\t%s\n", p.Name, p.Requests, p.Failed, seconds(p.Longest), seconds(p.Total), seconds(p.Slowest))
	}
	t.Flush()
	fmt.Fprintf(w, "\n%s %s\n", strings.ToUpper(r.Verdict), sentence(r))
	for _, reason := range r.Reasons {
		fmt.Fprintf(w, "  - %s\n", reason)
	}
	for _, note := range r.Notes {
		fmt.Fprintf(w, "  note: %s\n", note)
	}
	fmt.Fprintf(w, "  again: %s\n", r.Reproduce)
	if r.Evidence != "" {
		fmt.Fprintf(w, "  evidence: %s\n", r.Evidence)
	}
}

// sentence says in one line what clients felt.
func sentence(r drill.Report) string {
	worst := drill.ProbeReport{}
	for _, p := range r.Probes {
		if p.Longest > worst.Longest {
			worst = p
		}
	}
	felt := "clients felt nothing"
	if worst.Longest > 0 {
		felt = fmt.Sprintf("clients waited at most %s (%s)", seconds(worst.Longest), worst.Name)
	}
	whole := "not whole again"
	if r.RedundantAfter >= 0 {
		whole = "whole again after " + view.Duration(time.Duration(r.RedundantAfter)*time.Millisecond)
	}
	label := ""
	if r.Environment != "" {
		label = " [" + r.Environment + "]"
	}
	return fmt.Sprintf("%s on %s%s: %s, %d of %d acknowledged writes lost, %s", r.Name, r.Node, label, felt, r.Acks.Lost, r.Acks.Written, whole)
}

// showDrills writes what several runs have in common, drill by drill.
func showDrills(w io.Writer, runs []drill.Report) {
	for len(runs) > 0 {
		n := slices.IndexFunc(runs, func(r drill.Report) bool { return r.Name != runs[0].Name })
		if n < 0 {
			n = len(runs)
		}
		showRepeats(w, runs[:n])
		runs = runs[n:]
	}
}

// showRepeats writes what the runs of one drill have in common.
func showRepeats(w io.Writer, runs []drill.Report) {
	passed := 0
	longest := map[string][]int64{}
	for _, r := range runs {
		if r.Verdict == drill.Pass {
			passed++
		}
		for _, p := range r.Probes {
			longest[p.Name] = append(longest[p.Name], p.Longest)
		}
	}
	fmt.Fprintf(w, "\n%d of %d runs of %s passed.\n", passed, len(runs), runs[0].Name)
	if len(runs) == 1 {
		return // its own table says it
	}
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "LONGEST OUTAGE\tLEAST\tMEDIAN\tMOST")
	for _, p := range runs[0].Probes {
		all := longest[p.Name]
		slices.Sort(all)
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", p.Name, seconds(all[0]), seconds(all[len(all)/2]), seconds(all[len(all)-1]))
	}
	t.Flush()
}

func seconds(ms int64) string {
	if ms == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f s", float64(ms)/1000)
}
