package lab

import (
	"context"
	"time"
)

// Status is what is true of a lab now.
type Status struct {
	Name     string       `json:"name"`
	Dir      string       `json:"dir"`
	Profile  string       `json:"profile"`
	Bare     bool         `json:"bare"`
	Created  time.Time    `json:"created"`
	Cluster  string       `json:"cluster"` // path of cluster.yaml
	Nodes    []NodeStatus `json:"nodes"`
	Serving  bool         `json:"serving"` // the package repository answers
	Forwards []Forward    `json:"forwards"`
	// Cuts, Loss (percent, by machine) and Impostor are what was done to the network between the machines.
	Cuts     []Cut          `json:"cuts,omitempty"`
	Loss     map[string]int `json:"loss,omitempty"`
	Impostor string         `json:"impostor,omitempty"`
}

// NodeStatus is what is true of one machine.
type NodeStatus struct {
	Name    string `json:"name"`
	Power   string `json:"power"` // "on" or "off"
	Address string `json:"address"`
	PID     int    `json:"pid,omitempty"` // of its init, on the host
	// BMC is the address of its BMC, BMCMode how that behaves.
	BMC     string  `json:"bmc,omitempty"`
	BMCMode BMCMode `json:"bmc_mode,omitempty"`
}

// Status looks at what really runs.
func (l *Lab) Status(ctx context.Context) (Status, error) {
	s := Status{
		Name: l.Name(), Dir: l.Dir(), Profile: l.state.Profile, Bare: l.state.Bare,
		Created: l.state.Created, Cluster: l.ClusterFile(),
	}
	for _, n := range l.state.Nodes {
		if err := ctx.Err(); err != nil {
			return s, err
		}
		pid, err := l.initOf(n.Name)
		if err != nil {
			return s, err
		}
		power := "off"
		if pid != 0 {
			power = "on"
		}
		node := NodeStatus{Name: n.Name, Power: power, Address: n.Management, PID: pid, BMC: n.BMC}
		if n.BMC != "" {
			node.BMCMode = l.bmcMode(n.Name)
		}
		s.Nodes = append(s.Nodes, node)
	}
	d, err := l.disorderNow()
	if err != nil {
		return s, err
	}
	s.Cuts, s.Loss, s.Impostor = d.Cuts, d.Loss, d.Impostor
	if s.Serving = l.repositoryServes(); s.Serving {
		supervisor, err := l.readSupervisor()
		if err != nil {
			return s, err
		}
		s.Forwards = supervisor.Forwards
	}
	return s, nil
}
