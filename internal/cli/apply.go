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
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"nines/internal/api"
	"nines/internal/app"
	"nines/internal/bootstrap"
	"nines/internal/cli/live"
	"nines/internal/cli/view"
	"nines/internal/converge"
	"nines/internal/model"
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
			holdLifeline()
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
	if err := s.HandOverPasswords(ctx); err != nil {
		return err
	}
	if c.agreed == "" {
		if _, err := g.awaitSame(ctx, s, agents); err != nil {
			return err
		}
		reply, err := agents.Plan(ctx, s.Cluster.Shared())
		if err != nil {
			return err
		}
		if !g.json {
			view.Plan(g.out, reply.Plan)
		}
		if !c.yes {
			// Who says yes beforehand agrees to what is needed then: a cluster that is
			// just settling needs less from one second to the next.
			c.agreed = reply.Hash
			if !reply.Plan.Empty() && len(reply.Plan.Blocked) == 0 {
				if err := g.ask("Apply these changes?"); err != nil {
					return err
				}
			}
		}
	}
	record, err := g.begin(ctx, s, agents, c.agreed)
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

// begin hands the work to the leader. A refusal may be the first word of the same apply under way, when
// there was no leader to ask before: then that one is watched first.
func (g *globals) begin(ctx context.Context, s *app.Session, agents *api.Client, agreed string) (converge.Record, error) {
	for {
		record, err := agents.Apply(ctx, converge.Request{Spec: s.Cluster.Shared(), Who: whoami(), Plan: agreed})
		var refusal *api.Error
		if agreed != "" || !errors.As(err, &refusal) || refusal.Code != api.CodeBusy {
			return record, err
		}
		if watched, werr := g.awaitSame(ctx, s, agents); werr != nil || !watched {
			return record, errors.Join(err, werr)
		}
	}
}

// awaitSame watches an apply of the same cluster.yaml that is under way, to its end: most often the
// one whose terminal was lost. What it leaves, or fails at, is the next plan's. One of another
// cluster.yaml is not waited for: the agents refuse, and say whose it is.
func (g *globals) awaitSame(ctx context.Context, s *app.Session, agents *api.Client) (watched bool, err error) {
	record, err := agents.Current(ctx)
	if err != nil || !sameUnderWay(record, s.Cluster.Shared()) {
		return false, nil // never applied, or not to be read: then the plan says what is wrong
	}
	fmt.Fprintf(g.err, "%s has been applying this cluster.yaml since %s: watching that first\n", record.Who, record.Since.Format(time.TimeOnly))
	record, err = g.watch(ctx, agents, record, func(converge.OpRecord) {})
	if err == nil && record.State == converge.Failed {
		fmt.Fprintf(g.err, "that apply failed (%s); going on with what is left\n", record.Error)
	}
	return true, err
}

// sameUnderWay reports whether the apply has not ended and wants what spec says.
func sameUnderWay(record converge.Record, spec *model.Cluster) bool {
	return record.State == converge.Converging && record.Spec != nil && converge.SpecHash(record.Spec) == converge.SpecHash(spec)
}

// settleTime is how long health checks and clusters may take to notice that all is well.
const settleTime = 20 * time.Second

// settle ends an apply when the cluster is healthy, or says what is not.
func (g *globals) settle(ctx context.Context, agents *api.Client) error {
	deadline := time.Now().Add(settleTime)
	for {
		st, err := agents.Status(ctx, api.LookForDrift)
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

// bootstrap brings agents to nodes that have none, and renews certificates in time.
func (g *globals) bootstrap(ctx context.Context, s *app.Session) error {
	switch s.Ready(ctx) {
	case app.Ready:
		return nil
	case app.Due:
		return g.renew(ctx, s)
	}
	if s.Client == nil {
		if err := g.checkFirst(ctx, s); err != nil {
			return err
		}
	}
	return live.Show(ctx, g.err, "Bringing agents to the nodes", s.Bootstrap)
}

// renew renews certificates that are still good. Nodes that cannot be reached over SSH are no
// reason to refuse other work, as long as nothing was begun.
func (g *globals) renew(ctx context.Context, s *app.Session) error {
	err := live.Show(ctx, g.err, "Renewing certificates", s.Bootstrap)
	var preflight *bootstrap.PreflightError
	if errors.As(err, &preflight) {
		fmt.Fprintf(g.err, "warning: the certificates were not renewed; they are still valid: %v\n  -> %s\n", err, hint(err))
		return nil
	}
	return err
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
	record, err = g.watch(ctx, agents, record, func(o converge.OpRecord) {
		ops[o.Op.ID] = o.Op
		results[o.Op.ID] = o.Result
	})
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

// watch shows an apply until it has ended; each hears of every step of an op.
func (g *globals) watch(ctx context.Context, agents *api.Client, record converge.Record, each func(converge.OpRecord)) (converge.Record, error) {
	err := live.Show(ctx, g.err, "Applying", func(ctx context.Context, emit progress.Emit) (err error) {
		record, err = agents.Follow(ctx, record.ID, func(ev converge.Event) {
			if ev.Op != nil {
				each(*ev.Op)
				emit(opEvent(*ev.Op))
			}
		})
		return err
	})
	if errors.Is(err, context.Canceled) {
		return record, fmt.Errorf("no longer watching; the apply goes on without this terminal ('nines apply --attach' watches it again): %w", err)
	}
	return record, err
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
	// Killed, lab up leaves no deployment behind that would meet the next one: the kernel closes the
	// lifeline. (A parent-death signal was not delivered on every kernel tried.)
	end, lifeline, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("deploy: %w", err)
	}
	defer lifeline.Close()
	defer end.Close()
	cmd.ExtraFiles = []*os.File{end} // file 3
	cmd.Env = append(os.Environ(), lifelineEnv+"=3")
	var exit *exec.ExitError
	if err := cmd.Run(); errors.As(err, &exit) {
		return exitCode(exit.ExitCode()) // it has said why
	} else if err != nil {
		return fmt.Errorf("deploy: %w", err)
	}
	return nil
}

// lifelineEnv tells the deployment of lab up that file 3 is at its end when lab up has died.
const lifelineEnv = "NINES_LIFELINE"

// holdLifeline ends this process when the lab up that started it has died.
func holdLifeline() {
	if os.Getenv(lifelineEnv) != "3" {
		return
	}
	go func() {
		_, _ = os.NewFile(3, "lifeline").Read(make([]byte, 1)) // nothing is ever written: it returns at the end
		os.Exit(int(syscall.SIGKILL) + 128)
	}()
}
