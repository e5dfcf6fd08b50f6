package ovn

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"nines/internal/host"
	"nines/internal/model"
	"nines/internal/ovsdb"
	"nines/internal/service"
)

// electionTimer, in milliseconds: a follower that hears nothing of the leader for this long, and up to a second more by
// lot, stands for election, so writes stall for 1-2 s when the leader loses power. The component's
// default, because less gains little (the second by lot is fixed) and busy machines would elect for nothing.
const electionTimer = 1000

// ErrWouldFound: this node has no database and must not found one.
var ErrWouldFound = errors.New("refused to found an OVN database")

// standing: a node with a database serves it. The founder waits for this on all other controllers: afterwards
// a closed port means that there is no database.
func standing(ctx context.Context, env service.Env, args map[string]string) (bool, string, error) {
	d, err := find(args)
	if err != nil {
		return false, "", err
	}
	has, err := exists(ctx, env.Host, d.file)
	if err != nil || !has {
		return !has && err == nil, "", err
	}
	u, err := env.Host.Unit(ctx, d.unit)
	if err != nil {
		return false, "", err
	}
	if u.Active != "active" {
		return false, fmt.Sprintf("%s is there and %s is %s", d.file, d.unit, u.Active), nil
	}
	return true, "", nil
}

func stand(ctx context.Context, env service.Env, args map[string]string) error {
	d, err := find(args)
	if err != nil {
		return err
	}
	if has, err := exists(ctx, env.Host, d.file); err != nil || !has {
		return err
	}
	return env.Host.StartUnit(ctx, d.unit)
}

// exists does not read the file: a database may be large.
func exists(ctx context.Context, h host.Host, path string) (bool, error) {
	_, err := h.Run(ctx, host.Cmd{Args: []string{"test", "-e", path}})
	var exit *host.ExitError
	if errors.As(err, &exit) && exit.Code == 1 {
		return false, nil
	}
	return err == nil, err
}

// present: the node has a database.
func present(ctx context.Context, env service.Env, args map[string]string) (bool, string, error) {
	d, err := find(args)
	if err != nil {
		return false, "", err
	}
	has, err := exists(ctx, env.Host, d.file)
	if err != nil {
		return false, "", err
	}
	if !has {
		return false, "no database " + d.file, nil
	}
	return true, "", nil
}

// create makes the node's database: a new cluster's first member, or one that joins. It is made aside and put in its
// place in one step, so what is there is whole.
func (s *Service) create(ctx context.Context, env service.Env, args map[string]string) error {
	d, err := find(args)
	if err != nil {
		return err
	}
	if has, err := exists(ctx, env.Host, d.file); err != nil || has {
		return err
	}
	found := false
	if args["found"] == "true" {
		if found, err = s.mayFound(env, d); err != nil {
			return err
		}
	}
	fresh := d.file + ".new"
	if err := env.Host.RemoveFile(fresh); err != nil {
		return err
	}
	// Its lock is left by a tool that was killed.
	if err := env.Host.RemoveFile(stateDir + "/." + strings.TrimPrefix(fresh, stateDir+"/") + ".~lock~"); err != nil {
		return err
	}
	command := []string{"ovsdb-tool", "--election-timer=" + strconv.Itoa(electionTimer), "create-cluster", fresh, d.schema, remote(env.Node, d.raft)}
	if !found {
		command = append([]string{"ovsdb-tool", "join-cluster", fresh, d.name, remote(env.Node, d.raft)}, remotes(others(env), d.raft)...)
	}
	env.Log.Info("making an OVN database", "database", d.name, "node", env.Node.Name, "found", found)
	for _, step := range [][]string{
		{"mkdir", "-p", stateDir},
		command,
		{"mv", "--no-clobber", fresh, d.file},
		// A founder that forgets after a power cut that it founded would found again.
		{"sync", stateDir, d.file},
	} {
		if _, err := env.Host.Run(ctx, host.Cmd{Args: step}); err != nil {
			return fmt.Errorf("make the database %s (%s): %w", d.name, step[0], err)
		}
	}
	return nil
}

// mayFound: nobody else has the database. A node that may have one and does not say so forbids it.
func (s *Service) mayFound(env service.Env, d database) (bool, error) {
	for _, n := range others(env) {
		err := s.dial(net.JoinHostPort(n.Address().String(), strconv.Itoa(d.port)))
		if err == nil {
			return false, nil
		}
		if !errors.Is(err, syscall.ECONNREFUSED) {
			return false, fmt.Errorf("%w %s: %s does not answer at all, so the cluster may be alive there; bring the machine up: %w", ErrWouldFound, d.name, n.Name, err)
		}
		// The step before had its agent start what it has. Without an agent nobody did.
		if err := s.dial(net.JoinHostPort(n.Address().String(), strconv.Itoa(model.PortAgent))); err != nil {
			return false, fmt.Errorf("%w %s: the agent of %s does not answer, so nobody knows whether it holds one; start it: %w", ErrWouldFound, d.name, n.Name, err)
		}
	}
	return true, nil
}

// others are the controllers but this node.
func others(env service.Env) []model.Node {
	return slices.DeleteFunc(slices.Clone(env.Cluster.Controllers()), func(n model.Node) bool { return n.Name == env.Node.Name })
}

func dialTCP(address string) error {
	conn, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return err
	}
	return conn.Close()
}

// serves: the node's member takes part in its cluster and knows the leader.
func (s *Service) serves(ctx context.Context, _ service.Env, args map[string]string) (bool, string, error) {
	d, err := find(args)
	if err != nil {
		return false, "", err
	}
	m, err := s.status(ctx, d)
	if err != nil {
		return false, oneLine(err), nil
	}
	if !m.serving() {
		return false, m.String(), nil
	}
	return true, "", nil
}

// single: no two members have one address. Only the leader can tell and mend.
func (s *Service) single(ctx context.Context, _ service.Env, args map[string]string) (bool, string, error) {
	d, err := find(args)
	if err != nil {
		return false, "", err
	}
	m, err := s.status(ctx, d)
	if err != nil || m.role != "leader" {
		return true, "", nil // its unit says what is wrong
	}
	for _, p := range stale(m) {
		return false, fmt.Sprintf("the member %s of %s has joined anew as another", p.id, p.address), nil
	}
	return true, "", nil
}

func (s *Service) expel(ctx context.Context, env service.Env, args map[string]string) error {
	d, err := find(args)
	if err != nil {
		return err
	}
	m, err := s.status(ctx, d)
	if err != nil {
		return err
	}
	for _, p := range stale(m) {
		env.Log.Warn("removing a member that has joined anew as another", "database", d.name, "member", p.id, "address", p.address)
		if _, err := ovsdb.Text(ctx, s.rpc, d.ctl, "cluster/kick", d.name, p.id); err != nil {
			return fmt.Errorf("remove the member %s of %s: %w", p.id, d.name, err)
		}
	}
	return nil
}

func oneLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

func sorted(m map[string]string) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
