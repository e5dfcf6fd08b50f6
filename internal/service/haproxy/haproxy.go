// Package haproxy is all that nines knows of HAProxy: one instance on each
// controller, ready to serve every listener on the VIP, whoever holds it.
//
// Invariants: a server is up only if the agent next to it says that the service
// works; a request that may have reached a server is sent again only if it is a read;
// a single writer never moves back by itself, and all instances agree on it. It must never
// listen on an address other than the VIP and the node's own management address.
package haproxy

import (
	"bytes"
	"cmp"
	"embed"
	"fmt"
	"slices"
	"strings"
	"text/template"
	"time"

	"nines/internal/model"
	"nines/internal/plan"
	"nines/internal/secret"
	"nines/internal/service"
)

// Name is the service's name.
const Name = "haproxy"

// Unit is HAProxy's systemd unit.
const Unit = "haproxy.service"

// SecretStats is the password of StatsUser on the statistics page.
const (
	SecretStats = "haproxy/stats"
	StatsUser   = "nines"
)

const (
	pathConfig  = "/etc/haproxy/haproxy.cfg"
	pathSocket  = "/run/haproxy/admin.sock"
	actionReady = "proxy-ready"
	// actionEngine starts HAProxy where that is the business of the VIP's engine.
	actionEngine = "by-engine"
)

// defaultTCPIdle outlasts the hour after which OpenStack's connection pools renew theirs.
const defaultTCPIdle = 2 * time.Hour

//go:embed templates/*.tmpl
var templateFS embed.FS

var templates = template.Must(template.ParseFS(templateFS, "templates/*.tmpl"))

// Service implements service.Service for HAProxy.
type Service struct {
	listeners func(*model.Cluster) []service.Listener
	// socket is the path of the administration socket; tests have their own.
	socket string
}

// New makes the service. listeners tells what other services want published on the VIP.
func New(listeners func(*model.Cluster) []service.Listener) *Service {
	if listeners == nil {
		listeners = func(*model.Cluster) []service.Listener { return nil }
	}
	return &Service{listeners: listeners, socket: pathSocket}
}

// Name implements service.Service.
func (*Service) Name() string { return Name }

// Secrets implements service.SecretUser.
func (*Service) Secrets(*model.Cluster) []secret.Spec {
	return []secret.Spec{{Name: SecretStats, Kind: secret.Password}}
}

// Faults implements service.Faulty.
func (*Service) Faults(*model.Cluster) []service.Fault {
	return []service.Fault{
		{Name: "kill", Unit: Unit, Signal: 9, AtVIP: true},
		{Name: "freeze", Unit: Unit, Signal: 19, Heal: 18, Mended: true, AtVIP: true},
	}
}

// Resources implements service.Service.
func (s *Service) Resources(c *model.Cluster, secrets secret.Source) ([]plan.Resource, error) {
	password, err := secrets.Get(SecretStats)
	if err != nil {
		return nil, err
	}
	listeners, err := s.published(c)
	if err != nil {
		return nil, err
	}
	var out []plan.Resource
	for _, n := range c.Controllers() {
		rs, err := node(c, n, listeners, password)
		if err != nil {
			return nil, fmt.Errorf("haproxy on %s: %w", n.Name, err)
		}
		out = append(out, rs...)
	}
	return append(out, service.CertificateResources(Name, c.Controllers())...), nil
}

// published returns the listeners in the order of their names, so that the order of the
// services changes nothing.
func (s *Service) published(c *model.Cluster) ([]service.Listener, error) {
	ls := slices.Clone(s.listeners(c))
	slices.SortFunc(ls, func(a, b service.Listener) int { return strings.Compare(a.Name, b.Name) })
	ports := map[int]string{}
	for i, l := range ls {
		if i > 0 && ls[i-1].Name == l.Name {
			return nil, fmt.Errorf("two listeners are named %q", l.Name)
		}
		if other, taken := ports[l.Port]; taken {
			return nil, fmt.Errorf("listeners %q and %q both want port %d on the VIP", other, l.Name, l.Port)
		}
		ports[l.Port] = l.Name
	}
	return ls, nil
}

func node(c *model.Cluster, n model.Node, ls []service.Listener, password string) ([]plan.Resource, error) {
	id := func(kind, name string) plan.ID { return plan.Make(Name, n.Name, kind, name) }
	config, err := render("haproxy.cfg", newView(c, n, ls, password))
	if err != nil {
		return nil, err
	}
	dropin, err := render("unit.conf", nil)
	if err != nil {
		return nil, err
	}
	pkg := plan.Resource{ID: id("packages", Name), Service: Name, Node: n.Name,
		Packages: &plan.Packages{Names: c.Facts().Packages[Name]}, Needs: []string{service.CapPackages}}
	cfg := plan.Resource{ID: id("file", "haproxy.cfg"), Service: Name, Node: n.Name, After: []plan.ID{pkg.ID},
		// The password of the statistics page is in it.
		File: &plan.File{Path: pathConfig, Mode: 0o600, Owner: "root", Group: "root", Content: config,
			Validate: []string{"haproxy", "-c", "-q", "-f", "{}"}}}
	drop := plan.Resource{ID: id("file", "unit.conf"), Service: Name, Node: n.Name, After: []plan.ID{pkg.ID},
		File: &plan.File{Path: "/etc/systemd/system/" + Unit + ".d/nines.conf", Mode: 0o644, Owner: "root", Group: "root", Content: dropin}}
	for _, r := range []*plan.Resource{&cfg, &drop} {
		r.Provides = []string{service.CapProxyFiles}
	}
	size := len(c.Controllers())
	unit := plan.Resource{ID: id("unit", Unit), Service: Name, Node: n.Name,
		After:    []plan.ID{service.CertificatesLoaded(Name, c.Controllers())},
		Needs:    []string{service.CapBase, service.CapEngine}, // ip_nonlocal_bind; who starts it
		Provides: []string{service.CapProxy},
		Unit: &plan.Unit{Name: Unit, Enabled: true, Running: true,
			RestartOn: []plan.ID{pkg.ID, drop.ID}, ReloadOn: []plan.ID{cfg.ID},
			Member: &plan.Member{Quorum: Name, Size: size, Needed: 1},
			Ready:  &plan.Action{Name: actionReady, Timeout: 30 * time.Second}}}
	if c.VIP.Engine == model.EnginePacemaker {
		// It starts HAProxy, and keeps it stopped where it has a reason. What it has started may be restarted and reloaded.
		unit.Unit.Enabled, unit.Unit.Start = false, &plan.Action{Name: actionEngine, Timeout: 30 * time.Second}
	}
	return []plan.Resource{pkg, cfg, drop, unit}, nil
}

type view struct {
	Name, Address, Socket, CA, Cert, Key string
	StatsUser, StatsPassword             string
	StatsPort, PeerPort                  int
	Inter, FastInter                     string
	Fall, Rise                           int
	Peers                                []peerView
	Listeners                            []listenerView
}

type peerView struct {
	Name, Address string
	Self          bool
}

type listenerView struct {
	service.Listener
	VIP, Idle string
	// Public is the second address that it listens on; empty: none.
	Public  string
	Shared  bool // the table of the writer is shared among peers
	Fall    int  // failed checks until a server is down
	Inter   string
	Servers []serverView
}

type serverView struct {
	Name, Address, CA string
	HealthPort        int
}

func newView(c *model.Cluster, n model.Node, ls []service.Listener, password string) view {
	t := c.Tuning.HAProxy
	v := view{
		Name: n.Name, Address: n.Address().String(), Socket: pathSocket,
		CA: model.PathCA, Cert: model.PathCert, Key: model.PathKey,
		StatsUser: StatsUser, StatsPassword: password,
		StatsPort: model.PortHAProxyStats, PeerPort: model.PortHAProxyPeers,
		Inter: millis(t.Inter), FastInter: millis(t.FastInter), Fall: t.Fall, Rise: t.Rise,
	}
	var servers []serverView
	for _, m := range c.Controllers() {
		a := m.Address().String()
		v.Peers = append(v.Peers, peerView{Name: m.Name, Address: a, Self: m.Name == n.Name})
		servers = append(servers, serverView{Name: m.Name, Address: a, CA: model.PathCA, HealthPort: model.PortHealth})
	}
	for _, l := range ls {
		lv := listenerView{Listener: l, VIP: c.VIP.Address.Addr().String(), Servers: servers, Shared: len(v.Peers) > 1, Fall: t.Fall + 2,
			Inter: millis(t.Inter)}
		if c.VIP.Public.IsValid() && l.Public {
			lv.Public = c.VIP.Public.Addr().String()
		}
		if l.HTTP {
			lv.Inter = millis(cmp.Or(t.HTTPInter, t.Inter))
		}
		switch {
		case l.IdleTimeout > 0:
			lv.Idle = millis(l.IdleTimeout)
		case !l.HTTP:
			lv.Idle = millis(defaultTCPIdle)
		}
		v.Listeners = append(v.Listeners, lv)
	}
	return v
}

// millis writes a duration in HAProxy's words, in the largest unit that is exact.
func millis(d time.Duration) string {
	if d > 0 && d%time.Second == 0 {
		return fmt.Sprintf("%ds", d/time.Second)
	}
	return fmt.Sprintf("%dms", d.Milliseconds())
}

func render(name string, v any) ([]byte, error) {
	var b bytes.Buffer
	if err := templates.ExecuteTemplate(&b, name+".tmpl", v); err != nil {
		return nil, fmt.Errorf("template %s: %w", name, err)
	}
	return b.Bytes(), nil
}
