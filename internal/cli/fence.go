package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"nines/internal/api"
	"nines/internal/app"
	"nines/internal/cli/live"
	"nines/internal/cli/view"
	"nines/internal/fence"
	"nines/internal/model"
	"nines/internal/progress"
)

func newFenceCommand(g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "fence",
		Short: "Test the machines' BMCs, give nines their passwords, switch power",
		Long: `A machine's BMC (iDRAC, iLO, XCC, ...) takes its power away when the machine itself does not answer. cluster.yaml
names each (nodes[].bmc, and where there is another way nodes[].second_bmc); its password is handed over with 'nines fence password' and kept encrypted.`,
	}
	cmd.AddCommand(newFenceTestCommand(g), newFencePasswordCommand(g),
		newFenceSwitchCommand(g, fence.TurnOff, "Take a machine's power away", "Take the power of %s away? What it has not written to disk is lost."),
		newFenceSwitchCommand(g, fence.TurnOn, "Give a machine power", ""),
		newFenceSwitchCommand(g, fence.Cycle, "Take a machine's power away and give it back", "Take the power of %s away and give it back? What it has not written to disk is lost."))
	return cmd
}

func newFenceTestCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "test [NODE...]",
		Short: "Prove that BMCs answer, let nines in and know the state of the power",
		Long: `Each controller asks each BMC for the state of its machine's power; nothing is switched. The leader does the same every few
minutes, and 'nines status' shows what is wrong. Exit code 0: all is well, 2: not, 1: an error.`,
		Example: `  nines fence test
  nines fence test ctl1 ctl2 --json`,
		RunE: func(cmd *cobra.Command, args []string) error {
			s, agents, err := g.deployed()
			if err != nil {
				return err
			}
			defer s.Close()
			tests, err := agents.FenceTest(cmd.Context(), api.FenceTestRequest{Nodes: args})
			if err != nil {
				return err
			}
			if g.json {
				err = g.print(tests)
			} else {
				view.FenceTests(g.out, tests)
			}
			if err == nil && !allWell(tests) {
				return exitCode(2)
			}
			return err
		},
	}
}

// allWell reports whether every controller was let in by every BMC, and there was one at all.
func allWell(tests []api.FenceTest) bool {
	n := 0
	for _, t := range tests {
		if t.Error != "" {
			return false
		}
		for _, r := range t.Results {
			if n++; r.Trouble != "" {
				return false
			}
		}
	}
	return n > 0
}

func newFencePasswordCommand(g *globals) *cobra.Command {
	var fresh, second bool
	cmd := &cobra.Command{
		Use:   "password NODE",
		Short: "Hand over the password of a machine's BMC",
		Long: `Asks for the password of the account that cluster.yaml names for the machine's BMC, or reads it from standard input. It is kept
encrypted: in .nines/ beside cluster.yaml until the cluster is deployed, then with the cluster's other secrets. It is tested at once.

The certificate that the BMC shows the first time is kept, and no other is given the password from then on. Compare its fingerprint with what the
BMC itself says. --new-certificate forgets it, after the BMC or its certificate was replaced.`,
		Example: `  nines fence password ctl1
  nines fence password ctl1 <password-file
  nines fence password ctl1 --second`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := g.open()
			if err != nil {
				return err
			}
			defer s.Close()
			n, ok := s.Cluster.Node(args[0])
			if !ok {
				return &hinted{fmt.Sprintf("the cluster has no node %s", args[0]), "cluster.yaml names them"}
			}
			l, err := levelOf(n, second)
			if err != nil {
				return err
			}
			password, err := g.readPassword(fmt.Sprintf("Password of %s on the %s (%s): ", l.BMC.User, l, l.BMC.Address), l.BMC.Protocol.PasswordLimit())
			if err != nil {
				return err
			}
			return g.handOver(cmd.Context(), s, l, password, fresh)
		},
	}
	cmd.Flags().BoolVar(&second, "second", false, "that of the machine's second BMC")
	cmd.Flags().BoolVar(&fresh, "new-certificate", false, "forget the certificate that the BMC has shown so far")
	return cmd
}

// levelOf is the node's first BMC, or its second.
func levelOf(n model.Node, second bool) (model.Level, error) {
	want := model.Level{Node: n.Name, Number: 1}
	if second {
		want.Number = 2
	}
	for _, l := range n.Levels() {
		if l.Number == want.Number {
			return l, nil
		}
	}
	return want, &hinted{n.Name + " has no " + want.Field() + " in cluster.yaml", "add " + want.Field() + ": {protocol: ..., address: ..., user: ...} to the node"}
}

// readPassword asks on a terminal, without showing what is typed, or reads what was piped in. It never comes from the
// arguments: everybody on the machine can read those. It has as many bytes as the limit says at most.
func (g *globals) readPassword(question string, limit int) (string, error) {
	var raw []byte
	var err error
	if f, ok := g.in.(*os.File); ok && isTerminal(f) {
		fmt.Fprint(g.err, question)
		raw, err = term.ReadPassword(int(f.Fd()))
		fmt.Fprintln(g.err)
	} else {
		raw, err = io.ReadAll(io.LimitReader(g.in, int64(limit)+2))
	}
	if err != nil {
		return "", fmt.Errorf("read the password: %w", err)
	}
	password := strings.TrimRight(string(raw), "\r\n")
	switch {
	case password == "":
		return "", &hinted{"no password was given", "type it, or pipe it in: nines fence password NODE <FILE"}
	case len(password) > limit || strings.ContainsAny(password, "\r\n\x00"):
		return "", &hinted{"this BMC cannot have such a password", fmt.Sprintf("it is one line of at most %d bytes; set such a one on the BMC, and hand it over", limit)}
	}
	return password, nil
}

func (g *globals) handOver(ctx context.Context, s *app.Session, l model.Level, password string, fresh bool) error {
	if s.Client == nil {
		if err := s.KeepPassword(l, password); err != nil {
			return err
		}
		fmt.Fprintf(g.out, "The password is kept in %s; 'nines apply' hands it over and tests it.\n", s.Path("bmc.age"))
		return nil
	}
	r, err := s.Client.FencePassword(ctx, api.FencePassword{Node: l.Node, BMC: l.BMC, Second: l.Number > 1, Password: password, NewCertificate: fresh})
	if err != nil {
		return err
	}
	if g.json {
		err = g.print(r)
	} else {
		view.FenceTests(g.out, []api.FenceTest{{Results: []fence.Result{r}}})
		if r.Fingerprint != "" {
			fmt.Fprintf(g.out, "\nSHA-256 of its certificate: %s\n", r.Fingerprint)
		}
	}
	if err == nil && r.Trouble != "" {
		return &hinted{"the password is kept, but the test failed", fence.Hint(r.Trouble, l)}
	}
	return err
}

func newFenceSwitchCommand(g *globals, action fence.Action, short, question string) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   string(action) + " NODE",
		Short: short,
		Long: short + `, through its BMC, or through the second one where the first does not do it. The order is written down with your name, and is carried out by a controller even when the leader loses
its power by it. It is refused when a quorum would be lost with the machine. It returns when the BMC says that it is done.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, agents, err := g.deployed()
			if err != nil {
				return err
			}
			defer s.Close()
			if question != "" && !yes {
				if err := g.ask(fmt.Sprintf(question, args[0])); err != nil {
					return err
				}
			}
			return g.fence(cmd.Context(), agents, api.FenceRequest{ID: uuid.NewString(), Node: args[0], Action: action, Who: whoami()})
		},
	}
	if question != "" {
		cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	}
	return cmd
}

// fence gives the order and shows it until it has ended.
func (g *globals) fence(ctx context.Context, agents *api.Client, req api.FenceRequest) error {
	o, err := agents.Fence(ctx, req)
	if err != nil {
		return err
	}
	err = live.Show(ctx, g.err, fmt.Sprintf("Power %s: %s", req.Action, req.Node), func(ctx context.Context, emit progress.Emit) error {
		o, err = followOrder(ctx, agents, o, emit)
		return err
	})
	if err == nil && g.json {
		err = g.print(o)
	}
	if err == nil && o.Error != "" {
		return &hinted{o.Error, o.Hint}
	}
	return err
}

// orderAway is for how long no agent may answer meanwhile: etcd elects anew when the leader loses its power.
const orderAway = time.Minute

func followOrder(ctx context.Context, agents *api.Client, o fence.Order, emit progress.Emit) (fence.Order, error) {
	heard := time.Now()
	for {
		event := progress.Event{ID: o.ID, Title: "by " + o.Executor, State: progress.Running}
		if len(o.Todo) > 0 {
			event.Detail = "wait until the BMC says that the power is " + string(o.Todo[0])
		}
		if !o.Open() {
			event.State, event.Detail, event.Took = progress.Done, "the BMC says so", o.Finished.Sub(o.Since)
			if o.Error != "" {
				event.State, event.Detail = progress.Failed, o.Error
			}
			emit(event)
			return o, nil
		}
		emit(event)
		select {
		case <-ctx.Done():
			return o, ctx.Err()
		case <-time.After(500 * time.Millisecond):
		}
		now, err := agents.FenceOrder(ctx)
		switch {
		case err == nil && now.ID != o.ID:
			return o, errors.New("another order has taken this one's place: 'nines status' shows whether the machine is there")
		case err == nil:
			o, heard = now, time.Now()
		case time.Since(heard) > orderAway:
			return o, err
		}
	}
}
