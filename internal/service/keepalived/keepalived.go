// Package keepalived is all that nines knows of keepalived: VRRP between the
// controllers moves the VIP within a third of a second.
//
// Invariants: a node outside of etcd's majority, or without a working HAProxy, does
// not hold the VIP; neither does one whose agent is silent for more than ten seconds.
// The VIP carries the prefix length of its network. It must never move the
// VIP back to a preferred node, and never use multicast.
package keepalived

import (
	"bytes"
	"embed"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
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
const Name = "keepalived"

// Unit is keepalived's systemd unit.
const Unit = "keepalived.service"

const (
	dirConfig       = "/etc/keepalived/"
	pathConfig      = dirConfig + "keepalived.conf"
	pathInterface   = dirConfig + "interface.conf"
	scriptInterface = dirConfig + "nines-interface.sh"
	scriptRevoke    = dirConfig + "nines-guard-revoke.sh"
	revokeName      = "nines-vip-guard" // the unit, and its directory below /run
	unitRevoke      = revokeName + ".service"

	actionInterface = "find-interface"
)

// The agent renews its word each second. Who misses that in five looks in a row, ten seconds, does not hold the VIP: long enough for an
// agent to be upgraded.
const (
	revokeEvery  = 2 * time.Second
	revokeMissed = 5
)

//go:embed templates/*.tmpl
var templateFS embed.FS

var templates = template.Must(template.ParseFS(templateFS, "templates/*.tmpl"))

// Service implements service.Service for keepalived.
type Service struct {
	listeners func(*model.Cluster) []service.Listener
	// addresses lists what the machine's interfaces carry; tests have their own.
	addresses func() ([]net.Addr, error)
}

// New makes the service. listeners tells what is published on the VIP: one of them shows
// that the VIP answers.
func New(listeners func(*model.Cluster) []service.Listener) *Service {
	if listeners == nil {
		listeners = func(*model.Cluster) []service.Listener { return nil }
	}
	return &Service{listeners: listeners, addresses: net.InterfaceAddrs}
}

// Name implements service.Service.
func (*Service) Name() string { return Name }

// Faults implements service.Faulty.
func (*Service) Faults(*model.Cluster) []service.Fault {
	return []service.Fault{
		{Name: "kill", Unit: Unit, Signal: 9, AtVIP: true},
		{Name: "freeze", Unit: Unit, Signal: 19, Heal: 18, Mended: true, AtVIP: true},
	}
}

// Resources implements service.Service. An engine of before lets go of the VIP, and of HAProxy, before anything
// here is started.
func (*Service) Resources(c *model.Cluster, _ secret.Source) ([]plan.Resource, error) {
	if len(c.Controllers()) == 0 {
		return nil, nil
	}
	var out []plan.Resource
	var files, units []plan.ID
	for i, n := range c.Controllers() {
		rs, err := node(c, n, i)
		if err != nil {
			return nil, fmt.Errorf("keepalived on %s: %w", n.Name, err)
		}
		out = append(out, rs...)
		for _, r := range rs[:len(rs)-2] {
			files = append(files, r.ID)
		}
		units = append(units, rs[len(rs)-1].ID)
	}
	retired := service.Retired(c, Name, files)
	for i := range retired {
		retired[i].Provides = []string{service.CapEngine}
	}
	return append(append(out, retired...), service.VIPAnswers(c, Name, units)), nil
}

// node returns the resources of one node; the last two are the units.
func node(c *model.Cluster, n model.Node, index int) ([]plan.Resource, error) {
	v, err := newView(c, n, index)
	if err != nil {
		return nil, err
	}
	id := func(kind, name string) plan.ID { return plan.Make(Name, n.Name, kind, name) }
	pkg := plan.Resource{ID: id("packages", Name), Service: Name, Node: n.Name,
		Packages: &plan.Packages{Names: c.Facts().Packages[Name]}, Needs: []string{service.CapPackages}}
	out := []plan.Resource{pkg}
	file := func(tmpl, path string, mode fs.FileMode, validate []string, after ...plan.ID) (plan.ID, error) {
		content, err := render(tmpl, v)
		r := plan.Resource{ID: id("file", tmpl), Service: Name, Node: n.Name, After: append(after, pkg.ID),
			File: &plan.File{Path: path, Mode: mode, Owner: "root", Group: "root", Content: content, Validate: validate}}
		out = append(out, r)
		return r.ID, err
	}
	finder, err := file("interface.sh", scriptInterface, 0o755, nil)
	if err != nil {
		return nil, err
	}
	script, err := file("revoke.sh", scriptRevoke, 0o755, nil)
	if err != nil {
		return nil, err
	}
	revokeFile, err := file("revoke.service", "/etc/systemd/system/"+unitRevoke, 0o644, nil)
	if err != nil {
		return nil, err
	}
	find := plan.Resource{ID: id("action", actionInterface), Service: Name, Node: n.Name, After: []plan.ID{finder},
		Action: &plan.Action{Name: actionInterface, Args: map[string]string{"address": v.own()}}}
	out = append(out, find)
	config, err := file("keepalived.conf", pathConfig, 0o644, []string{"keepalived", "-t", "-f", "{}"}, find.ID)
	if err != nil {
		return nil, err
	}
	dropin, err := file("unit.conf", "/etc/systemd/system/"+Unit+".d/nines.conf", 0o644, nil, finder)
	if err != nil {
		return nil, err
	}
	revoke := plan.Resource{ID: id("unit", unitRevoke), Service: Name, Node: n.Name,
		Unit: &plan.Unit{Name: unitRevoke, Enabled: true, Running: true, RestartOn: []plan.ID{script, revokeFile}}}
	unit := plan.Resource{ID: id("unit", Unit), Service: Name, Node: n.Name, After: []plan.ID{revoke.ID},
		Needs: []string{service.CapBase, service.CapEngine, service.CapProxy},
		Unit: &plan.Unit{Name: Unit, Enabled: true, Running: true,
			RestartOn: []plan.ID{pkg.ID, dropin},
			// A reload keeps the VIP where it is.
			ReloadOn: []plan.ID{config},
			Member:   &plan.Member{Quorum: Name, Size: len(c.Controllers()), Needed: 1}}}
	return append(out, revoke, unit), nil
}

type view struct {
	Name, Address, Advert            string
	Addresses                        []address
	RouterID, Priority               int
	Peers                            []string
	Allow, Deny, GuardFile, GuardDir string
	InterfaceFile, InterfaceScript   string

	RevokeScript, RevokeUnit, RevokeName, RevokeState string
	RevokeEvery, RevokeMissed                         int // seconds; looks
}

// address is one of the VIP's, with the node's own in its network, and what keepalived.conf calls the interface that carries that.
type address struct{ VIP, Own, Variable string }

// variables are the interfaces' names in keepalived.conf, in the order of the VIP's addresses.
var variables = []string{"VIP_INTERFACE", "PUBLIC_INTERFACE"}

func newView(c *model.Cluster, n model.Node, index int) (view, error) {
	nodes := c.Controllers()
	var addresses []address
	for i, a := range c.VIP.Addresses() {
		own, ok := n.Addresses[a.Network]
		if !ok {
			return view{}, fmt.Errorf("no address on the network %s, where the VIP is", a.Network)
		}
		addresses = append(addresses, address{VIP: a.Prefix.String(), Own: own.String(), Variable: variables[i]})
	}
	v := view{
		Name: n.Name, Address: addresses[0].Own, Addresses: addresses, RouterID: c.VIP.RouterID,
		Priority: priority(index, len(nodes)), Advert: strconv.FormatFloat(c.VIP.Advert.Seconds(), 'f', -1, 64),
		Allow: Allow, Deny: Deny, GuardFile: model.PathVIPFile, GuardDir: filepath.Dir(model.PathVIPFile),
		InterfaceFile: pathInterface, InterfaceScript: scriptInterface,
		RevokeScript: scriptRevoke, RevokeUnit: unitRevoke, RevokeName: revokeName, RevokeState: "/run/" + revokeName,
		RevokeEvery: int(revokeEvery.Seconds()), RevokeMissed: revokeMissed,
	}
	for _, m := range nodes {
		if m.Name == n.Name {
			continue
		}
		a, ok := m.Addresses[c.VIP.Network]
		if !ok {
			return view{}, fmt.Errorf("%s has no address on the network %s, where the VIP is", m.Name, c.VIP.Network)
		}
		v.Peers = append(v.Peers, a.String())
	}
	return v, nil
}

// own are the node's addresses whose interfaces are looked for.
func (v view) own() string {
	var out []string
	for _, a := range v.Addresses {
		out = append(out, a.Own)
	}
	return strings.Join(out, " ")
}

// priority spreads the nodes between 250 and 50. A backup waits (256 - priority) / 256 of an
// advertisement interval longer before it takes over: 50 apart, that is a fifth of it.
func priority(index, of int) int {
	const top, bottom = 250, 50
	return top - index*min(50, (top-bottom)/max(1, of-1))
}

func render(name string, v view) ([]byte, error) {
	var b bytes.Buffer
	if err := templates.ExecuteTemplate(&b, name+".tmpl", v); err != nil {
		return nil, fmt.Errorf("template %s: %w", name, err)
	}
	return b.Bytes(), nil
}
