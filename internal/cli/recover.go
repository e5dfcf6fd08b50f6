package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"nines/internal/api"
	"nines/internal/cli/live"
	"nines/internal/cli/view"
	"nines/internal/heal"
	"nines/internal/model"
	"nines/internal/progress"
)

func newRecoverCommand(g *globals) *cobra.Command {
	cmd := &cobra.Command{Use: "recover", Short: "See, or begin, the recovery of a service that cannot go on by itself"}
	for _, r := range recoverables {
		cmd.AddCommand(newRecoverServiceCommand(g, r))
	}
	return cmd
}

// recoverable is a service that can be recovered, in the words of the command.
type recoverable struct {
	name, noun, short, long, choose string
	show                            func(w io.Writer, r api.Recovery, members []string)
}

var recoverables = []recoverable{
	{name: "galera", noun: "database", short: "Bring the database back after all of its members were lost", choose: "go on from the data of `NODE`", show: view.GaleraRecovery,
		long: `The leader recovers the database by itself when no member is in a Primary any more, and as soon as it is known which
member has the latest data. This command shows what it sees and waits for, or has it begin at once.

--explain changes nothing: it shows each member's evidence, the diagnosis and what would be done.

--choose NODE is for the cases in which only a person can say which copy goes on: acknowledged writes that the others
have and NODE has not are given up. It is recorded with your name. Members that do not answer are taken for switched off: make sure that
they are. Copies that have more than NODE are kept on their nodes, as /var/lib/mysql.nines-epoch-N; the disk of a machine that is away
must be kept before it is switched on again.

Exit code 0: there is a Primary again, 2: it waits for something (--explain: it would), 1: an error.`},
	{name: "rabbitmq", noun: "message broker", short: "Bring the message broker back after all of its members stopped", choose: "go on from the metadata of `NODE`", show: view.RabbitMQRecovery,
		long: `RabbitMQ's members wait for the one that stopped last, because it may have taken more than they have. The leader starts those
that are stopped, and says for whom the others wait. This command shows what it sees.

--explain changes nothing: it shows each member's evidence, the diagnosis and what would be done.

--choose NODE is for the case that the last one is gone for good: NODE boots by force (force_boot), once, after the others were stopped and
a copy of its metadata was kept in /var/lib/nines/rabbitmq-evidence. Queues, users and bindings that were made or changed after NODE had stopped
are given up; messages in quorum queues stay as long as most of their replicas are there. It is recorded with your name. Members that do
not answer are taken for switched off: make sure that they are. NODE must have gone on longer than every other member that answers.
It is also for members that serve apart from each other, where none of them is with a majority: NODE and those that see just what it sees go on, the
others are stopped, one at a time, and start again as its followers. What was declared on them alone is given up.

Exit code 0: it serves again, 2: it waits for something (--explain: it would), 1: an error.`},
}

func newRecoverServiceCommand(g *globals, r recoverable) *cobra.Command {
	var explain bool
	var choose string
	cmd := &cobra.Command{
		Use:   r.name,
		Short: r.short,
		Long:  r.long,
		Example: fmt.Sprintf(`  nines recover %[1]s --explain
  nines recover %[1]s
  nines recover %[1]s --choose ctl2`, r.name),
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if explain && choose != "" {
				return &usageError{errors.New("--explain changes nothing, --choose does: say one of them"), cmd.CommandPath() + " --help"}
			}
			s, agents, err := g.deployed()
			if err != nil {
				return err
			}
			defer s.Close()
			if explain {
				return g.explainRecovery(cmd.Context(), agents, s.Cluster, r)
			}
			return g.recover(cmd.Context(), agents, r, choose)
		},
	}
	cmd.Flags().BoolVar(&explain, "explain", false, "show evidence and decision, and change nothing")
	cmd.Flags().StringVar(&choose, "choose", "", r.choose)
	return cmd
}

func (g *globals) explainRecovery(ctx context.Context, agents *api.Client, c *model.Cluster, of recoverable) error {
	r, err := agents.Recovery(ctx, of.name)
	if err != nil {
		return err
	}
	if g.json {
		err = g.print(r)
	} else {
		var members []string
		for _, n := range c.Controllers() {
			members = append(members, n.Name)
		}
		of.show(g.out, r, members)
	}
	if err == nil && r.Now.Act != "nothing" {
		return exitCode(2)
	}
	return err
}

// recover has the leader begin and shows what it does until the service is at work and all who answer take part.
func (g *globals) recover(ctx context.Context, agents *api.Client, of recoverable, choose string) error {
	begun, err := agents.Recover(ctx, api.RecoveryRequest{Service: of.name, Choose: choose, Who: whoami()})
	if err != nil {
		return err
	}
	var last api.Recovery
	err = live.Show(ctx, g.err, "Recovering the "+of.noun, func(ctx context.Context, emit progress.Emit) (err error) {
		last, err = followRecovery(ctx, agents, begun, emit)
		return err
	})
	if g.json && err == nil {
		err = g.print(last.Record)
	}
	if err != nil {
		return err
	}
	rest := last.Record.Move.Rest
	if last.Record.Open && !rest {
		return exitCode(2)
	}
	switch {
	case g.json:
	case rest:
		fmt.Fprintln(g.out, "The "+of.noun+" is at work again: "+last.Record.Move.Reason+".")
	case len(last.Record.Log) > 0: // a machine may still be away: the last line says who takes part
		fmt.Fprintln(g.out, "The "+of.noun+" is at work again: "+strings.TrimPrefix(last.Record.Log[len(last.Record.Log)-1].Text, "done: ")+".")
	default:
		fmt.Fprintln(g.out, "The "+of.noun+" is at work again.")
	}
	return nil
}

// recoveryAway is for how long the agents may not answer meanwhile: they may be restarting too.
const recoveryAway = time.Minute

// followRecovery tells what the recovery does until it is over, or waits for a person.
func followRecovery(ctx context.Context, agents *api.Client, begun heal.Record, emit progress.Emit) (api.Recovery, error) {
	heard, shown := time.Now(), begun.Since.Add(-time.Nanosecond)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		r, err := agents.Recovery(ctx, begun.Service)
		switch {
		case err == nil:
			heard = time.Now()
			shown = tellRecovery(r.Record, shown, emit)
			if done, err := recoveryEnded(r, begun, emit); done {
				return r, err
			}
		case ctx.Err() != nil:
			return r, ctx.Err()
		case time.Since(heard) > recoveryAway:
			return r, err
		}
		select {
		case <-ctx.Done():
			return r, ctx.Err()
		case <-tick.C:
		}
	}
}

// tellRecovery tells what was logged after the given moment.
func tellRecovery(r heal.Record, after time.Time, emit progress.Emit) time.Time {
	for _, line := range r.Log {
		if !line.At.After(after) {
			continue
		}
		after = line.At
		emit(progress.Event{ID: line.At.String() + line.Text, Title: fmt.Sprintf("epoch %d: %s", line.Epoch, line.Text), State: progress.Done})
	}
	return after
}

func recoveryEnded(r api.Recovery, begun heal.Record, emit progress.Emit) (bool, error) {
	const now = "now"
	m := r.Record.Move
	switch {
	case !r.Record.Open && r.Record.Epoch >= begun.Epoch:
		emit(progress.Event{ID: now, Title: "over", State: progress.Done})
		return true, nil
	case m.Act == "ask":
		emit(progress.Event{ID: now, Title: m.Diagnosis, State: progress.Failed, Detail: m.Reason})
		return true, &hinted{m.Reason, m.Hint}
	case m.Rest:
		emit(progress.Event{ID: now, Title: m.Diagnosis, State: progress.Done, Detail: m.Reason})
		return true, nil
	}
	emit(progress.Event{ID: now, Title: m.Diagnosis, State: progress.Running, Detail: m.Reason})
	return false, nil
}
