package openvswitch

import (
	"bytes"
	"fmt"
	"io/fs"
	"time"

	"nines/internal/model"
	"nines/internal/plan"
	"nines/internal/secret"
	"nines/internal/service"
)

const (
	unitDir    = "/etc/systemd/system/"
	linksPath  = "/usr/local/sbin/nines-switch-links"
	tapsPath   = "/usr/local/sbin/nines-switch-taps"
	systemPath = "/etc/openvswitch/system-id.conf"
)

// Resources implements service.Service.
func (*Service) Resources(c *model.Cluster, _ secret.Source) ([]plan.Resource, error) {
	var out []plan.Resource
	for _, n := range c.Nodes {
		b := &builder{c: c, n: n}
		if err := b.node(); err != nil {
			return nil, fmt.Errorf("openvswitch on %s: %w", n.Name, err)
		}
		out = append(out, b.out...)
	}
	return out, nil
}

func id(node, kind, name string) plan.ID { return plan.Make(Name, node, kind, name) }

// builder collects the resources of one node.
type builder struct {
	c   *model.Cluster
	n   model.Node
	out []plan.Resource
}

func (b *builder) add(kind, name string, r plan.Resource) plan.ID {
	r.ID, r.Service, r.Node = id(b.n.Name, kind, name), Name, b.n.Name
	b.out = append(b.out, r)
	return r.ID
}

func (b *builder) file(f plan.File) plan.ID {
	f.Owner, f.Group = "root", "root"
	return b.add("file", f.Path, plan.Resource{File: &f, After: []plan.ID{id(b.n.Name, "packages", Name)}})
}

// unit adds a unit that is restarted when the packages or one of the files change.
func (b *builder) unit(u plan.Unit, after []plan.ID, provides []string, files ...plan.ID) plan.ID {
	u.Enabled, u.Running = true, true
	u.RestartOn = append([]plan.ID{id(b.n.Name, "packages", Name)}, files...)
	if size := len(b.c.Controllers()); b.n.Has(model.RoleController) && size > 1 {
		// Controllers are the ways out: one is touched at a time, its database and its switch together.
		u.Member = &plan.Member{Quorum: Name, Size: size, Needed: min(model.Quorum(size), size-1)}
	}
	return b.add("unit", u.Name, plan.Resource{Unit: &u, After: after, Needs: []string{service.CapBase}, Provides: provides})
}

// node is the virtual switch of the node.
func (b *builder) node() error {
	b.add("packages", Name, plan.Resource{Packages: &plan.Packages{Names: b.c.Facts().PackagesOf(Name, b.n)}, Needs: []string{service.CapPackages}})
	type file struct {
		path, template string
		mode           fs.FileMode
		values         any
	}
	wanted := []file{
		{linksPath, "nines-switch-links.tmpl", 0o755, map[string]string{"Tunnel": tunnelInterface(b.c, b.n), "Bridge": bridgeTunnel,
			"Address": prefixed(b.c, b.n), "Provider": b.c.Neutron.ProviderInterface}},
		{unitDir + UnitDatabase, "ovsdb-server.service.tmpl", 0o644, nil},
		{unitDir + UnitSwitch, "ovs-vswitchd.service.tmpl", 0o644, map[string]any{"Modules": modules(b.c)}},
	}
	instances := b.n.Has(model.RoleCompute)
	if instances {
		wanted = append(wanted, file{tapsPath, "nines-switch-taps.tmpl", 0o755, nil}, file{unitDir + UnitTaps, "nines-switch-taps.service.tmpl", 0o644, nil})
	}
	files := map[string]plan.ID{}
	for _, f := range wanted {
		var content bytes.Buffer
		if err := templates.ExecuteTemplate(&content, f.template, f.values); err != nil {
			return err
		}
		files[f.path] = b.file(plan.File{Path: f.path, Mode: f.mode, Content: content.Bytes()})
	}
	identity := b.file(plan.File{Path: systemPath, Mode: 0o644, Content: []byte(b.n.Name + "\n")})
	links, swFile := files[linksPath], files[unitDir+UnitSwitch]

	db := b.unit(plan.Unit{Name: UnitDatabase}, nil, nil, identity, files[unitDir+UnitDatabase])
	settings := b.add("action", actionSwitch, plan.Resource{Action: &plan.Action{Name: actionSwitch}, After: []plan.ID{db, links, swFile}})
	b.unit(plan.Unit{Name: UnitSwitch, Ready: &plan.Action{Name: actionForwards, Timeout: time.Minute}}, []plan.ID{settings},
		[]string{service.SwitchOf(b.n)}, links, swFile)
	if instances {
		b.unit(plan.Unit{Name: UnitTaps}, []plan.ID{settings}, nil, files[tapsPath], files[unitDir+UnitTaps])
	}
	return nil
}
