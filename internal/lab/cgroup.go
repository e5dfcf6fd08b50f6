package lab

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cgroupTop is the control group, in every hierarchy, that all labs are below.
const cgroupTop = "nines-lab"

// Real-time bandwidth in microseconds per second. Kernels with real-time group
// scheduling refuse real-time priority (keepalived uses it) in a group that has
// none. A group's share must fit into its parent's: a lab has enough for three controllers, and nothing else gets any.
const (
	realTimeTop     = 900_000
	realTimeLab     = 300_000
	realTimeNode    = 95_000
	realTimeMachine = 90_000
)

// Processor time. A group weighs as much as one task, or one session, of the group beside it: all machines together would get what one
// compiler gets on this host, and what is measured in the lab would be the host's other work. The lab's clients are below the same
// group, and weigh as much as two machines. While they were beside it, a drill of the whole cloud on two processors saw the VIP
// away for 0.7 s, and all APIs for more than a second, whenever a daemon started: it was the drill that waited.
var (
	weightTop     = weight(8)
	weightClients = weight(2)
	weightMachine = weight(1)
	// weightBooting is that of a machine until its services have started (see shareOf): the programs of a controller that boots are seventy
	// seconds of work for a processor, and the other controllers, whose processors these are not, answered logins after two seconds and more.
	weightBooting = map[string]string{"cpu.weight": "25", "cpu.shares": "256"}
	// weightDying is that of a machine without power: the kernel takes back the memory of some hundred processes, two seconds of work for a processor, in the
	// very seconds in which the other machines take over. A real one costs them nothing.
	weightDying = map[string]string{"cpu.weight": "50", "cpu.shares": "512"}
)

// weight is so many times that of one task, for version 2 and for version 1 of control groups.
func weight(times int) map[string]string {
	return map[string]string{"cpu.weight": strconv.Itoa(100 * times), "cpu.shares": strconv.Itoa(1024 * times)}
}

// clientsMember is the control group of the programs that use the lab from outside its machines.
const clientsMember = "clients"

// joinClients puts this process into the group of the lab's clients.
func joinClients(lab string) error {
	procs, err := makeCgroups(lab, clientsMember)
	if err != nil {
		return err
	}
	for _, file := range procs {
		if err := os.WriteFile(file, []byte("0"), 0); err != nil {
			return fmt.Errorf("join the clients of lab %s: %w", lab, err)
		}
	}
	return nil
}

// leaveLab takes this process out of the lab's groups, should it be in one: what takes the lab down must outlive it.
func leaveLab(lab string) error {
	pids, err := cgroupProcesses(lab)
	if err != nil || !slices.Contains(pids, os.Getpid()) {
		return err
	}
	all, err := hierarchies("/proc/thread-self/mountinfo")
	for _, h := range all {
		err = errors.Join(err, os.WriteFile(filepath.Join(h.mount, "cgroup.procs"), []byte("0"), 0))
	}
	return err
}

// A machine has no more than three quarters of the host's processors, but one at least, and all labs together leave a twentieth. A controller that
// boots starts fifty programs. They kept both processors so busy that tasks outside the lab, as the kernel's threads that flush the disks
// of all machines are, waited up to ten seconds (with the bounds less than 0.3 s), and fsync took up to nine. The bound costs the machine
// some time: it was whole again after 56 s instead of 46 s, and after 79 s with a half.
const (
	quotaPeriod = 100_000 // microseconds
	machinePart = 0.75
	labsPart    = 0.95
)

// quota is a part of the host's processors, in microseconds of each period.
func quota(part float64) int {
	return int(max(1, part*float64(runtime.NumCPU())) * quotaPeriod)
}

// hierarchy is one mounted control group hierarchy: the unified one, or one of
// version 1 with its controllers. Hosts may have several at once.
type hierarchy struct {
	mount   string
	unified bool
}

// hierarchies reads the mounted hierarchies from a mountinfo file.
func hierarchies(mountinfo string) ([]hierarchy, error) {
	mounts, err := readMounts(mountinfo)
	if err != nil {
		return nil, err
	}
	var out []hierarchy
	seen := map[string]bool{}
	for _, m := range mounts {
		if m.fstype != "cgroup" && m.fstype != "cgroup2" || seen[m.device] {
			continue
		}
		seen[m.device] = true
		out = append(out, hierarchy{mount: m.target, unified: m.fstype == "cgroup2"})
	}
	if len(out) == 0 {
		return nil, errors.New("no control group hierarchy is mounted on this host")
	}
	return out, nil
}

// makeCgroups makes the group lab/member... in every hierarchy and returns the
// cgroup.procs files a process joins it through.
func makeCgroups(lab string, member ...string) ([]string, error) {
	all, err := hierarchies("/proc/thread-self/mountinfo")
	if err != nil {
		return nil, err
	}
	var procs []string
	for _, h := range all {
		dir := h.mount
		for depth, part := range append([]string{cgroupTop, lab}, member...) {
			parent := dir
			dir = filepath.Join(dir, part)
			if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
				return nil, fmt.Errorf("control group %s: %w", dir, err)
			}
			if err := h.prepare(parent, dir, depth); err != nil {
				return nil, err
			}
		}
		procs = append(procs, filepath.Join(dir, "cgroup.procs"))
	}
	return procs, nil
}

// prepare makes a new group usable: version 1 starts some controllers with
// values that let no process in, version 2 has none until the parent passes them on.
func (h hierarchy) prepare(parent, dir string, depth int) error {
	switch depth {
	case 0:
		defer setFiles(dir, weightTop)
		defer bound(dir, quota(labsPart))
	case 2:
		if filepath.Base(dir) == clientsMember {
			defer setFiles(dir, weightClients)
			break
		}
		defer bound(dir, quota(machinePart))
	}
	if h.unified {
		available, err := os.ReadFile(filepath.Join(parent, "cgroup.controllers"))
		if err != nil {
			return fmt.Errorf("control group %s: %w", parent, err)
		}
		for _, controller := range []string{"cpu", "memory", "io", "pids"} {
			if slices.Contains(strings.Fields(string(available)), controller) {
				// Wanted for slow-node faults only; without it the machine still runs.
				_ = os.WriteFile(filepath.Join(parent, "cgroup.subtree_control"), []byte("+"+controller), 0)
			}
		}
		return nil
	}
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		value, err := os.ReadFile(filepath.Join(parent, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // another controller's hierarchy
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), value, 0)
		}
		if err != nil {
			return fmt.Errorf("control group %s: %w", dir, err)
		}
	}
	return nil
}

// bound keeps a group from using more than that of each period.
func bound(dir string, quota int) {
	setFiles(dir, map[string]string{"cpu.max": fmt.Sprint(quota, quotaPeriod), "cpu.cfs_quota_us": strconv.Itoa(quota)})
}

// setFiles writes those of a group's files that its hierarchy has. Without them a lab still runs.
func setFiles(dir string, values map[string]string) {
	for name, value := range values {
		_ = os.WriteFile(filepath.Join(dir, name), []byte(value), 0) // nobody can make a file there
	}
}

// realTimePatience bounds the wait for the share of a group that was just removed.
const realTimePatience = 3 * time.Second

// giveRealTime gives a machine's group its share of real time, where the hierarchy has one to give. The kernel counts a removed group for some time
// longer, so this has patience. All or nothing: with none, keepalived runs at normal priority. Half of a share, and half of that after the next power
// cut, was worse: with 3 ms a second it sent its advertisements once a second, and two controllers had the VIP.
func giveRealTime(lab string, member ...string) {
	all, err := hierarchies("/proc/thread-self/mountinfo")
	if err != nil {
		return
	}
	deadline := time.Now().Add(realTimePatience)
	for _, h := range all {
		dir := h.mount
		for depth, part := range append([]string{cgroupTop, lab}, member...) {
			dir = filepath.Join(dir, part)
			if !allowRealTime(dir, []int{realTimeTop, realTimeLab, realTimeNode, realTimeMachine}[depth], deadline) {
				break // below it there is nothing to share
			}
		}
	}
}

// allowRealTime gives a group its share, as soon as its parent has it to give.
func allowRealTime(dir string, share int, deadline time.Time) bool {
	file, want := filepath.Join(dir, "cpu.rt_runtime_us"), strconv.Itoa(share)
	for {
		has, err := os.ReadFile(file)
		if err != nil {
			return false // no real time here
		}
		if strings.TrimSpace(string(has)) == want || os.WriteFile(file, []byte(want), 0) == nil {
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// cgroupDirs returns the group lab, or lab/member, in every hierarchy where it exists.
func cgroupDirs(lab string, member ...string) ([]string, error) {
	all, err := hierarchies("/proc/thread-self/mountinfo")
	if err != nil {
		return nil, err
	}
	var dirs []string
	for _, h := range all {
		dir := filepath.Join(append([]string{h.mount, cgroupTop, lab}, member...)...)
		if _, err := os.Stat(dir); err == nil {
			dirs = append(dirs, dir)
		}
	}
	return dirs, nil
}

// cgroupProcesses returns the processes in the group lab (or lab/member) and
// the groups below it, ascending. A process listed here is the lab's own, or a
// client in its network: nothing else is ever put there.
func cgroupProcesses(lab string, member ...string) ([]int, error) {
	dirs, err := cgroupDirs(lab, member...)
	if err != nil {
		return nil, err
	}
	found := map[int]bool{}
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || d.Name() != "cgroup.procs" {
				return ignoreGone(err)
			}
			raw, err := os.ReadFile(path)
			for _, field := range strings.Fields(string(raw)) {
				if pid, err := strconv.Atoi(field); err == nil && pid > 0 {
					found[pid] = true
				}
			}
			return ignoreGone(err)
		})
		if err != nil {
			return nil, fmt.Errorf("processes of lab %s: %w", lab, err)
		}
	}
	pids := make([]int, 0, len(found))
	for pid := range found {
		pids = append(pids, pid)
	}
	slices.Sort(pids)
	return pids, nil
}

// ignoreGone forgives what disappears while it is looked at.
func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// killCgroup kills every process of the group and waits until none is left. A
// machine's init goes first: the kernel then kills all others with it at once,
// and nspawn sees it die and removes its own files.
func killCgroup(deadline time.Time, lab string, member ...string) error {
	polite := time.Now().Add(2 * time.Second)
	for {
		pids, err := cgroupProcesses(lab, member...)
		if err != nil {
			return err
		}
		if len(pids) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("processes %v of lab %s do not die", pids, lab)
		}
		inits := slices.DeleteFunc(slices.Clone(pids), func(pid int) bool { return !isInit(pid) })
		others := len(inits) == 0
		if others {
			// Without an init, what is left is nspawn cleaning up after it, or no machine at all.
			inits = pids
		}
		for _, pid := range inits {
			if others && time.Now().Before(polite) && isNspawn(pid) {
				continue
			}
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("kill process %d of lab %s: %w", pid, lab, err)
			}
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// isInit reports whether the process is process 1 of a process namespace
// below ours: a machine's init.
func isInit(pid int) bool {
	ids := namespacePIDs(pid)
	return len(ids) > 1 && ids[len(ids)-1] == "1"
}

// namespacePIDs returns the process's identifiers, outermost namespace first
// (NSpid of proc(5)).
func namespacePIDs(pid int) []string {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return nil
	}
	defer f.Close()
	scanner := bufio.NewScanner(f)
	for scanner.Scan() {
		if rest, ok := strings.CutPrefix(scanner.Text(), "NSpid:"); ok {
			return strings.Fields(rest)
		}
	}
	return nil
}

func isNspawn(pid int) bool {
	comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	return err == nil && strings.HasPrefix(strings.TrimSpace(string(comm)), "systemd-nspawn"[:14])
}

// removeCgroups removes the group lab (or lab/member) with all groups below it.
// Its processes must be gone; the kernel may need a moment to notice that.
func removeCgroups(deadline time.Time, lab string, member ...string) error {
	for {
		err := removeCgroupsOnce(lab, member...)
		if err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func removeCgroupsOnce(lab string, member ...string) error {
	dirs, err := cgroupDirs(lab, member...)
	if err != nil {
		return err
	}
	for _, top := range dirs {
		var below []string
		err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				below = append(below, path)
			}
			return ignoreGone(err)
		})
		if err != nil {
			return err
		}
		for _, dir := range slices.Backward(below) { // children before parents
			if err := ignoreGone(unix.Rmdir(dir)); err != nil && !errors.Is(err, unix.ENOENT) {
				return fmt.Errorf("remove control group %s: %w", dir, err)
			}
		}
		if len(member) == 0 {
			_ = unix.Rmdir(filepath.Dir(top)) // the group of all labs, when this was the last
		}
	}
	return nil
}
