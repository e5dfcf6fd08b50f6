package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// diskSize is the size of a machine's disk as it sees it, in bytes. The file
// behind it is sparse and only takes what is written.
const diskSize = 20 << 30

// ext4Shutdown and shutdownNoLogFlush: EXT4_IOC_SHUTDOWN = _IOR('X', 125, __u32)
// and EXT4_GOING_FLAGS_NOLOGFLUSH of the kernel's ext4 headers. The file system
// stops at once; neither data nor the journal's open transaction is written.
const (
	ext4Shutdown       = 0x8004587d
	shutdownNoLogFlush = 2
)

// disk is the block device of one machine: an ext4 file system in a file,
// which holds the writable layer of its root file system.
type disk struct {
	file  string // the image
	mount string // where its file system is mounted
}

func (l *Lab) disk(node string) disk {
	return disk{
		file:  filepath.Join(l.Dir(), "nodes", node, "disk.img"),
		mount: filepath.Join(l.nodeRun(node), "disk"),
	}
}

// rootOf is where the machine's root file system is mounted.
func (l *Lab) rootOf(node string) string { return filepath.Join(l.nodeRun(node), "root") }

// nodeRun holds the machine's mount points.
func (l *Lab) nodeRun(node string) string { return filepath.Join(l.runDir(), "nodes", node) }

// format makes an empty file system in a new file.
func (d disk) format(ctx context.Context) error {
	if err := os.MkdirAll(filepath.Dir(d.file), 0o700); err != nil {
		return err
	}
	if err := removeIfThere(d.file); err != nil {
		return err
	}
	f, err := os.OpenFile(d.file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err == nil {
		err = errors.Join(f.Truncate(diskSize), f.Close())
	}
	if err != nil {
		return fmt.Errorf("disk %s: %w", d.file, err)
	}
	// The image is all zeroes, so nothing need be initialised or discarded.
	out, err := exec.CommandContext(ctx, "mkfs.ext4", "-q", "-F", "-m", "0",
		"-E", "nodiscard,lazy_itable_init=1,lazy_journal_init=1,assume_storage_prezeroed=1", d.file).CombinedOutput()
	if err != nil { // mkfs before 1.46.6 does not know assume_storage_prezeroed
		out, err = exec.CommandContext(ctx, "mkfs.ext4", "-q", "-F", "-m", "0", "-E", "nodiscard", d.file).CombinedOutput()
	}
	if err != nil {
		return fmt.Errorf("mkfs.ext4 %s: %w: %s", d.file, err, out)
	}
	return nil
}

// attach mounts the disk; after a power cut that is when the journal is
// replayed. It first waits until nobody uses the file any more: two file systems
// on one disk destroy it.
func (d disk) attach() error {
	if err := awaitDetached(d.file); err != nil {
		return err
	}
	if err := os.MkdirAll(d.mount, 0o700); err != nil {
		return err
	}
	loop, err := attachLoop(d.file)
	if err != nil {
		return err
	}
	defer loop.Close() // the mount keeps the device; with it goes the device (autoclear)
	if err := unix.Mount(loop.Name(), d.mount, "ext4", unix.MS_NOATIME, ""); err != nil {
		return fmt.Errorf("mount %s on %s: %w", d.file, d.mount, err)
	}
	return nil
}

// attachLoop gives the file a loop device that goes away with its last user.
func attachLoop(file string) (*os.File, error) {
	backing, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer backing.Close()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("loop devices: %w", err)
	}
	defer control.Close()
	for range 100 {
		number, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("find a free loop device: %w", err)
		}
		loop, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", number), os.O_RDWR, 0)
		if err != nil {
			return nil, fmt.Errorf("loop device: %w", err)
		}
		config := unix.LoopConfig{Fd: uint32(backing.Fd()), Size: 4096, Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR}}
		copy(config.Info.File_name[:len(config.Info.File_name)-1], file)
		err = unix.IoctlLoopConfigure(int(loop.Fd()), &config)
		if err == nil {
			return loop, nil
		}
		loop.Close()
		if !errors.Is(err, unix.EBUSY) { // EBUSY: somebody else was faster
			return nil, fmt.Errorf("attach %s to %s: %w", file, loop.Name(), err)
		}
	}
	return nil, fmt.Errorf("attach %s: all loop devices are taken at once", file)
}

// cutDisk stops the file system of the machine's disk at once: what was not
// flushed is lost, as in a power cut. The disk is mounted in the machine's own
// mount namespace only, so it is reached through its processes. A disk that is
// not mounted has no power to lose.
func (l *Lab) cutDisk(node string) error {
	pids, err := cgroupProcesses(l.Name(), node)
	if err != nil {
		return err
	}
	d := l.disk(node)
	for _, pid := range pids {
		mounts, err := readMounts(fmt.Sprintf("/proc/%d/mountinfo", pid))
		if err != nil {
			continue // it ended meanwhile
		}
		if slices.ContainsFunc(mounts, func(m mountPoint) bool { return m.target == d.mount && m.fstype == "ext4" }) {
			return shutdownFilesystem(fmt.Sprintf("/proc/%d/root%s", pid, d.mount))
		}
	}
	return nil
}

// shutdownFilesystem stops the ext4 file system mounted at path without
// writing anything more.
func shutdownFilesystem(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("cut disk: %w", err)
	}
	defer f.Close()
	flag := uint32(shutdownNoLogFlush)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), ext4Shutdown, uintptr(unsafe.Pointer(&flag))); errno != 0 {
		return fmt.Errorf("cut disk %s: %w", path, errno)
	}
	return nil
}

// unmountBelow unmounts everything mounted at or below dir, last mounted
// first. Something a moment longer in use is waited for until the deadline,
// then detached, so that it goes away with its last user.
func unmountBelow(deadline time.Time, dir string) error {
	for {
		mounts, err := readMounts("/proc/thread-self/mountinfo")
		if err != nil {
			return err
		}
		target := ""
		for _, m := range mounts { // the last one is on top
			if isBelow(m.target, dir) {
				target = m.target
			}
		}
		if target == "" {
			return nil
		}
		err = unix.Unmount(target, unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EBUSY) {
			if time.Now().Before(deadline) {
				time.Sleep(20 * time.Millisecond)
				continue
			}
			err = unix.Unmount(target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		}
		if err != nil {
			return fmt.Errorf("unmount %s: %w", target, err)
		}
	}
}

// loopsOf returns the names (loop0, ...) of the loop devices that are backed by
// files at or below path.
func loopsOf(path string) ([]string, error) {
	devices, err := filepath.Glob("/sys/block/loop*/loop")
	if err != nil {
		return nil, err
	}
	var names []string
	for _, device := range devices {
		if name := filepath.Base(filepath.Dir(device)); isBelow(backingOf(name), path) {
			names = append(names, name)
		}
	}
	return names, nil
}

// backingOf returns the file behind a loop device, empty when it has none.
func backingOf(loop string) string {
	raw, err := os.ReadFile(filepath.Join("/sys/block", loop, "loop/backing_file"))
	if err != nil {
		return "" // free
	}
	return strings.TrimSuffix(strings.TrimSuffix(string(raw), "\n"), " (deleted)")
}

// diskPatience bounds the wait for the kernel to let go of a disk: it flushes the image first, which
// took a minute once on a host with much to write.
const diskPatience = 2 * time.Minute

// awaitDetached waits until no loop device is backed by files at or below path.
// The kernel lets go of a disk a moment after the last process that had it
// mounted is gone, and writes out what a power off without data loss leaves. A
// device nothing has mounted (left by a crash) is detached.
func awaitDetached(path string) error {
	for deadline := time.Now().Add(diskPatience); ; {
		loops, err := loopsOf(path)
		if err != nil || len(loops) == 0 {
			return err
		}
		for _, loop := range loops {
			if err := detachLoop(loop, path); err != nil {
				return err
			}
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s is still in use through %s by %s", path, strings.Join(loops, ", "), usersOf(loops))
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// usersOf names processes that have one of the loop devices mounted.
func usersOf(loops []string) string {
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return err.Error()
	}
	var users []string
	for _, process := range processes {
		mounts, err := readMounts(filepath.Join(process, "mountinfo"))
		if err != nil {
			continue // it ended meanwhile
		}
		if slices.ContainsFunc(mounts, func(m mountPoint) bool { return slices.Contains(loops, filepath.Base(m.source)) }) {
			name, _ := os.ReadFile(filepath.Join(process, "comm"))
			users = append(users, fmt.Sprintf("%s (process %s)", strings.TrimSpace(string(name)), filepath.Base(process)))
		}
	}
	if len(users) == 0 {
		return "the kernel alone: does the host's disk keep up?"
	}
	return strings.Join(users[:min(len(users), 5)], ", ")
}

// detachLoop frees a loop device that is backed by a file at or below path, now
// or when its last user lets go of it.
func detachLoop(name, path string) error {
	loop, err := os.OpenFile("/dev/"+name, os.O_RDWR, 0)
	if err != nil {
		return ignoreFree(name, err)
	}
	defer loop.Close()
	// While it is open it cannot become somebody else's: now its file counts.
	if !isBelow(backingOf(name), path) {
		return nil
	}
	return ignoreFree(name, unix.IoctlSetInt(int(loop.Fd()), unix.LOOP_CLR_FD, 0))
}

// ignoreFree forgives that a loop device is free already.
func ignoreFree(loop string, err error) error {
	if err == nil || errors.Is(err, unix.ENXIO) || errors.Is(err, unix.EBUSY) {
		return nil
	}
	return fmt.Errorf("detach %s: %w", loop, err)
}
