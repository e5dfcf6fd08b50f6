package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"nines/internal/api"
	"nines/internal/app"
	"nines/internal/cli/live"
	"nines/internal/cli/view"
	"nines/internal/converge"
	"nines/internal/plan"
	"nines/internal/progress"
)

func newApplyCommand(g *globals) *cobra.Command {
	var yes, attach bool
	var agreed string
	cmd := &cobra.Command{
		Use:   "apply",
		Short: "Bring the nodes into the state cluster.yaml describes",
		Long: `Brings agents to new nodes over SSH, shows what would change, and does it after you agreed.
The work goes on when this command is interrupted; run it again, or with --attach, to watch it.`,
		Example: `  nines apply               # show the plan, ask, apply
  nines apply --yes         # do not ask
  nines apply --plan ID     # only if the plan is still the one 'nines plan' named ID
  nines apply --attach      # watch an apply that is under way`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := g.open()
			if err != nil {
				return err
			}
			defer s.Close()
			if attach {
				return g.attach(cmd.Context(), s)
			}
			return g.apply(cmd.Context(), s, consent{yes: yes, agreed: agreed})
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask before changing the nodes")
	cmd.Flags().BoolVar(&attach, "attach", false, "watch the apply that is under way")
	cmd.Flags().StringVar(&agreed, "plan", "", "apply only if the plan is still the one of this `ID`")
	return cmd
}

// consent says how the operator agrees to a plan.
type consent struct {
	yes    bool
	agreed string // PlanHash the operator saw
}

// apply deploys agents where they are missing, plans, asks, applies and follows.
func (g *globals) apply(ctx context.Context, s *app.Session, c consent) error {
	if err := g.bootstrap(ctx, s); err != nil {
		return err
	}
	agents, err := s.Agents()
	if err != nil {
		return err
	}
	if c.agreed == "" {
		reply, err := agents.Plan(ctx, s.Cluster.Shared())
		if err != nil {
			return err
		}
		if !g.json {
			view.Plan(g.out, reply.Plan)
		}
		c.agreed = reply.Hash
		if !reply.Plan.Empty() && len(reply.Plan.Blocked) == 0 && !c.yes {
			if err := g.ask("Apply these changes?"); err != nil {
				return err
			}
		}
	}
	record, err := agents.Apply(ctx, converge.Request{Spec: s.Cluster.Shared(), Who: whoami(), Plan: c.agreed})
	if err != nil {
		return err
	}
	if record.State == converge.Converging {
		if record, err = g.follow(ctx, s, record); err != nil {
			return err
		}
	} else if g.json {
		return g.print(applyReport{Record: record})
	}
	if record.State == converge.Failed {
		return &applyFailed{record.Error}
	}
	if err := s.WriteClientFiles(ctx); err != nil || record.Plan.Empty() {
		return err
	}
	return g.settle(ctx, agents)
}

// settleTime is how long health checks and clusters may take to notice that all is well.
const settleTime = 20 * time.Second

// settle ends an apply when the cluster is healthy, or says what is not.
func (g *globals) settle(ctx context.Context, agents *api.Client) error {
	deadline := time.Now().Add(settleTime)
	for {
		st, err := agents.Status(ctx)
		if err == nil && st.Healthy {
			return nil
		}
		if time.Now().After(deadline) {
			if err == nil {
				view.Conditions(g.err, st.Conditions)
				err = &hinted{"the apply is done, but the cluster is not healthy yet", "'nines status --watch' shows how it goes on"}
			}
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(250 * time.Millisecond):
		}
	}
}

// bootstrap brings agents to nodes that have none.
func (g *globals) bootstrap(ctx context.Context, s *app.Session) error {
	if s.Bootstrapped(ctx) {
		return nil
	}
	if s.Client == nil {
		if err := g.checkFirst(ctx, s); err != nil {
			return err
		}
	}
	return live.Show(ctx, g.err, "Bringing agents to the nodes", s.Bootstrap)
}

func (g *globals) attach(ctx context.Context, s *app.Session) error {
	agents, err := s.Agents()
	if err != nil {
		return err
	}
	record, err := agents.Current(ctx)
	if err != nil {
		return err
	}
	record, err = g.follow(ctx, s, record)
	if err == nil && record.State == converge.Failed {
		err = &applyFailed{record.Error}
	}
	return err
}

// applyReport is what apply --json prints.
type applyReport struct {
	converge.Record
	Results  map[plan.ID]plan.Result `json:"results"`
	Critical []plan.ID               `json:"critical_path"`
}

// follow shows an apply until it has ended, then what it did.
func (g *globals) follow(ctx context.Context, s *app.Session, record converge.Record) (converge.Record, error) {
	agents, err := s.Agents()
	if err != nil {
		return record, err
	}
	results := map[plan.ID]plan.Result{}
	ops := map[plan.ID]plan.Op{}
	for _, op := range record.Plan.Ops {
		ops[op.ID] = op
	}
	err = live.Show(ctx, g.err, "Applying", func(ctx context.Context, emit progress.Emit) error {
		record, err = agents.Follow(ctx, record.ID, func(ev converge.Event) {
			if ev.Op != nil {
				ops[ev.Op.Op.ID] = ev.Op.Op
				results[ev.Op.Op.ID] = ev.Op.Result
				emit(opEvent(*ev.Op))
			}
		})
		return err
	})
	if errors.Is(err, context.Canceled) {
		return record, fmt.Errorf("no longer watching; the apply goes on without this terminal ('nines apply --attach' watches it again): %w", err)
	}
	if err != nil {
		return record, err
	}
	all := make([]plan.Op, 0, len(ops))
	for _, op := range ops {
		all = append(all, op)
	}
	if g.json {
		return record, g.print(applyReport{Record: record, Results: results, Critical: plan.CriticalPath(all, results)})
	}
	view.Applied(g.out, all, results, record.Finished.Sub(record.Since))
	return record, nil
}

func opEvent(o converge.OpRecord) progress.Event {
	e := progress.Event{ID: string(o.Op.ID), Title: o.Op.Node + ": " + o.Op.Summary, Detail: o.Result.Error, Took: o.Result.Took}
	switch {
	case o.Running:
		e.State = progress.Running
	case o.Result.Error != "":
		e.State = progress.Failed
	case o.Result.Skipped:
		e.State = progress.Skipped
	default:
		e.State = progress.Done
	}
	return e
}

// applyFailed is the end of an apply that failed; the failures were shown already.
type applyFailed struct{ text string }

func (e *applyFailed) Error() string { return "the apply failed: " + e.text }

// Hint says what to do now.
func (e *applyFailed) Hint() string {
	return "mend the cause and run 'nines apply' again: it goes on where it stopped"
}

// ask wants a yes on a terminal.
func (g *globals) ask(question string) error {
	if !isTerminal(g.in) {
		return &hinted{"not on a terminal: nobody can agree to the changes", "add --yes to apply them without a question"}
	}
	fmt.Fprintf(g.out, "\n%s Only 'yes' is taken as yes: ", question)
	var answer string
	if _, err := fmt.Fscanln(g.in, &answer); err != nil && !errors.Is(err, io.EOF) && answer == "" {
		answer = "no"
	}
	if strings.TrimSpace(answer) != "yes" {
		return &hinted{"not applied", "nothing was changed"}
	}
	return nil
}

func whoami() string {
	name := "unknown"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	host, _ := os.Hostname() // empty when unknown: the name alone then
	return strings.TrimSuffix(name+"@"+host, "@")
}

// deployLab deploys a lab's cluster as that of real servers is deployed: by a process of
// this program that lives in the lab's network.
func (g *globals) deployLab(ctx context.Context, clusterFile string) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("deploy: %w", err)
	}
	args := []string{"-c", clusterFile, "apply", "--yes"}
	if g.json {
		args = append(args, "--json")
	}
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	var exit *exec.ExitError
	if err := cmd.Run(); errors.As(err, &exit) {
		return exitCode(exit.ExitCode()) // it has said why
	} else if err != nil {
		return fmt.Errorf("deploy: %w", err)
	}
	return nil
}
