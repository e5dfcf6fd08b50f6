package cli

import (
	"nines/internal/app"
	"nines/internal/lab"
)

// open reads the cluster.yaml the command means and connects to its agents.
func (g *globals) open() (*app.Session, error) {
	file, err := g.clusterFile()
	if err != nil {
		return nil, err
	}
	return app.Open(file, g.log)
}

// onlyLab returns the cluster.yaml of the lab on this machine if there is exactly one.
func onlyLab() (string, bool) {
	labs, err := lab.All()
	if err != nil || len(labs) != 1 {
		return "", false
	}
	return labs[0].ClusterFile(), true
}
