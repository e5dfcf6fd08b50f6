package guest

import (
	"fmt"
	"io"
)

// Types of files, as in st_mode.
const (
	typeFile      = 0o100000
	typeDirectory = 0o040000
	typeDevice    = 0o020000 // of characters
	typeMask      = 0o170000
)

// entry is one file of an archive.
type entry struct {
	name         string // without a slash in front
	mode         uint32 // type and permissions
	data         []byte
	major, minor uint32 // of a device
}

// archive writes a cpio archive in the format that the kernel unpacks ("newc"). The same entries make the same bytes.
type archive struct {
	out     io.Writer
	inodes  uint32
	written int64
	err     error
}

// add writes an entry; directories must come before what is in them. The first error is kept for close.
func (a *archive) add(e entry) {
	a.inodes++
	links := uint32(1)
	if e.mode&typeMask == typeDirectory {
		links = 2
	}
	a.header(e, a.inodes, links)
}

// header writes an entry whatever it is.
func (a *archive) header(e entry, inode, links uint32) {
	const checksum, uid, gid, mtime, devMajor, devMinor = 0, 0, 0, 0, 0, 0
	fields := []uint32{inode, e.mode, uid, gid, links, mtime, uint32(len(e.data)), devMajor, devMinor,
		e.major, e.minor, uint32(len(e.name) + 1), checksum}
	text := "070701"
	for _, f := range fields {
		text += fmt.Sprintf("%08X", f)
	}
	a.write([]byte(text + e.name + "\x00"))
	a.pad(4)
	a.write(e.data)
	a.pad(4)
}

// close ends the archive.
func (a *archive) close() error {
	a.header(entry{name: "TRAILER!!!"}, 0, 1)
	a.pad(512)
	if a.err != nil {
		return fmt.Errorf("write the ramdisk: %w", a.err)
	}
	return nil
}

func (a *archive) write(p []byte) {
	if a.err != nil {
		return
	}
	n, err := a.out.Write(p)
	a.written += int64(n)
	a.err = err
}

func (a *archive) pad(to int64) {
	if rest := a.written % to; rest != 0 {
		a.write(make([]byte, to-rest))
	}
}
