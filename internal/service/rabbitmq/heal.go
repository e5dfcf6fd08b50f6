package rabbitmq

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"nines/internal/host"
	"nines/internal/model"
	"nines/internal/service"
	"nines/internal/service/rabbitmq/recovery"
)

// The files of a recovery on a node.
const (
	dirState = "/var/lib/rabbitmq/mnesia"
	// forcedFile holds the last epoch in which this node was told to boot by force. It is written, durably, before the node does.
	forcedFile  = model.PathState + "/rabbitmq-forced-epoch"
	evidenceDir = model.PathState + "/rabbitmq-evidence"
	// forceMark is what RabbitMQ's own mark, force_load, points to for one start: it goes with the machine's power, so that nobody is forced
	// by a decision of long ago.
	forceMark = model.PathRun + "/rabbitmq-force-boot"
)

var epochs = service.Epochs{Folder: evidenceDir, File: forcedFile}

// dataDir holds what the member of a node saves.
func dataDir(node string) string { return dirState + "/rabbit@" + node }

// runningFile is where the broker of a node writes down which members run. It holds while the broker serves, and when it has stopped.
// One that was lost is struck out, and added again when it starts anew, not when it is only seen again.
func runningFile(node string) string { return dataDir(node) + "/nodes_running_at_shutdown" }

// lastFile is a copy from when the broker ceased to serve: one that starts and waits writes into runningFile what a peer says that waits
// too, and that knows only itself to run. The unit makes it before each start, and removes it when the broker serves.
const lastFile = "/var/lib/rabbitmq/nines-last-running"

var _ service.Healer = (*Service)(nil)

// history is since when a node's broker has been as it is.
type history struct {
	serving      bool
	since        time.Time
	running      string
	runningSince time.Time
}

// remember notes what was just seen of the node's broker and returns what is known of its past.
func (s *Service) remember(node string, serving bool, running []string) history {
	s.mu.Lock()
	defer s.mu.Unlock()
	h, known := s.past[node]
	now, list := time.Now(), strings.Join(running, ",")
	if !known || h.serving != serving {
		h.serving, h.since = serving, now
	}
	if !known || h.running != list {
		h.running, h.runningSince = list, now
	}
	s.past[node] = h
	return h
}

// Watch implements service.Healer.
func (s *Service) Watch(c *model.Cluster, seen map[string]service.Observation, last json.RawMessage, now time.Time) (json.RawMessage, bool) {
	var serving []string
	views := map[string]bool{}
	cluster := ""
	for _, n := range c.Controllers() {
		if o := seen[n.Name]; o.Serving {
			serving = append(serving, n.Name)
			views[o.Facts[FactRunning]] = true
			cluster = o.Facts[FactCluster]
		}
	}
	whole := len(serving) == len(c.Controllers()) && len(views) == 1
	have := parseLineage(last)
	if have == nil && !whole {
		return nil, true // never was whole
	}
	if len(serving) < model.Quorum(len(c.Controllers())) || len(views) != 1 || !views[strings.Join(serving, ",")] || cluster == "" {
		return nil, whole // it is changing
	}
	l := recovery.Lineage{Cluster: cluster, Running: serving, At: now}
	if have != nil && have.Cluster == l.Cluster && slices.Equal(have.Running, l.Running) {
		return nil, whole
	}
	out, err := json.Marshal(l)
	if err != nil {
		return nil, whole // plain values: cannot happen
	}
	return out, whole
}

func parseLineage(raw json.RawMessage) *recovery.Lineage {
	var l recovery.Lineage
	if len(raw) == 0 || json.Unmarshal(raw, &l) != nil || len(l.Running) == 0 {
		return nil
	}
	return &l
}

// Next implements service.Healer.
func (s *Service) Next(c *model.Cluster, o service.Outage) service.Move {
	k := recovery.Case{Evidence: map[string]recovery.Evidence{}, Lineage: parseLineage(o.Lineage), Epoch: o.Epoch,
		Founder: o.Founder, Settled: o.Settled, Choice: o.Choice}
	for _, n := range c.Controllers() {
		k.Members = append(k.Members, n.Name)
		var e recovery.Evidence
		if raw, ok := o.Evidence[n.Name]; ok && json.Unmarshal(raw, &e) == nil {
			k.Evidence[n.Name] = e
		}
	}
	return recovery.Next(k)
}

// Evidence implements service.Healer.
func (s *Service) Evidence(ctx context.Context, env service.Env, _ int64) (json.RawMessage, error) {
	if !slices.ContainsFunc(env.Cluster.Controllers(), func(n model.Node) bool { return n.Name == env.Node.Name }) {
		return nil, fmt.Errorf("%s has no member", env.Node.Name)
	}
	e, err := s.evidence(ctx, env)
	if err != nil {
		return nil, err
	}
	return json.Marshal(e)
}

func (s *Service) evidence(ctx context.Context, env service.Env) (recovery.Evidence, error) {
	e := recovery.Evidence{Forced: epochs.Last(env.Host), Busy: s.healing.AtWork()}
	s.saved(ctx, env, &e)
	if err := s.brokerOf(ctx, env, &e); err != nil {
		return e, err
	}
	s.noteLast(ctx, env, e.Broker)
	h := s.remember(env.Node.Name, e.Broker == recovery.Serving, e.Running)
	e.For, e.Stable = time.Since(h.since), time.Since(h.runningSince)
	return e, nil
}

// noteLast keeps lastFile for those ends of service that no start follows: a broker that paused comes back without one.
func (s *Service) noteLast(ctx context.Context, env service.Env, b recovery.Broker) {
	s.mu.Lock()
	same := s.noted == b
	s.noted = b
	s.mu.Unlock()
	var err error
	switch {
	case same || b == recovery.Starting:
		return
	case b == recovery.Serving:
		err = env.Host.RemoveFile(lastFile)
	case b == recovery.Silent && listens(ctx, env.Node):
		s.unnoted() // it may only be slow, and serve
		return
	default:
		err = copyLast(ctx, env)
	}
	if err != nil {
		s.unnoted()
		env.Log.Warn("note which members ran", "err", err)
	}
}

func (s *Service) unnoted() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.noted = ""
}

func copyLast(ctx context.Context, env service.Env) error {
	if _, err := env.Host.ReadFile(lastFile); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := env.Host.ReadFile(runningFile(env.Node.Name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // never served
	}
	if err != nil {
		return err
	}
	f.Path = lastFile
	return env.Host.WriteFile(ctx, f, nil)
}

// apiTimeout bounds a question to a broker that may hang.
const apiTimeout = time.Second

// brokerOf fills in what the broker says of itself, and what systemd says of it.
func (s *Service) brokerOf(ctx context.Context, env service.Env, e *recovery.Evidence) error {
	ask, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	api, err := s.api(env)
	if err != nil {
		return err
	}
	peers, err := api.peers(ask)
	switch running := together(env, peers); {
	case err == nil && slices.Contains(running, env.Node.Name):
		e.Broker, e.Running, e.Members = recovery.Serving, running, names(peers, false)
		if id, err := s.clusterID(ask, env, api); err == nil {
			e.Cluster = id
		}
		if len(running) < len(env.Cluster.Controllers()) {
			e.Held, err = api.held(ask, running)
			if err != nil {
				e.Held = -1 // not known
			}
		}
		return nil
	case refused(err):
		// Somebody else's broker serves here, or one that does not know us: it runs, and sees whom it sees.
		s.forget(env.Node.Name)
		e.Broker, e.Running = recovery.Serving, []string{env.Node.Name}
		return nil
	}
	unit, err := env.Host.Unit(ctx, Unit)
	if err != nil {
		return fmt.Errorf("ask for the state of %s: %w", Unit, err)
	}
	switch unit.Active {
	case "active":
		e.Broker = recovery.Silent
	case "inactive", "failed":
		e.Broker = recovery.Silent
		if gone, err := noBroker(ctx, env.Host); err != nil {
			return err
		} else if gone {
			e.Broker = recovery.Stopped
		}
	default:
		e.Broker = recovery.Starting
		if !unit.Started.IsZero() {
			e.Begun = time.Since(unit.Started)
		}
	}
	return nil
}

// together are the members that run and that this one has not lost since they started, sorted. After a partition that nobody ended the API
// calls all of them running, while each goes on with its own metadata: what was written down (runningFile) tells.
func together(env service.Env, peers []peer) []string {
	running := names(peers, true)
	noted, err := savedNodes(env.Host, runningFile(env.Node.Name))
	if err != nil || !slices.Contains(noted, env.Node.Name) {
		return running // nothing is written down yet
	}
	return slices.DeleteFunc(running, func(n string) bool { return !slices.Contains(noted, n) })
}

// noBroker reports whether no process of a broker is left, whoever started it. The command line tools are of the same kind, and no brokers.
func noBroker(ctx context.Context, h host.Host) (bool, error) {
	_, err := h.Run(ctx, host.Cmd{Args: []string{"pgrep", "--full", "--", "beam.smp .*-s rabbit boot"}})
	var exit *host.ExitError
	switch {
	case err == nil:
		return false, nil
	case errors.As(err, &exit) && exit.Code == 1:
		return true, nil
	}
	return false, fmt.Errorf("look for processes of the broker: %w", err)
}

// saved fills in what the member's files say.
func (s *Service) saved(ctx context.Context, env service.Env, e *recovery.Evidence) {
	dir := dataDir(env.Node.Name)
	if _, err := env.Host.ReadFile(dir + "/schema.DAT"); errors.Is(err, fs.ErrNotExist) {
		e.Empty = true
		return
	} else if err != nil {
		e.SavedError = err.Error()
		return
	}
	var err, err2 error
	e.Members, err = savedNodes(env.Host, dir+"/cluster_nodes.config")
	e.Last, err2 = savedNodes(env.Host, lastFile)
	if errors.Is(err2, fs.ErrNotExist) {
		e.Last, err2 = savedNodes(env.Host, runningFile(env.Node.Name))
	}
	if err = errors.Join(err, err2); err != nil {
		e.SavedError = err.Error()
	}
	if f, err := env.Host.ReadFile(dir + "-feature_flags"); err == nil {
		e.Khepri = strings.Contains(string(f.Content), "khepri_db")
	}
	if e.Cluster, err = savedCluster(ctx, env.Host, dir); err != nil {
		e.SavedError = strings.TrimPrefix(e.SavedError+"; "+err.Error(), "; ")
	}
}

var nodePattern = regexp.MustCompile(`rabbit@([A-Za-z0-9_.-]+)`)

// savedNodes reads a file with one Erlang term that begins with a list of nodes: "['rabbit@ctl1',rabbit@ctl2]." or "{[...],[...]}.".
func savedNodes(h host.Host, path string) ([]string, error) {
	f, err := h.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read which members there were: %w", err)
	}
	return parseNodes(string(f.Content)), nil
}

func parseNodes(text string) []string {
	list, _, _ := strings.Cut(text, "]")
	var out []string
	for _, m := range nodePattern.FindAllStringSubmatch(list, -1) {
		out = append(out, m[1])
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// clusterPattern is RabbitMQ's own name for a cluster: made once, when the first member was, and copied to all others.
const clusterPattern = `rabbitmq-cluster-id-[A-Za-z0-9_-]{22}`

// savedCluster looks for the cluster's name in the files of the table that holds it: a plain string in them.
func savedCluster(ctx context.Context, h host.Host, dir string) (string, error) {
	args := []string{"grep", "--text", "--only-matching", "--no-filename", "--no-messages", "--extended-regexp", clusterPattern}
	for _, name := range []string{"rabbit_runtime_parameters.DCD", "rabbit_runtime_parameters.DCL", "LATEST.LOG"} {
		args = append(args, filepath.Join(dir, name))
	}
	out, _ := h.Run(ctx, host.Cmd{Args: args}) // it fails where one of the files is missing
	ids := strings.Fields(string(out.Stdout))
	slices.Sort(ids)
	switch ids = slices.Compact(ids); len(ids) {
	case 1:
		return ids[0], nil
	case 0:
		return "", errors.New("no file says which cluster it belongs to")
	}
	return "", fmt.Errorf("its files name more than one cluster: %s", strings.Join(ids, ", "))
}

// Step implements service.Healer. One at a time.
func (s *Service) Step(ctx context.Context, env service.Env, epoch int64, step service.HealStep, allowed func(context.Context) error) error {
	return s.healing.Do(ctx, env, epoch, step, allowed, map[string]func(context.Context, service.Env, int64, map[string]string) error{
		recovery.StepStart: s.startAgain, recovery.StepRestart: s.restart, recovery.StepForget: s.forgetMember,
		recovery.StepHalt: s.halt, recovery.StepForce: s.force,
	})
}

// systemctl has systemd do something without waiting for it: a broker may wait for its peers for minutes.
func systemctl(ctx context.Context, env service.Env, verb string) error {
	if _, err := env.Host.Run(ctx, host.Cmd{Args: []string{"systemctl", "--no-block", verb, Unit}}); err != nil {
		return fmt.Errorf("%s the broker: %w", verb, err)
	}
	return nil
}

func (s *Service) startAgain(ctx context.Context, env service.Env, _ int64, args map[string]string) error {
	if args[recovery.ArgPlain] == "true" {
		if err := env.Host.RemoveFile(dataDir(env.Node.Name) + "/force_load"); err != nil {
			return fmt.Errorf("take a mark for a start by force away: %w", err)
		}
	}
	return systemctl(ctx, env, "start")
}

// restart starts a broker anew. One that serves is stopped as it wants to be; one that serves nobody is not asked: it may hang, and has
// nothing unsaved.
func (s *Service) restart(ctx context.Context, env service.Env, _ int64, args map[string]string) error {
	if args[recovery.ArgServing] == "true" {
		return systemctl(ctx, env, "restart")
	}
	was := recovery.Silent
	if args[recovery.ArgWaiting] == "true" {
		was = recovery.Starting
	}
	var e recovery.Evidence
	if err := s.brokerOf(ctx, env, &e); err != nil {
		return err
	}
	if e.Broker != was {
		env.Log.Info("the broker is not as it was", "was", was, "is", e.Broker)
		return nil
	}
	if err := env.Host.SignalUnit(ctx, Unit, int(syscall.SIGKILL)); err != nil {
		return fmt.Errorf("end the broker that serves nobody: %w", err)
	}
	return systemctl(ctx, env, "start")
}

// forgetMember removes a member that has lost its state from the cluster that this node serves, with its replicas: it joins as a new one then.
func (s *Service) forgetMember(ctx context.Context, env service.Env, _ int64, args map[string]string) error {
	gone := args[recovery.ArgMember]
	api, err := s.api(env)
	if err != nil {
		return err
	}
	peers, err := api.peers(ctx)
	if err != nil {
		return fmt.Errorf("ask who the members are: %w", err)
	}
	switch {
	case slices.Contains(names(peers, true), gone):
		return fmt.Errorf("%s is a running member", gone)
	case !slices.Contains(names(peers, false), gone):
		return nil
	}
	env.Log.Warn("a member that has lost its state is forgotten, so that it can join again", "member", gone)
	return forgetAt(ctx, env, env.Node.Name, gone)
}

// haltPatience is how long a broker may take to stop as it wants to.
const haltPatience = 30 * time.Second

// halt stops a broker and keeps copies of what it saved. One that serves is stopped only if the step says so.
func (s *Service) halt(ctx context.Context, env service.Env, epoch int64, args map[string]string) error {
	var e recovery.Evidence
	if err := s.brokerOf(ctx, env, &e); err != nil {
		return err
	}
	if e.Broker == recovery.Serving && args[recovery.ArgServing] != "true" {
		return errors.New("the broker serves: it is not stopped")
	}
	if e.Broker == recovery.Starting { // it waits for its peers, and does not heed a request to stop
		if err := env.Host.SignalUnit(ctx, Unit, int(syscall.SIGKILL)); err != nil {
			return fmt.Errorf("end the broker that waits: %w", err)
		}
	}
	gently, cancel := context.WithTimeout(ctx, haltPatience)
	defer cancel()
	if err := env.Host.StopUnit(gently, Unit); err != nil {
		err = errors.Join(env.Host.SignalUnit(ctx, Unit, int(syscall.SIGKILL)), env.Host.StopUnit(ctx, Unit))
		if err != nil {
			return fmt.Errorf("stop the broker: %w", err)
		}
	}
	if gone, err := noBroker(ctx, env.Host); err != nil || !gone {
		return errors.Join(err, fmt.Errorf("a broker runs that does not belong to %s", Unit))
	}
	return keep(ctx, env, epoch)
}

// keep copies the member's metadata, once in an epoch: the first copy is what was found. Queues' logs and messages are not
// touched by a start by force, and may be large.
func keep(ctx context.Context, env service.Env, epoch int64) error {
	dir := epochs.Dir(epoch)
	kept := filepath.Join(dir, "mnesia.tar")
	if _, err := env.Host.Run(ctx, host.Cmd{Args: []string{"test", "-e", kept}}); err == nil {
		return nil
	}
	part := kept + ".part"
	for _, args := range [][]string{
		{"install", "--directory", "--mode=0700", dir},
		{"tar", "--create", "--file", part, "--exclude=./*/quorum", "--exclude=./*/msg_stores", "--exclude=./*/stream", "--directory", dirState, "."},
		{"sync", part},
		{"mv", part, kept},
	} {
		if _, err := env.Host.Run(ctx, host.Cmd{Args: args}); err != nil {
			return fmt.Errorf("keep a copy of what the broker saved: %w", err)
		}
	}
	epochs.Prune(ctx, env)
	return nil
}

// forcePatience is how long a start by force may take: no peer is waited for, but queues' logs are read.
const forcePatience = 5 * time.Minute

// force starts the broker without its peers. The mark is good for this start alone.
func (s *Service) force(ctx context.Context, env service.Env, epoch int64, args map[string]string) (err error) {
	for _, n := range env.Cluster.Controllers() {
		if slices.Contains(strings.Split(args[recovery.ArgGone], ","), n.Name) && s.answers(ctx, n) {
			return fmt.Errorf("%s is taken for gone, and its machine answers: switch it off, or mend its agent", n.Name)
		}
	}
	var e recovery.Evidence
	if err := s.brokerOf(ctx, env, &e); err != nil {
		return err
	}
	if e.Broker != recovery.Stopped {
		return fmt.Errorf("the broker is not stopped: it is %s", e.Broker)
	}
	if err := keep(ctx, env, epoch); err != nil {
		return err
	}
	if err := epochs.Once(ctx, env, epoch); err != nil {
		return err
	}
	mark := host.File{Path: forceMark, Mode: 0o644, Owner: "root", Group: "root", Content: []byte("epoch " + strconv.FormatInt(epoch, 10) + "\n")}
	if err := env.Host.WriteFile(ctx, mark, nil); err != nil {
		return fmt.Errorf("mark the start: %w", err)
	}
	defer func() { err = errors.Join(err, env.Host.RemoveFile(forceMark)) }()
	link := dataDir(env.Node.Name) + "/force_load"
	if _, err := env.Host.Run(ctx, host.Cmd{Args: []string{"ln", "--symbolic", "--force", "--no-dereference", forceMark, link}}); err != nil {
		return fmt.Errorf("mark the start: %w", err)
	}
	env.Log.Warn("this member boots by force", "epoch", epoch)
	if err := systemctl(ctx, env, "start"); err != nil {
		return err
	}
	return s.awaitServing(ctx, env)
}

// machineAnswers reports whether a machine is up, whatever its agent does: systemd itself takes connections for the health port and
// the port mapper. A refusal proves nothing: it may come from this node, which ends connections to machines that died.
func machineAnswers(ctx context.Context, n model.Node) bool {
	for _, port := range []int{model.PortHealth, model.PortAgent, model.PortEPMD} {
		d := net.Dialer{Timeout: apiTimeout}
		conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(n.Address().String(), strconv.Itoa(port)))
		if err == nil {
			conn.Close()
			return true
		}
	}
	return false
}

func (s *Service) awaitServing(ctx context.Context, env service.Env) error {
	ctx, cancel := context.WithTimeout(ctx, forcePatience)
	defer cancel()
	for {
		var e recovery.Evidence
		if err := s.brokerOf(ctx, env, &e); err == nil && e.Broker == recovery.Serving {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the broker does not serve: look at /var/log/rabbitmq: %w", ctx.Err())
		case <-time.After(criticalPause):
		}
	}
}
