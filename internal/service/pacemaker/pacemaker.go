// Package pacemaker is all that nines knows of Corosync and Pacemaker: they move the VIP, and run HAProxy, by a
// majority of their own, and take the power of a machine away before they take over from it, where fencing is on.
//
// Invariants: a side without the majority of all controllers runs nothing; the VIP is only where HAProxy answers and
// other controllers are reached; the whole configuration is nines's, written once for the cluster. It must never decide by
// anything but Corosync's quorum, and never put a BMC's password into the CIB, which every node's tools may show.
package pacemaker

import (
	"bytes"
	"cmp"
	"embed"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"text/template"
	"time"

	"nines/internal/model"
	"nines/internal/plan"
	"nines/internal/secret"
	"nines/internal/service"
)

// Name is the service's name.
const Name = "pacemaker"

// The units.
const (
	Unit         = "pacemaker.service"
	UnitCorosync = "corosync.service"
)

// SecretKey is what Corosync's authkey is made of.
const SecretKey = "pacemaker/authkey"

const (
	pathConfig = "/etc/corosync/corosync.conf"
	pathKey    = "/etc/corosync/authkey"
	pathAgent  = "/usr/lib/ocf/resource.d/nines/haproxy"
	pathReach  = "/usr/lib/ocf/resource.d/nines/reach"
	pathVIP    = "/usr/lib/ocf/resource.d/nines/address"
	pathCIB    = model.PathConfig + "/cib.xml"
	// dirFence holds the BMCs' passwords, one file each.
	dirFence = model.PathConfig + "/fence/"
	// dirAgents is where Pacemaker looks for fence agents.
	dirAgents = "/usr/sbin/"

	actionStart    = "start-pacemaker"
	actionCorosync = "start-corosync"
	actionMember   = "member"
	actionReload   = "reload-corosync"
	actionCIB      = "cluster-resources"

	// HAProxy's, which its own service configures.
	proxyUnit   = "haproxy.service"
	proxySocket = "/run/haproxy/admin.sock"
)

// The node attributes that say whether another controller is reached in the VIP's network, and in that of its public address.
const (
	attributeReach       = "reach"
	attributeReachPublic = "reach-public"
)

// usualToken stands in for what a cluster does not say that was described before it could.
const usualToken = 600 * time.Millisecond

// settle is how long Pacemaker waits for the rest of a change before it decides; see templates/cib.xml.tmpl.
const settle = 100 * time.Millisecond

//go:embed templates/*.tmpl
var templateFS embed.FS

var templates = template.Must(template.ParseFS(templateFS, "templates/*.tmpl"))

// Service implements service.Service for Corosync and Pacemaker.
type Service struct {
	listeners func(*model.Cluster) []service.Listener
	// addresses lists what the machine's interfaces carry; tests have their own.
	addresses func() ([]net.Addr, error)
	late      lateness
}

// New makes the service. listeners tells what is published on the VIP: one of them shows that the VIP answers.
func New(listeners func(*model.Cluster) []service.Listener) *Service {
	if listeners == nil {
		listeners = func(*model.Cluster) []service.Listener { return nil }
	}
	return &Service{listeners: listeners, addresses: net.InterfaceAddrs}
}

// Name implements service.Service.
func (*Service) Name() string { return Name }

// Secrets implements service.SecretUser.
func (*Service) Secrets(*model.Cluster) []secret.Spec {
	return []secret.Spec{{Name: SecretKey, Kind: secret.FernetKey}}
}

// Faults implements service.Faulty.
func (*Service) Faults(*model.Cluster) []service.Fault {
	return []service.Fault{
		{Name: "kill", Unit: UnitCorosync, Signal: 9, AtVIP: true},
		{Name: "kill", Unit: Unit, Signal: 9, AtVIP: true},
	}
}

// Resources implements service.Service. The daemons start first, with nothing to run. Then the engine of before lets go of the
// VIP, and then they are told, once for the cluster, what to run.
func (*Service) Resources(c *model.Cluster, s secret.Source) ([]plan.Resource, error) {
	controllers := c.Controllers()
	if len(controllers) == 0 {
		return nil, nil
	}
	key, err := authkey(s)
	if err != nil {
		return nil, err
	}
	var out []plan.Resource
	var configs, members []plan.ID
	for _, n := range controllers {
		rs, err := node(c, n, key, s)
		if err != nil {
			return nil, fmt.Errorf("pacemaker on %s: %w", n.Name, err)
		}
		out = append(out, rs...)
		configs, members = append(configs, configID(n)), append(members, rs[len(rs)-1].ID)
	}
	first := controllers[0].Name
	retired := service.Retired(c, Name, members)
	var free []plan.ID
	for _, r := range retired {
		free = append(free, r.ID)
	}
	content, err := render("cib.xml", newCIBView(c))
	if err != nil {
		return nil, err
	}
	cib := plan.Resource{ID: plan.Make(Name, first, "file", "cib.xml"), Service: Name, Node: first, After: []plan.ID{packagesID(controllers[0])},
		File: &plan.File{Path: pathCIB, Mode: 0o600, Owner: "root", Group: "root", Content: content, Validate: []string{"crm_verify", "--xml-file", "{}"}}}
	// All of them read the file at one node's word.
	reload := plan.Resource{ID: plan.Make(Name, first, "action", actionReload), Service: Name, Node: first, After: append(configs, members...),
		Action: &plan.Action{Name: actionReload}}
	told := plan.Resource{ID: plan.Make(Name, first, "action", actionCIB), Service: Name, Node: first,
		After: append(free, cib.ID, reload.ID), Needs: []string{service.CapProxyFiles}, Provides: []string{service.CapEngine},
		Action: &plan.Action{Name: actionCIB, Timeout: 90 * time.Second}}
	out = append(out, reload, cib)
	return append(append(out, retired...), told, service.VIPAnswers(c, Name, []plan.ID{told.ID}, service.CapProxy)), nil
}

func packagesID(n model.Node) plan.ID { return plan.Make(Name, n.Name, "packages", Name) }
func configID(n model.Node) plan.ID   { return plan.Make(Name, n.Name, "file", "corosync.conf") }

// node returns the resources of one node; the last is Pacemaker's unit.
func node(c *model.Cluster, n model.Node, key []byte, s secret.Source) ([]plan.Resource, error) {
	id := func(kind, name string) plan.ID { return plan.Make(Name, n.Name, kind, name) }
	pkg := plan.Resource{ID: packagesID(n), Service: Name, Node: n.Name, Needs: []string{service.CapPackages},
		Packages: &plan.Packages{Names: c.Facts().Packages["keepalived:pacemaker"]}}
	out := []plan.Resource{pkg}
	file := func(name, path string, mode fs.FileMode, content []byte, validate ...string) plan.ID {
		r := plan.Resource{ID: id("file", name), Service: Name, Node: n.Name, After: []plan.ID{pkg.ID},
			File: &plan.File{Path: path, Mode: mode, Owner: "root", Group: "root", Content: content, Validate: validate}}
		out = append(out, r)
		return r.ID
	}
	rendered := map[string][]byte{}
	for name, v := range map[string]any{"corosync.conf": newTotem(c), "corosync.unit.conf": map[string]string{"Await": service.AwaitAcquainted}, "pacemaker.unit.conf": nil, "haproxy.unit.conf": nil,
		"reach.ocf": newReachView(c, n), "haproxy.ocf": map[string]string{"Unit": proxyUnit, "Socket": proxySocket}, "address.ocf": nil} {
		var err error
		if rendered[name], err = render(name, v); err != nil {
			return nil, err
		}
	}
	authkey := file("authkey", pathKey, 0o400, key)
	conf := file("corosync.conf", pathConfig, 0o644, rendered["corosync.conf"], "corosync", "-t", "-c", "{}")
	totem := &out[len(out)-1]
	totem.File.Fixed, totem.After = []byte(strings.Join(fixed(c), "\n")), append(totem.After, authkey) // which the validation reads
	dropin := file("corosync.unit.conf", "/etc/systemd/system/"+UnitCorosync+".d/nines.conf", 0o644, rendered["corosync.unit.conf"])
	dropinPacemaker := file("pacemaker.unit.conf", "/etc/systemd/system/"+Unit+".d/nines.conf", 0o644, rendered["pacemaker.unit.conf"])
	agent := file("haproxy.ocf", pathAgent, 0o755, rendered["haproxy.ocf"], "sh", "-n", "{}")
	reach := file("reach.ocf", pathReach, 0o755, rendered["reach.ocf"], "sh", "-n", "{}")
	address := file("address.ocf", pathVIP, 0o755, rendered["address.ocf"], "sh", "-n", "{}")
	wait := []plan.ID{agent, reach, address, file("haproxy.unit.conf", "/etc/systemd/system/"+proxyUnit+".d/pacemaker.conf", 0o644, rendered["haproxy.unit.conf"])}
	for _, agent := range agents(devices(c)) {
		content, err := render("fence", newFenceView(agent))
		if err != nil {
			return nil, err
		}
		wait = append(wait, file(wrapped(agent), dirAgents+wrapped(agent), 0o755, content, "sh", "-n", "{}"))
	}
	for _, d := range devices(c) {
		password, err := s.Get(d.level.PasswordSecret())
		if err != nil {
			return nil, fmt.Errorf("%w: hand it over with '%s'", err, d.level.HandOver())
		}
		wait = append(wait, file(d.ID, d.passwordFile(), 0o600, []byte(password+"\n")))
	}
	member := &plan.Member{Quorum: Name, Size: len(c.Controllers()), Needed: model.Quorum(len(c.Controllers()))}
	corosync := plan.Resource{ID: id("unit", UnitCorosync), Service: Name, Node: n.Name, Needs: []string{service.CapBase},
		Unit: &plan.Unit{Name: UnitCorosync, Enabled: true, Running: true, Member: member,
			Start:     &plan.Action{Name: actionCorosync, Timeout: restartFor},
			RestartOn: []plan.ID{pkg.ID, authkey, conf, dropin}}}
	unit := plan.Resource{ID: id("unit", Unit), Service: Name, Node: n.Name, After: append(wait, corosync.ID),
		Unit: &plan.Unit{Name: Unit, Enabled: true, Running: true, Member: member, RestartOn: []plan.ID{pkg.ID, dropinPacemaker},
			Start: &plan.Action{Name: actionStart, Timeout: restartFor},
			Ready: &plan.Action{Name: actionMember, Timeout: time.Minute}}}
	return append(out, corosync, unit), nil
}

// keySize is the least that libknet takes for a key, bytes. It encrypts with the first 32 of them and authenticates with all.
const keySize = 128

// authkey is the content of Corosync's key file.
func authkey(s secret.Source) ([]byte, error) {
	seed, err := s.Get(SecretKey)
	return []byte(strings.Repeat(seed+"\n", keySize/(len(seed)+1)+1)), err
}

type totem struct {
	Cluster          string
	Token, Consensus int64
	Links            []link
	Nodes            []member
}

type link struct {
	Network          model.NetworkName
	Number, Priority int
}

type member struct {
	Name      string
	ID        int
	Addresses []netip.Addr
}

// second are the networks for a second link, the best first.
var second = []model.NetworkName{model.Storage, model.Tenant, model.External}

// networks are those of the links: management, and one more that all controllers are connected to.
func networks(c *model.Cluster) []model.NetworkName {
	out := []model.NetworkName{model.Management}
	for _, name := range second {
		all := true
		for _, n := range c.Controllers() {
			all = all && n.Addresses[name].IsValid()
		}
		if all {
			return append(out, name)
		}
	}
	return out
}

func newTotem(c *model.Cluster) totem {
	token := cmp.Or(c.Tuning.Pacemaker.Token, usualToken)
	t := totem{Cluster: c.Name, Token: token.Milliseconds(), Consensus: (token * 6 / 5).Milliseconds()}
	links := networks(c)
	for i, name := range links {
		t.Links = append(t.Links, link{Network: name, Number: i, Priority: len(links) - i})
	}
	for i, n := range c.Controllers() {
		m := member{Name: n.Name, ID: i + 1}
		for _, name := range links {
			m.Addresses = append(m.Addresses, n.Addresses[name])
		}
		t.Nodes = append(t.Nodes, m)
	}
	return t
}

// fixed is what of corosync.conf a running daemon does not take up: who has which number, and that there is a key.
func fixed(c *model.Cluster) []string {
	out := []string{c.Name}
	for _, m := range newTotem(c).Nodes {
		out = append(out, fmt.Sprint(m.ID, m.Name))
	}
	return out
}

type cibView struct {
	Fences    bool
	Settle    string
	VIPs      []address
	Attribute string
	Devices   []device
	Topology  [][]device
}

// address is one of the VIP's: its resource, and the attribute that says whether its network is reached.
type address struct {
	ID, Attribute string
	Prefix        netip.Prefix
	Network       model.NetworkName
}

func addresses(c *model.Cluster) []address {
	ids, attributes := []string{"vip", "vip-public"}, []string{attributeReach, attributeReachPublic}
	var out []address
	for i, a := range c.VIP.Addresses() {
		out = append(out, address{ids[i], attributes[i], a.Prefix, a.Network})
	}
	return out
}

func newCIBView(c *model.Cluster) cibView {
	return cibView{Fences: c.Fences(), Settle: fmt.Sprintf("%dms", settle.Milliseconds()), VIPs: addresses(c), Attribute: attributeReach,
		Devices: devices(c), Topology: topology(devices(c))}
}

// reached is a network in which other controllers are looked for.
type reached struct {
	Attribute string
	Others    []netip.Addr
}

type reachView struct {
	Attribute string // of the first
	Networks  []reached
}

func newReachView(c *model.Cluster, n model.Node) reachView {
	v := reachView{Attribute: attributeReach}
	for _, a := range addresses(c) {
		r := reached{Attribute: a.Attribute}
		for _, m := range c.Controllers() {
			if m.Name != n.Name {
				r.Others = append(r.Others, m.Addresses[a.Network])
			}
		}
		v.Networks = append(v.Networks, r)
	}
	return v
}

// device is what takes a controller's power away.
type device struct {
	// ID is the resource's: fence-NODE, and fence2-NODE where the first does not do it.
	ID, Node, Agent string
	Params          []param
	level           model.Level
	file            string // of the password, in dirFence
}

type param struct{ Name, Value string }

// passwordFile is where the fence agent reads the password, on every controller.
func (d device) passwordFile() string { return dirFence + d.file }

// Type is what the resource is to Pacemaker.
func (d device) Type() string { return wrapped(d.Agent) }

func devices(c *model.Cluster) []device {
	if !c.Fences() {
		return nil
	}
	var out []device
	for _, n := range c.Controllers() {
		for _, l := range n.Levels() {
			if d, ok := newDevice(l); ok {
				out = append(out, d)
			}
		}
	}
	return out
}

func newDevice(l model.Level) (d device, ok bool) {
	at, err := l.BMC.Endpoint()
	if err != nil {
		return d, false // config refuses such an address
	}
	d = device{ID: "fence-" + l.Node, Node: l.Node, Agent: "fence_redfish", level: l, file: l.Node}
	if l.Number > 1 {
		d.ID, d.file = "fence2-"+l.Node, l.Node+".2"
	}
	d.Params = []param{{"ip", at.Addr().String()}, {"ipport", strconv.Itoa(int(at.Port()))}, {"username", l.BMC.User},
		// The agent runs it to get the password, so that it stands in no argument and not in the CIB.
		{"password_script", "cat " + d.passwordFile()},
		// Between two questions whether it is off: a whole second by default. A BMC's answer takes long enough.
		{"stonith_status_sleep", "0"}}
	if l.BMC.Protocol == model.IPMI {
		d.Agent = "fence_ipmilan"
		// By itself it wants to be an administrator; an operator may switch power, and need not be more.
		d.Params = append(d.Params, param{"lanplus", "1"}, param{"privlvl", "operator"})
	} else {
		// A BMC's certificate is its own; this agent cannot be told which one to expect.
		d.Params = append(d.Params, param{"ssl_insecure", "1"})
	}
	return d, true
}

// topology are the devices of each node that has two, in the order in which Pacemaker tries them.
func topology(devices []device) [][]device {
	var out [][]device
	for i, d := range devices {
		if i > 0 && devices[i-1].Node == d.Node {
			out = append(out, devices[i-1:i+1])
		}
	}
	return out
}

// agents are the fence agents of the devices, each once.
func agents(devices []device) []string {
	var out []string
	for _, d := range devices {
		if !slices.Contains(out, d.Agent) {
			out = append(out, d.Agent)
		}
	}
	return out
}

// wrapped is the agent as Pacemaker knows it.
func wrapped(agent string) string { return strings.Replace(agent, "fence_", "fence_nines_", 1) }

type fenceView struct{ Real, Known string }

func newFenceView(agent string) fenceView {
	return fenceView{Real: dirAgents + agent, Known: "/var/lib/pacemaker/" + agent + ".xml"}
}

func render(name string, v any) ([]byte, error) {
	var b bytes.Buffer
	if err := templates.ExecuteTemplate(&b, name+".tmpl", v); err != nil {
		return nil, fmt.Errorf("template %s: %w", name, err)
	}
	return b.Bytes(), nil
}
