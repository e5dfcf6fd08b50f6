// Package graph is a small directed acyclic graph over string IDs: edges,
// cycle detection, a stable order, and a parallel walk. It knows nothing of
// plans. IDs keep the order in which they were added wherever the graph leaves
// a choice, so that equal input gives equal output.
package graph

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// Graph maps each ID to the IDs it waits for. The zero value is not usable;
// call New.
type Graph struct {
	ids   []string
	after map[string][]string
}

// New returns an empty graph.
func New() *Graph { return &Graph{after: map[string][]string{}} }

// Add makes id known. Adding it twice is harmless.
func (g *Graph) Add(id string) {
	if _, ok := g.after[id]; !ok {
		g.after[id] = nil
		g.ids = append(g.ids, id)
	}
}

// Edge says that id waits for dep. Both become known.
func (g *Graph) Edge(id, dep string) {
	g.Add(id)
	g.Add(dep)
	if !slices.Contains(g.after[id], dep) {
		g.after[id] = append(g.after[id], dep)
	}
}

// IDs returns the known IDs in the order they were added.
func (g *Graph) IDs() []string { return slices.Clone(g.ids) }

// Has reports whether id is known.
func (g *Graph) Has(id string) bool { _, ok := g.after[id]; return ok }

// After returns what id waits for directly.
func (g *Graph) After(id string) []string { return slices.Clone(g.after[id]) }

// CycleError names the IDs of a cycle, first and last the same.
type CycleError struct{ Path []string }

func (e *CycleError) Error() string {
	return "dependency cycle: " + strings.Join(e.Path, " -> ")
}

// Order returns all IDs so that each comes after what it waits for. It fails
// with a *CycleError.
func (g *Graph) Order() ([]string, error) {
	const (
		visiting = 1
		done     = 2
	)
	state := make(map[string]int, len(g.ids))
	out := make([]string, 0, len(g.ids))
	var path []string
	var visit func(id string) error
	visit = func(id string) error {
		switch state[id] {
		case done:
			return nil
		case visiting:
			from := slices.Index(path, id)
			return &CycleError{Path: append(slices.Clone(path[from:]), id)}
		}
		state[id] = visiting
		path = append(path, id)
		for _, dep := range g.after[id] {
			if err := visit(dep); err != nil {
				return err
			}
		}
		path = path[:len(path)-1]
		state[id] = done
		out = append(out, id)
		return nil
	}
	for _, id := range g.ids {
		if err := visit(id); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Keep returns the graph of the IDs for which keep is true, in which an ID
// waits for another exactly when it did so before, directly or through IDs
// that are gone.
func (g *Graph) Keep(keep func(id string) bool) *Graph {
	out := New()
	memo := map[string][]string{}
	var nearest func(id string) []string
	nearest = func(id string) []string {
		if r, ok := memo[id]; ok {
			return r
		}
		var r []string
		for _, dep := range g.after[id] {
			next := []string{dep}
			if !keep(dep) {
				next = nearest(dep)
			}
			for _, n := range next {
				if !slices.Contains(r, n) {
					r = append(r, n)
				}
			}
		}
		memo[id] = r
		return r
	}
	for _, id := range g.ids {
		if keep(id) {
			out.Add(id)
		}
	}
	for _, id := range out.IDs() {
		for _, dep := range nearest(id) {
			out.Edge(id, dep)
		}
	}
	return out
}

// ErrSkipped is the result of an ID whose dependency failed.
var ErrSkipped = errors.New("skipped: something it waits for failed")

// Walk calls visit once for each ID, after all it waits for have been visited
// without error, in parallel where the graph allows. An ID whose dependency
// failed is not visited: its result is ErrSkipped. Walk returns when nothing
// runs any more, with one result for each ID (nil for success).
func (g *Graph) Walk(ctx context.Context, visit func(ctx context.Context, id string) error) (map[string]error, error) {
	if _, err := g.Order(); err != nil {
		return nil, fmt.Errorf("walk: %w", err)
	}
	done := make(map[string]chan struct{}, len(g.ids))
	for _, id := range g.ids {
		done[id] = make(chan struct{})
	}
	var mu sync.Mutex
	results := make(map[string]error, len(g.ids))
	failed := func(id string) bool {
		mu.Lock()
		defer mu.Unlock()
		return results[id] != nil
	}
	var wg sync.WaitGroup
	for _, id := range g.ids {
		wg.Go(func() {
			defer close(done[id])
			err := error(nil)
			for _, dep := range g.after[id] {
				<-done[dep]
				if failed(dep) {
					err = ErrSkipped
				}
			}
			if err == nil {
				if err = ctx.Err(); err == nil {
					err = visit(ctx, id)
				}
			}
			mu.Lock()
			results[id] = err
			mu.Unlock()
		})
	}
	wg.Wait()
	return results, nil
}
