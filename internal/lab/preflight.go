package lab

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"nines/internal/progress"
)

// CannotRunError says why this host cannot run a lab, before anything was
// started, and what works all the same.
type CannotRunError struct {
	Reason string
	Remedy string
}

func (e *CannotRunError) Error() string { return "this host cannot run a lab: " + e.Reason }

// Hint says what to do about it, and what works without a lab.
func (e *CannotRunError) Hint() string {
	return e.Remedy + "; without a lab, nines render still writes every file of every node, and needs no root"
}

// What is needed on the host, in bytes.
const (
	imageDisk  = 4 << 30 // while an image is built
	memoryBase = 300 << 20
)

// tools maps the host's programs a lab needs to the Debian package of each.
var tools = []struct{ program, pkg string }{
	{"systemd-nspawn", "systemd-container"},
	{"debootstrap", "debootstrap"},
	{"mkfs.ext4", "e2fsprogs"},
	{"nft", "nftables"},
}

// preflight finds everything that would stop a lab from coming up before
// anything is started, and installs the host packages it lacks.
func preflight(ctx context.Context, o Options, p profile, spec imageSpec, emit progress.Emit) error {
	start := time.Now()
	event := progress.Event{ID: "preflight", Title: "this host", State: progress.Running}
	emit(event)
	var err error
	for _, check := range []func() error{
		Supported,
		func() error { return requireMemory(o.Name, p) },
		func() error { return requireDisk(o.Name, p, spec) },
		func() error {
			return ensureTools(ctx, func(detail string) { event.Detail = detail; emit(event) })
		},
	} {
		if err = check(); err != nil {
			break
		}
	}
	event.State, event.Took, event.Detail = progress.Done, time.Since(start), ""
	if err != nil {
		event.State, event.Detail = progress.Failed, err.Error()
	}
	emit(event)
	return err
}

// Supported reports, as a *CannotRunError, what about this host itself (its
// permissions, its kernel) keeps labs from running on it.
func Supported() error {
	for _, check := range []func() error{requireRoot, requireMounts, requireLoop} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func requireRoot() error {
	if os.Geteuid() != 0 {
		return &CannotRunError{"it needs root for containers, mounts and networks, and this is user " + strconv.Itoa(os.Geteuid()), "run it with sudo"}
	}
	return nil
}

// requireMounts tries the kernel's permissions instead of guessing at them
// from signs of a container.
func requireMounts() error {
	err := inPrivateMounts("", func() error { return unix.Mount("tmpfs", "/tmp", "tmpfs", 0, "size=4k") })
	if err != nil {
		return &CannotRunError{fmt.Sprintf("it may not mount file systems (%v), as in a container without CAP_SYS_ADMIN", err), "use a virtual or real machine"}
	}
	for _, name := range []string{"overlay", "ext4"} {
		if !kernelHas(name) {
			return &CannotRunError{"its kernel has no " + name + " file system", "use a kernel that has it"}
		}
	}
	if _, err := hierarchies("/proc/thread-self/mountinfo"); err != nil {
		return &CannotRunError{err.Error(), "mount cgroup2 at /sys/fs/cgroup"}
	}
	return nil
}

// kernelHas reports whether the kernel has a file system, after trying to load it.
func kernelHas(filesystem string) bool {
	known := func() bool {
		raw, err := os.ReadFile("/proc/filesystems")
		return err == nil && slices.Contains(strings.Fields(string(raw)), filesystem)
	}
	if known() {
		return true
	}
	_ = exec.Command("modprobe", filesystem).Run() // the second look decides
	return known()
}

func requireLoop() error {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		_ = exec.Command("modprobe", "loop").Run() // the second look decides
		control, err = os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	}
	if err == nil {
		defer control.Close()
		var number int
		if number, err = unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE); err == nil {
			_, err = os.Stat(fmt.Sprintf("/dev/loop%d", number))
		}
	}
	if err != nil {
		return &CannotRunError{fmt.Sprintf("it has no usable loop devices (%v)", err), "load the loop module, or use a virtual or real machine"}
	}
	return nil
}

// requireMemory compares what the machines that are not running yet need with
// what the kernel says it can give without swapping.
func requireMemory(name string, p profile) error {
	missing, need := 0, uint64(memoryBase)
	for _, n := range p.nodes {
		if pids, err := cgroupProcesses(name, n.Name); err == nil && len(pids) == 0 {
			missing++
			need += p.memory[n.role()]
		}
	}
	if missing == 0 {
		return nil
	}
	raw, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return fmt.Errorf("memory of this host: %w", err)
	}
	have := availableMemory(raw)
	if have < need {
		return &CannotRunError{
			fmt.Sprintf("%s of memory are free and %d machines need %s", size(have), missing, size(need)),
			"free some, add some, or bring up the small cluster (nines lab up --profile core)",
		}
	}
	return nil
}

// availableMemory reads MemAvailable, in bytes, out of /proc/meminfo.
func availableMemory(meminfo []byte) uint64 {
	scanner := bufio.NewScanner(bytes.NewReader(meminfo))
	for scanner.Scan() {
		if rest, ok := strings.CutPrefix(scanner.Text(), "MemAvailable:"); ok {
			kb, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			if err == nil {
				return kb << 10
			}
		}
	}
	return 0
}

// requireDisk looks at the file systems the image and the machines' disks go to.
func requireDisk(name string, p profile, spec imageSpec) error {
	needs := map[string]uint64{}
	if !spec.layers().cached() {
		needs[cacheRoot] = imageDisk
	}
	for _, n := range p.nodes {
		if _, err := os.Stat(filepath.Join(stateRoot, name, "nodes", n.Name, "created")); err != nil {
			needs[stateRoot] += p.diskUse
		}
	}
	type filesystem struct {
		need, have uint64
		dirs       []string
	}
	all := map[uint64]*filesystem{}
	for dir, need := range needs {
		existing := dir
		for {
			if _, err := os.Stat(existing); err == nil {
				break
			}
			existing = filepath.Dir(existing)
		}
		var st unix.Stat_t
		var fsStat unix.Statfs_t
		if err := errors.Join(unix.Stat(existing, &st), unix.Statfs(existing, &fsStat)); err != nil {
			return fmt.Errorf("disk space of %s: %w", existing, err)
		}
		f := all[st.Dev]
		if f == nil {
			f = &filesystem{have: fsStat.Bavail * uint64(fsStat.Bsize)}
			all[st.Dev] = f
		}
		f.need += need
		f.dirs = append(f.dirs, dir)
	}
	for _, f := range all {
		if f.have < f.need {
			slices.Sort(f.dirs)
			return &CannotRunError{
				fmt.Sprintf("%s of disk are free for %s and the lab needs %s", size(f.have), strings.Join(f.dirs, " and "), size(f.need)),
				"free some, or mount a larger disk there",
			}
		}
	}
	return nil
}

// ensureTools installs the host's programs that are missing, where the host is
// a Debian we know, and names them otherwise.
func ensureTools(ctx context.Context, step func(string)) error {
	var missing []string
	for _, t := range tools {
		if _, err := exec.LookPath(t.program); err != nil {
			missing = append(missing, t.pkg)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	raw, err := os.ReadFile("/etc/os-release")
	if err != nil {
		raw = nil
	}
	if !supportedDebian(string(raw)) {
		return &CannotRunError{
			"it lacks the programs of the packages " + strings.Join(missing, ", ") + ", and it is not Debian 12 or 13, where nines installs them itself",
			"install them the way of this distribution",
		}
	}
	if slices.Contains(missing, "debootstrap") {
		missing = append(missing, "debian-archive-keyring")
	}
	step("install " + strings.Join(missing, " ") + " on this host")
	return aptInstall(ctx, missing)
}

// aptInstall installs packages on the host.
func aptInstall(ctx context.Context, packages []string) error {
	const patience = "DPkg::Lock::Timeout=300" // seconds; unattended-upgrades may be at work
	install := append([]string{"apt-get", "install", "-q", "-y", "-o", patience, "--no-install-recommends"}, packages...)
	for _, args := range [][]string{{"apt-get", "update", "-q", "-o", patience}, install} {
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, lastLines(out, 8))
		}
	}
	return nil
}

// supportedDebian reads an os-release file (os-release(5)).
func supportedDebian(release string) bool {
	fields := map[string]string{}
	for line := range strings.Lines(release) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		fields[key] = strings.Trim(value, `"'`)
	}
	return fields["ID"] == "debian" && slices.Contains([]string{"12", "13"}, fields["VERSION_ID"])
}

// size writes bytes for people.
func size(bytes uint64) string {
	if bytes >= 1<<30 {
		return fmt.Sprintf("%.1f GB", float64(bytes)/(1<<30))
	}
	return fmt.Sprintf("%d MB", bytes>>20)
}
