// Command bench prints the ratios that say how nines does, all of them from one run on a lab of
// its own: what an apply adds to its critical path, how a no-op apply stands to that of Ansible
// on the same nodes, and what an agent costs at rest. With --presets it compares the failover with the
// values that others use instead. README.md says how to read them.
//
// Invariants: it measures the program as a user runs it, as a process; whatever is compared
// was verified to have done its work (no change, no failure; the preset asked for); the lab and the copies of the
// nodes' files are gone when it ends, also after an error or an interrupt. It must never
// touch a lab it did not make, and never judge a time.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

const exitInterrupted = 130

func main() { os.Exit(run()) }

// run is main with its clean-up, and returns the exit code.
func run() int {
	lab := flag.String("name", "bench", "`NAME` of the lab to make; it must not exist yet")
	asJSON := flag.Bool("json", false, "print JSON for programs")
	list := flag.String("presets", "", "compare the failover with these `PRESETS` of tuning, like nines,kolla,reference+pacemaker, and measure nothing else")
	runs := flag.Int("repeat", 1, "with --presets, how many `RUNS` of the drill with each")
	flag.Parse()
	of, err := arguments(*list, *runs)
	if err != nil {
		fmt.Fprintf(os.Stderr, "error: %v\n", err)
		return 64
	}
	// Interrupts that follow the first one change nothing: taking down goes on.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	b := &bench{nines: program{path: binary()}, lab: *lab, say: narrate(time.Now())}
	if len(of) > 0 {
		err = b.compare(ctx, of, *runs)
	} else {
		err = b.run(ctx)
	}
	interrupted := ctx.Err() != nil
	if err = errors.Join(err, b.print(*asJSON)); err != nil {
		fmt.Fprintf(os.Stderr, "error: %v\n", err)
	}
	switch {
	case interrupted:
		return exitInterrupted
	case err != nil:
		return 1
	}
	return 0
}

// arguments says which presets to compare, none without --presets, and what is wrong with the arguments.
func arguments(list string, runs int) ([]contender, error) {
	switch {
	case flag.NArg() > 0:
		return nil, fmt.Errorf("unexpected argument %q", flag.Arg(0))
	case runs < 1:
		return nil, fmt.Errorf("--repeat %d: at least one run", runs)
	case list == "" && runs > 1:
		return nil, errors.New("--repeat is for --presets")
	case list == "":
		return nil, nil
	}
	return contenders(list)
}

// binary is the program to measure: $NINES, as make bench sets it, else the usual place.
func binary() string {
	if path := os.Getenv("NINES"); path != "" {
		return path
	}
	return "bin/nines"
}

// narrate tells on standard error what is being done, with the time since the start.
func narrate(start time.Time) func(format string, args ...any) {
	return func(format string, args ...any) {
		fmt.Fprintf(os.Stderr, "%6.1f s  %s\n", time.Since(start).Seconds(), fmt.Sprintf(format, args...))
	}
}

// print shows what was measured, which after an error may be a part or nothing.
func (b *bench) print(asJSON bool) error {
	if b.report.Apply == nil && (b.report.Presets == nil || len(b.report.Presets.Presets) == 0) {
		return nil
	}
	if asJSON {
		return writeJSON(os.Stdout, b.report)
	}
	return writeText(os.Stdout, b.report)
}
