package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"nines/internal/model"
)

// supervisorMember is the control group of the supervisor process.
const supervisorMember = "supervisor"

// Forward is a port of the cluster that can be reached from the host.
type Forward struct {
	Name   string `json:"name"`
	Local  string `json:"local"`  // address on the host, always on 127.0.0.1
	Target string `json:"target"` // address in the lab
}

// supervisorState is what the supervisor says of itself, in supervisor.json.
type supervisorState struct {
	PID      int       `json:"pid"`
	Forwards []Forward `json:"forwards"`
}

// forwarded lists the ports of the VIP that get a port on the host, the same
// number where that is free.
var forwarded = []struct {
	name string
	port int
}{
	{"keystone", model.PortKeystone},
}

func (l *Lab) supervisorFile() string { return filepath.Join(l.runDir(), "supervisor.json") }

// startSupervisor makes sure that the lab's supervisor runs and serves: a
// process of its own that outlives this one.
func (l *Lab) startSupervisor(ctx context.Context, command []string) error {
	if l.repositoryServes() {
		return nil
	}
	// One that runs but does not serve is of no use.
	if err := killCgroup(time.Now().Add(10*time.Second), l.Name(), supervisorMember); err != nil {
		return err
	}
	logFile := filepath.Join(l.Dir(), "supervisor.log")
	args, err := joining(append(command, "--name", l.Name()), l.Name(), supervisorMember)
	if err != nil {
		return err
	}
	cmd, err := detached(args, logFile)
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start supervisor of lab %s: %w", l.Name(), err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !l.repositoryServes() {
		select {
		case err := <-exited:
			tail, _ := os.ReadFile(logFile)
			return fmt.Errorf("supervisor of lab %s ended: %w\n%s", l.Name(), errors.Join(err, errors.New("see "+logFile)), lastLines(tail, 5))
		case <-ctx.Done():
			return fmt.Errorf("supervisor of lab %s does not serve (see %s): %w", l.Name(), logFile, ctx.Err())
		case <-tick.C:
		}
	}
	return nil
}

// repositoryServes reports whether the package repository answers in the lab.
func (l *Lab) repositoryServes() bool {
	conn, err := dialIn(l.Netns(), repositoryAddress(), time.Second)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

// Serve is the lab's supervisor: it serves the package repository in the lab, is the machines' BMCs, gives machines that boot less of the processors,
// and forwards ports of 127.0.0.1 into the lab, until ctx ends.
func Serve(ctx context.Context, name string, log *slog.Logger) error {
	l, err := Find(name)
	if err != nil {
		return err
	}
	// The BMCs first: who finds the repository takes all for ready.
	bmcs, err := l.listenBMCs(log)
	if err != nil {
		return err
	}
	repository, err := listenIn(l.Netns(), repositoryAddress())
	if err != nil {
		return fmt.Errorf("package repository: %w", err)
	}
	server := &http.Server{
		Handler:           http.FileServer(http.Dir(l.state.Image.Repository)),
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	listeners, forwards, err := listenForwards()
	if err != nil {
		return errors.Join(err, repository.Close())
	}
	if err := l.saveSupervisor(forwards); err != nil {
		return errors.Join(err, repository.Close())
	}
	log.Info("serving", "lab", name, "repository", repositoryAddress(), "forwards", forwards)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return ignoreClosed(server.Serve(repository)) })
	for _, b := range bmcs {
		group.Go(func() error { return ignoreClosed(b.server.ServeTLS(b.listener, "", "")) })
	}
	group.Go(func() error { return l.share(ctx) })
	for i, listener := range listeners {
		group.Go(func() error { return l.forward(listener, forwards[i].Target, log) })
	}
	group.Go(func() error {
		<-ctx.Done()
		for _, listener := range listeners {
			listener.Close()
		}
		for _, b := range bmcs {
			b.server.Close()
		}
		return server.Close()
	})
	return group.Wait()
}

// bmcServer is one machine's BMC at work.
type bmcServer struct {
	listener net.Listener
	server   *http.Server
}

// listenBMCs opens the BMC of every machine that has one.
func (l *Lab) listenBMCs(log *slog.Logger) ([]bmcServer, error) {
	passwords, err := l.BMCPasswords()
	if err != nil {
		return nil, err
	}
	var out []bmcServer
	for _, n := range l.state.Nodes {
		if n.BMC == "" {
			continue
		}
		for _, level := range n.levels() {
			s, err := l.listenLevel(n, level, passwords[level.Key()], log)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", level, err)
			}
			out = append(out, s)
		}
	}
	return out, nil
}

// listenLevel opens one of a machine's BMCs. Only the first has faults.
func (l *Lab) listenLevel(n nodeSpec, level model.Level, password string, log *slog.Logger) (s bmcServer, err error) {
	mode := func() BMCMode { return l.bmcMode(n.Name) }
	if level.Number > 1 {
		mode = func() BMCMode { return BMCOK }
	}
	conf, err := l.bmcTLS(n, mode)
	if err != nil {
		return s, err
	}
	listener, err := listenBMC(l.Netns(), net.JoinHostPort(level.BMC.Address, bmcPort))
	if err != nil {
		return s, err
	}
	b := &redfish{node: n.Name, user: level.BMC.User, password: password, machine: bmcPower{l, n.Name}, mode: mode, log: log}
	return bmcServer{listener, &http.Server{Handler: b.handler(), TLSConfig: conf, ReadHeaderTimeout: 10 * time.Second,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}}, nil
}

// listenBMC listens at the address of a BMC, also while a dead one's address is nobody's.
func listenBMC(path, address string) (listener net.Listener, err error) {
	free := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var set error
		err := c.Control(func(fd uintptr) { set = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_FREEBIND, 1) })
		return errors.Join(err, set)
	}}
	err = onLabNetwork(path, func() (err error) {
		listener, err = free.Listen(context.Background(), "tcp", address)
		return err
	})
	return listener, err
}

func (l *Lab) saveSupervisor(forwards []Forward) error {
	raw, err := json.Marshal(supervisorState{PID: os.Getpid(), Forwards: forwards})
	if err != nil {
		return err
	}
	return writeFileAtomic(l.supervisorFile(), raw, 0o600)
}

// readSupervisor returns what the supervisor said of itself; nothing when it
// has not started yet.
func (l *Lab) readSupervisor() (supervisorState, error) {
	raw, err := os.ReadFile(l.supervisorFile())
	if errors.Is(err, fs.ErrNotExist) {
		return supervisorState{}, nil
	}
	var s supervisorState
	if err == nil {
		err = json.Unmarshal(raw, &s)
	}
	if err != nil {
		return s, fmt.Errorf("supervisor of lab %s: %w", l.Name(), err)
	}
	return s, nil
}

// listenForwards opens the host's side of every forward.
func listenForwards() ([]net.Listener, []Forward, error) {
	var listeners []net.Listener
	var forwards []Forward
	for _, f := range forwarded {
		port := strconv.Itoa(f.port)
		listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", port))
		if err != nil { // taken, perhaps by another lab
			listener, err = net.Listen("tcp", "127.0.0.1:0")
		}
		if err != nil {
			return nil, nil, fmt.Errorf("forward of %s: %w", f.name, err)
		}
		listeners = append(listeners, listener)
		forwards = append(forwards, Forward{Name: f.name, Local: listener.Addr().String(), Target: net.JoinHostPort(vipAddress, port)})
	}
	return listeners, forwards, nil
}

// forward hands every connection of the listener to target in the lab.
func (l *Lab) forward(listener net.Listener, target string, log *slog.Logger) error {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return ignoreClosed(err)
		}
		go func() {
			if err := l.relay(conn, target); err != nil {
				log.Warn("forward", "target", target, "error", err)
			}
		}()
	}
}

// relay copies between conn and a new connection to target until both sides are done.
func (l *Lab) relay(conn net.Conn, target string) error {
	defer conn.Close()
	inner, err := dialIn(l.Netns(), target, 5*time.Second)
	if err != nil {
		return err
	}
	defer inner.Close()
	var copies sync.WaitGroup
	for _, pair := range [][2]net.Conn{{conn, inner}, {inner, conn}} {
		copies.Go(func() {
			_, _ = io.Copy(pair[0], pair[1]) // how it ended is the clients' business
			if half, ok := pair[0].(*net.TCPConn); ok {
				_ = half.CloseWrite()
			}
		})
	}
	copies.Wait()
	return nil
}

// listenIn opens a TCP listener inside the network namespace at path.
func listenIn(path, address string) (listener net.Listener, err error) {
	err = onLabNetwork(path, func() (err error) {
		listener, err = net.Listen("tcp", address)
		return err
	})
	return listener, err
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) || errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}
