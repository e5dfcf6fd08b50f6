// Command nines deploys, runs and proves a highly available OpenStack control plane.
package main

import (
	"os"

	"nines/internal/cli"
)

func main() { os.Exit(cli.Run(os.Args[1:])) }
