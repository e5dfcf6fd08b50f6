package graph_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"nines/internal/graph"
)

// of builds a graph from {id, what it waits for ...}.
func of(lines ...[]string) *graph.Graph {
	g := graph.New()
	for _, l := range lines {
		g.Add(l[0])
	}
	for _, l := range lines {
		for _, dep := range l[1:] {
			g.Edge(l[0], dep)
		}
	}
	return g
}

func TestOrder(t *testing.T) {
	for _, c := range []struct {
		name string
		g    *graph.Graph
		want []string
	}{
		{"empty", graph.New(), nil},
		{"as added where the graph leaves a choice", of([]string{"b"}, []string{"a"}, []string{"c"}), []string{"b", "a", "c"}},
		{"dependencies first", of([]string{"unit", "file", "package"}, []string{"file", "package"}, []string{"package"}), []string{"package", "file", "unit"}},
		{"diamond", of([]string{"d", "b", "c"}, []string{"b", "a"}, []string{"c", "a"}), []string{"a", "b", "c", "d"}},
		{"an edge makes both known", of([]string{"b", "a"}), []string{"a", "b"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := c.g.Order()
			if err != nil || !slices.Equal(got, c.want) {
				t.Errorf("order is %v, %v, want %v", got, err, c.want)
			}
		})
	}
}

func TestEdgesAreKeptOnce(t *testing.T) {
	g := of([]string{"b", "a", "a"}, []string{"b"})
	if got := g.After("b"); !slices.Equal(got, []string{"a"}) {
		t.Errorf("b waits for %v, want a once", got)
	}
	g.After("b")[0] = "changed"
	g.IDs()[0] = "changed"
	if !slices.Equal(g.After("b"), []string{"a"}) || g.Has("changed") {
		t.Error("what a graph returns is not a copy")
	}
}

func TestCycle(t *testing.T) {
	g := of([]string{"x", "a"}, []string{"a", "b"}, []string{"b", "c"}, []string{"c", "a"})
	_, err := g.Order()
	var cycle *graph.CycleError
	if !errors.As(err, &cycle) {
		t.Fatalf("error is %v, want a cycle", err)
	}
	if want := []string{"a", "b", "c", "a"}; !slices.Equal(cycle.Path, want) {
		t.Errorf("cycle is %v, want %v", cycle.Path, want)
	}
	if _, err := g.Walk(t.Context(), nil); !errors.As(err, &cycle) {
		t.Errorf("walk of a cycle: %v", err)
	}
	if _, err := of([]string{"a", "a"}).Order(); !errors.As(err, &cycle) || len(cycle.Path) != 2 {
		t.Errorf("self-dependency: %v", err)
	}
}

// anyGraph draws up to 9 IDs and edges between any of them, cycles included;
// forward edges only when acyclic.
func anyGraph(r *rapid.T, acyclic bool) *graph.Graph {
	n := rapid.IntRange(0, 9).Draw(r, "ids")
	g := graph.New()
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("n%d", i)
	}
	for _, id := range rapid.Permutation(ids).Draw(r, "added") {
		g.Add(id)
	}
	for i := range ids {
		for j := range ids {
			if acyclic && j >= i {
				continue
			}
			if rapid.IntRange(0, 3).Draw(r, "edge") == 0 {
				g.Edge(ids[i], ids[j])
			}
		}
	}
	return g
}

// reaches returns everything id waits for, directly or not.
func reaches(g *graph.Graph, id string) map[string]bool {
	seen := map[string]bool{}
	var visit func(string)
	visit = func(id string) {
		for _, dep := range g.After(id) {
			if !seen[dep] {
				seen[dep] = true
				visit(dep)
			}
		}
	}
	visit(id)
	return seen
}

func TestOrderProperties(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		g := anyGraph(r, false)
		order, err := g.Order()
		again, _ := g.Order()
		if !slices.Equal(order, again) {
			r.Fatalf("two orders of one graph: %v, %v", order, again)
		}
		var cycle *graph.CycleError
		if errors.As(err, &cycle) {
			checkCycle(r, g, cycle.Path)
			return
		}
		for _, id := range g.IDs() {
			if reaches(g, id)[id] {
				r.Fatalf("%s waits for itself and nobody said so", id)
			}
		}
		sorted, ids := slices.Sorted(slices.Values(order)), slices.Sorted(slices.Values(g.IDs()))
		if !slices.Equal(sorted, ids) {
			r.Fatalf("order has %v, want %v", sorted, ids)
		}
		for i, id := range order {
			for _, dep := range g.After(id) {
				if !slices.Contains(order[:i], dep) {
					r.Fatalf("%s comes before %s, which it waits for: %v", id, dep, order)
				}
			}
		}
	})
}

func checkCycle(r *rapid.T, g *graph.Graph, path []string) {
	if len(path) < 2 || path[0] != path[len(path)-1] {
		r.Fatalf("%v is not a cycle", path)
	}
	for i := range path[1:] {
		if !slices.Contains(g.After(path[i]), path[i+1]) {
			r.Fatalf("%v: %s does not wait for %s", path, path[i], path[i+1])
		}
	}
}

func TestKeepProperties(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		g := anyGraph(r, true)
		kept := map[string]bool{}
		for _, id := range g.IDs() {
			kept[id] = rapid.Bool().Draw(r, "keep "+id)
		}
		k := g.Keep(func(id string) bool { return kept[id] })
		want := slices.DeleteFunc(g.IDs(), func(id string) bool { return !kept[id] })
		if !slices.Equal(k.IDs(), want) {
			r.Fatalf("kept %v, want %v", k.IDs(), want)
		}
		for _, id := range want {
			before := reaches(g, id)
			for dep := range before {
				if !kept[dep] {
					delete(before, dep)
				}
			}
			if diff := cmp.Diff(before, reaches(k, id)); diff != "" {
				r.Fatalf("%s no longer waits for the same (-before +after):\n%s", id, diff)
			}
		}
	})
}

func TestWalkProperties(t *testing.T) {
	defer goleak.VerifyNone(t)
	broken := errors.New("broken")
	rapid.Check(t, func(r *rapid.T) {
		g := anyGraph(r, true)
		breaks := map[string]bool{}
		for _, id := range g.IDs() {
			breaks[id] = rapid.IntRange(0, 4).Draw(r, "breaks "+id) == 0
		}
		var mu sync.Mutex
		var visited []string
		results, err := g.Walk(context.Background(), func(_ context.Context, id string) error {
			mu.Lock()
			defer mu.Unlock()
			for _, dep := range g.After(id) {
				if !slices.Contains(visited, dep) {
					t.Errorf("%s is visited before %s", id, dep)
				}
			}
			if slices.Contains(visited, id) {
				t.Errorf("%s is visited twice", id)
			}
			visited = append(visited, id)
			if breaks[id] {
				return broken
			}
			return nil
		})
		if err != nil || len(results) != len(g.IDs()) {
			r.Fatalf("%d results, %v, want %d", len(results), err, len(g.IDs()))
		}
		for _, id := range g.IDs() {
			var want error
			if breaks[id] {
				want = broken
			}
			for dep := range reaches(g, id) {
				if breaks[dep] {
					want = graph.ErrSkipped
				}
			}
			if results[id] != want {
				r.Fatalf("result of %s is %v, want %v", id, results[id], want)
			}
			if (want != graph.ErrSkipped) != slices.Contains(visited, id) {
				r.Fatalf("%s with result %v: visited is %v", id, want, visited)
			}
		}
	})
}

func TestWalkRunsSideBySide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := of([]string{"a"}, []string{"b"}, []string{"c", "a", "b"})
		var running atomic.Int32
		release := make(chan struct{})
		done := make(chan error, 1)
		go func() {
			_, err := g.Walk(t.Context(), func(context.Context, string) error {
				running.Add(1)
				<-release
				running.Add(-1)
				return nil
			})
			done <- err
		}()
		synctest.Wait()
		if n := running.Load(); n != 2 {
			t.Errorf("%d run side by side, want a and b", n)
		}
		close(release)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestWalkCancelled(t *testing.T) {
	defer goleak.VerifyNone(t)
	g := of([]string{"a"}, []string{"b", "a"}, []string{"c", "b"})
	ctx, cancel := context.WithCancel(t.Context())
	var visited []string
	results, err := g.Walk(ctx, func(ctx context.Context, id string) error {
		visited = append(visited, id) // a chain: one at a time
		cancel()
		return nil // a was in time
	})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(visited, []string{"a"}) {
		t.Errorf("visited %v, want a only", visited)
	}
	if results["a"] != nil || !errors.Is(results["b"], context.Canceled) || !errors.Is(results["c"], graph.ErrSkipped) {
		t.Errorf("results are %v", results)
	}
}
