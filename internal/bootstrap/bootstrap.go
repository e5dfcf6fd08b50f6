// Package bootstrap brings agents to bare machines over SSH: the only time nines uses
// SSH. It makes the cluster's identity and certificate authority, copies its own
// executable with certificates and units to all nodes, starts the agents, and ends when
// every agent answers over mutual TLS and etcd has its quorum.
//
// Invariants: no node is changed before every node has passed its checks; a node of
// another cluster is never changed; it can be interrupted anywhere and run again, and then
// does only what is missing; agents that run are restarted one at a time, each after the one
// before is ready. It must never replace a lost authority by a new one, and never
// write a secret into a log, an event, an argument list or a file others may read.
package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"nines/internal/model"
	"nines/internal/progress"
	"nines/internal/ssh"
)

// defaultWait is how long agents may take from their start to a quorum.
const defaultWait = 60 * time.Second

// Options of Run.
type Options struct {
	Cluster *model.Cluster
	// Dir is the folder of cluster.yaml; the operator's state goes to Dir/.nines.
	Dir string
	// Binary is the path of the executable that the nodes get: one's own.
	Binary string
	Emit   progress.Emit // nil: nobody watches
	Log    *slog.Logger  // nil: none
	// Wait bounds the wait for the agents; zero: 60 s.
	Wait time.Duration
}

// machine is one node during a bootstrap.
type machine struct {
	node   model.Node
	remote *ssh.Client
	facts  facts
	want   []file
	// renewed says why the node gets a new certificate; empty: it keeps its own.
	renewed string
	// changed holds the paths that were replaced.
	changed []string
	// stale: the agent runs with something that was replaced.
	stale bool
}

// run is one bootstrap at work.
type run struct {
	Options
	state    *state
	binary   *executable
	machines []*machine
}

// Run brings agents to all nodes of the cluster. What stands in the way is returned
// as a *PreflightError that lists all of it, for all nodes.
func Run(ctx context.Context, o Options) error {
	if o.Emit == nil {
		o.Emit = progress.Discard
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Wait == 0 {
		o.Wait = defaultWait
	}
	r := &run{Options: o}
	var err error
	if r.binary, err = openExecutable(o.Binary); err != nil {
		return err
	}
	err = progress.Step(o.Emit, "bootstrap/state", "keys and certificates of the cluster", func() error {
		r.state, err = openState(o.Dir, o.Cluster.Name, time.Now())
		return err
	})
	if err != nil {
		return err
	}
	defer r.state.close()
	for _, n := range o.Cluster.Nodes {
		r.machines = append(r.machines, &machine{node: n})
	}
	defer r.disconnect()
	for _, step := range []func(context.Context) error{r.preflight, r.install, r.start, r.awaitAll, r.restart} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) disconnect() {
	for _, m := range r.machines {
		if m.remote == nil {
			continue
		}
		if err := m.remote.Close(); err != nil {
			r.Log.Debug("close SSH connection", "node", m.node.Name, "err", err)
		}
	}
}

// preflight looks at every node and collects everything that stands in the way.
func (r *run) preflight(ctx context.Context) error {
	var mu sync.Mutex
	found := map[string][]Problem{}
	var wg sync.WaitGroup
	for _, m := range r.machines {
		wg.Go(func() {
			ps := r.check(ctx, m)
			mu.Lock()
			defer mu.Unlock()
			found[m.node.Name] = ps
		})
	}
	wg.Wait()
	if err := ctx.Err(); err != nil {
		return err
	}
	var all []Problem
	for _, m := range r.machines {
		all = append(all, found[m.node.Name]...)
	}
	if len(all) > 0 {
		return &PreflightError{Problems: all, Nodes: len(r.machines)}
	}
	return nil
}

// check connects to a node and judges what it finds there.
func (r *run) check(ctx context.Context, m *machine) []Problem {
	id, title := "bootstrap/"+m.node.Name+"/check", m.node.Name+": look at the machine"
	r.Emit(progress.Event{ID: id, Title: title, State: progress.Running})
	start := time.Now()
	waiting := func() {
		r.Emit(progress.Event{ID: id, Title: title, State: progress.Running, Detail: "SSH does not listen yet"})
	}
	ps, err := r.look(ctx, m, waiting)
	if err != nil {
		ps = []Problem{problemOf(m.node.Name, err)}
	}
	e := progress.Event{ID: id, Title: title, State: progress.Done, Took: time.Since(start)}
	if len(ps) > 0 {
		e.State, e.Detail = progress.Failed, ps[0].Text
	}
	r.Emit(e)
	return ps
}

// bootPatience is for a machine that boots: its address answers before its SSH server listens.
const bootPatience = 15 * time.Second

// whileBooting repeats connect while the node refuses the connection, and calls waiting before each repeat.
func whileBooting(ctx context.Context, waiting func(), connect func() error) error {
	deadline := time.Now().Add(bootPatience)
	for {
		err := connect()
		if !errors.Is(err, syscall.ECONNREFUSED) || time.Now().After(deadline) {
			return err
		}
		waiting()
		select {
		case <-ctx.Done():
			return err
		case <-time.After(500 * time.Millisecond):
		}
	}
}

func (r *run) look(ctx context.Context, m *machine, waiting func()) ([]Problem, error) {
	c := r.Cluster
	err := whileBooting(ctx, waiting, func() (err error) {
		m.remote, err = ssh.Dial(ctx, ssh.Config{
			Addr: netip.AddrPortFrom(m.node.Address(), uint16(c.SSH.Port)).String(),
			Name: m.node.Name, User: c.SSH.User, Identity: c.SSH.Identity, KnownHosts: c.SSH.KnownHosts,
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := m.remote.BecomeRoot(ctx); err != nil {
		return nil, err
	}
	asked := time.Now()
	out, err := m.remote.Run(ctx, factsScript, nil)
	if err != nil {
		return nil, fmt.Errorf("look at the machine: %w", err)
	}
	if m.facts, err = parseFacts(out.Stdout); err != nil {
		return nil, err
	}
	x := expectation{cluster: c, node: m.node, id: r.state.id, ca: r.state.ca.Pair().Cert, asked: asked, answered: time.Now()}
	sum, err := r.binary.sum()
	if err != nil {
		return nil, fmt.Errorf("read the executable: %w", err)
	}
	if sum != m.facts.binary {
		x.binary = r.binary.size
	}
	return judge(x, m.facts), nil
}

// install copies executable and files to the nodes that lack them, all at once.
func (r *run) install(ctx context.Context) error {
	for _, m := range r.machines {
		want, err := r.files(m)
		if err != nil {
			return err
		}
		m.want = want
	}
	return r.onAll(ctx, func(ctx context.Context, m *machine) error {
		return r.task(m, "copy", "copy agent, certificates and units", func() (string, error) { return r.copy(ctx, m) })
	})
}

// start starts the agents that do not run, all at once: etcd needs a majority of them.
// Agents that run, are not ready and got something new are restarted here as well: what
// is new may be what they lack, and they carry no quorum that could be lost.
func (r *run) start(ctx context.Context) error {
	client, err := r.newClient()
	if err != nil {
		return err
	}
	defer client.close()
	return r.onAll(ctx, func(ctx context.Context, m *machine) error {
		if m.facts.agent != "active" {
			return r.task(m, "start", "start the agent", func() (string, error) { return "", startAgent(ctx, m) })
		}
		m.stale = slices.ContainsFunc(m.changed, needsRestart)
		if !m.stale || client.ready(ctx, m.node, r.state.id) == nil {
			return nil
		}
		m.stale = false
		return r.task(m, "start", "restart the agent", func() (string, error) { return "", restartAgent(ctx, m) })
	})
}

// awaitAll waits until every agent answers and has a quorum behind it.
func (r *run) awaitAll(ctx context.Context) error {
	client, err := r.newClient()
	if err != nil {
		return err
	}
	defer client.close()
	return r.onAll(ctx, func(ctx context.Context, m *machine) error {
		return r.await(ctx, client, m, "ready")
	})
}

// restart restarts agents that ran before and got something new, one at a time:
// two at once would take the quorum away.
func (r *run) restart(ctx context.Context) error {
	client, err := r.newClient()
	if err != nil {
		return err
	}
	defer client.close()
	for _, m := range r.machines {
		if !m.stale {
			continue
		}
		err := r.task(m, "restart", "restart the agent", func() (string, error) { return "", restartAgent(ctx, m) })
		if err == nil {
			err = r.await(ctx, client, m, "ready-again")
		}
		if err != nil {
			return fmt.Errorf("%s: %w", m.node.Name, err)
		}
	}
	return nil
}

// needsRestart reports whether a running agent takes no notice of the new file by itself.
// Certificates it reads again.
func needsRestart(path string) bool {
	return path != model.PathCert && path != model.PathKey && path != model.PathAuthorityKey
}

func (r *run) onAll(ctx context.Context, f func(context.Context, *machine) error) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, m := range r.machines {
		g.Go(func() error {
			if err := f(ctx, m); err != nil {
				return fmt.Errorf("%s: %w", m.node.Name, err)
			}
			return nil
		})
	}
	return g.Wait()
}

// task runs f as one task of a node; a detail of "-" says that nothing was to be done.
func (r *run) task(m *machine, what, title string, f func() (detail string, err error)) error {
	e := progress.Event{ID: "bootstrap/" + m.node.Name + "/" + what, Title: m.node.Name + ": " + title, State: progress.Running}
	r.Emit(e)
	start := time.Now()
	detail, err := f()
	e.State, e.Detail, e.Took = progress.Done, detail, time.Since(start)
	switch {
	case err != nil:
		e.State, e.Detail = progress.Failed, err.Error()
	case detail == "-":
		e.State, e.Detail = progress.Skipped, "as it should be"
	}
	r.Emit(e)
	return err
}
