package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
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
		mount: filepath.Join(l.runDir(), "nodes", node, "disk"),
	}
}

// rootOf is where the machine's root file system is mounted.
func (l *Lab) rootOf(node string) string { return filepath.Join(l.runDir(), "nodes", node, "root") }

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

// attach mounts the disk; after a power cut that is when the journal is replayed.
func (d disk) attach() error {
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

// cut stops the file system at once: what was not flushed is lost, as in a
// power cut. A disk that is not mounted has no power to lose.
func (d disk) cut() error {
	if !isMounted(d.mount) {
		return nil
	}
	f, err := os.Open(d.mount)
	if err != nil {
		return fmt.Errorf("cut disk %s: %w", d.file, err)
	}
	defer f.Close()
	flag := uint32(shutdownNoLogFlush)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), ext4Shutdown, uintptr(unsafe.Pointer(&flag))); errno != 0 {
		return fmt.Errorf("cut disk %s: %w", d.file, errno)
	}
	return nil
}

// sync writes everything of the disk to its file and flushes it.
func (d disk) sync() error {
	f, err := os.Open(d.mount)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Syncfs(int(f.Fd()))
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
			if m.target == dir || strings.HasPrefix(m.target, dir+"/") {
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

// isMounted reports whether something is mounted at exactly this path.
func isMounted(path string) bool {
	mounts, err := readMounts("/proc/thread-self/mountinfo")
	if err != nil {
		return false
	}
	for _, m := range mounts {
		if m.target == path {
			return true
		}
	}
	return false
}

// detachLoops frees loop devices that are backed by files at or below dir.
func detachLoops(dir string) error {
	backings, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return err
	}
	var errs []error
	for _, path := range backings {
		raw, err := os.ReadFile(path)
		if err != nil || !strings.HasPrefix(string(raw), dir+"/") {
			continue // free again meanwhile, or somebody else's
		}
		device := "/dev/" + strings.Split(path, "/")[3]
		loop, err := os.OpenFile(device, os.O_RDWR, 0)
		if err == nil {
			err = unix.IoctlSetInt(int(loop.Fd()), unix.LOOP_CLR_FD, 0)
			loop.Close()
		}
		if err != nil && !errors.Is(err, unix.ENXIO) {
			errs = append(errs, fmt.Errorf("detach %s: %w", device, err))
		}
	}
	return errors.Join(errs...)
}
