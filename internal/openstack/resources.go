package openstack

import (
	"cmp"
	"fmt"
	"slices"

	"nines/internal/model"
	"nines/internal/plan"
	"nines/internal/service"
)

// Configuration is what a service adds to what all have.
type Configuration struct {
	// Packages is the name under which the release lists the packages; empty: the service's.
	Packages string
	// Files are the configuration of a node; the node's units are restarted when one changes.
	Files func(model.Node) ([]plan.File, error)
	// After are more resources that the units of the controllers wait for, Needs more capabilities.
	After []plan.ID
	Needs []string
	// SchemaAfter are more resources that the migration of a database waits for.
	SchemaAfter map[string][]plan.ID
	// Mount is a directory whose file system must be there before the APIs start; empty: none.
	Mount string
}

// Resources puts the service on the nodes.
func (s *Service) Resources(c *model.Cluster, conf Configuration) ([]plan.Resource, error) {
	controllers := c.Controllers()
	if len(controllers) == 0 {
		return nil, nil
	}
	first := controllers[0]
	out := s.registrations(c)
	wait := append([]plan.ID{service.CertificatesLoaded(s.Desc.Service, controllers)}, conf.After...)
	var files []plan.ID // of the first controller: the migrations read its configuration
	for _, n := range c.Nodes {
		rs, err := s.node(c, n, conf)
		if err != nil {
			return nil, fmt.Errorf("%s on %s: %w", s.Desc.Service, n.Name, err)
		}
		for i, r := range rs {
			if r.File != nil && n.Name == first.Name {
				files = append(files, r.ID)
			}
			if r.Unit != nil && n.Has(model.RoleController) {
				rs[i].After = append(rs[i].After, wait...)
				rs[i].Needs = append(rs[i].Needs, conf.Needs...)
				for _, schema := range s.Desc.Schemas {
					rs[i].After = append(rs[i].After, s.SchemaID(c, schema.Database))
				}
			}
		}
		out = append(out, rs...)
	}
	for _, schema := range s.Desc.Schemas {
		r := schema.Resource(s.Desc.Service, first, slices.Concat(files, conf.SchemaAfter[schema.Database])...)
		files = append(files, r.ID) // one after the other
		out = append(out, r)
	}
	return append(out, service.CertificateResources(s.Desc.Service, controllers)...), nil
}

// registrations are the steps that enter the service into Keystone.
func (s *Service) registrations(c *model.Cluster) []plan.Resource {
	if s.Desc.Type == "" {
		return nil
	}
	first, port := c.Controllers()[0], s.Desc.APIs[0].Port
	register := Registration{Name: s.Desc.Service, Type: s.Desc.Type, URL: URL(c, port) + s.Desc.Path, Public: PublicURL(c, port) + s.Desc.Path,
		User: s.Desc.Service, Secret: s.SecretUser(), Roles: []string{"admin", "service"}}
	out := []plan.Resource{register.Resource(s.Desc.Service, first)}
	for _, alias := range s.Desc.Aliases {
		register.Name, register.Type = alias, alias
		r := register.Resource(s.Desc.Service, first)
		r.ID, r.After = s.ID(first.Name, "action", ActionRegister+"-"+alias), []plan.ID{out[0].ID} // the user is the same
		out = append(out, r)
	}
	return out
}

// node returns packages, files and units of one node, none where nothing of the service runs.
func (s *Service) node(c *model.Cluster, n model.Node, conf Configuration) ([]plan.Resource, error) {
	programs, err := s.programs(c, n, conf.Mount)
	if err != nil || len(programs) == 0 {
		return nil, err
	}
	common, err := conf.Files(n)
	if err != nil {
		return nil, err
	}
	packages := s.ID(n.Name, "packages", s.Desc.Service)
	rs := []plan.Resource{{ID: packages, Packages: &plan.Packages{Names: c.Facts().PackagesOf(cmp.Or(conf.Packages, s.Desc.Service), n)}, Needs: []string{service.CapPackages}}}
	put := func(files []plan.File) (ids []plan.ID) {
		for _, f := range files {
			id := s.ID(n.Name, "file", f.Path)
			rs = append(rs, plan.Resource{ID: id, File: &f, After: []plan.ID{packages}})
			ids = append(ids, id)
		}
		return ids
	}
	all := put(common)
	for _, p := range programs {
		p.unit.Enabled, p.unit.Running = true, true
		p.unit.RestartOn = append(append([]plan.ID{packages}, s.read(n, p.reads, all)...), put(p.files)...)
		rs = append(rs, plan.Resource{ID: s.ID(n.Name, "unit", p.unit.Name), Unit: &p.unit, Needs: p.needs})
	}
	ownedBy(s.Desc.Service, n.Name, rs)
	return rs, nil
}

// read are the IDs of the files that a program reads.
func (s *Service) read(n model.Node, paths []string, all []plan.ID) []plan.ID {
	if paths == nil {
		return all
	}
	var out []plan.ID
	for _, path := range paths {
		out = append(out, s.ID(n.Name, "file", path))
	}
	return out
}

// program is a unit with the files that are its alone and the capabilities it needs.
type program struct {
	unit  plan.Unit
	files []plan.File // its alone
	reads []string    // of the node's configuration; nil: all
	needs []string
}

// programs returns what runs on the node.
func (s *Service) programs(c *model.Cluster, n model.Node, mount string) ([]program, error) {
	var out []program
	// One node at a time: with all of them away at once every request fails.
	member := &plan.Member{Quorum: s.Desc.Service, Size: len(c.Controllers()), Needed: 1}
	if n.Has(model.RoleController) {
		for _, w := range s.Desc.APIs {
			files, err := w.Files(c, n, mount)
			if err != nil {
				return nil, err
			}
			ready := &plan.Action{Name: ActionServes, Args: map[string]string{"unit": w.Unit}}
			out = append(out, program{unit: plan.Unit{Name: w.Unit, Member: member, Ready: ready}, files: files, reads: w.Reads})
		}
	}
	for _, d := range s.daemons(c) {
		if !d.on(n) {
			continue
		}
		f, err := d.File(c, n, s.Desc.Messaging)
		if err != nil {
			return nil, err
		}
		p := program{unit: plan.Unit{Name: d.Unit}, files: []plan.File{f}, reads: d.Reads}
		if n.Has(model.RoleController) && d.Role != model.RoleCompute {
			p.unit.Member = member
		}
		if s.Desc.Messaging {
			p.needs = []string{service.CapBroker}
		}
		out = append(out, p)
	}
	return out, nil
}
