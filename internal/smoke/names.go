package smoke

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"

	"golang.org/x/sys/unix"
)

// Prefix is what the names of all that the smoke test makes begin with.
const Prefix = "nines-smoke-"

// names are the names of one run's things. They are good as host names too.
type names struct {
	id   string
	kept bool // to be left there until it is removed on request
}

// NewID returns the name of a new run.
func NewID() string {
	random := make([]byte, 5)
	_, _ = rand.Read(random) // it never fails
	return hex.EncodeToString(random)
}

func (n names) of(what string) string {
	if n.kept {
		return Prefix + "kept-" + n.id + "-" + what
	}
	return Prefix + n.id + "-" + what
}

var namePattern = regexp.MustCompile(`^` + Prefix + `(kept-)?([0-9a-f]{10})-(.*)$`)

// parseName says which run has made the thing of that name, and what it is. ok is false for what none has made.
func parseName(name string) (n names, what string, ok bool) {
	m := namePattern.FindStringSubmatch(name)
	if m == nil {
		return names{}, "", false
	}
	return names{id: m[2], kept: m[1] != ""}, m[3], true
}

// Runs are the runs of this operator: a file each, which is locked while the run is at work.
type Runs struct{ Dir string }

// Begin marks a run as being at work; end takes the mark away.
func (r Runs) Begin(id string) (end func(), err error) {
	if err := os.MkdirAll(r.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("begin a run: %w", err)
	}
	f, err := os.OpenFile(r.path(id), os.O_CREATE|os.O_RDWR, 0o600)
	if err == nil {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	if err != nil {
		return nil, fmt.Errorf("begin a run: %w", err)
	}
	return func() { _ = os.Remove(r.path(id)); _ = f.Close() }, nil
}

// Alive reports whether the run is at work. When that cannot be found out, it is.
func (r Runs) Alive(id string) bool {
	f, err := os.Open(r.path(id))
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist)
	}
	defer f.Close()
	return unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB) != nil
}

func (r Runs) path(id string) string { return filepath.Join(r.Dir, id) }

// newPublicKey returns the public half of a new SSH key. Nobody needs the other half: the guest only shows that the
// key came to it.
func newPublicKey() (string, error) {
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return "", err
	}
	const kind = "ssh-ed25519"
	var blob []byte
	for _, part := range [][]byte{[]byte(kind), public} {
		blob = binary.BigEndian.AppendUint32(blob, uint32(len(part)))
		blob = append(blob, part...)
	}
	return kind + " " + base64.StdEncoding.EncodeToString(blob) + " nines-smoke", nil
}
