package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// maxFile bounds ReadFile: the files nines keeps are configuration and keys.
const maxFile = 16 << 20

// ReadFile implements Host. It follows symbolic links.
func (l *Linux) ReadFile(path string) (File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // must not wait for the writer of a fifo
	if err != nil {
		return File{}, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return File{}, err
	}
	if !st.Mode().IsRegular() {
		return File{}, fmt.Errorf("read %s: not a regular file (%s)", path, st.Mode().Type())
	}
	content, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return File{}, err
	}
	if len(content) > maxFile {
		return File{}, fmt.Errorf("read %s: larger than %d MB", path, maxFile>>20)
	}
	sys := st.Sys().(*syscall.Stat_t)
	return File{
		Path: path, Mode: st.Mode().Perm(), Content: content,
		Owner:   l.owners.user(sys.Uid),
		Group:   l.owners.group(sys.Gid),
		Changed: time.Unix(sys.Ctim.Unix()),
	}, nil
}

// WriteFile implements Host. The candidate is written next to the file, under a
// name that starts with a dot and ends in ".nines-new", so that no component picks it up.
func (l *Linux) WriteFile(ctx context.Context, f File, validate []string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	mu, _ := l.writing.LoadOrStore(f.Path, &sync.Mutex{})
	mu.(*sync.Mutex).Lock()
	defer mu.(*sync.Mutex).Unlock()

	uid, gid, err := l.owners.ids(f.Owner, f.Group)
	if err != nil {
		return &WriteError{Path: f.Path, Err: err}
	}
	dir := filepath.Dir(f.Path)
	if err := makeDirs(dir); err != nil {
		return &WriteError{Path: f.Path, Err: err}
	}
	tmp := filepath.Join(dir, "."+filepath.Base(f.Path)+".nines-new")
	if err := writeCandidate(tmp, f, uid, gid); err != nil {
		os.Remove(tmp)
		return &WriteError{Path: f.Path, Err: err}
	}
	if err := l.validate(ctx, f.Path, tmp, validate); err != nil {
		os.Remove(tmp)
		return err
	}
	if err := os.Rename(tmp, f.Path); err != nil {
		os.Remove(tmp)
		return &WriteError{Path: f.Path, Err: err}
	}
	if err := syncDir(dir); err != nil {
		return &WriteError{Path: f.Path, Err: err}
	}
	return nil
}

// writeCandidate makes the whole file durable under its temporary name. It
// may hold secrets: nobody else may read it before owner and mode are right.
func writeCandidate(tmp string, f File, uid, gid int) error {
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err // what an interrupted write left
	}
	w, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = w.Write(f.Content)
	if err == nil && (uid != os.Geteuid() || gid != os.Getegid()) {
		err = w.Chown(uid, gid)
	}
	if err == nil {
		err = w.Chmod(f.Mode.Perm())
	}
	if err == nil {
		err = w.Sync()
	}
	return errors.Join(err, w.Close())
}

func (l *Linux) validate(ctx context.Context, path, tmp string, command []string) error {
	if len(command) == 0 {
		return nil
	}
	args := make([]string, len(command))
	for i, a := range command {
		args[i] = strings.ReplaceAll(a, "{}", tmp)
	}
	out, err := l.Run(ctx, Cmd{Args: args})
	var exit *ExitError
	switch {
	case err == nil:
		return nil
	case ctx.Err() == nil && errors.As(err, &exit):
		said := lastLines(string(out.Stdout)+"\n"+string(out.Stderr), 5)
		text := strings.ReplaceAll(strings.Join(said, "; "), tmp, path)
		return &ValidationError{Path: path, Err: exit, Text: text}
	}
	return fmt.Errorf("validate %s: %w", path, err)
}

// RemoveFile implements Host.
func (l *Linux) RemoveFile(path string) error {
	err := os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", path, err)
	}
	return syncDir(filepath.Dir(path))
}

// makeDirs makes dir and its missing parents durable, outermost first.
func makeDirs(dir string) error {
	var missing []string
	for d := dir; ; d = filepath.Dir(d) {
		if _, err := os.Stat(d); err == nil {
			break
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		missing = append(missing, d)
	}
	for _, d := range slices.Backward(missing) {
		if err := os.Mkdir(d, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if err := os.Chmod(d, 0o755); err != nil { // whatever the umask is
			return err
		}
		if err := syncDir(filepath.Dir(d)); err != nil {
			return err
		}
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if errors.Is(err, syscall.EINVAL) {
		err = nil // a file system without it (some fuse, 9p): nothing more can be done
	}
	return errors.Join(err, d.Close())
}

// Room implements Host.
func (l *Linux) Room(path string) (Room, error) {
	var fs syscall.Statfs_t
	var st syscall.Stat_t
	err := syscall.Statfs(path, &fs)
	if err == nil {
		err = syscall.Stat(path, &st)
	}
	if err != nil {
		return Room{}, fmt.Errorf("room in %s: %w", path, err)
	}
	return Room{Free: int64(fs.Bavail) * fs.Bsize, Total: int64(fs.Blocks) * fs.Bsize, Device: st.Dev}, nil
}
