package node_test

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"

	"nines/internal/host"
	"nines/internal/host/hosttest"
	"nines/internal/model"
	"nines/internal/node"
	"nines/internal/plan"
	"nines/internal/secret"
	"nines/internal/service"
)

// realFiles is a fake host whose files are real.
type realFiles struct {
	*hosttest.Host
	linux *host.Linux
}

func (r realFiles) ReadFile(path string) (host.File, error) { return r.linux.ReadFile(path) }

// many is a service with as many resources on a node as a controller of the core has.
type many struct{ dir string }

func (many) Name() string { return "many" }

func (m many) Resources(*model.Cluster, secret.Source) ([]plan.Resource, error) {
	var out []plan.Resource
	var files []plan.ID
	for i := range 60 {
		path := filepath.Join(m.dir, fmt.Sprint(i))
		r := plan.Resource{ID: plan.Make("many", "n1", "file", path), Service: "many", Node: "n1",
			File: &plan.File{Path: path, Mode: 0o644, Owner: "root", Group: "root", Content: make([]byte, 2000)}}
		out, files = append(out, r), append(files, r.ID)
	}
	for i := range 20 {
		name := fmt.Sprintf("unit%d.service", i)
		out = append(out, plan.Resource{ID: plan.Make("many", "n1", "unit", name), Service: "many", Node: "n1",
			Unit: &plan.Unit{Name: name, Running: true, RestartOn: files[:10], ReloadOn: files[10:20], Ready: &plan.Action{Name: "quick"}}})
		out = append(out, plan.Resource{ID: plan.Make("many", "n1", "action", fmt.Sprint(i)), Service: "many", Node: "n1",
			Action: &plan.Action{Name: "quick"}})
	}
	return out, nil
}

func (many) Actions() map[string]service.Action {
	return map[string]service.Action{"quick": {Check: func(context.Context, service.Env, map[string]string) (bool, string, error) { return true, "", nil }}}
}

// BenchmarkObserve: 100 resources; to stay under 150 ms an operation.
func BenchmarkObserve(b *testing.B) {
	log := slog.New(slog.DiscardHandler)
	h := realFiles{hosttest.New(), host.NewLinux(log)}
	m := many{b.TempDir()}
	c := &model.Cluster{Name: "lab", Services: []string{"many"}, Nodes: []model.Node{{Name: "n1"}}}
	rs, _ := m.Resources(c, nil)
	for _, r := range rs {
		if r.File != nil {
			f := host.File{Path: r.File.Path, Mode: r.File.Mode, Content: r.File.Content}
			if err := h.linux.WriteFile(b.Context(), f, nil); err != nil {
				b.Fatal(err)
			}
		}
		if r.Unit != nil {
			h.PutUnit(r.Unit.Name, host.UnitState{Loaded: true, Active: "active", Invocation: "1"})
		}
	}
	x := node.New(node.Options{Host: h, Services: []service.Service{m}, Node: model.Node{Name: "n1"}, StateDir: b.TempDir(), Log: log})
	for b.Loop() {
		if _, err := x.Observe(b.Context(), c, secret.Map{}); err != nil {
			b.Fatal(err)
		}
	}
}
