package ovn

import (
	"bytes"
	"fmt"
	"path"
	"slices"
	"time"

	"nines/internal/model"
	"nines/internal/plan"
	"nines/internal/secret"
	"nines/internal/service"
)

const unitDir = "/etc/systemd/system/"

// Resources implements service.Service.
func (s *Service) Resources(c *model.Cluster, _ secret.Source) ([]plan.Resource, error) {
	controllers := c.Controllers()
	if len(controllers) == 0 {
		return nil, nil
	}
	var out []plan.Resource
	for _, n := range c.Nodes {
		b := &builder{c: c, n: n}
		b.packages()
		b.chassis()
		if n.Has(model.RoleController) {
			b.central()
		}
		if b.err != nil {
			return nil, fmt.Errorf("ovn on %s: %w", n.Name, b.err)
		}
		out = append(out, b.out...)
	}
	first := controllers[0].Name
	ready := plan.Resource{ID: id(first, "action", actionOptions), Service: Name, Node: first,
		Action: &plan.Action{Name: actionOptions}, Provides: []string{service.CapOverlay}}
	for _, n := range controllers {
		for _, d := range databases {
			ready.After = append(ready.After, id(n.Name, "unit", d.unit))
		}
	}
	return append(append(out, ready), service.CertificateResources(Name, controllers)...), nil
}

func id(node, kind, name string) plan.ID { return plan.Make(Name, node, kind, name) }

// builder collects the resources of one node.
type builder struct {
	c   *model.Cluster
	n   model.Node
	out []plan.Resource
	err error
}

func (b *builder) add(kind, name string, r plan.Resource) plan.ID {
	r.ID, r.Service, r.Node = id(b.n.Name, kind, name), Name, b.n.Name
	b.out = append(b.out, r)
	return r.ID
}

func (b *builder) packages() {
	b.add("packages", Name, plan.Resource{Packages: &plan.Packages{Names: b.c.Facts().PackagesOf(Name, b.n)}, Needs: []string{service.CapPackages}})
}

// unitFile puts a unit's file.
func (b *builder) unitFile(unit, name string, values any) plan.ID {
	var content bytes.Buffer
	if err := templates.ExecuteTemplate(&content, name, values); err != nil && b.err == nil {
		b.err = err
	}
	f := plan.File{Path: unitDir + unit, Mode: 0o644, Owner: "root", Group: "root", Content: content.Bytes()}
	return b.add("file", f.Path, plan.Resource{File: &f, After: []plan.ID{id(b.n.Name, "packages", Name)}})
}

// tls is what every daemon with connections to other nodes is told.
type tls struct{ CA, Cert, Key string }

var nodeTLS = tls{model.PathCA, model.PathCert, model.PathKey}

// unit adds a unit that is restarted when the packages or one of the files change.
func (b *builder) unit(u plan.Unit, after []plan.ID, needs []string, files ...plan.ID) plan.ID {
	u.Enabled, u.Running = true, true
	u.RestartOn = append([]plan.ID{id(b.n.Name, "packages", Name)}, files...)
	if size := len(b.c.Controllers()); b.n.Has(model.RoleController) && size > 1 {
		// All that runs on a controller is one member: one node is touched at a time.
		u.Member = &plan.Member{Quorum: Name, Size: size, Needed: min(model.Quorum(size), size-1)}
		after = append(slices.Clone(after), service.CertificatesLoaded(Name, b.c.Controllers()))
	}
	return b.add("unit", u.Name, plan.Resource{Unit: &u, After: after, Needs: append([]string{service.CapBase}, needs...)})
}

// chassis is what programs the node's switch.
func (b *builder) chassis() {
	f := b.unitFile(UnitController, "ovn-controller.service.tmpl", nodeTLS)
	var after []plan.ID
	// It ends in a segmentation fault where the southbound database is empty still (OVN 25.03): northd fills it.
	for _, n := range b.c.Controllers() {
		after = append(after, id(n.Name, "unit", UnitNorthd))
	}
	b.unit(plan.Unit{Name: UnitController, Ready: &plan.Action{Name: actionConnects, Timeout: time.Minute}}, after, []string{service.SwitchOf(b.n)}, f)
}

// central is what runs on controllers: the databases, one member of each founded or joined after the other, and northd.
func (b *builder) central() {
	controllers := b.c.Controllers()
	at := slices.IndexFunc(controllers, func(n model.Node) bool { return n.Name == b.n.Name })
	var units []plan.ID
	for _, d := range databases {
		units = append(units, b.member(d, controllers, at))
	}
	f := b.unitFile(UnitNorthd, "ovn-northd.service.tmpl", struct {
		tls
		North, South string
	}{nodeTLS, Remotes(b.c, north.port), Remotes(b.c, south.port)})
	b.unit(plan.Unit{Name: UnitNorthd, Ready: &plan.Action{Name: actionFilled, Timeout: time.Minute}}, units, nil, f)
}

// member is one database on a controller. The first founds, when the others are known to hold none; each
// of the others joins when the one before it serves.
func (b *builder) member(d database, controllers []model.Node, at int) plan.ID {
	args := map[string]string{"database": d.short}
	file := b.unitFile(d.unit, "database.service.tmpl", struct {
		tls
		Name, File, Socket, Control, PID, Address string
		Port                                      int
	}{nodeTLS, d.name, d.file, d.socket, d.ctl, ovnRun + "/" + trimExt(path.Base(d.file)) + ".pid", b.n.Address().String(), d.port})
	packages := id(b.n.Name, "packages", Name)
	create := plan.Resource{Action: &plan.Action{Name: actionDatabase, Args: map[string]string{"database": d.short}}, After: []plan.ID{packages}}
	if at == 0 {
		create.Action.Args["found"] = "true"
		for _, n := range controllers[1:] {
			create.After = append(create.After, id(n.Name, "action", actionStanding+"-"+d.short))
		}
	} else {
		b.add("action", actionStanding+"-"+d.short, plan.Resource{Action: &plan.Action{Name: actionStanding, Args: args}, After: []plan.ID{packages, file}})
		create.After = append(create.After, id(controllers[at-1].Name, "unit", d.unit))
	}
	made := b.add("action", actionDatabase+"-"+d.short, create)
	ready := &plan.Action{Name: actionServes, Args: args, Timeout: 2 * time.Minute}
	unit := b.unit(plan.Unit{Name: d.unit, Ready: ready}, []plan.ID{made}, nil, file)
	b.add("action", actionSingle+"-"+d.short, plan.Resource{Action: &plan.Action{Name: actionSingle, Args: args}, After: []plan.ID{unit}})
	return unit
}

func trimExt(name string) string { return name[:len(name)-len(path.Ext(name))] }
