package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"nines/internal/bootstrap"
	"nines/internal/cli/live"
	"nines/internal/cli/view"
	"nines/internal/lab"
	"nines/internal/progress"
)

// DeployFunc deploys the cluster of a cluster.yaml, as on real servers.
type DeployFunc func(ctx context.Context, clusterFile string) error

// newLabCommand makes the lab command. deploy is what lab up goes on with when
// the machines are up.
func newLabCommand(deploy DeployFunc) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "lab",
		Short: "Whole machines on this machine, to try and to prove a cluster on",
		Long: `A lab is a set of whole Debian systems on this machine: each with systemd, SSH, its own disk, its own
network and its own power button. Nothing of this machine's own network is touched, and nothing is left
after 'nines lab down'. It needs root.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	name := cmd.PersistentFlags().String("name", lab.DefaultName, "`NAME` of the lab; two labs side by side need two names")
	cmd.AddCommand(
		newLabUpCommand(name, deploy), newLabDownCommand(name), newLabStatusCommand(name),
		newLabSSHCommand(name), newLabPowerCommand(name), newLabCableCommand(name), newLabBMCCommand(name), newLabCutCommand(name), newLabIsolateCommand(name),
		newLabLossCommand(name), newLabClaimCommand(name), newLabHealCommand(name), newLabExecCommand(name), newLabServeCommand(name),
	)
	return cmd
}

func newLabUpCommand(name *string, deploy DeployFunc) *cobra.Command {
	var o lab.Options
	var machinesOnly, checkOnly bool
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Bring the lab's machines up and deploy the cluster on them",
		Long: `Boots the machines, writes their cluster.yaml and deploys it the way it is deployed on real servers.
Interrupted, it goes on where it was when it is run again.`,
		Example: `  nines lab up                      # a whole cloud, 14 GB of memory
  nines lab up --profile core       # the small cluster, 4 GB
  nines lab up --set vip.advert=50ms
  nines lab up --machines-only      # machines with SSH, nothing deployed`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if checkOnly {
				err := lab.Supported()
				if err == nil {
					fmt.Fprintln(cmd.OutOrStdout(), "A lab can run on this machine.")
				}
				return err
			}
			started := time.Now()
			o.Name = *name
			var l *lab.Lab
			err := live.Show(cmd.Context(), cmd.ErrOrStderr(), "Bringing up the machines of lab "+o.Name,
				func(ctx context.Context, emit progress.Emit) (err error) {
					l, err = lab.Up(ctx, o, emit)
					return err
				})
			if err == nil {
				err = keepPasswords(l)
			}
			if err != nil || machinesOnly || deploy == nil {
				return err
			}
			if err := deploy(cmd.Context(), l.ClusterFile()); err != nil {
				return err
			}
			return writeLabReady(cmd, l, time.Since(started))
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.Profile, "profile", lab.DefaultProfile, "which machines: "+strings.Join(lab.Profiles(), ", "))
	flags.BoolVar(&o.Bare, "bare", false, "machines without any package of a service: nines installs them all")
	flags.StringArrayVar(&o.Set, "set", nil, "set a value of cluster.yaml, `PATH=VALUE`; repeatable")
	flags.BoolVar(&checkOnly, "check", false, "only say whether a lab can run on this machine")
	flags.BoolVar(&machinesOnly, "machines-only", false, "stop when the machines are up, deploy nothing")
	return cmd
}

// keepPasswords does for the lab's BMCs what an operator does with 'nines fence password'. Whoever applies later, by hand, needs them too.
func keepPasswords(l *lab.Lab) error {
	passwords, err := l.BMCPasswords()
	if err != nil || len(passwords) == 0 {
		return err
	}
	return bootstrap.KeepPasswords(l.Dir(), passwords)
}

// writeLabReady says where things are and what to try now.
func writeLabReady(cmd *cobra.Command, l *lab.Lab, took time.Duration) error {
	s, err := l.Status(cmd.Context())
	if err != nil {
		return err
	}
	name, pick := "", ""
	if l.Name() != lab.DefaultName {
		name, pick = " --name "+l.Name(), " -c "+l.ClusterFile()
	}
	w := tabwriter.NewWriter(cmd.ErrOrStderr(), 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "\nLab %s is up after %s.\n\n", l.Name(), view.Duration(took))
	for _, f := range s.Forwards {
		fmt.Fprintf(w, "  %s\thttps://%s\ton this machine\n", f.Name, f.Local)
	}
	fmt.Fprintf(w, "  cluster.yaml\t%s\n", l.ClusterFile())
	fmt.Fprintf(w, "  clients\t%s and openrc beside it\n", filepath.Join(l.Dir(), "clouds.yaml"))
	fmt.Fprintf(w, "\nTry:\n")
	fmt.Fprintf(w, "  nines%s status\n", pick)
	fmt.Fprintf(w, "  nines%s drill run vip-holder-power-off\n", pick)
	fmt.Fprintf(w, "  nines lab%s exec -- openstack token issue\n", name)
	fmt.Fprintf(w, "  nines lab%s ssh ctl1\n", name)
	fmt.Fprintf(w, "  nines lab%s down\n", name)
	return w.Flush()
}

func newLabDownCommand(name *string) *cobra.Command {
	var purge bool
	cmd := &cobra.Command{
		Use:   "down",
		Short: "Remove the lab with everything it consists of",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			there, err := lab.Exists(*name)
			if err != nil {
				return err
			}
			if there {
				l, err := lab.Leftover(*name)
				if err != nil {
					return err
				}
				if err := live.Show(cmd.Context(), cmd.ErrOrStderr(), "Taking down lab "+*name, l.Down); err != nil {
					return err
				}
			} else {
				fmt.Fprintf(cmd.ErrOrStderr(), "there is no lab %s\n", *name)
			}
			if purge {
				return lab.Purge(cmd.Context())
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&purge, "purge", false, "remove the cached images too")
	return cmd
}

func newLabStatusCommand(name *string) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show the lab's machines",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := lab.Find(*name)
			if err != nil {
				return err
			}
			s, err := l.Status(cmd.Context())
			if err != nil {
				return err
			}
			if f := cmd.Flag("json"); f != nil && f.Value.String() == "true" {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				return enc.Encode(s)
			}
			return writeLabStatus(cmd, s)
		},
	}
}

func writeLabStatus(cmd *cobra.Command, s lab.Status) error {
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "lab %s\tprofile %s\n", s.Name, s.Profile)
	fmt.Fprintf(w, "cluster\t%s\n", s.Cluster)
	for _, n := range s.Nodes {
		bmc := ""
		if n.BMC != "" {
			bmc = fmt.Sprintf("BMC %s: %s", n.BMC, n.BMCMode)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", n.Name, n.Address, n.Power, bmc)
	}
	writeDisorder(w, s)
	if !s.Serving {
		fmt.Fprintf(w, "package source\tdoes not answer: nines lab up starts it again\n")
	}
	for _, f := range s.Forwards {
		fmt.Fprintf(w, "%s\t%s on this machine\n", f.Name, f.Local)
	}
	return w.Flush()
}

func newLabSSHCommand(name *string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ssh NODE [COMMAND...]",
		Short: "Log in to a machine, or run a command on it",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			l, err := lab.Find(*name)
			if err != nil {
				return err
			}
			command, err := l.SSHArgs(args[0], args[1:]...)
			if err != nil {
				return err
			}
			return l.Exec(command, false)
		},
	}
	cmd.Flags().SetInterspersed(false) // what follows NODE is the command's own
	return cmd
}

// handle is something that is done to machines of a lab.
type handle struct {
	use, short string
	press      func(*lab.Lab, context.Context, ...string) error
}

func newLabPowerCommand(name *string) *cobra.Command {
	return newLabHandlesCommand(name, "power", "Press power buttons",
		handle{"on", "Boot machines", (*lab.Lab).PowerOn},
		handle{"off", "Take the power away; the disks keep what was written to them", (*lab.Lab).PowerOff},
		handle{"stop", "Shut machines down, service by service", (*lab.Lab).PowerStop},
		handle{"cut", "Take the power away; what was not flushed to disk is lost", (*lab.Lab).PowerCut})
}

func newLabCableCommand(name *string) *cobra.Command {
	return newLabHandlesCommand(name, "cable", "Pull the cables of the management network",
		handle{"out", "Pull the cables: the machines run on and reach nobody there", (*lab.Lab).CableOut},
		handle{"in", "Put the cables in again", (*lab.Lab).CableIn})
}

func newLabBMCCommand(name *string) *cobra.Command {
	set := func(mode lab.BMCMode) func(*lab.Lab, context.Context, ...string) error {
		return func(l *lab.Lab, ctx context.Context, nodes ...string) error { return l.SetBMC(ctx, mode, nodes...) }
	}
	return newLabHandlesCommand(name, "bmc", "Break the machines' BMCs, or mend them",
		handle{"ok", "Mend them", set(lab.BMCOK)},
		handle{"dead", "They answer nothing", set(lab.BMCDead)},
		handle{"unplugged", "Nor do the machines' second ones, as after their power cords were pulled", set(lab.BMCUnplugged)},
		handle{"slow", "Each answer takes seconds", set(lab.BMCSlow)},
		handle{"password", "They refuse the password, as after somebody changed it", set(lab.BMCPassword)},
		handle{"certificate", "They show another certificate, as after a reset, or as an impostor", set(lab.BMCCertificate)})
}

func newLabHandlesCommand(name *string, use, short string, handles ...handle) *cobra.Command {
	cmd := &cobra.Command{
		Use:   use,
		Short: short,
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	for _, action := range handles {
		cmd.AddCommand(&cobra.Command{
			Use:   action.use + " NODE...",
			Short: action.short,
			Args:  cobra.MinimumNArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				l, err := lab.Find(*name)
				if err != nil {
					return err
				}
				return action.press(l, cmd.Context(), args...)
			},
		})
	}
	return cmd
}

func newLabExecCommand(name *string) *cobra.Command {
	var host bool
	cmd := &cobra.Command{
		Use:   "exec -- COMMAND...",
		Short: "Run a client program inside the lab's network",
		Long: `Runs a program of the machines' image, which has the clients of all services, inside the lab's network.
The lab's directory, the current directory and /tmp are this machine's.`,
		Example: `  nines lab exec -- openstack token issue
  nines lab exec -- ping -c 3 ctl1
  nines lab exec --host -- tcpdump -i management`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			l, err := lab.Find(*name)
			if err != nil {
				return err
			}
			err = l.Exec(args, host)
			if errors.Is(err, lab.ErrNoProgram) && !host {
				return fmt.Errorf("%w in the image of the lab (with --host the programs of this machine run)", err)
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&host, "host", false, "run a program of this machine")
	cmd.Flags().SetInterspersed(false)
	return cmd
}

// newLabServeCommand makes the supervisor process that lab up starts.
func newLabServeCommand(name *string) *cobra.Command {
	return &cobra.Command{
		Use:    "serve",
		Short:  "Serve packages in the lab and forward ports into it (started by lab up)",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return lab.Serve(cmd.Context(), *name, slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil)))
		},
	}
}
