package lab

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// buildBase makes the base layer in dir/root. It runs on a thread with private mounts.
func buildBase(ctx context.Context, spec imageSpec, source mirror, dir string, step func(string)) error {
	root := filepath.Join(dir, "root")
	args := []string{"debootstrap", "--variant=minbase", "--include=" + strings.Join(spec.Base, ","), spec.Suite, root}
	if source.URI != "" {
		args = append(args, source.URI)
	}
	if err := runBuild(ctx, build{args: args, step: debootstrapStep(step)}); err != nil {
		if tail, readErr := os.ReadFile(filepath.Join(root, "debootstrap/debootstrap.log")); readErr == nil {
			err = fmt.Errorf("%w\n%s", err, lastLines(tail, 5))
		}
		return err
	}
	if err := makeAnonymous(root); err != nil {
		return err
	}
	return installGuestFiles(root)
}

// debootstrapStep turns debootstrap's lines into short steps.
func debootstrapStep(step func(string)) func(string) {
	return func(line string) {
		if text, ok := strings.CutPrefix(line, "I: "); ok {
			step(strings.ToLower(text[:1]) + text[1:])
		}
	}
}

// makeAnonymous removes what must differ between machines made of the layer,
// and what only the build needed. The archive that was used stays in
// sources.list for the build of the next layer.
func makeAnonymous(root string) error {
	keys, err := filepath.Glob(filepath.Join(root, "etc/ssh/ssh_host_*"))
	if err != nil {
		return err
	}
	debs, err := filepath.Glob(filepath.Join(root, "var/cache/apt/archives/*.deb"))
	if err != nil {
		return err
	}
	lists, err := filepath.Glob(filepath.Join(root, "var/lib/apt/lists/*"))
	if err != nil {
		return err
	}
	for _, path := range append(append(keys, debs...), lists...) {
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(root, "etc/machine-id"), nil, 0o444)
}

// build is one command of an image build.
type build struct {
	args []string
	root string       // chroot; empty: the host
	env  []string     // beside the fixed ones
	step func(string) // gets each line of output, may be nil
}

// runBuild runs the command in a process namespace of its own, so that nothing
// it starts outlives it. It must be called on the thread that prepared the mounts.
func runBuild(ctx context.Context, b build) error {
	path, err := exec.LookPath(b.args[0])
	if b.root != "" { // looked up inside by the PATH below; chroot makes the host's answer wrong
		path, err = "/usr/bin/env", nil
		b.args = append([]string{"env"}, b.args...)
	}
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, path)
	cmd.Args = b.args
	cmd.Dir = "/"
	cmd.Env = append([]string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/root", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive", "DEBCONF_NONINTERACTIVE_SEEN=true",
	}, append(proxyEnvironment(), b.env...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Chroot:     b.root,
		Cloneflags: unix.CLONE_NEWPID,
		Pdeathsig:  unix.SIGKILL,
		Setsid:     true,
	}
	var tail bytes.Buffer
	reader, writer := io.Pipe()
	cmd.Stdout, cmd.Stderr = writer, writer
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		lines := bufio.NewScanner(reader)
		for lines.Scan() {
			if b.step != nil {
				b.step(lines.Text())
			}
			tail.WriteString(lines.Text() + "\n")
		}
		_, _ = io.Copy(io.Discard, reader)
	}()
	err = cmd.Run()
	writer.Close()
	<-copied
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", b.args[0], err, lastLines(tail.Bytes(), 12))
	}
	return nil
}

var proxyLine = regexp.MustCompile(`(?m)^Acquire::(https?)::Proxy "([^"]+)";`)

// proxyEnvironment hands the host's proxies, of the environment or else of
// apt, to programs of the build.
func proxyEnvironment() []string {
	var env []string
	for _, name := range []string{"http_proxy", "https_proxy", "no_proxy"} {
		if value := os.Getenv(name); value != "" {
			env = append(env, name+"="+value)
		}
	}
	if len(env) > 0 {
		return env
	}
	out, err := exec.Command("apt-config", "dump").Output()
	if err != nil { // no apt on this host
		return nil
	}
	for _, match := range proxyLine.FindAllStringSubmatch(string(out), -1) {
		env = append(env, strings.ToLower(match[1])+"_proxy="+match[2])
	}
	return env
}

// lastLines returns the last n lines of text, enough to see why it failed.
func lastLines(text []byte, n int) string {
	lines := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// mountKernelFilesystems makes root usable for chroot: /proc, /dev and name resolution.
func mountKernelFilesystems(root string) error {
	for _, dir := range []string{"proc", "dev", "sys"} {
		target := filepath.Join(root, dir)
		if err := os.MkdirAll(target, 0o755); err != nil {
			return err
		}
		if err := unix.Mount("/"+dir, target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("bind /%s: %w", dir, err)
		}
	}
	return nil
}

// mountOverlay mounts an overlay at target and makes the directories it needs.
func mountOverlay(lower, upper, work, target string) error {
	for _, dir := range []string{upper, work, target} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	// redirect_dir: without it, renaming a directory of a lower layer fails,
	// which it does not on a real server.
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s,redirect_dir=on", lower, upper, work)
	err := unix.Mount("overlay", target, "overlay", 0, options)
	if errors.Is(err, unix.ENODEV) {
		return errors.New("this kernel has no overlay file system")
	}
	if err != nil {
		return fmt.Errorf("mount overlay at %s: %w", target, err)
	}
	return nil
}
