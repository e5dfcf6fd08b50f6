package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"nines/internal/cli/live"
	"nines/internal/cli/view"
	"nines/internal/progress"
	"nines/internal/smoke"
	"nines/internal/smoke/guest"
)

// smokeSite is what the smoke command works on.
type smokeSite interface {
	// Check says whether the cluster is one that can be proved this way.
	Check() error
	// Guest returns what instances run: the given files, or those that are made on this machine. It comes before
	// Open, as packages are not to be had from a lab's network.
	Guest(ctx context.Context, given guest.Image) (guest.Image, error)
	// Open logs in to the cloud; the process may be replaced by one in the lab's network.
	Open(ctx context.Context) error
	Close()
	Run(ctx context.Context, image guest.Image, keep bool, emit progress.Emit) (smoke.Report, error)
	Clean(ctx context.Context, emit progress.Emit) (smoke.Report, error)
	Loop(ctx context.Context, image guest.Image, how smoke.Loop, emit progress.Emit) (smoke.LoopReport, error)
	// Inside is what a command must be begun with to run in the cluster's network.
	Inside() string
}

// smokeOptions are the flags of the smoke command.
type smokeOptions struct {
	keep, clean, loop, guestOnly bool
	how                          smoke.Loop
	guest                        guest.Image
}

// newSmokeCommand makes the smoke command. site opens the cloud the command means.
func newSmokeCommand(g *globals, site func() smokeSite) *cobra.Command {
	var o smokeOptions
	cmd := &cobra.Command{
		Use:   "smoke",
		Short: "Prove the cloud by use: an instance, its network, its volume, and away again",
		Long: `Works through the public endpoints as the admin of clouds.yaml: makes an image, a network with a router, a
volume and an instance, reaches the instance over a floating address, attaches the volume, takes
snapshots, and deletes everything it made, also after a failure or an interrupt. What earlier runs left
there is removed first. Exit code 0: every step was done, 2: a step failed, 1: it could not begin.

The instance runs a small system made of Debian packages by apt on this machine, once.`,
		Example: `  nines smoke
  nines smoke --keep                # leave the instance there; nines smoke --clean removes it
  nines smoke --loop --for 10m      # what users feel while machines fail`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.check(cmd.Flags().Changed); err != nil {
				return &usageError{err, cmd.CommandPath() + " --help"}
			}
			return g.smoke(cmd.Context(), site(), o)
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&o.keep, "keep", false, "delete nothing, and say how to reach the instance")
	flags.BoolVar(&o.clean, "clean", false, "only remove what earlier runs left there, also what was kept")
	flags.BoolVar(&o.loop, "loop", false, "make, reach and delete a few things over and over until interrupted")
	flags.DurationVar(&o.how.Length, "for", 0, "end the loop after this `DURATION`")
	flags.DurationVar(&o.how.Limit, "limit", smoke.OperationLimit, "count an operation of the loop as failed after this `DURATION`")
	flags.StringVar(&o.guest.Kernel, "kernel", "", "start the instance with this kernel, a `FILE`")
	flags.StringVar(&o.guest.Ramdisk, "ramdisk", "", "and with this ramdisk, a `FILE`")
	flags.BoolVar(&o.guestOnly, "guest-only", false, "only make what the instance runs, and say where its files are")
	return cmd
}

// check refuses flags that do not go together.
func (o smokeOptions) check(given func(flag string) bool) error {
	modes := 0
	for _, on := range []bool{o.keep, o.clean, o.loop, o.guestOnly} {
		if on {
			modes++
		}
	}
	switch {
	case modes > 1:
		return errors.New("--keep, --clean, --loop and --guest-only do not go together")
	case given("for") && !o.loop:
		return errors.New("--for is the length of a --loop")
	case given("for") && o.how.Length <= 0:
		return fmt.Errorf("--for %s: longer than nothing", o.how.Length)
	case given("limit") && !o.loop:
		return errors.New("--limit is that of the operations of a --loop")
	case given("limit") && o.how.Limit <= 0:
		return fmt.Errorf("--limit %s: longer than nothing", o.how.Limit)
	case (o.guest.Kernel == "") != (o.guest.Ramdisk == ""):
		return errors.New("--kernel and --ramdisk need each other")
	}
	return nil
}

// smoke does what the options say.
func (g *globals) smoke(ctx context.Context, s smokeSite, o smokeOptions) error {
	var image guest.Image
	var err error
	if !o.guestOnly {
		if err := s.Check(); err != nil {
			return err
		}
	}
	if !o.clean {
		if image, err = s.Guest(ctx, o.guest); err != nil {
			return err
		}
	}
	if o.guestOnly {
		return g.showGuest(image)
	}
	defer s.Close()
	if err := s.Open(ctx); err != nil {
		return err
	}
	if o.loop {
		return g.smokeLoop(ctx, s, image, o.how)
	}
	title := "Smoke test"
	if o.clean {
		title = "Removing what smoke tests left"
	}
	var report smoke.Report
	err = live.Show(ctx, g.err, title, func(ctx context.Context, emit progress.Emit) (err error) {
		if o.clean {
			report, err = s.Clean(ctx, emit)
		} else {
			report, err = s.Run(ctx, image, o.keep, emit)
		}
		if err == nil && !report.OK {
			err = exitCode(2)
		}
		return err
	})
	var code exitCode
	if err != nil && !errors.As(err, &code) {
		return err
	}
	if g.json {
		if err := g.print(report); err != nil {
			return err
		}
	} else {
		showSmoke(g.out, report)
		g.showKept(report.Kept, s.Inside)
	}
	if e := interruptedStep(report.Steps); e != nil {
		return e
	}
	return err
}

func (g *globals) showGuest(image guest.Image) error {
	if g.json {
		return g.print(image)
	}
	_, err := fmt.Fprintf(g.out, "--kernel %s --ramdisk %s\n", image.Kernel, image.Ramdisk)
	return err
}

// interruptedStep returns the error of a step that an interrupt ended.
func interruptedStep(steps []smoke.Step) error {
	for _, s := range steps {
		if errors.Is(s.Err, context.Canceled) {
			return s.Err
		}
	}
	return nil
}

// showSmoke writes a run for people.
func showSmoke(w io.Writer, r smoke.Report) {
	if len(r.Steps) > 0 {
		fmt.Fprintln(w)
	}
	showSteps(w, r.Steps)
	took := view.Duration(time.Duration(r.TookMS) * time.Millisecond)
	switch {
	case len(r.Steps) == 0:
		fmt.Fprintln(w, "Nothing was left there.")
	case r.OK:
		fmt.Fprintf(w, "\nPASS %d steps in %s\n", len(r.Steps), took)
	default:
		fmt.Fprintf(w, "\nFAIL after %s\n", took)
		showFailedSteps(w, r.Steps)
	}
}

func showSteps(w io.Writer, steps []smoke.Step) {
	if len(steps) == 0 {
		return
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "STEP\tTOOK\tRESULT")
	for _, s := range steps {
		result := "ok"
		if s.Error != "" {
			result = "failed"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\n", s.Name, view.Duration(time.Duration(s.TookMS)*time.Millisecond), result)
	}
	t.Flush()
}

// showFailedSteps says why steps failed, and what to do where that is known.
func showFailedSteps(w io.Writer, steps []smoke.Step) {
	for _, s := range steps {
		if s.Error == "" {
			continue
		}
		fmt.Fprintf(w, "  - %s: %s\n", s.Name, s.Error)
		if h := hint(s.Err); h != "" {
			fmt.Fprintf(w, "    next: %s\n", h)
		}
	}
}

// showKept says how to reach what was left there.
func (g *globals) showKept(k *smoke.Kept, inside func() string) {
	if k == nil {
		return
	}
	if k.URL != "" {
		fmt.Fprintf(g.out, "  reach: %scurl %s\n", inside(), k.URL)
	}
	pick := ""
	if g.cluster != "" {
		pick = " -c " + g.cluster
	}
	fmt.Fprintf(g.out, "  kept:  all that is named %s*\n  clean: nines%s smoke --clean\n", k.Name, pick)
}

// smokeLoop runs the loop and shows what users felt.
func (g *globals) smokeLoop(ctx context.Context, s smokeSite, image guest.Image, how smoke.Loop) error {
	title := "Smoke test over and over, until interrupted"
	if how.Length > 0 {
		title = "Smoke test over and over for " + view.Duration(how.Length)
	}
	var report smoke.LoopReport
	err := live.Show(ctx, g.err, title, func(ctx context.Context, emit progress.Emit) (err error) {
		report, err = s.Loop(ctx, image, how, emit)
		return err
	})
	if err != nil {
		return err
	}
	if g.json {
		err = g.print(report)
	} else {
		showLoop(g.out, report)
	}
	switch {
	case err != nil:
		return err
	case report.Count == 0 && ctx.Err() != nil:
		return fmt.Errorf("interrupted before the loop began: %w", ctx.Err())
	case !report.OK:
		return exitCode(2)
	}
	return nil
}

// showLoop writes a loop for people.
func showLoop(w io.Writer, r smoke.LoopReport) {
	if r.Count > 0 {
		fmt.Fprintln(w)
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "OPERATION\tCOUNT\tFAILED\tMEDIAN\tLONGEST")
		for _, o := range r.Operations {
			fmt.Fprintf(t, "%s\t%d\t%d\t%s\t%s\n", o.Name, o.Count, o.Failed, seconds(o.MedianMS), seconds(o.LongestMS))
		}
		t.Flush()
	}
	word := "PASS"
	if !r.OK {
		word = "FAIL"
	}
	fmt.Fprintf(w, "\n%s %d operations, %d failed, the longest took %s", word, r.Count, r.Failed, seconds(r.LongestMS))
	if r.Longest != "" {
		fmt.Fprintf(w, " (%s)", r.Longest)
	}
	fmt.Fprintln(w)
	for _, f := range r.Failures {
		fmt.Fprintf(w, "  - %s %s: %s\n", f.At.Local().Format("15:04:05"), f.Name, f.Error)
	}
	showFailedSteps(w, r.Steps)
}
