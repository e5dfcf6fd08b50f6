package galera

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"nines/internal/host"
	"nines/internal/model"
	"nines/internal/service"
	"nines/internal/service/galera/recovery"
)

// The files of a recovery on a node.
const (
	// foundedFile holds the last epoch in which this node was told to found. It is written, durably, before the node does.
	foundedFile = model.PathState + "/galera-founded-epoch"
	// positionFile holds what InnoDB said after the server was stopped; see examined.
	positionFile = evidenceDir + "/position.json"
)

var epochs = service.Epochs{Folder: evidenceDir, File: foundedFile}

var _ service.Healer = (*Service)(nil)

// examined is the content of positionFile. It is good for its epoch, and until the unit starts again.
type examined struct {
	Epoch      int64              `json:"epoch"`
	Invocation string             `json:"invocation"`
	Position   *recovery.Position `json:"position,omitempty"`
	Error      string             `json:"error,omitempty"`
	// View is the saved view as it was found: clearing takes the file away, not the knowledge.
	View  *recovery.View `json:"view,omitempty"`
	Aside bool           `json:"aside,omitempty"`
}

// Watch implements service.Healer.
func (s *Service) Watch(c *model.Cluster, seen map[string]service.Observation, last json.RawMessage, now time.Time) (json.RawMessage, bool) {
	primaries := map[string][]string{} // by UUID and view
	synced, size := 0, 0
	for _, n := range c.Controllers() {
		f := seen[n.Name].Facts
		if f["wsrep_cluster_status"] != "Primary" {
			continue
		}
		view := f["wsrep_cluster_state_uuid"] + "/" + f["wsrep_cluster_conf_id"]
		primaries[view] = append(primaries[view], n.Name)
		size, _ = strconv.Atoi(f["wsrep_cluster_size"])
		if seen[n.Name].Serving {
			synced++
		}
	}
	if len(primaries) != 1 {
		return nil, len(primaries) > 0 // two views at one look: it is changing
	}
	have := parseLineage(last)
	if have == nil && synced < len(c.Controllers()) {
		return nil, true // never was whole
	}
	var l recovery.Lineage
	for view, members := range primaries {
		if len(members) != size {
			return nil, 2*len(members) > size // some cannot be asked, or know already that it is lost, which the rest is about to find out
		}
		uuid, id, _ := strings.Cut(view, "/")
		l = recovery.Lineage{UUID: strings.ToLower(uuid), View: id, Members: slices.Sorted(slices.Values(members)), Seqno: map[string]int64{}, At: now}
	}
	if have != nil {
		maps.Copy(l.Seqno, have.Seqno) // of those who left: how far they were is known
	}
	for _, name := range l.Members {
		if n, err := strconv.ParseInt(seen[name].Facts["wsrep_last_committed"], 10, 64); err == nil {
			l.Seqno[name] = n
		}
	}
	for _, n := range c.Controllers() {
		if seen[n.Name].Facts[factApart] != "" {
			l.PassedOver = append(l.PassedOver, n.Name)
		}
	}
	if have != nil && have.UUID == l.UUID && have.View == l.View && slices.Equal(have.Members, l.Members) && slices.Equal(have.PassedOver, l.PassedOver) &&
		(now.Sub(have.At) < lineageEvery || maps.Equal(have.Seqno, l.Seqno)) {
		return nil, true
	}
	out, err := json.Marshal(l)
	if err != nil {
		return nil, true // plain values: cannot happen
	}
	return out, true
}

// lineageEvery is how often the positions are written down while nothing else changes.
const lineageEvery = time.Minute

func parseLineage(raw json.RawMessage) *recovery.Lineage {
	var l recovery.Lineage
	if len(raw) == 0 || json.Unmarshal(raw, &l) != nil || l.UUID == "" {
		return nil
	}
	return &l
}

// Next implements service.Healer.
func (s *Service) Next(c *model.Cluster, o service.Outage) service.Move {
	k := recovery.Case{Evidence: map[string]recovery.Evidence{}, Lineage: parseLineage(o.Lineage), Epoch: o.Epoch,
		Founder: o.Founder, Pinned: o.Pinned, Settled: o.Settled, Choice: o.Choice, Waited: o.Waited, MissingAfter: c.Tuning.Galera.MissingMemberAfter, Fenced: o.Fenced}
	for _, n := range c.Controllers() {
		k.Members = append(k.Members, n.Name)
		if c.Fences() && n.HasBMC() {
			k.Fenceable = append(k.Fenceable, n.Name)
		}
		var e recovery.Evidence
		if raw, ok := o.Evidence[n.Name]; ok && json.Unmarshal(raw, &e) == nil {
			k.Evidence[n.Name] = e
		}
	}
	return recovery.Next(k, o.Renew)
}

// Evidence implements service.Healer.
func (s *Service) Evidence(ctx context.Context, env service.Env, epoch int64) (json.RawMessage, error) {
	if !runsHere(env) {
		return nil, fmt.Errorf("%s has no member", env.Node.Name)
	}
	e, err := s.evidence(ctx, env, epoch)
	if err != nil {
		return nil, err
	}
	return json.Marshal(e)
}

func runsHere(env service.Env) bool {
	return slices.ContainsFunc(env.Cluster.Controllers(), func(n model.Node) bool { return n.Name == env.Node.Name })
}

func (s *Service) evidence(ctx context.Context, env service.Env, epoch int64) (recovery.Evidence, error) {
	e := recovery.Evidence{Formed: exists(env.Host, FormedFile), Founded: epochs.Last(env.Host), Busy: s.healing.AtWork()}
	unit, err := s.serverOf(ctx, env, &e)
	if err != nil {
		return e, err
	}
	switch g, found, err := readGrastate(env.Host); {
	case err != nil:
		e.SavedError = err.Error()
	case found:
		e.Saved = &g
	}
	if e.View, e.Aside, err = lastView(env.Host); err != nil {
		env.Log.Debug("saved view", "err", err) // without it Galera cannot form the group again, and that is all
	}
	if e.Empty, e.Torn, err = lookInside(ctx, env.Host); err != nil {
		return e, err
	}
	if x, ok := readExamined(env.Host); ok && e.Server == recovery.Stopped && epoch > 0 && x.Epoch == epoch && x.Invocation == unit.Invocation {
		e.Recovered, e.RecoveredError = x.Position, x.Error
		if e.View == nil {
			e.View, e.Aside = x.View, x.Aside
		}
	}
	return e, nil
}

// serverOf fills in what the server says of itself, and what systemd says of it.
func (s *Service) serverOf(ctx context.Context, env service.Env, e *recovery.Evidence) (host.UnitState, error) {
	unit, err := env.Host.Unit(ctx, unitName)
	if err != nil {
		return unit, fmt.Errorf("ask for the state of %s: %w", unitName, err)
	}
	e.Starting = unit.Active == "activating"
	e.Founds = e.Starting && (exists(env.Host, bootstrapMark) || exists(env.Host, bootstrapEnv))
	ask, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if st, err := s.server.Status(ask); err == nil {
		e.Server = recovery.NonPrimary
		if st.primary() {
			e.Server = recovery.Primary
		}
		e.Synced, e.Size = st.serves(), st.size()
		if e.Left = st.left() && !e.Starting; e.Left {
			e.Size = 1 // what it says is of before
		}
		e.Live = livePosition(st)
		return unit, nil
	}
	e.Server = recovery.Silent
	if unit.Active == "inactive" || unit.Active == "failed" {
		gone, err := noServer(ctx, env.Host)
		if err != nil {
			return unit, err
		}
		if gone {
			e.Server = recovery.Stopped
		}
	}
	return unit, nil
}

// livePosition is how far a running member is. Outside of a Primary it still says where it was.
func livePosition(st status) recovery.Position {
	uuid := st["wsrep_local_state_uuid"]
	if st.primary() || !uuidPattern.MatchString(uuid) {
		uuid = st["wsrep_cluster_state_uuid"]
	}
	n, err := strconv.ParseInt(st["wsrep_last_committed"], 10, 64)
	if err != nil || !uuidPattern.MatchString(uuid) {
		return recovery.Position{Seqno: -1}
	}
	return recovery.Position{UUID: strings.ToLower(uuid), Seqno: n}
}

// noServer reports whether no process of the server is left, whoever started it.
func noServer(ctx context.Context, h host.Host) (bool, error) {
	_, err := h.Run(ctx, host.Cmd{Args: []string{"pgrep", "--exact", "mariadbd"}})
	var exit *host.ExitError
	switch {
	case err == nil:
		return false, nil
	case errors.As(err, &exit) && exit.Code == 1:
		return true, nil
	}
	return false, fmt.Errorf("look for processes of the server: %w", err)
}

// lookInside reports whether the data directory holds no database, and whether a state transfer into it was not completed: the script that
// receives one clears the directory, works in .sst, and removes that last.
func lookInside(ctx context.Context, h host.Host) (empty, torn bool, err error) {
	out, err := h.Run(ctx, host.Cmd{Args: []string{"find", dataDir, "-maxdepth", "2", "-regextype", "posix-extended",
		"(", "-path", dataDir + "/ibdata1", "-size", "+0", ")", "-o", "-path", transferDir, "-o", "(", "-size", "0", "-regex", lostPattern, ")"}})
	var exit *host.ExitError
	if errors.As(err, &exit) && strings.Contains(exit.Stderr, "No such file") {
		return true, false, nil
	}
	if err != nil {
		return false, false, fmt.Errorf("look into %s: %w", dataDir, err)
	}
	found := strings.Fields(string(out.Stdout))
	has := slices.Contains(found, dataDir+"/ibdata1")
	if has {
		found = slices.DeleteFunc(found, func(path string) bool { return path == dataDir+"/ibdata1" })
	}
	return !has, len(found) > 0, nil
}

// lostPattern matches files that describe tables. MariaDB never makes an empty one: a power cut soon after a state transfer leaves such.
const lostPattern = `.*[.](frm|MAI)`

func readExamined(h host.Host) (x examined, ok bool) {
	f, err := h.ReadFile(positionFile)
	return x, err == nil && json.Unmarshal(f.Content, &x) == nil
}

// lastView is the view that the member did not leave cleanly; aside: it was set aside, so that Galera does not form it again.
func lastView(h host.Host) (v *recovery.View, aside bool, err error) {
	if v, err = readView(h, viewFile); v != nil || err != nil {
		return v, false, err
	}
	v, err = readView(h, asideFile)
	return v, v != nil, err
}

// readView reads a saved view; nil if there is none, or an empty one, which a power cut leaves.
func readView(h host.Host, path string) (*recovery.View, error) {
	f, err := h.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the saved view: %w", err)
	}
	return parseView(string(f.Content))
}

// parseView reads a saved view: "my_uuid: U", "view_id: 3 U 7", "member: U 0". One without any of them is
// of no use to Galera either.
func parseView(text string) (*recovery.View, error) {
	var v recovery.View
	for line := range strings.Lines(text) {
		key, value, found := strings.Cut(strings.TrimSpace(line), ":")
		if !found {
			continue
		}
		value = strings.TrimSpace(value)
		switch key {
		case "my_uuid":
			v.Mine = value
		case "view_id":
			v.ID = value
		case "member":
			uuid, _, _ := strings.Cut(value, " ")
			v.Members = append(v.Members, uuid)
		}
	}
	if v.Mine == "" || v.ID == "" || len(v.Members) == 0 {
		return nil, nil
	}
	for _, u := range append(slices.Clone(v.Members), v.Mine) {
		if !uuidPattern.MatchString(u) {
			return nil, fmt.Errorf("gvwstate.dat: %q is no UUID", u)
		}
	}
	return &v, nil
}

// Step implements service.Healer. One at a time.
func (s *Service) Step(ctx context.Context, env service.Env, epoch int64, step service.HealStep, allowed func(context.Context) error) error {
	return s.healing.Do(ctx, env, epoch, step, allowed, map[string]func(context.Context, service.Env, int64, map[string]string) error{
		recovery.StepHalt: s.halt, recovery.StepClear: s.clear, recovery.StepFound: s.foundAgain,
		recovery.StepPromote: s.promote, recovery.StepJoin: s.join,
	})
}

// haltPatience is how long a member that is alive may take to stop.
const haltPatience = 30 * time.Second

// halt stops a server that is in no Primary, keeps copies of what Galera saved, and asks InnoDB how far the data goes.
func (s *Service) halt(ctx context.Context, env service.Env, epoch int64, _ map[string]string) error {
	var e recovery.Evidence
	if _, err := s.serverOf(ctx, env, &e); err != nil {
		return err
	}
	if e.Server == recovery.Primary {
		return errors.New("the member is in a Primary: it is not stopped")
	}
	if err := keep(ctx, env, epoch); err != nil {
		return err
	}
	if err := env.Host.RemoveFile(positionFile); err != nil {
		return fmt.Errorf("forget the old position: %w", err)
	}
	if err := s.putDown(ctx, env, e); err != nil {
		return err
	}
	unit, err := env.Host.Unit(ctx, unitName)
	if err != nil {
		return fmt.Errorf("ask for the state of %s: %w", unitName, err)
	}
	x := examined{Epoch: epoch, Invocation: unit.Invocation}
	if x.View, x.Aside, err = lastView(env.Host); err != nil {
		env.Log.Debug("saved view", "err", err)
	}
	if err := s.examine(ctx, env, &x); err != nil {
		return err
	}
	b, err := json.Marshal(x)
	if err != nil {
		return fmt.Errorf("note the position: %w", err)
	}
	if err := env.Host.WriteFile(ctx, host.File{Path: positionFile, Mode: 0o600, Owner: "root", Group: "root", Content: b}, nil); err != nil {
		return fmt.Errorf("note the position: %w", err)
	}
	epochs.Prune(ctx, env)
	return nil
}

// putDown stops the server: as it wants to if it answers, else without asking.
func (s *Service) putDown(ctx context.Context, env service.Env, e recovery.Evidence) error {
	if e.Server == recovery.NonPrimary && !e.Starting {
		gently, cancel := context.WithTimeout(ctx, haltPatience)
		defer cancel()
		if err := env.Host.StopUnit(gently, unitName); err == nil {
			return stillThere(ctx, env)
		}
	}
	if err := stopWaiting(ctx, env); err != nil {
		return err
	}
	return stillThere(ctx, env)
}

func stillThere(ctx context.Context, env service.Env) error {
	gone, err := noServer(ctx, env.Host)
	if err == nil && !gone {
		err = fmt.Errorf("a mariadbd runs that does not belong to %s", unitName)
	}
	return err
}

// examine asks InnoDB. A failure is evidence too: such a copy is nobody's source.
func (s *Service) examine(ctx context.Context, env service.Env, x *examined) error {
	empty, _, err := lookInside(ctx, env.Host)
	if err != nil {
		return err
	}
	if empty {
		x.Error = "there is no database"
		return nil
	}
	switch p, err := recoverPosition(ctx, env.Host); {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		x.Error = err.Error()
	default:
		x.Position = &p
	}
	return nil
}

// keep copies what Galera saved, once in an epoch: the first copy is what was found.
func keep(ctx context.Context, env service.Env, epoch int64) error {
	for _, name := range []string{grastateFile, viewFile, asideFile} {
		kept := filepath.Join(epochs.Dir(epoch), filepath.Base(name))
		f, err := env.Host.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) || err == nil && exists(env.Host, kept) {
			continue
		}
		if err == nil {
			err = env.Host.WriteFile(ctx, host.File{Path: kept, Mode: 0o600, Owner: "root", Group: "root", Content: f.Content}, nil)
		}
		if err != nil {
			return fmt.Errorf("keep %s: %w", name, err)
		}
	}
	return nil
}

// atRest refuses a step on a member that is not stopped.
func (s *Service) atRest(ctx context.Context, env service.Env) error {
	var e recovery.Evidence
	if _, err := s.serverOf(ctx, env, &e); err != nil {
		return err
	}
	if e.Server != recovery.Stopped {
		return fmt.Errorf("the server is not stopped: it is %s", e.Server)
	}
	return nil
}

// takeAway removes files that may be there.
func takeAway(env service.Env, names ...string) error {
	for _, name := range names {
		if err := env.Host.RemoveFile(name); err != nil {
			return fmt.Errorf("take %s away: %w", name, err)
		}
	}
	return nil
}

// clear takes away with what this member could form a Primary of its own: the saved view, the word that it
// was the last to leave, and permissions for one start.
func (s *Service) clear(ctx context.Context, env service.Env, epoch int64, _ map[string]string) error {
	if err := s.atRest(ctx, env); err != nil {
		return err
	}
	if err := keep(ctx, env, epoch); err != nil {
		return err
	}
	if err := takeAway(env, viewFile, asideFile, bootstrapMark, bootstrapEnv, loneFile); err != nil {
		return err
	}
	f, err := env.Host.ReadFile(grastateFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read grastate.dat: %w", err)
	}
	changed := flagPattern.ReplaceAll(f.Content, []byte("safe_to_bootstrap: 0"))
	return s.saveState(ctx, env, f, changed)
}

var flagPattern = regexp.MustCompile(`(?m)^safe_to_bootstrap:.*$`)

func (s *Service) saveState(ctx context.Context, env service.Env, f host.File, changed []byte) error {
	if string(f.Content) == string(changed) {
		return nil
	}
	f.Content = changed
	if err := env.Host.WriteFile(ctx, f, nil); err != nil {
		return fmt.Errorf("write grastate.dat: %w", err)
	}
	return nil
}

// foundAgain starts the member that has the latest data as the first of the cluster.
func (s *Service) foundAgain(ctx context.Context, env service.Env, epoch int64, args map[string]string) error {
	if err := s.atRest(ctx, env); err != nil {
		return err
	}
	x, ok := readExamined(env.Host)
	if !ok || x.Epoch != epoch || x.Position == nil {
		return errors.New("its data was not read in this epoch")
	}
	if err := keep(ctx, env, epoch); err != nil {
		return err
	}
	if err := epochs.Once(ctx, env, epoch); err != nil {
		return err
	}
	if err := s.prepareFounder(ctx, env, *x.Position, args[recovery.ArgRenew] == "true"); err != nil {
		return err
	}
	env.Log.Warn("this member goes first", "epoch", epoch, "position", x.Position.String())
	if err := startMarked(ctx, env, true, func() error { return env.Host.StartUnit(ctx, unitName) }); err != nil {
		return err
	}
	_, err := s.awaitStatus(ctx, status.serves)
	return err
}

// prepareFounder has Galera agree: it refuses to found where grastate.dat does not say that it is safe.
func (s *Service) prepareFounder(ctx context.Context, env service.Env, at recovery.Position, renew bool) error {
	if err := takeAway(env, viewFile, asideFile, loneFile); err != nil {
		return err
	}
	uuid := at.UUID
	if renew {
		uuid = recovery.ZeroUUID
	}
	f, err := env.Host.ReadFile(grastateFile)
	if errors.Is(err, fs.ErrNotExist) {
		f, err = host.File{Path: grastateFile, Mode: 0o660, Owner: "mysql", Group: "mysql"}, nil
	}
	if err != nil {
		return fmt.Errorf("read grastate.dat: %w", err)
	}
	// Seqno -1: the start takes what InnoDB says.
	return s.saveState(ctx, env, f, fmt.Appendf(nil, "# GALERA saved state\nversion: 2.1\nuuid:    %s\nseqno:   -1\nsafe_to_bootstrap: 1\n", uuid))
}

// promote has a living member declare the component that it is in the Primary.
func (s *Service) promote(ctx context.Context, env service.Env, epoch int64, _ map[string]string) error {
	var e recovery.Evidence
	if _, err := s.serverOf(ctx, env, &e); err != nil {
		return err
	}
	if e.Server != recovery.NonPrimary {
		return fmt.Errorf("the server is %s: only a living one without a Primary is promoted", e.Server)
	}
	if err := keep(ctx, env, epoch); err != nil {
		return err
	}
	if err := epochs.Once(ctx, env, epoch); err != nil {
		return err
	}
	env.Log.Warn("this member goes first, without a restart", "epoch", epoch, "position", e.Live.String())
	// Not through wsrep_provider_options: that cannot be changed while each option is a variable of its own.
	if err := s.server.Exec(ctx, "SET GLOBAL wsrep_provider_pc_bootstrap = ON"); err != nil {
		return fmt.Errorf("promote the member: %w", err)
	}
	_, err := s.awaitStatus(ctx, status.serves)
	return err
}

// join starts a member that takes the state of those who run.
func (s *Service) join(ctx context.Context, env service.Env, epoch int64, args map[string]string) error {
	if err := s.atRest(ctx, env); err != nil {
		return err
	}
	if err := keep(ctx, env, epoch); err != nil {
		return err
	}
	if err := takeAway(env, viewFile, asideFile, bootstrapMark); err != nil {
		return err
	}
	switch {
	case args[recovery.ArgKeep] == "true":
		if err := setAside(ctx, env, epoch); err != nil {
			return err
		}
	case args[recovery.ArgFresh] == "true":
		if err := takeAway(env, grastateFile); err != nil {
			return err
		}
	}
	if err := startMarked(ctx, env, false, func() error { return s.startWatched(ctx, env) }); err != nil {
		return err
	}
	_, err := s.awaitStatus(ctx, status.serves)
	return err
}

// setAside keeps the whole data directory, which holds what the cluster has not, and leaves an empty one in its place.
func setAside(ctx context.Context, env service.Env, epoch int64) error {
	aside := fmt.Sprintf("%s.nines-epoch-%d", dataDir, epoch)
	steps := [][]string{
		{"mv", "--no-target-directory", "--no-clobber", dataDir, aside},
		{"install", "--directory", "--owner=mysql", "--group=mysql", "--mode=0755", dataDir},
	}
	if _, err := env.Host.Run(ctx, host.Cmd{Args: []string{"test", "-e", aside}}); err == nil {
		steps = steps[1:] // an attempt before got this far: what lies in its place now is no user's
	}
	for _, args := range steps {
		if _, err := env.Host.Run(ctx, host.Cmd{Args: args}); err != nil {
			return fmt.Errorf("set the data directory aside (is there room for a new one?): %w", err)
		}
	}
	env.Log.Warn("the data directory was set aside: it holds what the cluster does not have", "directory", aside)
	return nil
}
