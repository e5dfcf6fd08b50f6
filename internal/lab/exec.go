package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"golang.org/x/sys/unix"
)

// enterMark stops a process that cannot get in from trying for ever.
const enterMark = "NINES_LAB_ENTERED"

// Enter puts this process into the lab's network: it replaces itself with a
// new start of the same command inside, so that every socket lives there. In
// the lab already, it returns nil. Mounts and everything else stay the host's.
func (l *Lab) Enter() error {
	inside, err := sameNetwork(l.Netns())
	if err != nil {
		return fmt.Errorf("network of lab %s (is it up?): %w", l.Name(), err)
	}
	if inside {
		return nil
	}
	if os.Getenv(enterMark) == l.Name() {
		return fmt.Errorf("could not enter the network of lab %s", l.Name())
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("enter lab %s: %w", l.Name(), err)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := joinNetwork(l.Netns()); err != nil {
		return err
	}
	if err := joinClients(l.Name()); err != nil {
		return err
	}
	err = unix.Exec(self, os.Args, append(os.Environ(), enterMark+"="+l.Name()))
	return fmt.Errorf("enter lab %s: %w", l.Name(), err)
}

// ErrNoProgram says that the image has no program of that name.
var ErrNoProgram = errors.New("no such program")

// Exec replaces this process with a program inside the lab's network. It is
// the image's program, run with the image's files, because that has every
// client; with host it is the host's own program. The lab's directory, the
// current directory and /tmp are the host's in both cases.
func (l *Lab) Exec(args []string, host bool) error {
	if len(args) == 0 {
		return errors.New("no program given")
	}
	if err := requireRoot(); err != nil {
		return err
	}
	environment, err := l.clientEnvironment(host)
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := joinNetwork(l.Netns()); err != nil {
		return fmt.Errorf("%w (is lab %s up?)", err, l.Name())
	}
	if err := joinClients(l.Name()); err != nil {
		return err
	}
	if !host {
		if err := l.enterImage(); err != nil {
			return fmt.Errorf("files of the image: %w", err)
		}
	}
	if !host { // LookPath goes by this process's own variable
		if err := os.Setenv("PATH", programPath); err != nil {
			return err
		}
	}
	path, err := exec.LookPath(args[0])
	if err != nil {
		return fmt.Errorf("%s: %w", args[0], ErrNoProgram)
	}
	return fmt.Errorf("run %s: %w", path, unix.Exec(path, args, environment))
}

// SSHArgs is the command line, for Exec, that logs in to a machine.
func (l *Lab) SSHArgs(node string, command ...string) ([]string, error) {
	n, err := l.node(node)
	if err != nil {
		return nil, err
	}
	return append([]string{
		"ssh", "-F", "none", "-i", filepath.Join(l.sshDir(), identityName), "-o", "IdentitiesOnly=yes",
		"-o", "UserKnownHostsFile=" + filepath.Join(l.sshDir(), knownHostsName), "-o", "StrictHostKeyChecking=yes",
		"-o", "LogLevel=ERROR", "root@" + n.Management,
	}, command...), nil
}

// enterImage makes the image, with a writable layer in memory, the root of
// this thread. Nothing of it is visible to, or outlives, this process.
func (l *Lab) enterImage() error {
	here, err := os.Getwd()
	if err != nil {
		here = "/"
	}
	if err := privateMounts(""); err != nil {
		return err
	}
	scratch := filepath.Join(l.runDir(), "exec")
	root := filepath.Join(scratch, "root")
	if err := os.MkdirAll(scratch, 0o700); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", scratch, "tmpfs", 0, "mode=0755"); err != nil {
		return err
	}
	if err := mountOverlay(l.state.Image.lower(false), filepath.Join(scratch, "upper"), filepath.Join(scratch, "work"), root); err != nil {
		return err
	}
	if err := mountKernelFilesystems(root); err != nil {
		return err
	}
	binds := []string{l.Dir(), "/tmp"}
	if bindable(here) {
		binds = append(binds, here)
	}
	for _, dir := range binds {
		target := filepath.Join(root, dir)
		if err := os.MkdirAll(target, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(dir, target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("bind %s: %w", dir, err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "etc/hosts"), []byte(l.hosts()), 0o644); err != nil {
		return err
	}
	if err := unix.Chroot(root); err != nil {
		return err
	}
	if err := os.Chdir(here); err != nil {
		return os.Chdir("/")
	}
	return nil
}

// bindable reports whether the host's directory can stand at the same place in
// the image without hiding the image's own files.
func bindable(dir string) bool {
	top, _, _ := strings.Cut(strings.TrimPrefix(dir, "/"), "/")
	return dir != "/" && !slices.Contains([]string{
		"bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "proc", "run", "sbin", "sys", "tmp", "usr", "var",
	}, top)
}

// hosts names the lab's machines for clients.
func (l *Lab) hosts() string {
	lines := "127.0.0.1 localhost\n"
	for _, n := range l.state.Nodes {
		lines += n.Management + " " + n.Name + "\n"
	}
	return lines
}

const programPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// clientEnvironment is the environment of a client program: with OpenStack's
// variables pointing at the lab's clouds.yaml if there is one, and never at
// another cloud. The image's programs get nothing that is about the host's files.
func (l *Lab) clientEnvironment(host bool) ([]string, error) {
	env := os.Environ()
	if !host {
		env = slices.DeleteFunc(env, func(v string) bool { return !portable(v) })
		env = append(env, "PATH="+programPath)
	}
	env = slices.DeleteFunc(env, func(v string) bool {
		return strings.HasPrefix(v, enterMark+"=") || strings.HasPrefix(v, "OS_")
	})
	path := filepath.Join(l.Dir(), "clouds.yaml")
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return env, nil
	}
	var clouds struct {
		Clouds map[string]any `yaml:"clouds"`
	}
	if err == nil {
		err = yaml.Unmarshal(raw, &clouds)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	env = append(env, "OS_CLIENT_CONFIG_FILE="+path)
	if len(clouds.Clouds) == 1 {
		for name := range clouds.Clouds {
			env = append(env, "OS_CLOUD="+name)
		}
	}
	return env, nil
}

// portable reports whether a variable means the same in the image as on the host.
func portable(variable string) bool {
	name, _, _ := strings.Cut(variable, "=")
	return strings.HasPrefix(name, "LC_") ||
		slices.Contains([]string{"TERM", "COLORTERM", "LANG", "HOME", "USER", "LOGNAME", "TZ", "COLUMNS", "LINES"}, name)
}
