// Package openvswitch is all that nines knows of Open vSwitch: on every node a virtual switch, with its database, its
// bridges and the interfaces that it takes over. Who programs it (OVN, or agents of Neutron's own) is not its matter.
//
// Invariants: what the switch forwards with (the kernel, or userspace where the kernel has no module for it) is
// decided on the node, from what it has. An interface that carries another address than the tunnel's is never put into a
// switch: the node would be cut off.
package openvswitch

import (
	"embed"
	"text/template"
	"time"

	"nines/internal/model"
	"nines/internal/ovsdb"
	"nines/internal/service"
)

// Name of the service.
const Name = "openvswitch"

// Units of the service.
const (
	UnitDatabase = "ovsdb-server.service"
	UnitSwitch   = "ovs-vswitchd.service"
	// UnitTaps keeps the interfaces of instances up, on computes.
	UnitTaps = "nines-switch-taps.service"
)

// Names of the service's actions.
const (
	actionSwitch   = "switch-settings"
	actionForwards = "switch-forwards"
)

//go:embed templates
var templateFiles embed.FS

var templates = template.Must(template.ParseFS(templateFiles, "templates/*.tmpl"))

// Service implements service.Service for Open vSwitch.
type Service struct {
	rpc ovsdb.Caller
	// ids are what the switch's database is to tell those who program the switch (external_ids).
	ids func(c *model.Cluster, n model.Node, datapath string) map[string]string
}

// New makes the service. It does no I/O. ids tells the external_ids of a node's switch beyond its name; an empty value: the
// key must not be there.
func New(ids func(c *model.Cluster, n model.Node, datapath string) map[string]string) *Service {
	if ids == nil {
		ids = func(*model.Cluster, model.Node, string) map[string]string { return nil }
	}
	return &Service{rpc: ovsdb.Sockets{}, ids: ids}
}

// Name implements service.Service.
func (*Service) Name() string { return Name }

// Interval implements service.Observer: some requests on local sockets.
func (*Service) Interval() time.Duration { return 2 * time.Second }

// Faults implements service.Faulty.
func (*Service) Faults(*model.Cluster) []service.Fault {
	const sigkill, sigstop, sigcont = 9, 19, 18
	var out []service.Fault
	for _, unit := range []string{UnitDatabase, UnitSwitch} {
		out = append(out, service.Fault{Name: "kill", Unit: unit, Role: model.RoleController, Signal: sigkill},
			service.Fault{Name: "freeze", Unit: unit, Role: model.RoleController, Signal: sigstop, Heal: sigcont, Mended: true})
	}
	return out
}

// Actions implements service.Actor.
func (s *Service) Actions() map[string]service.Action {
	return map[string]service.Action{
		actionSwitch:   {Check: s.switchSet, Run: s.setSwitch},
		actionForwards: {Check: s.forwards},
	}
}
