// Package memcached runs one memcached on each controller. They do not know each
// other: clients spread keys over all and live with a miss where one is gone.
//
// It listens on the management address only, and in plain text: Debian's build
// can do TLS, but of the client libraries of OpenStack's cache layer those that can do TLS
// too cannot pass over a dead server in time. What is cached (token
// validations, not passwords) is readable to who can read the management network.
package memcached

import (
	"bytes"
	"embed"
	"fmt"
	"syscall"
	"text/template"
	"time"

	"nines/internal/model"
	"nines/internal/plan"
	"nines/internal/secret"
	"nines/internal/service"
)

//go:embed templates/*.tmpl
var templateFiles embed.FS

var templates = template.Must(template.ParseFS(templateFiles, "templates/*.tmpl"))

const (
	name       = "memcached"
	unitName   = "memcached.service"
	configPath = "/etc/memcached.conf"
	dropInPath = "/etc/systemd/system/memcached.service.d/50-nines.conf"
	// megaBytes of items: token validations are small.
	megaBytes = 64
)

// Service is memcached.
type Service struct {
	// address tells where the node's memcached listens. Tests replace it.
	address func(model.Node) string
}

// New returns the service.
func New() *Service { return &Service{address: address} }

// Name is "memcached".
func (*Service) Name() string { return name }

// Resources declares one memcached on each controller.
func (*Service) Resources(c *model.Cluster, _ secret.Source) ([]plan.Resource, error) {
	var out []plan.Resource
	for _, n := range c.Controllers() {
		packages := plan.Resource{
			ID: plan.Make(name, n.Name, "packages", name), Service: name, Node: n.Name,
			Packages: &plan.Packages{Names: c.Facts().Packages[name]},
			Needs:    []string{service.CapPackages},
		}
		config, err := file(n, "config", configPath, "memcached.conf.tmpl")
		if err != nil {
			return nil, err
		}
		config.After = []plan.ID{packages.ID} // a file that the package would find changed is a question to nobody
		dropIn, err := file(n, "unit-settings", dropInPath, "memcached.service.conf.tmpl")
		if err != nil {
			return nil, err
		}
		unit := plan.Resource{
			ID: plan.Make(name, n.Name, "unit", unitName), Service: name, Node: n.Name,
			Unit: &plan.Unit{Name: unitName, Enabled: true, Running: true,
				RestartOn: []plan.ID{config.ID, dropIn.ID},
				Ready:     &plan.Action{Name: "answers", Timeout: 30 * time.Second}},
			Needs:    []string{service.CapBase},
			Provides: []string{service.CapCache},
		}
		out = append(out, packages, config, dropIn, unit)
	}
	return out, nil
}

func file(n model.Node, id, path, tmpl string) (plan.Resource, error) {
	var b bytes.Buffer
	view := struct {
		MegaBytes, Port int
		Address         string
	}{megaBytes, model.PortMemcached, n.Address().String()}
	if err := templates.ExecuteTemplate(&b, tmpl, view); err != nil {
		return plan.Resource{}, fmt.Errorf("memcached: %s of %s: %w", path, n.Name, err)
	}
	return plan.Resource{
		ID: plan.Make(name, n.Name, "file", id), Service: name, Node: n.Name,
		File: &plan.File{Path: path, Mode: 0o644, Owner: "root", Group: "root", Content: b.Bytes()},
	}, nil
}

// Actions are the steps only this service knows.
func (s *Service) Actions() map[string]service.Action {
	return map[string]service.Action{"answers": {Check: s.answers, Run: s.awaitAnswer}}
}

// Faults are what drills may do to it.
func (*Service) Faults(*model.Cluster) []service.Fault {
	return []service.Fault{
		{Name: "kill", Unit: unitName, Signal: int(syscall.SIGKILL)},
		{Name: "freeze", Unit: unitName, Signal: int(syscall.SIGSTOP), Heal: int(syscall.SIGCONT), Mended: true},
	}
}
