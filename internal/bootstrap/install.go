package bootstrap

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"nines/internal/model"
	"nines/internal/ssh"
)

// slowLink is the round trip from which on the executable travels compressed: within a
// site, compressing takes longer than the network.
const slowLink = 3 * time.Millisecond

// executable is the program that the nodes get.
type executable struct {
	path   string
	size   int64
	sum    func() (string, error) // SHA-256, hex
	packed func() ([]byte, error) // gzip
}

// BinaryError says that the executable is not one for the nodes.
type BinaryError struct {
	Path string
	Text string
}

func (e *BinaryError) Error() string { return e.Path + " cannot be copied to the nodes: " + e.Text }

// Hint says what to do now.
func (e *BinaryError) Hint() string {
	return "build it for them: CGO_ENABLED=0 GOOS=linux GOARCH=" + architecture + " go build ./cmd/nines"
}

// openExecutable refuses what would not run on the nodes, and begins to hash the rest.
func openExecutable(name string) (*executable, error) {
	fi, err := os.Stat(name)
	if err != nil {
		return nil, &BinaryError{Path: name, Text: err.Error()}
	}
	f, err := elf.Open(name)
	if err != nil {
		return nil, &BinaryError{Path: name, Text: "it is not a Linux executable"}
	}
	defer f.Close()
	if f.Machine != elf.EM_X86_64 {
		return nil, &BinaryError{Path: name, Text: "it is made for " + f.Machine.String()}
	}
	x := &executable{path: name, size: fi.Size()}
	x.sum = sync.OnceValues(func() (string, error) { return hashFile(name) })
	x.packed = sync.OnceValues(func() ([]byte, error) { return packFile(name) })
	go x.sum() // while the nodes are looked at
	return x, nil
}

func hashFile(name string) (string, error) {
	f, err := os.Open(name)
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

func packFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out bytes.Buffer
	w, err := gzip.NewWriterLevel(&out, gzip.BestSpeed)
	if err != nil {
		return nil, err
	}
	if _, err := io.Copy(w, f); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// copy brings executable and files to a node and reports what was needed.
func (r *run) copy(ctx context.Context, m *machine) (detail string, err error) {
	sum, err := r.binary.sum()
	if err != nil {
		return "", fmt.Errorf("read the executable: %w", err)
	}
	if m.facts.binary != sum {
		if err := r.upload(ctx, m, sum); err != nil {
			return "", err
		}
		m.changed = append(m.changed, model.PathBinary)
	}
	todo := missing(m.want, m.facts)
	if len(todo) > 0 || !m.facts.enabled {
		if err := place(ctx, m.remote, todo); err != nil {
			return "", err
		}
	}
	for _, f := range todo {
		m.changed = append(m.changed, f.path)
	}
	if len(m.changed) == 0 {
		return "-", nil
	}
	r.Log.Info("copied", "node", m.node.Name, "files", m.changed)
	detail = count(len(m.changed), "file")
	if m.renewed != "" {
		detail += "; certificate renewed (" + m.renewed + ")"
	}
	return detail, nil
}

func (r *run) upload(ctx context.Context, m *machine, sum string) error {
	to := ssh.File{Path: model.PathBinary, Mode: 0o755, SHA256: sum}
	if m.remote.RTT() >= slowLink {
		packed, err := r.binary.packed()
		if err != nil {
			return fmt.Errorf("compress the executable: %w", err)
		}
		to.Decompress = "gzip -dc"
		return m.remote.Upload(ctx, to, bytes.NewReader(packed))
	}
	f, err := os.Open(r.binary.path)
	if err != nil {
		return fmt.Errorf("read the executable: %w", err)
	}
	defer f.Close()
	return m.remote.Upload(ctx, to, f)
}

// place puts files into their places: first all onto the disk in a folder that only root
// can enter, then one after the other by rename. They come on standard input.
func place(ctx context.Context, remote *ssh.Client, files []file) error {
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	script := prologue
	dirs := map[string]bool{}
	for i, f := range files {
		name := strconv.Itoa(i)
		// Nobody but root can read them before they have their owner.
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(f.content)), Typeflag: tar.TypeReg}); err != nil {
			return fmt.Errorf("pack files: %w", err)
		}
		if _, err := w.Write(f.content); err != nil {
			return fmt.Errorf("pack files: %w", err)
		}
		script += fmt.Sprintf("chown %s $stage/%s\nchmod %04o $stage/%s\nmv -f $stage/%s %s\n", f.owner, name, f.mode, name, name, f.path)
		dirs[path.Dir(f.path)] = true
	}
	if err := w.Close(); err != nil {
		return fmt.Errorf("pack files: %w", err)
	}
	for d := range dirs {
		script += "sync " + d + "\n"
	}
	script += "systemctl enable --quiet --no-reload " + unitSocket + " " + UnitAgent + "\nsystemctl daemon-reload\n"
	if _, err := remote.Run(ctx, script, &archive); err != nil {
		return fmt.Errorf("put files into place: %w", err)
	}
	return nil
}

// prologue makes group and folders, and unpacks the files. /etc/nines may be passed
// through by daemons that read the TLS files, but not listed.
const prologue = `set -e
umask 022
getent group ` + model.GroupTLS + ` >/dev/null || groupadd --system ` + model.GroupTLS + `
install -d -m 0711 ` + model.PathConfig + `
install -d -m 0755 ` + model.PathConfig + `/tls
install -d -m 0700 ` + model.PathState + `
stage=` + model.PathConfig + `/.bootstrap
rm -rf $stage
trap 'rm -rf $stage' EXIT
install -d -m 0700 $stage
tar -x -m --no-same-owner -f - -C $stage
find $stage -type f -exec sync {} +
`

// stopStart starts both units from nothing. systemd refuses to start a socket whose service
// is up, and a health check may start the service in between: both stop first.
const stopStart = "systemctl stop " + unitSocket + " " + UnitAgent + " && systemctl start " + unitSocket + " " + UnitAgent

// startAgent starts an agent that does not run, or that does nothing but crash.
func startAgent(ctx context.Context, m *machine) error {
	return control(ctx, m, stopStart)
}

// restartAgent restarts an agent that runs. Its socket stays open unless it changed itself.
func restartAgent(ctx context.Context, m *machine) error {
	if slices.Contains(m.changed, unitDir+unitSocket) {
		return control(ctx, m, stopStart)
	}
	return control(ctx, m, "systemctl restart "+UnitAgent)
}

// control runs a systemctl command; when it fails, the agent's last words tell why.
func control(ctx context.Context, m *machine, script string) error {
	_, err := m.remote.Run(ctx, script, nil)
	if err == nil || ctx.Err() != nil {
		return err
	}
	var exit *ssh.ExitError
	words := journal(ctx, m)
	if !errors.As(err, &exit) || words == "" {
		return fmt.Errorf("start the agent: %w", err)
	}
	// What systemctl says is only where to look.
	return &AgentError{Node: m.node.Name, Text: "the agent did not start", Journal: words, Err: err}
}

// journal returns the agent's last lines, "" when there are none.
func journal(ctx context.Context, m *machine) string {
	if m.remote == nil {
		return ""
	}
	out, err := m.remote.Run(ctx, "journalctl -u "+UnitAgent+" -n 8 --no-pager -o cat", nil)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out.Stdout))
}
