package converge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"nines/internal/model"
	"nines/internal/plan"
	"nines/internal/secret"
	"nines/internal/service"
	"nines/internal/store"
	"nines/internal/store/memstore"
)

// toy is a service with a chain of actions on each node.
type toy struct{ steps int }

func (toy) Name() string { return "toy" }

func (s toy) Resources(c *model.Cluster, _ secret.Source) ([]plan.Resource, error) {
	var rs []plan.Resource
	for _, n := range c.Nodes {
		var last []plan.ID
		for i := range s.steps {
			id := plan.Make("toy", n.Name, "action", fmt.Sprint(i))
			rs = append(rs, plan.Resource{ID: id, Service: "toy", Node: n.Name, After: last, Action: &plan.Action{Name: "step", Args: map[string]string{"name": fmt.Sprint(i)}}})
			last = []plan.ID{id}
		}
	}
	return rs, nil
}

// machines are agents that remember what was done, by resource.
type machines struct {
	mu     sync.Mutex
	done   map[plan.ID]int
	down   map[string]bool
	fail   map[plan.ID]error
	hold   chan struct{} // ops wait for it when not nil
	fences map[store.Fence]bool
}

type gone struct{}

func (gone) Error() string { return "connection refused" }
func (gone) Passing() bool { return true }

func newMachines() *machines {
	return &machines{done: map[plan.ID]int{}, down: map[string]bool{}, fail: map[plan.ID]error{}, fences: map[store.Fence]bool{}}
}

func (m *machines) Observe(_ context.Context, n model.Node, c *model.Cluster) (ObserveReply, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down[n.Name] {
		return ObserveReply{}, gone{}
	}
	rs, _ := toy{steps: 3}.Resources(c, nil)
	reply := ObserveReply{Resources: map[plan.ID]plan.Status{}}
	for _, r := range rs {
		if r.Node != n.Name {
			continue
		}
		reply.Resources[r.ID] = plan.Status{State: plan.Missing}
		if m.done[r.ID] > 0 {
			reply.Resources[r.ID] = plan.Status{State: plan.InSync}
		}
	}
	return reply, nil
}

func (m *machines) Op(ctx context.Context, n model.Node, req OpRequest) (plan.Result, error) {
	m.mu.Lock()
	hold, down, fail := m.hold, m.down[n.Name], m.fail[req.ID]
	m.fences[req.Fence] = true
	m.mu.Unlock()
	if down {
		return plan.Result{}, gone{}
	}
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return plan.Result{}, ctx.Err()
		}
	}
	if fail != nil {
		return plan.Result{}, fail
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.done[req.ID]++
	return plan.Result{ID: req.ID, Changed: true}, nil
}

// forget has everything be done anew.
func (m *machines) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.done)
}

type noSecrets struct{}

func (noSecrets) Ensure(context.Context, []secret.Spec) (secret.Source, error) {
	return secret.Map{}, nil
}

func spec() *model.Cluster {
	c := &model.Cluster{Name: "test", Services: []string{"toy"}}
	for i := range 3 {
		c.Nodes = append(c.Nodes, model.Node{Name: fmt.Sprintf("ctl%d", i+1), Roles: []model.Role{model.RoleController},
			Addresses: map[model.NetworkName]netip.Addr{model.Management: netip.AddrFrom4([4]byte{198, 18, 0, byte(11 + i)})}})
	}
	return c
}

func leader(t *testing.T, s store.Store, m *machines) (*Leader, store.Lease) {
	t.Helper()
	lease, err := s.Campaign(t.Context(), LeaderLease, "ctl1")
	if err != nil {
		t.Fatal(err)
	}
	return NewLeader(Options{Store: s, Services: []service.Service{toy{steps: 3}}, Agents: m, Secrets: noSecrets{},
		Fence: lease.Fence(), Log: slog.New(slog.DiscardHandler)}), lease
}

func TestApplyDoesEverythingOnceAndThenNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, m := memstore.New(), newMachines()
		defer s.Close()
		l, _ := leader(t, s, m)
		rec, err := l.Apply(t.Context(), t.Context(), Request{Spec: spec(), Who: "a"})
		if err != nil {
			t.Fatal(err)
		}
		ended := map[plan.ID]bool{} // an event may come twice
		err = Follow(t.Context(), s, rec.ID, func(ev Event) error {
			if ev.Op != nil && !ev.Op.Running {
				ended[ev.Op.Op.ID] = true
			}
			if ev.Apply != nil {
				rec = *ev.Apply
			}
			return nil
		})
		if err != nil || rec.State != Converged || len(ended) != 9 {
			t.Fatalf("state %s, %d ops ended, err %v; want converged, 9, nil", rec.State, len(ended), err)
		}
		l.Wait()
		for id, n := range m.done {
			if n != 1 {
				t.Errorf("%s was done %d times", id, n)
			}
		}
		again, err := l.Apply(t.Context(), t.Context(), Request{Spec: spec(), Who: "a"})
		if err != nil || again.State != Converged || !again.Plan.Empty() {
			t.Errorf("second apply: %+v, %v; want converged without ops", again, err)
		}
	})
}

func TestSecondApplyIsToldWhoWorks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, m := memstore.New(), newMachines()
		defer s.Close()
		m.hold = make(chan struct{})
		l, _ := leader(t, s, m)
		if _, err := l.Apply(t.Context(), t.Context(), Request{Spec: spec(), Who: "first"}); err != nil {
			t.Fatal(err)
		}
		_, err := l.Apply(t.Context(), t.Context(), Request{Spec: spec(), Who: "second"})
		var busy *BusyError
		if !errors.As(err, &busy) || busy.Who != "first" {
			t.Fatalf("err = %v, want busy by first", err)
		}
		close(m.hold)
		l.Wait()
	})
}

// slowDelete is a store whose old entries take their time.
type slowDelete struct{ store.Store }

func (s slowDelete) Delete(ctx context.Context, key string, rev int64) error {
	time.Sleep(time.Second)
	return s.Store.Delete(ctx, key, rev)
}

// Whoever is told that an apply has ended may begin the next one at once; that the journal still forgets the one before must not be in its way.
func TestTheNextApplyMayBeginAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, m := slowDelete{memstore.New()}, newMachines()
		defer s.Store.(*memstore.Store).Close()
		l, _ := leader(t, s, m)
		for i := range 4 {
			m.forget()
			r, err := l.Apply(t.Context(), t.Context(), Request{Spec: spec(), Who: "somebody"})
			if err != nil {
				t.Fatalf("apply %d: %v", i, err)
			}
			ops := 0
			err = Follow(t.Context(), s, r.ID, func(e Event) error {
				if e.Op != nil && !e.Op.Running {
					ops++
				}
				return nil
			})
			if err != nil || ops == 0 {
				t.Errorf("apply %d: %d ops, %v", i, ops, err)
			}
		}
		l.Wait()
		last, err := Current(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		entries, err := s.List(t.Context(), prefixOps)
		if err != nil || len(entries) == 0 {
			t.Fatalf("%d ops, %v", len(entries), err)
		}
		for _, e := range entries {
			if !strings.HasPrefix(e.Key, prefixOps+last.ID+"/") {
				t.Errorf("%s is kept", e.Key)
			}
		}
	})
}

func TestRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, m := memstore.New(), newMachines()
		defer s.Close()
		l, _ := leader(t, s, m)
		_, err := l.Apply(t.Context(), t.Context(), Request{Spec: spec(), Plan: "another"})
		var stale *StaleError
		if !errors.As(err, &stale) {
			t.Errorf("other plan: %v, want *StaleError", err)
		}
		m.down["ctl2"] = true
		_, err = l.Apply(t.Context(), t.Context(), Request{Spec: spec()})
		var blocked *BlockedError
		if !errors.As(err, &blocked) {
			t.Errorf("node down: %v, want *BlockedError", err)
		}
		if len(m.done) > 0 {
			t.Errorf("something was done: %v", m.done)
		}
	})
}

func TestFailureIsRecordedUntilItIsMended(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, m := memstore.New(), newMachines()
		defer s.Close()
		m.fail[plan.Make("toy", "ctl2", "action", "1")] = errors.New("disk full")
		l, _ := leader(t, s, m)
		if _, err := l.Apply(t.Context(), t.Context(), Request{Spec: spec()}); err != nil {
			t.Fatal(err)
		}
		l.Wait()
		rec, err := Current(t.Context(), s)
		if err != nil || rec.State != Failed {
			t.Fatalf("state %s, %v; want failed", rec.State, err)
		}
		for id := range m.fail {
			m.done[id] = 1 // mended by hand, and what waited for it too
		}
		for i := range 3 {
			m.done[plan.Make("toy", "ctl2", "action", fmt.Sprint(i))] = 1
		}
		if again, err := l.Apply(t.Context(), t.Context(), Request{Spec: spec()}); err != nil || again.State != Converged {
			t.Fatalf("apply after mending: %s, %v", again.State, err)
		}
		if rec, err = Current(t.Context(), s); err != nil || rec.State != Converged {
			t.Errorf("the journal still says %s (%v): the failure was mended", rec.State, err)
		}
	})
}

func TestWhatWaitsForAFailureIsSkipped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, m := memstore.New(), newMachines()
		defer s.Close()
		m.fail[plan.Make("toy", "ctl2", "action", "1")] = errors.New("disk full")
		l, _ := leader(t, s, m)
		if _, err := l.Apply(t.Context(), t.Context(), Request{Spec: spec()}); err != nil {
			t.Fatal(err)
		}
		l.Wait()
		if len(m.done) != 7 {
			t.Errorf("%d resources done, want 7: all but the failed one and the one behind it", len(m.done))
		}
	})
}

func TestAgentThatRestartsIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, m := memstore.New(), newMachines()
		defer s.Close()
		l, _ := leader(t, s, m)
		m.hold = make(chan struct{})
		if _, err := l.Apply(t.Context(), t.Context(), Request{Spec: spec()}); err != nil {
			t.Fatal(err)
		}
		m.mu.Lock()
		m.down["ctl3"] = true
		m.mu.Unlock()
		close(m.hold)
		time.Sleep(30 * time.Second) // fake time
		m.mu.Lock()
		m.down["ctl3"] = false
		m.mu.Unlock()
		l.Wait()
		if rec, err := Current(t.Context(), s); err != nil || rec.State != Converged {
			t.Errorf("state %s (%s), %v; want converged", rec.State, rec.Error, err)
		}
	})
}

func TestNewLeaderGoesOnWhereTheOldOneStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, m := memstore.New(), newMachines()
		defer s.Close()
		old, lease := leader(t, s, m)
		m.hold = make(chan struct{})
		life, kill := context.WithCancel(t.Context())
		rec, err := old.Apply(t.Context(), life, Request{Spec: spec(), Who: "a"})
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		kill()
		old.Wait()
		if err := lease.Resign(t.Context()); err != nil {
			t.Fatal(err)
		}
		m.mu.Lock()
		m.hold = nil
		m.mu.Unlock()
		next, _ := leader(t, s, m)
		if err := next.Resume(t.Context()); err != nil {
			t.Fatal(err)
		}
		next.Wait()
		got, err := Current(t.Context(), s)
		if err != nil || got.ID != rec.ID || got.State != Converged || got.Resumed != 1 {
			t.Errorf("journal: %s %s resumed %d, %v; want %s converged resumed 1", got.ID, got.State, got.Resumed, err, rec.ID)
		}
		if err := old.save(t.Context(), KeyApply, rec); !errors.Is(err, store.ErrFenced) {
			t.Errorf("old leader writes: %v, want fenced", err)
		}
	})
}

// TestHold: whoever starts and stops the same members otherwise keeps applies away, and waits for one under way.
func TestHold(t *testing.T) {
	l := NewLeader(Options{Log: slog.New(slog.DiscardHandler)})
	release, ok := l.Hold("the recovery of galera")
	if !ok {
		t.Fatal("nothing is under way")
	}
	var busy *BusyError
	if err := l.reserve(Request{Who: "somebody"}); !errors.As(err, &busy) || busy.Who != "the recovery of galera" {
		t.Errorf("an apply beside it: %v", err)
	}
	if _, ok := l.Hold("another"); ok {
		t.Error("held twice")
	}
	release()
	if err := l.reserve(Request{Who: "somebody"}); err != nil {
		t.Errorf("after it: %v", err)
	}
	if _, ok := l.Hold("another"); ok {
		t.Error("held beside an apply")
	}
}
