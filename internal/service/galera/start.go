package galera

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"nines/internal/host"
	"nines/internal/model"
	"nines/internal/service"
	"nines/internal/service/galera/recovery"
)

// Errors of a start that was refused. Each is wrapped with what was seen.
var (
	// ErrWouldFound: nobody serves, and this node must not found a cluster.
	ErrWouldFound = errors.New("refused to found a cluster")
	// ErrOtherHistory: the running cluster is not the one this node's data belongs to.
	ErrOtherHistory = errors.New("refused to join a cluster with another history")
)

// start starts or restarts the member; see the package comment for its rules.
func (s *Service) start(ctx context.Context, env service.Env, args map[string]string) error {
	if args["restart"] == "true" {
		if err := s.stop(ctx, env); err != nil {
			return err
		}
	} else if ended, err := s.goesOn(ctx, env, args); ended || err != nil {
		return err
	}
	found, err := s.decide(ctx, env, args)
	if err != nil {
		return err
	}
	if !found && exists(env.Host, asideFile) {
		return fmt.Errorf("%w: when its machine went down it was in a Primary that was no majority (%s), and nothing says that the others have what it has; look at 'nines status'",
			ErrOtherHistory, asideFile)
	}
	if found {
		env.Log.Info("founding the Galera cluster", "node", env.Node.Name)
		if err := noteFounding(ctx, env); err != nil {
			return err
		}
	}
	if err := startMarked(ctx, env, found, func() error { return s.startWatched(ctx, env) }); err != nil {
		return err
	}
	return s.remember(ctx, env, args)
}

// startMarked starts the server; found: with the permission, good for this one start, to found a cluster.
func startMarked(ctx context.Context, env service.Env, found bool, start func() error) error {
	if found {
		if err := env.Host.WriteFile(ctx, host.File{Path: bootstrapMark, Mode: 0o644, Owner: "root", Group: "root"}, nil); err != nil {
			return fmt.Errorf("mark the first start: %w", err)
		}
	}
	err := start()
	if err != nil {
		err = fmt.Errorf("start the member: %w", err)
	}
	// The unit took the mark away; if it did not get that far, nobody else may use it.
	if markErr := env.Host.RemoveFile(bootstrapMark); markErr != nil {
		err = errors.Join(err, fmt.Errorf("remove the mark of the first start: %w", markErr))
	}
	return err
}

// goesOn reports whether there is nothing to start: an earlier attempt got this far, or the server is alive and
// must be waited for. One that says itself that it has no Primary is for decide.
func (s *Service) goesOn(ctx context.Context, env service.Env, args map[string]string) (bool, error) {
	st, err := s.server.Status(ctx)
	if err == nil {
		if st.primary() {
			return true, s.remember(ctx, env, args)
		}
		return false, nil
	}
	unit, err := env.Host.Unit(ctx, unitName)
	if err != nil {
		return false, fmt.Errorf("ask for the state of %s: %w", unitName, err)
	}
	return unit.Active == "active", nil
}

// loneFile says that the member was alone in its Primary when nines stopped it: its
// history is the latest there is, and only it can go on. It holds the cluster's UUID.
const loneFile = model.PathState + "/galera-alone"

// stop stops the member. It stays up if the rest of the cluster could not go on without it.
func (s *Service) stop(ctx context.Context, env service.Env) error {
	if st, err := s.server.Status(ctx); err == nil && st.primary() && st.size() == 1 {
		f := host.File{Path: loneFile, Mode: 0o600, Owner: "root", Group: "root", Content: []byte(st["wsrep_cluster_state_uuid"] + "\n")}
		if err := env.Host.WriteFile(ctx, f, nil); err != nil {
			return fmt.Errorf("note that the member was alone: %w", err)
		}
	}
	if err := env.Host.StopUnit(ctx, unitName); err != nil {
		return fmt.Errorf("stop the member: %w", err)
	}
	return nil
}

// decide says whether this start may found the cluster.
func (s *Service) decide(ctx context.Context, env service.Env, args map[string]string) (found bool, err error) {
	state, present, err := readGrastate(env.Host)
	if err != nil {
		return false, fmt.Errorf("%w; a person must look at %s before the member is started", err, dataDir)
	}
	others := s.look(ctx, env)
	history := present && !state.None()
	switch again, err := s.foundingBroke(ctx, env, args, state, others); {
	case err != nil || again:
		return again, err
	case len(others[running]) > 0:
		return false, s.sameHistory(ctx, env, state.Position, others[running])
	case history:
		return s.wasAlone(env, state), nil
	case args["bootstrap"] == "true":
		return s.mayFound(ctx, env, others[unclear])
	}
	return false, nil
}

// mayFound decides for the first controller when its saved state names no cluster and nobody runs.
func (s *Service) mayFound(ctx context.Context, env service.Env, silent []model.Node) (bool, error) {
	if len(silent) > 0 {
		return false, fmt.Errorf("%w: %s does not answer on port %d at all, so a cluster may be running there; bring the machine up or remove it from cluster.yaml",
			ErrWouldFound, names(silent), model.PortGalera)
	}
	switch _, err := env.Host.ReadFile(BootstrappedFile); {
	case err == nil:
		return false, fmt.Errorf("%w: this node founded the cluster before (%s), but its data directory is empty and no other member runs; start the members that hold the data first",
			ErrWouldFound, BootstrappedFile)
	case !errors.Is(err, fs.ErrNotExist):
		return false, fmt.Errorf("read %s: %w", BootstrappedFile, err)
	}
	// The directory must be at rest, and the start a new one.
	if err := stopWaiting(ctx, env); err != nil {
		return false, err
	}
	p, err := recoverPosition(ctx, env.Host)
	if err != nil {
		return false, err
	}
	if !p.None() {
		return false, fmt.Errorf("%w: grastate.dat names no cluster, but InnoDB's record says %s:%d; a person must decide", ErrWouldFound, p.UUID, p.Seqno)
	}
	return true, nil
}

// foundingBroke reports whether this node founded a cluster that never became one, so that it
// may found it again; see the package comment. It then moves the state aside that forbids it.
func (s *Service) foundingBroke(ctx context.Context, env service.Env, args map[string]string, state recovery.Saved, others map[reach][]model.Node) (bool, error) {
	if args["bootstrap"] != "true" || exists(env.Host, FormedFile) {
		return false, nil
	}
	f, err := env.Host.ReadFile(BootstrappedFile)
	if err != nil || (!state.None() && content(f) != founding && content(f) != state.UUID) {
		return false, nil // another cluster's data: not ours to decide
	}
	for _, n := range others[running] {
		if s.members.AnswersSQL(ctx, n.Address()) {
			return false, nil // it has the data as well: join it
		}
	}
	if silent := others[unclear]; len(silent) > 0 {
		return false, fmt.Errorf("%w: %s does not answer at all, so the cluster may be alive there; bring the machine up", ErrWouldFound, names(silent))
	}
	env.Log.Warn("the cluster was never completed: founding it again", "uuid", state.UUID)
	if err := stopWaiting(ctx, env); err != nil {
		return false, err
	}
	return true, moveAside(ctx, env)
}

// startWatched starts the unit and ends a state transfer meanwhile that has lost its donor. After that it tries once more.
func (s *Service) startWatched(ctx context.Context, env service.Env) error {
	freed, err := s.startOnce(ctx, env)
	if freed && err != nil {
		_, err = s.startOnce(ctx, env)
	}
	return err
}

func (s *Service) startOnce(ctx context.Context, env service.Env) (freed bool, err error) {
	watch, done := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		var problem error
		if freed, problem = s.freeJoiner(watch, env); problem != nil && watch.Err() == nil {
			env.Log.Warn("watch the state transfer", "err", problem)
		}
	})
	err = env.Host.StartUnit(ctx, unitName)
	done()
	wg.Wait()
	return freed, err
}

// donorPatience is how long a joiner may go without a connection from its donor: the
// transfer script sleeps 10 s before it sends, and prepares before that.
const donorPatience = 45 * time.Second

// freeJoiner ends a state transfer whose donor died before it connected: the script listens
// for ever, and the member with it. It has nothing of its own, and starts anew. It watches until ctx
// ends, or the member has data or has been ended (freed).
func (s *Service) freeJoiner(ctx context.Context, env service.Env) (freed bool, err error) {
	heard := time.Now()
	for {
		state, present, err := readGrastate(env.Host)
		if err != nil || (present && !state.None()) {
			return false, err
		}
		unit, err := env.Host.Unit(ctx, unitName)
		if ctx.Err() != nil {
			return false, nil // the start has ended while this one asked
		}
		if err != nil {
			return false, err
		}
		if unit.Active != "activating" || receiving(ctx, env.Host) {
			heard = time.Now()
		}
		if ctx.Err() == nil && time.Since(heard) > donorPatience {
			env.Log.Warn("no donor has connected to the joining member: it starts anew", "waited", donorPatience)
			return true, env.Host.SignalUnit(ctx, unitName, int(syscall.SIGKILL))
		}
		select {
		case <-ctx.Done():
			return false, nil
		case <-time.After(time.Second):
		}
	}
}

// notOrphaned is the Check of "release": no server waits here for a state that nobody will send. One does if it has no
// data of its own, no transfer comes in, and no other controller can be a donor: each refuses clients, or
// says itself that it has no Primary. It would go on waiting, also as a member of the group that its donor founds
// anew, and ending it then costs that group its majority (one of two).
func (s *Service) notOrphaned(ctx context.Context, env service.Env, _ map[string]string) (bool, string, error) {
	unit, err := env.Host.Unit(ctx, unitName)
	if err != nil {
		return false, "", fmt.Errorf("ask for the state of %s: %w", unitName, err)
	}
	if unit.Active != "activating" {
		return true, "", nil
	}
	state, present, err := readGrastate(env.Host)
	if err != nil || (present && !state.None()) || receiving(ctx, env.Host) {
		return true, "", nil // whatever is wrong with its own data is for its start to judge
	}
	for _, n := range env.Cluster.Controllers() {
		if n.Name == env.Node.Name || !s.members.AnswersSQL(ctx, n.Address()) {
			continue
		}
		if _, err := s.members.ClusterUUID(ctx, env, n); !errors.Is(err, errNonPrimary) {
			return true, "", nil // a donor, or not known not to be one
		}
	}
	return false, "waits for a state transfer, but no member is left to send it", nil
}

// release ends a server that waits for nothing.
func (s *Service) release(ctx context.Context, env service.Env, args map[string]string) error {
	if done, _, err := s.notOrphaned(ctx, env, args); done || err != nil {
		return err
	}
	return stopWaiting(ctx, env)
}

// receiving reports whether a state transfer's connection stands.
func receiving(ctx context.Context, h host.Host) bool {
	out, err := h.Run(ctx, host.Cmd{Args: []string{"ss", "-Htn", "state", "established", "sport", "=", ":" + strconv.Itoa(model.PortGaleraSST)}})
	return err != nil || len(bytes.TrimSpace(out.Stdout)) > 0 // not known: as if it stood
}

// stopWaiting stops a server that waits for a Primary that will never be. It does not heed
// SIGTERM while it waits (300 s went by; one that had been Primary hung too), and has nothing
// unsaved: InnoDB serves nobody yet.
func stopWaiting(ctx context.Context, env service.Env) error {
	unit, err := env.Host.Unit(ctx, unitName)
	if err == nil && unit.Active != "inactive" && unit.Active != "failed" {
		err = env.Host.SignalUnit(ctx, unitName, int(syscall.SIGKILL))
	}
	if err == nil {
		err = env.Host.StopUnit(ctx, unitName)
	}
	if err != nil {
		return fmt.Errorf("stop the server that waits for a cluster: %w", err)
	}
	return nil
}

// moveAside keeps copies of grastate.dat, which forbids to found, and of the saved view, and takes them out of the data
// directory. With the view the founder would take up the identity that the members of the given up group know it
// by; their messages then broke its new group (its provider closed with "failed to form singleton view").
func moveAside(ctx context.Context, env service.Env) error {
	for _, name := range []string{grastateFile, viewFile} {
		f, err := env.Host.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("keep %s: %w", name, err)
		}
		kept := host.File{Path: filepath.Join(evidenceDir, filepath.Base(name)), Mode: 0o600, Owner: "root", Group: "root", Content: f.Content}
		if err := env.Host.WriteFile(ctx, kept, nil); err != nil {
			return fmt.Errorf("keep %s: %w", name, err)
		}
		if err := env.Host.RemoveFile(name); err != nil {
			return fmt.Errorf("take %s away: %w", name, err)
		}
	}
	return nil
}

// noteFounding records, durably and before anything is started, that this node founds the cluster.
func noteFounding(ctx context.Context, env service.Env) error {
	f := host.File{Path: BootstrappedFile, Mode: 0o600, Owner: "root", Group: "root", Content: []byte(founding + "\n")}
	if err := env.Host.WriteFile(ctx, f, nil); err != nil {
		return fmt.Errorf("record that the cluster is being founded: %w", err)
	}
	return nil
}

// formed records that all members have been Synced once: from now on a lost majority is a matter of recovery.
func formed(ctx context.Context, env service.Env, _ map[string]string) error {
	f := host.File{Path: FormedFile, Mode: 0o600, Owner: "root", Group: "root", Content: []byte("all members have been Synced\n")}
	return env.Host.WriteFile(ctx, f, nil)
}

func isFormed(_ context.Context, env service.Env, _ map[string]string) (bool, string, error) {
	if exists(env.Host, FormedFile) {
		return true, "", nil
	}
	return false, "not all members have joined yet", nil
}

func exists(h host.Host, path string) bool {
	_, err := h.ReadFile(path)
	return err == nil
}

func content(f host.File) string { return strings.TrimSpace(string(f.Content)) }

// recoverPosition asks InnoDB which cluster its data belongs to. It needs the server to be stopped
// and changes no user data. TLS is left out: the key is readable only in the unit.
func recoverPosition(ctx context.Context, h host.Host) (recovery.Position, error) {
	out, err := h.Run(ctx, host.Cmd{Args: []string{"/usr/sbin/mariadbd", "--user=mysql", "--skip-ssl", "--skip-networking", "--wsrep-recover", "--disable-log-error"}})
	if err != nil {
		return recovery.Position{}, fmt.Errorf("ask the data directory for its history: %w", err)
	}
	return parseRecovered(string(out.Stderr) + string(out.Stdout))
}

// wasAlone reports whether the member was the only one of its cluster when nines stopped it, and was stopped
// cleanly: then its history is the latest, and nobody but it can go on.
func (s *Service) wasAlone(env service.Env, state recovery.Saved) bool {
	f, err := env.Host.ReadFile(loneFile)
	return err == nil && content(f) == state.UUID && state.SafeToBootstrap
}

// sameHistory refuses to join members of another cluster: the state transfer would overwrite this node's data.
func (s *Service) sameHistory(ctx context.Context, env service.Env, own recovery.Position, others []model.Node) error {
	unit, err := env.Host.Unit(ctx, unitName)
	if err != nil {
		return fmt.Errorf("ask for the state of %s: %w", unitName, err)
	}
	if unit.Active == "active" || unit.Active == "activating" {
		return nil // it is joining already
	}
	if own.None() {
		if own, err = recoverPosition(ctx, env.Host); err != nil {
			return err
		}
	}
	if own.None() {
		return nil
	}
	for _, n := range others {
		uuid, err := s.members.ClusterUUID(ctx, env, n)
		if err != nil {
			env.Log.Warn("a running member did not tell its cluster", "member", n.Name, "error", err)
			continue
		}
		if uuid != own.UUID {
			return fmt.Errorf("%w: %s has %s, this node's data belongs to %s; joining would overwrite it. If the data here is not needed, move %s away",
				ErrOtherHistory, n.Name, uuid, own.UUID, dataDir)
		}
		return nil
	}
	// Nobody who runs is in a Primary: Galera's group protocol decides, and without a Primary nothing is overwritten.
	return nil
}

// look looks at the other controllers, side by side.
func (s *Service) look(ctx context.Context, env service.Env) map[reach][]model.Node {
	var (
		wg  sync.WaitGroup
		mu  sync.Mutex
		out = map[reach][]model.Node{}
	)
	for _, n := range env.Cluster.Controllers() {
		if n.Name == env.Node.Name {
			continue
		}
		wg.Go(func() {
			r := s.members.Look(ctx, n.Address())
			mu.Lock()
			defer mu.Unlock()
			out[r] = append(out[r], n)
		})
	}
	wg.Wait()
	return out
}

// remember records, durably, that the cluster was founded, and forgets that the member was alone.
func (s *Service) remember(ctx context.Context, env service.Env, args map[string]string) error {
	if err := env.Host.RemoveFile(loneFile); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", loneFile, err)
	}
	if args["bootstrap"] != "true" {
		return nil
	}
	if f, err := env.Host.ReadFile(BootstrappedFile); err == nil && content(f) != founding {
		return nil
	}
	st, err := s.awaitStatus(ctx, status.serves)
	if err != nil {
		return fmt.Errorf("the first member does not become Primary: %w", err)
	}
	f := host.File{Path: BootstrappedFile, Mode: 0o600, Owner: "root", Group: "root", Content: []byte(st["wsrep_cluster_state_uuid"] + "\n")}
	if err := env.Host.WriteFile(ctx, f, nil); err != nil {
		return fmt.Errorf("record that the cluster was founded: %w", err)
	}
	return nil
}

// synced is the Check of "start" and "synced": the member is Synced in a Primary that has all members whose
// machines run one.
func (s *Service) synced(ctx context.Context, env service.Env, _ map[string]string) (bool, string, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	st, err := s.server.Status(ctx)
	if err != nil {
		return false, "the server does not answer: " + err.Error(), nil
	}
	if !st.primary() || st["wsrep_ready"] != "ON" || st.number("wsrep_local_state") != stateSynced {
		return false, fmt.Sprintf("%s, %s", st["wsrep_local_state_comment"], st["wsrep_cluster_status"]), nil
	}
	want := len(env.Cluster.Controllers())
	if st.size() >= want {
		return true, "", nil
	}
	// One that does not serve clients yet receives its first state, or still belongs to an attempt to found the
	// cluster that was given up: its own start is the next step, and would wait for this one.
	up := 1
	for _, n := range s.look(ctx, env)[running] {
		if s.members.AnswersSQL(ctx, n.Address()) {
			up++
		}
	}
	if st.size() < up {
		return false, fmt.Sprintf("%d of %d running members are in the cluster", st.size(), up), nil
	}
	return true, "", nil
}

// awaitSynced waits for synced; the context bounds it.
func (s *Service) awaitSynced(ctx context.Context, env service.Env, args map[string]string) error {
	return poll(ctx, func() (bool, string) {
		done, reason, _ := s.synced(ctx, env, args)
		return done, reason
	})
}

// awaitStatus waits until the server's status is as wanted.
func (s *Service) awaitStatus(ctx context.Context, wanted func(status) bool) (status, error) {
	var st status
	err := poll(ctx, func() (bool, string) {
		var err error
		if st, err = s.server.Status(ctx); err != nil {
			return false, err.Error()
		}
		return wanted(st), st["wsrep_local_state_comment"] + ", " + st["wsrep_cluster_status"]
	})
	return st, err
}

// poll asks four times a second until it is done or the context ends; the error then carries the last reason.
func poll(ctx context.Context, ask func() (bool, string)) error {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		done, reason := ask()
		if done {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", reason, ctx.Err())
		case <-tick.C:
		}
	}
}

func names(nodes []model.Node) string {
	var out []string
	for _, n := range nodes {
		out = append(out, n.Name)
	}
	return strings.Join(out, ", ")
}
