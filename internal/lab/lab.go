// Package lab makes machines out of one machine: whole Debian systems with
// systemd in containers, each with its own disk, network interfaces, process
// tree and power button, in a network of their own.
//
// Invariants:
//   - No address, route or firewall rule of the host's network is touched: all
//     interfaces live in network namespaces of the lab.
//   - Everything a lab consists of can be found without its state file: its
//     processes are the ones in its control groups, its mounts lie below its
//     directories, its loop devices are backed by its files. Down relies on that.
//   - A power cut loses what was not flushed to disk, and says goodbye to nobody.
//
// It must never know what a service is, and nothing below it may know that a
// node is a container: to the rest of nines a lab is a cluster.yaml.
package lab

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"nines/internal/model"
)

// Where labs live. A lab has one directory of its name in the first two.
const (
	stateRoot = "/var/lib/nines-lab"   // files that survive a reboot of the host
	runRoot   = "/run/nines-lab"       // mount points and namespaces
	cacheRoot = "/var/cache/nines-lab" // images, shared by all labs
)

// ErrNotFound says that there is no lab of that name.
var ErrNotFound = errors.New("no such lab")

// namePattern keeps names short enough for paths of sockets and safe in all
// the places they are used in (host names, control groups, directories).
var namePattern = regexp.MustCompile(`^[a-z][a-z0-9-]{0,19}$`)

// Lab is one lab of this host, running or not.
type Lab struct {
	state state
}

// state is what lab.json holds.
type state struct {
	Name    string     `json:"name"`
	Profile string     `json:"profile"`
	Bare    bool       `json:"bare"`
	Created time.Time  `json:"created"`
	Image   image      `json:"image"`
	Nodes   []nodeSpec `json:"nodes"`
}

// nodeSpec is one machine as its profile wants it.
type nodeSpec struct {
	Name       string `json:"name"`
	Management string `json:"management"` // address without prefix length
	External   string `json:"external"`
	// BMC is the address of its BMC, on the management network; empty: it has none.
	BMC string `json:"bmc,omitempty"`
	// Tenant is the address for tunnels between instances; empty: the machine has no part in them.
	Tenant string `json:"tenant,omitempty"`
	// Role is what the machine is for; empty: a controller.
	Role model.Role `json:"role,omitempty"`
}

func (n nodeSpec) role() model.Role { return cmp.Or(n.Role, model.RoleController) }

// Find returns the lab of that name, or ErrNotFound.
func Find(name string) (*Lab, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	raw, err := os.ReadFile(filepath.Join(stateRoot, name, "lab.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("lab %q: %w (nines lab up --name %s makes it)", name, ErrNotFound, name)
	}
	if errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("labs need root; run it with sudo: %w", err)
	}
	if err != nil {
		return nil, fmt.Errorf("lab %q: %w", name, err)
	}
	l := &Lab{}
	if err := json.Unmarshal(raw, &l.state); err != nil {
		return nil, fmt.Errorf("lab %q: lab.json is damaged (nines lab down --name %s removes the lab): %w", name, name, err)
	}
	return l, nil
}

// All returns every lab of this host, ordered by name. Labs whose state file
// cannot be read are left out; Down still removes them.
func All() ([]*Lab, error) {
	entries, err := os.ReadDir(stateRoot)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list labs: %w", err)
	}
	var labs []*Lab
	for _, e := range entries {
		if l, err := Find(e.Name()); err == nil {
			labs = append(labs, l)
		}
	}
	return labs, nil
}

// Leftover returns a handle on whatever is left of a lab that has no readable
// state: good for Down only.
func Leftover(name string) (*Lab, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	return &Lab{state: state{Name: name}}, nil
}

// Name is the lab's name, unique on this host.
func (l *Lab) Name() string { return l.state.Name }

// Dir is where the lab's files are: cluster.yaml, ssh/, nodes/.
func (l *Lab) Dir() string { return filepath.Join(stateRoot, l.state.Name) }

// ClusterFile is the lab's cluster.yaml.
func (l *Lab) ClusterFile() string { return filepath.Join(l.Dir(), "cluster.yaml") }

// Netns is the path of the lab's network namespace, for setns.
func (l *Lab) Netns() string { return filepath.Join(l.runDir(), "netns") }

// Nodes returns the names of the lab's machines.
func (l *Lab) Nodes() []string {
	names := make([]string, 0, len(l.state.Nodes))
	for _, n := range l.state.Nodes {
		names = append(names, n.Name)
	}
	return names
}

func (l *Lab) runDir() string { return filepath.Join(runRoot, l.state.Name) }

func (l *Lab) node(name string) (nodeSpec, error) {
	i := slices.IndexFunc(l.state.Nodes, func(n nodeSpec) bool { return n.Name == name })
	if i < 0 {
		return nodeSpec{}, fmt.Errorf("lab %s has no node %q; its nodes are %s", l.Name(), name, strings.Join(l.Nodes(), ", "))
	}
	return l.state.Nodes[i], nil
}

// save writes lab.json atomically.
func (l *Lab) save() error {
	raw, err := json.MarshalIndent(l.state, "", "  ")
	if err != nil {
		return fmt.Errorf("lab state: %w", err)
	}
	return writeFileAtomic(filepath.Join(l.Dir(), "lab.json"), append(raw, '\n'), 0o600)
}

func checkName(name string) error {
	if !namePattern.MatchString(name) {
		return fmt.Errorf("lab name %q: use 1 to 20 lower-case letters, digits and '-', starting with a letter", name)
	}
	return nil
}

// writeFileAtomic replaces path so that a reader, or a crash, sees the old or
// the new content and nothing between.
func writeFileAtomic(path string, content []byte, mode fs.FileMode) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer os.Remove(tmp.Name()) // no effect after the rename
	_, err = tmp.Write(content)
	if err == nil {
		err = tmp.Chmod(mode)
	}
	if err == nil {
		err = tmp.Sync()
	}
	if closeErr := tmp.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
