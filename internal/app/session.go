package app

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"nines/internal/api"
	"nines/internal/bootstrap"
	"nines/internal/config"
	"nines/internal/health"
	"nines/internal/model"
	"nines/internal/progress"
	"nines/internal/secret"
	"nines/internal/service/keystone"
)

// Session is an operator at work on one cluster: its cluster.yaml, and the client
// that speaks to its agents.
type Session struct {
	Cluster *model.Cluster
	File    string
	Client  *api.Client
	log     *slog.Logger
}

// StateDir is the operator's state next to cluster.yaml.
const StateDir = ".nines"

// Open reads cluster.yaml. Client is nil until the cluster was bootstrapped.
func Open(file string, log *slog.Logger) (*Session, error) {
	c, err := config.Load(file)
	if err != nil {
		return nil, err
	}
	s := &Session{Cluster: c, File: file, log: log}
	if err := s.connect(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return s, nil
}

// NotBootstrappedError says that there are no agents to talk to yet.
type NotBootstrappedError struct{ File string }

func (e *NotBootstrappedError) Error() string {
	return fmt.Sprintf("the cluster of %s has not been deployed from here", e.File)
}

// Hint says what to do now.
func (e *NotBootstrappedError) Hint() string {
	return "run 'nines apply', or bring the " + StateDir + " folder from where it was deployed"
}

// Agents returns the client, or a *NotBootstrappedError.
func (s *Session) Agents() (*api.Client, error) {
	if s.Client == nil {
		return nil, &NotBootstrappedError{File: s.File}
	}
	return s.Client, nil
}

// Path returns the path of a file in the operator's state.
func (s *Session) Path(name string) string {
	return filepath.Join(filepath.Dir(s.File), StateDir, name)
}

func (s *Session) connect() error {
	for _, name := range []string{"ca.pem", "operator.pem", "operator.key"} {
		if _, err := os.Stat(s.Path(name)); err != nil {
			return err
		}
	}
	conf, err := secret.ClientTLS(s.Path("ca.pem"), s.Path("operator.pem"), s.Path("operator.key"))
	if err != nil {
		return err
	}
	var addrs []string
	for _, n := range s.Cluster.Controllers() {
		addrs = append(addrs, api.NodeAddr(n))
	}
	s.Client = api.NewClient(conf, addrs)
	return nil
}

// Readiness says what must be done over SSH before agents can be given work.
type Readiness int

// The readinesses, from worst to best.
const (
	Missing Readiness = iota // an agent does not answer, or refuses us
	Due                      // all answer; a certificate should be renewed before it ends, or a controller lacks what it renews them with
	Ready
)

// Ready asks every node's agent.
func (s *Session) Ready(ctx context.Context) Readiness {
	if s.Client == nil {
		return Missing
	}
	now, by := time.Now(), s.Cluster.Certificates.RenewedBy
	ready := make([]Readiness, len(s.Cluster.Nodes))
	var wg sync.WaitGroup
	for i, n := range s.Cluster.Nodes {
		wg.Go(func() {
			v, err := s.Client.Version(ctx, api.NodeAddr(n))
			switch {
			case err != nil || v.Node != n.Name:
				s.log.Debug("agent", "node", n.Name, "err", err)
			case v.Certificate.Overdue(v.Authority, by, now), by == model.RenewedByLeader && n.Has(model.RoleController) && !v.Renews:
				ready[i] = Due
			default:
				ready[i] = Ready
			}
		})
	}
	wg.Wait()
	worst := slices.Min(append(ready, Ready))
	if own, authority := s.certificate(); worst == Ready && own.Renewable(authority, now) {
		worst = Due
	}
	return worst
}

// certificate returns the spans of the operator's certificate and of its authority; zero when
// they cannot be read.
func (s *Session) certificate() (own, authority model.Validity) {
	for name, v := range map[string]*model.Validity{"operator.pem": &own, "ca.pem": &authority} {
		text, err := os.ReadFile(s.Path(name))
		if err == nil {
			*v, err = secret.Validity(text)
		}
		if err != nil {
			s.log.Debug("certificate", "file", s.Path(name), "err", err)
		}
	}
	return own, authority
}

// Conditions are what is not as it should be on the operator's side.
func (s *Session) Conditions(now time.Time) []health.Condition {
	own, authority := s.certificate()
	return health.OperatorCertificate(own, authority, now)
}

// Bootstrap brings agents to all nodes over SSH and connects to them.
func (s *Session) Bootstrap(ctx context.Context, emit progress.Emit) error {
	binary, err := os.Executable()
	if err != nil {
		return fmt.Errorf("bootstrap: %w", err)
	}
	err = bootstrap.Run(ctx, bootstrap.Options{Cluster: s.Cluster, Dir: filepath.Dir(s.File), Binary: binary, Emit: emit, Log: s.log})
	if err != nil {
		return err
	}
	return s.connect()
}

// Close drops connections.
func (s *Session) Close() {
	if s.Client != nil {
		s.Client.Close()
	}
}

// UpgradeAgents brings this executable to every agent that runs another one, one node
// at a time, the leader last; the next one waits until the last is back with etcd in quorum.
func (s *Session) UpgradeAgents(ctx context.Context, emit progress.Emit) error {
	path, err := os.Executable()
	if err != nil {
		return fmt.Errorf("upgrade: %w", err)
	}
	want, err := fileHash(path)
	if err != nil {
		return fmt.Errorf("upgrade: %w", err)
	}
	for _, n := range s.leaderLast(ctx) {
		err := progress.Step(emit, "upgrade/"+n.Name, n.Name+": new agent", func() error { return s.upgrade(ctx, n, path, want) })
		if err != nil {
			return fmt.Errorf("upgrade of the agent on %s: %w", n.Name, err)
		}
	}
	return nil
}

func (s *Session) leaderLast(ctx context.Context) []model.Node {
	nodes := slices.Clone(s.Cluster.Nodes)
	st, err := s.Client.Status(ctx, api.LookAtHealth)
	if err != nil {
		return nodes // nothing was applied yet: any order is right
	}
	slices.SortStableFunc(nodes, func(a, b model.Node) int {
		return rankLeader(a, st.Leader) - rankLeader(b, st.Leader)
	})
	return nodes
}

func rankLeader(n model.Node, leader string) int {
	if n.Name == leader {
		return 1
	}
	return 0
}

// upgradeWait is how long an agent may take to come back with a quorum.
const upgradeWait = time.Minute

func (s *Session) upgrade(ctx context.Context, n model.Node, path, want string) error {
	addr := api.NodeAddr(n)
	v, err := s.Client.Version(ctx, addr)
	if err != nil {
		return err
	}
	if v.Binary == want {
		return nil
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := s.Client.Upgrade(ctx, n, f); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, upgradeWait)
	defer cancel()
	for {
		v, err := s.Client.Version(ctx, addr)
		if err == nil && v.Binary == want && v.Store == "ready" {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("it did not come back within %s (last: store %q, %v)", upgradeWait, v.Store, err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func fileHash(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// WriteClientFiles writes clouds.yaml and openrc next to cluster.yaml, for the ordinary
// OpenStack clients. Both hold the admin's password: only their owner reads them.
func (s *Session) WriteClientFiles(ctx context.Context) error {
	if !s.Cluster.Runs("keystone") {
		return nil
	}
	password, err := s.Client.Credential(ctx, keystone.SecretAdmin)
	if err != nil {
		return fmt.Errorf("client configuration: %w", err)
	}
	clouds, openrc := keystone.ClientFiles(s.Cluster, password, s.Path("ca.pem"))
	for name, text := range map[string]string{"clouds.yaml": clouds, "openrc": openrc} {
		path := filepath.Join(filepath.Dir(s.File), name)
		if old, err := os.ReadFile(path); err == nil && string(old) == text {
			continue
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return fmt.Errorf("client configuration: %w", err)
		}
	}
	return nil
}
