// Package ovn is all that nines knows of Open vSwitch and OVN: the northbound and
// southbound databases, each a RAFT cluster over TLS on the controllers, northd beside them (one works,
// the others wait), and on every node a virtual switch with ovn-controller. Controllers
// are gateways to the site's networks; they watch each other with BFD.
//
// Invariants: a database is founded once, by the first controller, and only when every other controller is
// known to hold none; all others join. What the switch forwards with (the kernel, or userspace where
// the kernel has no module for it) is decided on the node, from what it has. An interface that carries another
// address than the tunnel's is never put into a switch: the node would be cut off. The package must never
// remove a database.
package ovn

import (
	"embed"
	"fmt"
	"strings"
	"text/template"
	"time"

	"nines/internal/model"
	"nines/internal/service"
)

// Name of the service.
const Name = "ovn"

// Units of the service.
const (
	UnitSwitchDB   = "ovsdb-server.service"
	UnitSwitch     = "ovs-vswitchd.service"
	UnitController = "ovn-controller.service"
	UnitNorth      = "ovn-ovsdb-server-nb.service"
	UnitSouth      = "ovn-ovsdb-server-sb.service"
	UnitNorthd     = "ovn-northd.service"
)

// Names of the service's actions.
const (
	actionStanding = "serve-existing-database"
	actionDatabase = "found-or-join-database"
	actionServes   = "database-serves"
	actionSingle   = "one-member-an-address"
	actionOptions  = "ovn-options"
	actionSwitch   = "switch-settings"
	actionForwards = "switch-forwards"
	actionConnects = "chassis-connected"
	actionFilled   = "southbound-filled"
)

//go:embed templates
var templateFiles embed.FS

var templates = template.Must(template.ParseFS(templateFiles, "templates/*.tmpl"))

// database is one of OVN's two.
type database struct {
	name   string // in OVSDB's words
	short  string // in messages, conditions and names of resources
	unit   string
	file   string
	schema string
	socket string // OVSDB's protocol
	ctl    string // control of the daemon
	port   int    // clients
	raft   int    // members
}

const (
	stateDir = "/var/lib/ovn"
	ovnRun   = "/run/ovn"
	ovsRun   = "/run/openvswitch"
)

var (
	north = database{name: "OVN_Northbound", short: "nb", unit: UnitNorth, file: stateDir + "/ovnnb_db.db", schema: "/usr/share/ovn/ovn-nb.ovsschema",
		socket: ovnRun + "/ovnnb_db.sock", ctl: ovnRun + "/ovnnb_db.ctl", port: model.PortOVNNorth, raft: model.PortOVNNorthRaft}
	south = database{name: "OVN_Southbound", short: "sb", unit: UnitSouth, file: stateDir + "/ovnsb_db.db", schema: "/usr/share/ovn/ovn-sb.ovsschema",
		socket: ovnRun + "/ovnsb_db.sock", ctl: ovnRun + "/ovnsb_db.ctl", port: model.PortOVNSouth, raft: model.PortOVNSouthRaft}
	databases = []database{north, south}
)

// find returns the database that the args of an action name.
func find(args map[string]string) (database, error) {
	for _, d := range databases {
		if d.short == args["database"] {
			return d, nil
		}
	}
	return database{}, fmt.Errorf("OVN has no database %q", args["database"])
}

// remotes are the addresses of a database on the nodes, as OVSDB writes them.
func remotes(nodes []model.Node, port int) []string {
	var out []string
	for _, n := range nodes {
		out = append(out, remote(n, port))
	}
	return out
}

func remote(n model.Node, port int) string {
	host := n.Address().String()
	if n.Address().Is6() {
		host = "[" + host + "]"
	}
	return fmt.Sprintf("ssl:%s:%d", host, port)
}

// Remotes is how clients find all members of a database: port is model.PortOVNNorth or PortOVNSouth.
func Remotes(c *model.Cluster, port int) string {
	return strings.Join(remotes(c.Controllers(), port), ",")
}

// Service implements service.Service for OVN.
type Service struct {
	rpc caller
	// dial looks whether anybody listens at an address.
	dial func(address string) error
}

// New makes the service. It does no I/O.
func New() *Service { return &Service{rpc: unixCaller{}, dial: dialTCP} }

// Name implements service.Service.
func (*Service) Name() string { return Name }

// Interval implements service.Observer: some requests on local sockets.
func (*Service) Interval() time.Duration { return 2 * time.Second }

// Faults implements service.Faulty.
func (*Service) Faults() []service.Fault {
	const sigkill, sigstop, sigcont = 9, 19, 18
	var out []service.Fault
	for _, unit := range []string{UnitNorth, UnitSouth, UnitNorthd, UnitSwitchDB, UnitSwitch, UnitController} {
		out = append(out, service.Fault{Name: "kill", Unit: unit, Role: model.RoleController, Signal: sigkill},
			service.Fault{Name: "freeze", Unit: unit, Role: model.RoleController, Signal: sigstop, Heal: sigcont})
	}
	return out
}

// Actions implements service.Actor.
func (s *Service) Actions() map[string]service.Action {
	return map[string]service.Action{
		actionStanding: {Check: standing, Run: stand},
		actionDatabase: {Check: present, Run: s.create},
		actionServes:   {Check: s.serves},
		actionSingle:   {Check: s.single, Run: s.expel},
		actionOptions:  {Check: s.optionsSet, Run: s.setOptions},
		actionSwitch:   {Check: s.switchSet, Run: s.setSwitch},
		actionForwards: {Check: s.forwards},
		actionConnects: {Check: s.connected},
		actionFilled:   {Check: s.filled},

		service.ActionCertificate: service.Certificate(shown, reload),
	}
}
