// Package base makes a node ready for services: names of the nodes, kernel
// settings, time, and where packages come from.
//
// It provides service.CapPackages (the package source can be used) and service.CapBase
// (names, kernel settings and time are in place).
//
// Kernel settings that do not exist on a node, or that a container may not
// change (everything but net.*), are left out there: they are the business of
// the machine below. The cluster's CA is not added to the system's trusted
// ones: programs that need it are given it by name.
package base

import (
	"bytes"
	"embed"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"text/template"

	"nines/internal/model"
	"nines/internal/plan"
	"nines/internal/secret"
	"nines/internal/service"
)

//go:embed templates/*.tmpl
var templateFiles embed.FS

var templates = template.Must(template.ParseFS(templateFiles, "templates/*.tmpl"))

const (
	name       = "base"
	chronyUnit = "chrony.service"

	hostsPath  = "/etc/hosts"
	sysctlPath = "/etc/sysctl.d/80-nines.conf"
	chronyPath = "/etc/chrony/chrony.conf"
	dropInPath = "/etc/systemd/system/chrony.service.d/50-nines.conf"
	sourcePath = "/etc/apt/sources.list.d/nines.sources"
	keyPath    = "/etc/apt/keyrings/nines.asc"
)

// Service is the operating system's part.
type Service struct {
	starts func(*model.Cluster, model.Node) []string
}

// New returns the service. starts tells which units of a node take turns when it boots.
func New(starts func(*model.Cluster, model.Node) []string) *Service {
	if starts == nil {
		starts = func(*model.Cluster, model.Node) []string { return nil }
	}
	return &Service{starts: starts}
}

// Name is "base".
func (*Service) Name() string { return name }

// Actions are the steps only this service knows.
func (*Service) Actions() map[string]service.Action {
	return map[string]service.Action{
		"sysctl":        {Check: sysctlLive, Run: sysctlApply},
		"package-lists": {Check: listsFetched, Run: fetchLists},
	}
}

// Resources declares the same for every node.
func (s *Service) Resources(c *model.Cluster, _ secret.Source) ([]plan.Resource, error) {
	var out []plan.Resource
	for _, n := range c.Nodes {
		rs, err := s.nodeResources(c, n)
		if err != nil {
			return nil, fmt.Errorf("base: %s: %w", n.Name, err)
		}
		out = append(out, rs...)
	}
	return out, nil
}

func (s *Service) nodeResources(c *model.Cluster, n model.Node) ([]plan.Resource, error) {
	hosts, err := file(n, "hosts", hostsPath, "hosts.tmpl", c)
	if err != nil {
		return nil, err
	}
	hosts.Provides = []string{service.CapBase}
	var out []plan.Resource
	if c.Packages.Source == "" {
		// The node's own package sources need nothing but names.
		hosts.Provides = append(hosts.Provides, service.CapPackages)
	} else if out, err = sourceResources(c, n); err != nil {
		return nil, err
	}
	out = append(out, hosts)
	kernel, err := sysctlResources(n)
	if err != nil {
		return nil, err
	}
	clock, err := chronyResources(c, n)
	if err != nil {
		return nil, err
	}
	turns, err := turnResources(c, n, s.starts(c, n))
	if err != nil {
		return nil, err
	}
	return slices.Concat(out, kernel, clock, turns), nil
}

// file renders a template into a world-readable file of root.
func file(n model.Node, id, path, tmpl string, view any) (plan.Resource, error) {
	content, err := render(tmpl, view)
	if err != nil {
		return plan.Resource{}, err
	}
	return rawFile(n, id, path, content), nil
}

func rawFile(n model.Node, id, path string, content []byte) plan.Resource {
	return plan.Resource{
		ID: plan.Make(name, n.Name, "file", id), Service: name, Node: n.Name,
		File: &plan.File{Path: path, Mode: 0o644, Owner: "root", Group: "root", Content: content},
	}
}

func render(tmpl string, view any) ([]byte, error) {
	var b bytes.Buffer
	if err := templates.ExecuteTemplate(&b, tmpl, view); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func action(n model.Node, id string, after ...plan.ID) plan.Resource {
	return plan.Resource{
		ID: plan.Make(name, n.Name, "action", id), Service: name, Node: n.Name,
		Action: &plan.Action{Name: id}, After: after,
	}
}

// sourceResources put the extra package source in place and fetch its lists.
func sourceResources(c *model.Cluster, n model.Node) ([]plan.Resource, error) {
	source, err := file(n, "package-source", sourcePath, "nines.sources.tmpl", sourceView(c.Packages))
	if err != nil {
		return nil, err
	}
	var out []plan.Resource
	if c.Packages.KeyText != "" {
		key := rawFile(n, "package-key", keyPath, []byte(c.Packages.KeyText))
		source.After = []plan.ID{key.ID}
		out = append(out, key)
	}
	lists := action(n, "package-lists", source.ID)
	// A changed source or key is a changed action: its lists are fetched again.
	lists.Action.Args = map[string]string{"source": sourceMark(c.Packages)}
	lists.Provides = []string{service.CapPackages}
	return append(out, source, lists), nil
}

func sysctlResources(n model.Node) ([]plan.Resource, error) {
	f, err := file(n, "sysctl", sysctlPath, "80-nines.conf.tmpl", settings(n))
	if err != nil {
		return nil, err
	}
	apply := action(n, "sysctl", f.ID, plan.Make(name, n.Name, "packages", "base")) // sysctl(8) is in procps
	apply.Provides = []string{service.CapBase}
	return []plan.Resource{f, apply}, nil
}

func chronyResources(c *model.Cluster, n model.Node) ([]plan.Resource, error) {
	packages := plan.Resource{
		ID: plan.Make(name, n.Name, "packages", "base"), Service: name, Node: n.Name,
		Packages: &plan.Packages{Names: c.Facts().Packages[name]},
		Needs:    []string{service.CapPackages},
	}
	view := chronyView(c, n)
	conf, err := file(n, "chrony", chronyPath, "chrony.conf.tmpl", view)
	if err != nil {
		return nil, err
	}
	// chronyd says whether it understands the file.
	conf.File.Validate = []string{"/usr/sbin/chronyd", "-p", "-f", "{}"}
	conf.After = []plan.ID{packages.ID}
	dropIn, err := file(n, "chrony-unit", dropInPath, "chrony.service.conf.tmpl", view)
	if err != nil {
		return nil, err
	}
	unit := plan.Resource{
		ID: plan.Make(name, n.Name, "unit", chronyUnit), Service: name, Node: n.Name,
		Unit: &plan.Unit{Name: chronyUnit, Enabled: true, Running: true,
			RestartOn: []plan.ID{conf.ID, dropIn.ID}},
		Provides: []string{service.CapBase},
	}
	return []plan.Resource{packages, conf, dropIn, unit}, nil
}

type clock struct {
	Controller, ControlClock      bool
	Upstreams, Peers, Controllers []string
	Address                       netip.Addr
	Allow                         netip.Prefix
}

func chronyView(c *model.Cluster, n model.Node) clock {
	v := clock{
		Controller: n.Has(model.RoleController), ControlClock: c.NTP.ControlClock, Upstreams: c.NTP.Upstreams,
		Address: n.Address(), Allow: c.Networks[model.Management].CIDR,
	}
	for _, m := range c.Controllers() {
		v.Controllers = append(v.Controllers, m.Address().String())
		if m.Name != n.Name {
			v.Peers = append(v.Peers, m.Address().String())
		}
	}
	return v
}

type aptSource struct {
	Source, Suite, KeyPath string
	Signed, Flat           bool
}

func sourceView(p model.Packages) aptSource {
	return aptSource{Source: p.Source, Suite: p.Suite, KeyPath: keyPath, Signed: p.KeyText != "",
		// A suite that ends in a slash is a directory without components (sources.list(5)).
		Flat: strings.HasSuffix(p.Suite, "/")}
}
