package lab

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"nines/internal/model"
)

// createMachine makes the machine's disk with its identity on it, unless it is
// there. A machine whose creation was interrupted is made anew: nothing of
// value is on it yet.
func (l *Lab) createMachine(ctx context.Context, node nodeSpec) error {
	marker := filepath.Join(l.Dir(), "nodes", node.Name, "created")
	if _, err := os.Stat(marker); err == nil {
		return nil
	}
	if err := l.takeApart(node); err != nil {
		return err
	}
	d := l.disk(node.Name)
	if err := d.format(ctx); err != nil {
		return err
	}
	err := inPrivateMounts(l.nodeRun(node.Name), func() error {
		if err := l.mountMachine(ctx, node); err != nil {
			return err
		}
		// Unmounting writes everything to the disk.
		return errors.Join(l.writeIdentity(node), l.writeSettled(node.Name), unmountBelow(time.Now().Add(10*time.Second), l.nodeRun(node.Name)))
	})
	if err != nil {
		return fmt.Errorf("disk of %s: %w", node.Name, err)
	}
	return writeFileAtomic(marker, nil, 0o600)
}

// mountMachine mounts the machine's disk and, over the image, its root file
// system, in the mount namespace of the calling thread. That must be one of the
// machine's own: were the disk mounted where other machines are started, they
// would keep its file system alive after the machine lost its power.
func (l *Lab) mountMachine(ctx context.Context, node nodeSpec) error {
	d := l.disk(node.Name)
	if err := d.attach(); err != nil {
		return err
	}
	return mountOverlay(l.state.Image.lower(l.state.Bare), filepath.Join(d.mount, "upper"), filepath.Join(d.mount, "work"), l.rootOf(node.Name))
}

// writeIdentity writes what makes the machine this one: names, keys, addresses.
func (l *Lab) writeIdentity(node nodeSpec) error {
	hostKey, err := os.ReadFile(l.hostKey(node.Name))
	if err != nil {
		return err
	}
	hostPublic, err := os.ReadFile(l.hostKey(node.Name) + ".pub")
	if err != nil {
		return err
	}
	authorized, err := os.ReadFile(filepath.Join(l.sshDir(), identityName+".pub"))
	if err != nil {
		return err
	}
	machineID := make([]byte, 16)
	if _, err := rand.Read(machineID); err != nil {
		return err
	}
	for _, f := range []struct {
		path    string
		content string
		mode    fs.FileMode
	}{
		{"etc/hostname", node.Name + "\n", 0o644},
		{"etc/hosts", fmt.Sprintf("127.0.0.1 localhost\n%s %s\n", node.Management, node.Name), 0o644},
		{"etc/machine-id", hex.EncodeToString(machineID) + "\n", 0o444},
		{"etc/resolv.conf", "", 0o644},
		{"etc/apt/sources.list", "# None: nines adds the lab's own repository.\n", 0o644},
		{"etc/lab-network", node.networkBatch(), 0o644},
		{"etc/ssh/ssh_host_ed25519_key", string(hostKey), 0o600},
		{"etc/ssh/ssh_host_ed25519_key.pub", string(hostPublic), 0o644},
		{"root/.ssh/authorized_keys", string(authorized), 0o600},
	} {
		path := filepath.Join(l.rootOf(node.Name), f.path)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		if err := removeIfThere(path); err != nil { // the image may have a link there
			return err
		}
		if err := os.WriteFile(path, []byte(f.content), f.mode); err != nil {
			return fmt.Errorf("identity of %s: %w", node.Name, err)
		}
	}
	return nil
}

// boot starts the machine and returns when its init runs.
func (l *Lab) boot(ctx context.Context, node nodeSpec) error {
	if err := l.plugIn(node, l.netnsOf(node.Name)); err != nil {
		return err
	}
	for _, dir := range l.shared() {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	console := l.console(node.Name)
	cmd, err := l.machineCommand(node, console)
	if err != nil {
		return err
	}
	err = inPrivateMounts(l.nodeRun(node.Name), func() error {
		if err := l.mountMachine(ctx, node); err != nil {
			return err
		}
		return cmd.Start() // it takes this thread's mounts with it
	})
	if err != nil {
		return fmt.Errorf("start %s: %w", node.Name, err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	return l.awaitInit(ctx, node, exited)
}

// nspawnCommand is how the machine is started.
func nspawnCommand(l *Lab, node nodeSpec) []string {
	args := []string{
		"systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit",
		"--directory=" + l.rootOf(node.Name),
		"--machine=" + machineName(l.Name(), node.Name), "--hostname=" + node.Name,
		"--network-namespace-path=" + l.netnsOf(node.Name),
		// IPC_LOCK: keepalived and corosync lock their memory.
		"--capability=CAP_NET_ADMIN,CAP_IPC_LOCK",
		"--private-users=no", "--resolv-conf=off", "--timezone=off", "--link-journal=no",
		"--console=read-only", "--kill-signal=SIGRTMIN+3",
	}
	// What virtual switches and virtual machines need of the kernel, where it has it.
	for _, device := range []string{"/dev/net/tun", "/dev/kvm"} {
		if _, err := os.Stat(device); err == nil {
			args = append(args, "--bind="+device)
		}
	}
	if profiles[l.state.Profile].images {
		for target, dir := range l.shared() {
			args = append(args, "--bind="+dir+":"+target)
		}
	}
	return args
}

// shared are the directories that all machines of the lab have in common, as a file server would give them: no machine's
// power cut loses what is in them. By where the machines have them: the defaults of images.directory and volumes.directory.
func (l *Lab) shared() map[string]string {
	return map[string]string{"/srv/images": filepath.Join(l.Dir(), "images"), "/srv/volumes": filepath.Join(l.Dir(), "volumes")}
}

// machineName is the name nspawn knows the machine by, unique on the host.
func machineName(lab, node string) string { return "nines-" + lab + "-" + node }

// The control groups of a machine, below the one of its name.
const (
	machineMember = "machine" // nspawn and everything in the machine
	watchMember   = "watch"   // the shell that boots it again
)

// joinScript puts the shell into the control groups whose cgroup.procs files
// it is given (their number first) and then becomes the command that follows.
const joinScript = `n=$1; shift; while [ "$n" -gt 0 ]; do echo 0 >"$1" || exit 125; shift; n=$((n-1)); done; exec "$@"`

// rebootScript runs the command again while it ends with 133: that is how
// systemd-nspawn with --keep-unit says that its machine wants to reboot.
const rebootScript = `while "$@"; [ $? -eq 133 ]; do :; done`

// joining puts the shell that joins the control group before the command.
func joining(args []string, lab string, member ...string) ([]string, error) {
	procs, err := makeCgroups(lab, member...)
	if err != nil {
		return nil, err
	}
	shell := append([]string{"/bin/sh", "-c", joinScript, "sh", strconv.Itoa(len(procs))}, procs...)
	return append(shell, args...), nil
}

// detached prepares a command in a session of its own with its output in a
// file, so that neither the end of this process nor its terminal's reaches it.
func detached(args []string, output string) (*exec.Cmd, error) {
	out, err := os.OpenFile(output, os.O_CREATE|os.O_WRONLY|os.O_TRUNC|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = out, out // a file: no goroutine of ours is needed to copy
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd, nil
}

// machineCommand prepares the detached processes of the machine: a shell that
// boots it again on reboot, and nspawn, each in a control group of its own
// below the machine's (in version 2 a group with groups below holds no process).
func (l *Lab) machineCommand(node nodeSpec, console string) (*exec.Cmd, error) {
	args, err := joining(nspawnCommand(l, node), l.Name(), node.Name, machineMember)
	if err != nil {
		return nil, err
	}
	if node.role() == model.RoleController { // keepalived runs in real time
		giveRealTime(l.Name(), node.Name, machineMember)
	}
	args, err = joining(append([]string{"/bin/sh", "-c", rebootScript, "sh"}, args...), l.Name(), node.Name, watchMember)
	if err != nil {
		return nil, err
	}
	cmd, err := detached(args, console)
	if err != nil {
		return nil, err
	}
	cmd.Env = append(os.Environ(),
		// systemd 257 and libvirt want the unified hierarchy, whatever the host has.
		"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1",
		// Sysctls of the machine's own network are its own to set.
		"SYSTEMD_NSPAWN_API_VFS_WRITABLE=network",
		// The lab's locks do; those of nspawn stay behind when it is killed.
		"SYSTEMD_NSPAWN_LOCK=0",
	)
	return cmd, nil
}

// console is the file with what the machine said on its console.
func (l *Lab) console(node string) string {
	return filepath.Join(l.Dir(), "nodes", node, "console.log")
}

// controls are what systemd writes on a console to colour words and to move about (ECMA-48, 5.4).
var controls = regexp.MustCompile("\x1b\\[[0-?]*[ -/]*[@-~]|\r")

// lastWords are the last lines on the machine's console, without what only a terminal understands.
func (l *Lab) lastWords(node string, n int) string {
	text, err := os.ReadFile(l.console(node))
	if err != nil {
		return ""
	}
	return lastLines(controls.ReplaceAll(text, nil), n)
}

// awaitInit watches until the machine's init runs.
func (l *Lab) awaitInit(ctx context.Context, node nodeSpec, exited <-chan error) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if pid, err := l.initOf(node.Name); err != nil || pid != 0 {
			return err
		}
		select {
		case err := <-exited:
			return fmt.Errorf("%s did not start: %w\n%s", node.Name, errors.Join(err, errors.New("systemd-nspawn ended")), l.lastWords(node.Name, 8))
		case <-ctx.Done():
			return fmt.Errorf("%s did not start: %w (console: %s)\n%s", node.Name, context.Cause(ctx), l.console(node.Name), l.lastWords(node.Name, 8))
		case <-tick.C:
		}
	}
}

// initOf returns the host's process ID of the machine's init, 0 when it is off.
func (l *Lab) initOf(node string) (int, error) {
	pids, err := cgroupProcesses(l.Name(), node)
	if err != nil {
		return 0, err
	}
	for _, pid := range pids {
		if !isInit(pid) {
			continue
		}
		// Between its start and execve it is still nspawn's own code.
		if comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); err == nil && strings.TrimSpace(string(comm)) == "systemd" {
			return pid, nil
		}
	}
	return 0, nil
}

// takeApart removes what a machine that is off left behind on the host: its
// processes, if any, interfaces, mounts and control groups. Its disk stays.
func (l *Lab) takeApart(node nodeSpec) error {
	deadline := time.Now().Add(20 * time.Second)
	if err := killCgroup(deadline, l.Name(), node.Name); err != nil {
		return err
	}
	if isNetworkNamespace(l.Netns()) {
		if err := l.unplug(node, l.netnsOf(node.Name)); err != nil {
			return err
		}
	}
	if err := unmountBelow(deadline, l.nodeRun(node.Name)); err != nil {
		return err
	}
	if err := awaitDetached(l.disk(node.Name).file); err != nil {
		return err
	}
	return errors.Join(removeCgroups(deadline, l.Name(), node.Name), removeNspawnFiles(machineName(l.Name(), node.Name)))
}

// removeNspawnFiles removes what systemd-nspawn leaves when it is killed. It
// removes them itself when it sees its machine die first.
func removeNspawnFiles(machine string) error {
	return errors.Join(
		os.RemoveAll(filepath.Join("/run/systemd/nspawn/propagate", machine)),
		os.RemoveAll(filepath.Join("/run/systemd/nspawn/unix-export", machine)),
	)
}
