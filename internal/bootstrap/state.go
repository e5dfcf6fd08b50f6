package bootstrap

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"nines/internal/secret"
)

// The operator's state, in the folder .nines next to cluster.yaml. secrets.age is
// the truth, opened by identity; the other files are drawn from it.
const (
	stateDir      = ".nines"
	fileIdentity  = "identity"
	fileSecrets   = "secrets.age"
	fileClusterID = "cluster-id"
	fileCA        = "ca.pem"
	fileCert      = "operator.pem"
	fileKey       = "operator.key"
	fileLock      = "lock"
)

// Names of the secrets in secrets.age.
const (
	keyCACert     = "ca/cert"
	keyCAKey      = "ca/key"
	keyClusterID  = "cluster/id"
	keyClusterKey = "cluster/key" // age identity that opens what the agents keep in etcd
)

// state is the cluster's identity.
type state struct {
	dir        string
	id         string
	ca         *secret.CA
	clusterKey string
	lock       *os.File
}

// StateError says that the operator's state cannot be used.
type StateError struct {
	Path string
	Text string
	Next string
	Err  error
}

func (e *StateError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("%s: %s: %v", e.Path, e.Text, e.Err)
	}
	return e.Path + ": " + e.Text
}

// Unwrap returns the cause, if there is one.
func (e *StateError) Unwrap() error { return e.Err }

// Hint says what to do now.
func (e *StateError) Hint() string { return e.Next }

// stateIn is the folder of the operator's state.
func stateIn(dir string) string { return filepath.Join(dir, stateDir) }

// openState reads the state, makes what a new cluster needs, and renews the operator's
// certificate. It holds a lock until close.
func openState(dir, cluster string, now time.Time) (*state, error) {
	s, err := openFolder(dir)
	if err != nil {
		return nil, err
	}
	if err := s.fill(cluster, now); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// openFolder makes the folder of the state and locks it until close; what is in it is not looked at.
func openFolder(dir string) (*state, error) {
	s := &state{dir: stateIn(dir)}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, &StateError{Path: s.dir, Text: "cannot be made", Next: "nines keeps the cluster's keys there: make the folder of cluster.yaml writable", Err: err}
	}
	// It may have come from a copy with other permissions.
	if err := os.Chmod(s.dir, 0o700); err != nil {
		return nil, &StateError{Path: s.dir, Text: "cannot be closed to others", Next: "run nines as its owner", Err: err}
	}
	if err := s.acquire(); err != nil {
		return nil, err
	}
	return s, nil
}

// acquire keeps a second bootstrap of the same cluster out.
func (s *state) acquire() error {
	path := s.path(fileLock)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return &StateError{Path: path, Text: "cannot be opened", Next: "run nines as the owner of the folder", Err: err}
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return &StateError{Path: path, Text: "another nines is bootstrapping this cluster", Next: "wait until it has ended"}
	}
	s.lock = f
	return nil
}

// close gives the lock up; the file stays, removing it would race with the next owner.
func (s *state) close() { s.lock.Close() }

func (s *state) path(name string) string { return filepath.Join(s.dir, name) }

func (s *state) fill(cluster string, now time.Time) error {
	secrets, exist, err := s.readSecrets()
	if err == nil && !exist {
		secrets, err = s.makeSecrets(cluster)
	}
	if err != nil {
		return err
	}
	s.id, s.clusterKey = secrets[keyClusterID], secrets[keyClusterKey]
	if s.ca, err = secret.ParseCA(secret.Pair{Cert: []byte(secrets[keyCACert]), Key: []byte(secrets[keyCAKey])}); err != nil || s.id == "" || s.clusterKey == "" {
		return &StateError{Path: s.path(fileSecrets), Text: "it does not hold a cluster's keys", Next: "bring it back from a backup", Err: err}
	}
	if v := s.ca.Validity(); v.Expired(now) {
		return &StateError{Path: s.path(fileSecrets), Text: "the cluster's authority expired on " + v.NotAfter.UTC().Format(time.RFC3339),
			Next: "is this machine's clock right? nines cannot replace an authority yet: see 'The authority' in docs/guide.md"}
	}
	if err := s.keep(fileCA, s.ca.Pair().Cert); err != nil {
		return err
	}
	if err := s.keep(fileClusterID, []byte(s.id+"\n")); err != nil {
		return err
	}
	return s.renewOperator(now)
}

// readSecrets opens secrets.age. They do not exist only where there never was a cluster:
// anything else that is missing is an error, never a reason to make new ones.
func (s *state) readSecrets() (m secret.Map, exist bool, err error) {
	sealed, err := os.ReadFile(s.path(fileSecrets))
	if errors.Is(err, fs.ErrNotExist) {
		for _, name := range []string{fileCA, fileClusterID, fileCert} {
			if _, err := os.Stat(s.path(name)); err == nil {
				return nil, false, &StateError{Path: s.path(fileSecrets), Text: "it is missing, but " + name + " says that the cluster exists",
					Next: "bring it back from a backup: it holds the cluster's authority. Only if no machine of the cluster is to be kept: remove the folder " + s.dir}
			}
		}
		return nil, false, nil
	}
	if err != nil {
		return nil, false, &StateError{Path: s.path(fileSecrets), Text: "it cannot be read", Next: "run nines as its owner", Err: err}
	}
	identity, err := os.ReadFile(s.path(fileIdentity))
	if err != nil {
		return nil, false, &StateError{Path: s.path(fileIdentity), Text: "the key of " + fileSecrets + " cannot be read", Next: "bring it back from a backup, or run nines as its owner", Err: err}
	}
	m, err = secret.Open(sealed, string(identity))
	if err != nil {
		return nil, false, &StateError{Path: s.path(fileSecrets), Text: "it cannot be opened", Next: "bring it and " + fileIdentity + " back from the same backup", Err: err}
	}
	return m, true, nil
}

// makeSecrets makes a new cluster's identity. secrets.age comes last: until it is
// whole on disk, nothing was handed out, and the next run begins anew.
func (s *state) makeSecrets(cluster string) (secret.Map, error) {
	identity, err := secret.NewIdentity()
	if err != nil {
		return nil, err
	}
	clusterKey, err := secret.NewIdentity()
	if err != nil {
		return nil, err
	}
	ca, err := secret.NewCA(cluster)
	if err != nil {
		return nil, err
	}
	id, err := uuid.NewRandom()
	if err != nil {
		return nil, fmt.Errorf("cluster id: %w", err)
	}
	m := secret.Map{keyCACert: string(ca.Pair().Cert), keyCAKey: string(ca.Pair().Key), keyClusterID: id.String(), keyClusterKey: clusterKey}
	recipient, err := secret.Recipient(identity)
	if err != nil {
		return nil, err
	}
	sealed, err := secret.Seal(m, recipient)
	if err != nil {
		return nil, err
	}
	if err := s.keep(fileIdentity, []byte(identity+"\n")); err != nil {
		return nil, err
	}
	return m, s.keep(fileSecrets, sealed)
}

func (s *state) renewOperator(now time.Time) error {
	cert, _ := os.ReadFile(s.path(fileCert)) // unreadable is as good as missing
	key, _ := os.ReadFile(s.path(fileKey))
	if s.ca.StaleOperator(secret.Pair{Cert: cert, Key: key}, now) == "" {
		return nil
	}
	pair, err := s.ca.IssueOperator(operatorName(), 0)
	if err != nil {
		return err
	}
	if err := s.keep(fileKey, pair.Key); err != nil {
		return err
	}
	return s.keep(fileCert, pair.Cert)
}

// operatorName is who is told to others as the one at work.
func operatorName() string {
	if name := os.Getenv("SUDO_USER"); name != "" {
		return name
	}
	if u, err := user.Current(); err == nil && u.Username != "" {
		return u.Username
	}
	return "operator"
}

// keep replaces a file, durably, readable by its owner only; an equal one is left alone.
func (s *state) keep(name string, content []byte) error {
	path := s.path(name)
	if have, err := os.ReadFile(path); err == nil && string(have) == string(content) {
		return nil
	}
	err := replace(path, content)
	if err != nil {
		return &StateError{Path: path, Text: "it cannot be written", Next: "is the disk full, or the folder somebody else's?", Err: err}
	}
	return nil
}

func replace(path string, content []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-") // 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	if _, err = f.Write(content); err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// clientFiles returns the paths for secret.ClientTLS.
func (s *state) clientFiles() (ca, cert, key string) {
	return s.path(fileCA), s.path(fileCert), s.path(fileKey)
}

// trimmed is a key as it goes into a file: one line.
func trimmed(key string) []byte { return []byte(strings.TrimSpace(key) + "\n") }
