package cli

import (
	"github.com/spf13/cobra"

	"nines/internal/config"
)

func newSchemaCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of cluster.yaml, for editors",
		Example: `  nines schema > cluster.schema.json
  # then, as the first line of cluster.yaml:
  # yaml-language-server: $schema=cluster.schema.json`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			text, err := config.Schema()
			if err != nil {
				return err
			}
			_, err = g.out.Write(text)
			return err
		},
	}
}
