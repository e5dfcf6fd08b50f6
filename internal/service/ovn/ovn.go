// Package ovn is all that nines knows of OVN: the northbound and
// southbound databases, each a RAFT cluster over TLS on the controllers, northd beside them (one works,
// the others wait), and on every node ovn-controller, which programs the node's virtual switch. Controllers
// are gateways to the site's networks; they watch each other with BFD.
//
// Invariants: a database is founded once, by the first controller, and only when every other controller is
// known to hold none; all others join. The package must never remove a database.
package ovn

import (
	"embed"
	"fmt"
	"strings"
	"text/template"
	"time"

	"nines/internal/model"
	"nines/internal/ovsdb"
	"nines/internal/service"
)

// Name of the service.
const Name = "ovn"

// Units of the service.
const (
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
	rpc ovsdb.Caller
	// dial looks whether anybody listens at an address.
	dial func(address string) error
}

// New makes the service. It does no I/O.
func New() *Service { return &Service{rpc: ovsdb.Sockets{}, dial: dialTCP} }

// Name implements service.Service.
func (*Service) Name() string { return Name }

// Interval implements service.Observer: some requests on local sockets.
func (*Service) Interval() time.Duration { return 2 * time.Second }

// Faults implements service.Faulty.
func (*Service) Faults(*model.Cluster) []service.Fault {
	const sigkill, sigstop, sigcont = 9, 19, 18
	var out []service.Fault
	for _, unit := range []string{UnitNorth, UnitSouth, UnitNorthd, UnitController} {
		out = append(out, service.Fault{Name: "kill", Unit: unit, Role: model.RoleController, Signal: sigkill},
			service.Fault{Name: "freeze", Unit: unit, Role: model.RoleController, Signal: sigstop, Heal: sigcont, Mended: true})
	}
	return out
}

// SwitchIDs implements service.SwitchUser: what ovn-controller reads of the node's switch.
func (*Service) SwitchIDs(c *model.Cluster, n model.Node, datapath string) map[string]string {
	out := map[string]string{
		"ovn-remote":     Remotes(c, model.PortOVNSouth),
		"ovn-encap-type": "geneve", "ovn-encap-ip": n.TunnelAddress().String(),
		"ovn-bridge": model.BridgeInt, "ovn-bridge-datapath-type": datapath,
		// Every node knows everything: a little memory instead of a new question for each change of what is where.
		"ovn-monitor-all": "true",
		// A node whose database server lost power looks for another after two of these. The least there is:
		// until then a gateway could not take over. The default is 5 s.
		"ovn-remote-probe-interval": "1000",
		"ovn-bridge-mappings":       "", "ovn-cms-options": "",
	}
	if c.Neutron.ProviderInterface != "" {
		out["ovn-bridge-mappings"] = c.Neutron.PhysicalNetwork + ":" + model.BridgeProvider
		if n.Has(model.RoleController) {
			out["ovn-cms-options"] = "enable-chassis-as-gw"
		}
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
		actionConnects: {Check: s.connected},
		actionFilled:   {Check: s.filled},

		service.ActionCertificate: service.Certificate(shown, reload),
	}
}
