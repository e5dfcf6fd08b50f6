package cli

import (
	"path/filepath"
	"strings"

	"nines/internal/api"
	"nines/internal/app"
	"nines/internal/lab"
)

// open reads the cluster.yaml the command means and connects to its agents. That of
// a lab is reached from inside the lab's network: this process is replaced by one
// that lives there.
func (g *globals) open() (*app.Session, error) {
	file, err := g.clusterFile()
	if err != nil {
		return nil, err
	}
	if l, ok := labOf(file); ok {
		if err := l.Enter(); err != nil {
			return nil, err
		}
	}
	return app.Open(file, g.log)
}

// deployed is open for commands that need agents to talk to.
func (g *globals) deployed() (*app.Session, *api.Client, error) {
	s, err := g.open()
	if err != nil {
		return nil, nil, err
	}
	agents, err := s.Agents()
	if err != nil {
		s.Close()
		return nil, nil, err
	}
	return s, agents, nil
}

// labOf returns the lab whose cluster.yaml the file is.
func labOf(file string) (*lab.Lab, bool) {
	path, err := filepath.Abs(file)
	if err != nil {
		return nil, false
	}
	labs, err := lab.All()
	if err != nil {
		return nil, false
	}
	for _, l := range labs {
		if strings.HasPrefix(path, l.Dir()+"/") {
			return l, true
		}
	}
	return nil, false
}

// onlyLab returns the cluster.yaml of the lab on this machine if there is exactly one.
func onlyLab() (string, bool) {
	labs, err := lab.All()
	if err != nil || len(labs) != 1 {
		return "", false
	}
	return labs[0].ClusterFile(), true
}
