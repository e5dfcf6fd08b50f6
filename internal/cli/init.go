package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"nines/internal/config"
)

func newInitCommand(g *globals) *cobra.Command {
	var inventory, output string
	var force bool
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Write a commented cluster.yaml, or propose one from an inventory",
		Long: `Writes a commented cluster.yaml to fill in. With --inventory it proposes one:
the smallest machines that satisfy a controller's needs become the three
controllers, the large others computes, and a comment says why.

The inventory is CSV: address, hostname, cores, memory, disk, NICs. A header may
name the columns in any order and add the addresses on external, tenant and
storage. Sizes: 12G, 16384 MB, 1.2T; a bare number counts GB. NICs: a number, or
the interfaces' names.`,
		Example: `  nines init
  nines init --inventory servers.csv
  nines init -o -            # to standard output`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			text, err := describe(inventory)
			if err != nil {
				return err
			}
			return g.writeCluster(output, text, force)
		},
	}
	cmd.Flags().StringVar(&inventory, "inventory", "", "CSV `FILE` with the machines")
	cmd.Flags().StringVarP(&output, "output", "o", "cluster.yaml", "`FILE` to write; - for standard output")
	cmd.Flags().BoolVar(&force, "force", false, "replace a file that is there")
	return cmd
}

// describe returns the cluster.yaml to write.
func describe(inventory string) ([]byte, error) {
	if inventory == "" {
		return config.Example(), nil
	}
	text, err := os.ReadFile(inventory)
	if err != nil {
		return nil, fmt.Errorf("inventory: %w", err)
	}
	machines, err := config.ReadInventory(inventory, text)
	if err != nil {
		return nil, err
	}
	return config.Propose(filepath.Base(inventory), machines)
}

func (g *globals) writeCluster(path string, text []byte, force bool) error {
	if path == "-" {
		_, err := g.out.Write(text)
		return err
	}
	how := os.O_WRONLY | os.O_CREATE | os.O_EXCL
	if force {
		how = os.O_WRONLY | os.O_CREATE | os.O_TRUNC
	}
	f, err := os.OpenFile(path, how, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return &hinted{path + " is there already", "--force replaces it, -o FILE writes another"}
	}
	if err != nil {
		return err
	}
	if _, err := f.Write(text); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := f.Close(); err != nil {
		return err
	}
	fmt.Fprintf(g.out, "Wrote %s. Next: edit it, then 'nines render -o DIR' shows every file it leads to, 'nines apply' deploys it.\n", path)
	return nil
}
