package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"nines/internal/host"
	"nines/internal/model"
	"nines/internal/service"
)

// tlsGroup owns the key of a node's certificate.
const tlsGroup = "nines-tls"

// Actions implements service.Actor.
func (s *Service) Actions() map[string]service.Action {
	return map[string]service.Action{
		actionGroup:  {Check: inGroup, Run: joinGroup},
		actionStart:  {Check: started, Run: s.start},
		actionReady:  {Check: s.ready, Run: nothing},
		actionBroker: {Check: s.defined, Run: s.define},
	}
}

func nothing(context.Context, service.Env, map[string]string) error { return nil }

// inGroup: the command line tools run as rabbitmq outside the unit, where its
// SupplementaryGroups do not reach, and need the key as well.
func inGroup(ctx context.Context, env service.Env, _ map[string]string) (bool, string, error) {
	out, err := env.Host.Run(ctx, host.Cmd{Args: []string{"id", "-nG", Name}})
	var exit *host.ExitError
	if errors.As(err, &exit) {
		return false, "the user rabbitmq does not exist yet", nil
	}
	if err != nil {
		return false, "", err
	}
	if !slices.Contains(strings.Fields(string(out.Stdout)), tlsGroup) {
		return false, "rabbitmq is not in the group " + tlsGroup, nil
	}
	return true, "", nil
}

func joinGroup(ctx context.Context, env service.Env, _ map[string]string) error {
	_, err := env.Host.Run(ctx, host.Cmd{Args: []string{"usermod", "-aG", tlsGroup, Name}})
	if err != nil {
		return fmt.Errorf("put rabbitmq into the group %s: %w", tlsGroup, err)
	}
	return nil
}

func started(ctx context.Context, env service.Env, _ map[string]string) (bool, string, error) {
	u, err := env.Host.Unit(ctx, Unit)
	if err != nil {
		return false, "", err
	}
	return u.Active == "active", "unit is " + u.Active, nil
}

// criticalWait is how long a restart waits for queues to have enough replicas without
// this member; criticalPause lies between two looks.
const (
	criticalWait  = 90 * time.Second
	criticalPause = time.Second
)

// start starts the broker, or restarts it once no queue needs this member for its majority.
func (s *Service) start(ctx context.Context, env service.Env, args map[string]string) error {
	watch, done := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer done()
	wg.Go(func() { s.beWelcome(watch, env) })
	if args["restart"] != "true" {
		return startPatiently(ctx, env)
	}
	u, err := env.Host.Unit(ctx, Unit)
	if err != nil {
		return err
	}
	if u.Active == "active" {
		if err := s.awaitDispensable(ctx, env); err != nil {
			return err
		}
	}
	if err := env.Host.RestartUnit(ctx, Unit); err != nil {
		return startPatiently(ctx, env)
	}
	return nil
}

// startTries is how often a start may fail, startPause how long the peers get in between. A broker whose machine was
// back before its peers had missed it is turned away by them once ("node_not_running": Mnesia stops as it starts).
const (
	startTries = 3
	startPause = 2 * time.Second
)

func startPatiently(ctx context.Context, env service.Env) error {
	for try := 1; ; try++ {
		err := env.Host.StartUnit(ctx, Unit)
		if err == nil || try == startTries {
			return err
		}
		env.Log.Warn("the broker did not start; trying again", "try", try, "err", err)
		select {
		case <-ctx.Done():
			return err
		case <-time.After(startPause):
		}
	}
}

// How often a member that starts looks whether it is turned away, and for how long it must have been.
const (
	welcomePause    = 5 * time.Second
	welcomePatience = 20 * time.Second
)

// beWelcome has the others forget this member if it has lost its state and they remember it: they would turn it away for ever. A recovery does the
// same (recovery.Replaced), but none begins while an apply is under way, and the apply waits for this start. A machine that lost its
// power seconds after its broker had joined for the first time is left like that.
func (s *Service) beWelcome(ctx context.Context, env service.Env) {
	var since time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(welcomePause):
		}
		by := s.turnedAway(ctx, env)
		switch {
		case by == "":
			since = time.Time{}
		case since.IsZero():
			since = time.Now()
		case time.Since(since) >= welcomePatience:
			env.Log.Warn("this member has lost its state and is turned away: the others forget it, so that it can join again", "asked", by)
			if err := forgetAt(ctx, env, by, env.Node.Name); err != nil {
				env.Log.Warn("be forgotten", "err", err)
			}
			since = time.Time{}
		}
	}
}

// turnedAway returns a member that serves and remembers this one, if this one holds no state and a majority serves without it; else "".
func (s *Service) turnedAway(ctx context.Context, env service.Env) string {
	if _, err := env.Host.ReadFile(dataDir(env.Node.Name) + "/schema.DAT"); !errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	others := env.Cluster.Controllers()
	for _, n := range others {
		if n.Name == env.Node.Name {
			continue
		}
		at := env
		at.Node = n
		ask, cancel := context.WithTimeout(ctx, apiTimeout)
		api, err := s.api(at)
		var members []peer
		if err == nil {
			members, err = api.peers(ask)
		}
		cancel()
		running := names(members, true)
		if err == nil && slices.Contains(running, n.Name) && len(running) >= model.Quorum(len(others)) &&
			!slices.Contains(running, env.Node.Name) && slices.Contains(names(members, false), env.Node.Name) {
			return n.Name
		}
	}
	return ""
}

// forgetAt has a member that serves remove another one from the cluster, with its replicas.
func forgetAt(ctx context.Context, env service.Env, at, gone string) error {
	_, err := env.Host.Run(ctx, host.Cmd{Args: []string{"rabbitmqctl", "--quiet", "--node", "rabbit@" + at, "forget_cluster_node", "rabbit@" + gone}})
	if err != nil {
		return fmt.Errorf("forget %s: %w", gone, err)
	}
	return nil
}

// awaitDispensable returns when the node is not critical for any quorum queue or stream.
// A node whose API does not answer serves nobody and may be restarted.
func (s *Service) awaitDispensable(ctx context.Context, env service.Env) error {
	api, err := s.api(env)
	if err != nil {
		return err
	}
	wait, cancel := context.WithTimeout(ctx, criticalWait)
	defer cancel()
	for {
		why, err := api.check(wait, "node-is-quorum-critical")
		if err == nil && why == "" {
			return nil
		}
		if err != nil && ctx.Err() == nil && wait.Err() == nil {
			env.Log.Warn("broker does not tell whether it is needed; restarting it", "node", env.Node.Name, "err", err)
			return nil
		}
		select {
		case <-wait.Done():
			if err := ctx.Err(); err != nil {
				return err
			}
			return fmt.Errorf("queues would lose their majority without %s (%s): bring the other members back first", env.Node.Name, why)
		case <-time.After(criticalPause):
		}
	}
}

// ready: the node runs and sees every peer that is up.
func (s *Service) ready(ctx context.Context, env service.Env, _ map[string]string) (bool, string, error) {
	api, err := s.api(env)
	if err != nil {
		return false, "", err
	}
	peers, err := api.peers(ctx)
	if err != nil {
		return false, s.unavailable(env, err), nil
	}
	running := names(peers, true)
	if !slices.Contains(running, env.Node.Name) {
		return false, "the broker is starting", nil
	}
	for _, n := range env.Cluster.Controllers() {
		if !slices.Contains(running, n.Name) && listens(ctx, n) {
			return false, fmt.Sprintf("%s serves but is no running member of this node's cluster", n.Name), nil
		}
	}
	return true, "", nil
}

// unavailable words why the API did not answer.
func (s *Service) unavailable(env service.Env, err error) string {
	if refused(err) {
		s.forget(env.Node.Name)
		return fmt.Sprintf("the broker does not accept the user %s: it holds another cluster's state", AdminUser)
	}
	var answer *statusError
	if errors.As(err, &answer) {
		return answer.Error()
	}
	return "the management API does not answer"
}

// dialWait bounds the look whether a peer is up: one round trip within a site.
const dialWait = 300 * time.Millisecond

// listens reports whether the node accepts AMQP connections. A paused or stopped broker does not.
func listens(ctx context.Context, n model.Node) bool {
	d := net.Dialer{Timeout: dialWait}
	conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(n.Address().String(), strconv.Itoa(model.PortAMQP)))
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

// names lists the members' node names, all or only the running ones, sorted.
func names(peers []peer, onlyRunning bool) []string {
	var out []string
	for _, p := range peers {
		if p.Running || !onlyRunning {
			out = append(out, strings.TrimPrefix(p.Name, "rabbit@"))
		}
	}
	slices.Sort(out)
	return out
}

// defined: every member runs, and users, virtual hosts and permissions are as wanted.
func (s *Service) defined(ctx context.Context, env service.Env, _ map[string]string) (bool, string, error) {
	api, err := s.api(env)
	if err != nil {
		return false, "", err
	}
	peers, err := api.peers(ctx)
	if err != nil {
		return false, s.unavailable(env, err), nil
	}
	running := names(peers, true)
	for _, n := range env.Cluster.Controllers() {
		if !slices.Contains(running, n.Name) {
			return false, n.Name + " is no running member", nil
		}
	}
	users, err := s.accounts(env.Cluster, env.Secrets)
	if err != nil {
		return false, "", err
	}
	have, err := api.state(ctx)
	if err != nil {
		return false, s.unavailable(env, err), nil
	}
	why := difference(definitionsOf(users), have)
	return why == "", why, nil
}

// difference names the first thing that is not as wanted, or nothing.
func difference(want, have definitions) string {
	for _, v := range want.VHosts {
		if !slices.Contains(have.VHosts, v) {
			return "virtual host " + v.Name + " is missing or has another default queue type"
		}
	}
	for _, u := range want.Users {
		if !slices.ContainsFunc(have.Users, func(h userDef) bool {
			return h.Name == u.Name && h.Hash == u.Hash && h.Algorithm == u.Algorithm && slices.Equal(h.Tags, u.Tags)
		}) {
			return "user " + u.Name + " is missing or has another password"
		}
	}
	for _, p := range want.Permissions {
		if !slices.Contains(have.Permissions, p) {
			return "user " + p.User + " lacks permissions on " + p.VHost
		}
	}
	if slices.ContainsFunc(have.Users, func(u userDef) bool { return u.Name == "guest" }) {
		return "the user guest exists"
	}
	return ""
}

// define loads users, virtual hosts and permissions, and removes guest. It does
// not wait for absent members: its Check, repeated, does.
func (s *Service) define(ctx context.Context, env service.Env, _ map[string]string) error {
	api, err := s.api(env)
	if err != nil {
		return err
	}
	users, err := s.accounts(env.Cluster, env.Secrets)
	if err != nil {
		return err
	}
	if err := s.awaitMembers(ctx, env, api); err != nil {
		return err
	}
	if err := api.load(ctx, definitionsOf(users)); err != nil {
		return fmt.Errorf("define broker users: %w", err)
	}
	return api.drop(ctx, "guest")
}

// awaitMembers returns when every controller is a running member.
func (s *Service) awaitMembers(ctx context.Context, env service.Env, api *client) error {
	for {
		missing := "all"
		if peers, err := api.peers(ctx); err == nil {
			running := names(peers, true)
			var absent []string
			for _, n := range env.Cluster.Controllers() {
				if !slices.Contains(running, n.Name) {
					absent = append(absent, n.Name)
				}
			}
			missing = strings.Join(absent, " ")
		}
		if missing == "" {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("members missing from the broker: %s: look at /var/log/rabbitmq there: %w", missing, ctx.Err())
		case <-time.After(criticalPause):
		}
	}
}
