package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
	"golang.org/x/sync/errgroup"

	"nines/internal/config"
	"nines/internal/model"
	"nines/internal/progress"
)

// Options say which lab is wanted.
type Options struct {
	Name    string // default "lab"
	Profile string // default DefaultProfile
	// Bare leaves all packages of services out of the machines.
	Bare bool
	// Set holds overrides of cluster.yaml, PATH=VALUE each.
	Set []string
	// Supervisor is the command line of the lab's supervisor process, to which
	// the lab's name is added; default: this program with "lab serve".
	Supervisor []string
}

// DefaultName is the name of a lab that is given none.
const DefaultName = "lab"

// Up brings the lab's machines up: on return SSH answers on every one and
// cluster.yaml is written. It does nothing about services. What an earlier,
// perhaps interrupted, call did is kept and completed.
func Up(ctx context.Context, o Options, emit progress.Emit) (*Lab, error) {
	o = o.withDefaults()
	p, err := findProfile(o.Profile)
	if err != nil {
		return nil, err
	}
	if err := checkName(o.Name); err != nil {
		return nil, err
	}
	facts := model.Releases[model.Debian13]
	spec := newImageSpec(facts, p.services)
	// A wrong override is said now, and not after the image was built.
	fresh := &Lab{state: state{Name: o.Name, Profile: o.Profile, Bare: o.Bare, Nodes: p.nodes, Image: spec.layers()}}
	document, err := fresh.clusterYAML(spec.Suite)
	if err == nil {
		document, err = config.Override(document, o.Set)
	}
	if err != nil {
		return nil, err
	}
	if err := preflight(ctx, o, p.forCluster(document), spec, emit); err != nil {
		return nil, err
	}
	unlock, err := lockLab(ctx, filepath.Join(runRoot, o.Name+".lock"))
	if err != nil {
		return nil, err
	}
	defer unlock()
	l, err := prepare(ctx, o, fresh, spec, emit)
	if err != nil {
		return nil, err
	}
	if err := l.startMachines(ctx, emit); err != nil {
		return nil, err
	}
	return l, nil
}

func (o Options) withDefaults() Options {
	if o.Name == "" {
		o.Name = DefaultName
	}
	if o.Profile == "" {
		o.Profile = DefaultProfile
	}
	if len(o.Supervisor) == 0 {
		self, err := os.Executable()
		if err != nil {
			self = "/proc/self/exe"
		}
		o.Supervisor = []string{self, "lab", "serve"}
	}
	return o
}

// prepare makes everything that is there before a machine has power: image,
// files, network, supervisor. fresh is the lab as it is when there is none yet.
func prepare(ctx context.Context, o Options, fresh *Lab, spec imageSpec, emit progress.Emit) (*Lab, error) {
	l, err := Find(o.Name)
	if errors.Is(err, ErrNotFound) {
		l, err = fresh, nil
		l.state.Created = time.Now().UTC()
	}
	if err != nil {
		return nil, err
	}
	if l.state.Profile != o.Profile || l.state.Bare != o.Bare {
		return nil, fmt.Errorf("lab %s exists with profile %s, bare %t: take it down first, or choose another --name", o.Name, l.state.Profile, l.state.Bare)
	}
	if err := l.ensureLayers(ctx, spec, emit); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(l.Dir(), 0o700); err != nil {
		return nil, err
	}
	if err := l.save(); err != nil {
		return nil, err
	}
	if err := l.ensureKeys(); err != nil {
		return nil, err
	}
	if err := l.ensureBMCs(); err != nil {
		return nil, err
	}
	if err := l.writeCluster(spec.Suite, o.Set); err != nil {
		return nil, err
	}
	if err := l.makeNetwork(); err != nil {
		return nil, err
	}
	return l, l.startSupervisor(ctx, o.Supervisor)
}

// ensureLayers builds the image of a new lab. One that exists goes on with the
// image it was made with: its disks are layers over that and no other.
func (l *Lab) ensureLayers(ctx context.Context, spec imageSpec, emit progress.Emit) error {
	if l.state.Image == spec.layers() {
		_, err := ensureImage(ctx, spec, emit)
		return err
	}
	if !l.state.Image.cached() {
		return fmt.Errorf("lab %s was made with an image that is gone: nines lab down --name %s, then up again", l.Name(), l.Name())
	}
	return nil
}

// writeCluster writes cluster.yaml with the overrides, and the repository's
// key beside it. A file that is there is the operator's: only overrides are set in it.
func (l *Lab) writeCluster(suite string, set []string) error {
	document, err := os.ReadFile(l.ClusterFile())
	if errors.Is(err, fs.ErrNotExist) {
		document, err = l.clusterYAML(suite)
	}
	if err != nil {
		return fmt.Errorf("cluster.yaml: %w", err)
	}
	document, err = config.Override(document, set)
	if err != nil {
		return err
	}
	key, err := os.ReadFile(filepath.Join(l.state.Image.Repository, keyName))
	if err != nil {
		return fmt.Errorf("key of the lab's repository: %w", err)
	}
	if err := writeFileAtomic(filepath.Join(l.Dir(), keyName), key, 0o644); err != nil {
		return err
	}
	return writeFileAtomic(l.ClusterFile(), document, 0o600)
}

// startMachines makes and boots all machines at once and waits for SSH.
func (l *Lab) startMachines(ctx context.Context, emit progress.Emit) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, n := range l.state.Nodes {
		group.Go(func() error {
			start := time.Now()
			event := progress.Event{ID: "machine/" + n.Name, Title: "machine " + n.Name, State: progress.Running}
			step := func(detail string) { event.Detail = detail; emit(event) }
			err := l.startMachine(ctx, n, step)
			event.State, event.Detail, event.Took = progress.Done, "SSH answers at "+n.Management, time.Since(start)
			if err != nil {
				event.State, event.Detail = progress.Failed, err.Error()
			}
			emit(event)
			return err
		})
	}
	return group.Wait()
}

func (l *Lab) startMachine(ctx context.Context, n nodeSpec, step func(string)) error {
	step("make its disk")
	if err := l.createMachine(ctx, n); err != nil {
		return fmt.Errorf("machine %s: %w", n.Name, err)
	}
	step("boot")
	if err := l.PowerOn(ctx, n.Name); err != nil {
		return err
	}
	step("wait for SSH")
	return l.awaitSSH(ctx, n)
}

// awaitSSH returns when one can log in to the machine with the lab's key and
// the machine shows the host key it was given.
func (l *Lab) awaitSSH(ctx context.Context, n nodeSpec) error {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	config, err := l.sshConfig()
	if err != nil {
		return err
	}
	var last error
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		last = l.tryLogin(n.Management+":22", config)
		if last == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("machine %s: no SSH login within a minute (console: %s): %w", n.Name,
				l.console(n.Name), errors.Join(last, context.Cause(ctx)))
		case <-tick.C:
		}
	}
}

func (l *Lab) sshConfig() (*ssh.ClientConfig, error) {
	raw, err := os.ReadFile(filepath.Join(l.sshDir(), identityName))
	if err != nil {
		return nil, err
	}
	signer, err := ssh.ParsePrivateKey(raw)
	if err != nil {
		return nil, fmt.Errorf("SSH key of lab %s: %w", l.Name(), err)
	}
	known, err := knownhosts.New(filepath.Join(l.sshDir(), knownHostsName))
	if err != nil {
		return nil, fmt.Errorf("known hosts of lab %s: %w", l.Name(), err)
	}
	return &ssh.ClientConfig{
		User: "root", Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, HostKeyCallback: known,
		HostKeyAlgorithms: []string{ssh.KeyAlgoED25519},
	}, nil
}

// tryLogin logs in once and out again.
func (l *Lab) tryLogin(address string, config *ssh.ClientConfig) error {
	client, err := l.login(address, config)
	if err != nil {
		return err
	}
	return client.Close()
}

func (l *Lab) login(address string, config *ssh.ClientConfig) (*ssh.Client, error) {
	raw, err := dialIn(l.Netns(), address, time.Second)
	if err != nil {
		return nil, err
	}
	if err := raw.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		raw.Close()
		return nil, err
	}
	conn, channels, requests, err := ssh.NewClientConn(raw, address, config)
	if err == nil {
		err = raw.SetDeadline(time.Time{})
	}
	if err != nil {
		raw.Close()
		return nil, err
	}
	return ssh.NewClient(conn, channels, requests), nil
}

// dialIn connects over TCP from inside the network namespace at path.
func dialIn(path, address string, timeout time.Duration) (conn net.Conn, err error) {
	err = onLabNetwork(path, func() (err error) {
		conn, err = net.DialTimeout("tcp", address, timeout)
		return err
	})
	return conn, err
}
