// Package guest makes the system that instances of the smoke test run: Debian's kernel for virtual machines, and a
// ramdisk with a static busybox, a few drivers and three scripts. It needs 96 MB of memory and no disk, and answers on TCP port 80
// with what it learned by DHCP and from the metadata service.
//
// Invariants: what it is made of comes from the machine's own package source, whose signatures apt checks; the same packages and
// scripts make the same guest, which is kept under the user's cache directory and made once. It must never install
// anything on this machine, never need root, and knows nothing of OpenStack.
package guest

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

//go:embed files
var files embed.FS

// Image is a guest on this machine's disk.
type Image struct {
	Kernel  string `json:"kernel"`
	Ramdisk string `json:"ramdisk"`
}

// Memory is how much memory an instance of the guest needs, in MB.
const Memory = 96

// buildLimit bounds the download and everything else.
const buildLimit = 10 * time.Minute

// Error says why there is no guest, with what to do.
type Error struct{ Err error }

func (e *Error) Error() string { return fmt.Sprintf("the guest's image cannot be made: %v", e.Err) }
func (e *Error) Unwrap() error { return e.Err }

// Hint says what to do now.
func (e *Error) Hint() string {
	return "it is made of Debian packages, by apt on this machine: 'apt-get update' may help; or make it on a Debian machine with 'nines smoke --guest-only', and name its files with --kernel and --ramdisk"
}

// Ensure returns the guest below the folder for caches (empty: the user's), and makes it if it is not there. making is called before
// that: it takes a while.
func Ensure(ctx context.Context, cache string, making func()) (Image, error) {
	image, err := ensure(ctx, cache, making)
	if err != nil && ctx.Err() == nil {
		return image, &Error{err}
	}
	return image, err
}

func ensure(ctx context.Context, cache string, making func()) (Image, error) {
	if cache == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return Image{}, err
		}
		cache = filepath.Join(user, "nines", "guest")
	}
	ctx, cancel := context.WithTimeout(ctx, buildLimit)
	defer cancel()
	names, err := fetch(ctx, "--names")
	if err != nil {
		// Without apt's lists nobody knows what is newest; any guest that was made here will do.
		if image, ok := newest(cache); ok && ctx.Err() == nil {
			return image, nil
		}
		return Image{}, err
	}
	folder := filepath.Join(cache, key(names))
	if image, ok := open(folder); ok {
		return image, nil
	}
	making()
	if err := build(ctx, cache, folder, names); err != nil {
		return Image{}, err
	}
	image, ok := open(folder)
	if !ok {
		return Image{}, fmt.Errorf("%s is not complete", folder)
	}
	return image, nil
}

// open returns the guest in a folder.
func open(folder string) (Image, bool) {
	image := Image{Kernel: filepath.Join(folder, "kernel"), Ramdisk: filepath.Join(folder, "ramdisk")}
	for _, path := range []string{image.Kernel, image.Ramdisk} {
		if s, err := os.Stat(path); err != nil || s.Size() == 0 {
			return Image{}, false
		}
	}
	return image, true
}

// newest returns the guest that was made last.
func newest(cache string) (image Image, found bool) {
	entries, err := os.ReadDir(cache)
	if err != nil {
		return Image{}, false
	}
	var made time.Time
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || strings.HasPrefix(e.Name(), ".") || info.ModTime().Before(made) {
			continue
		}
		if i, ok := open(filepath.Join(cache, e.Name())); ok {
			image, found, made = i, true, info.ModTime()
		}
	}
	return image, found
}

// key names a guest by what it is made of.
func key(packages string) string {
	sum := sha256.New()
	sum.Write([]byte(packages))
	for _, name := range []string{"init", "dhcp", "answer"} {
		sum.Write(script(name))
	}
	return hex.EncodeToString(sum.Sum(nil))[:16]
}

// script returns a file of the guest or the one that fetches packages; they are part of the executable.
func script(name string) []byte {
	text, err := files.ReadFile("files/" + name)
	if err != nil {
		panic(err)
	}
	return text
}

// fetch runs fetch.sh.
func fetch(ctx context.Context, argument string) (string, error) {
	cmd := exec.CommandContext(ctx, "sh", "-s", "--", argument)
	cmd.Stdin = bytes.NewReader(script("fetch.sh"))
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	cmd.WaitDelay = time.Second // children may keep the pipes open
	if err := cmd.Run(); err != nil {
		if text := strings.TrimSpace(complaints.String()); text != "" {
			err = errors.New(strings.ReplaceAll(text, "\n", "; "))
		}
		return "", err
	}
	return out.String(), nil
}

// build makes a guest in a folder beside the one it is to be, so that one with that name is always complete.
func build(ctx context.Context, cache, folder, names string) error {
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return err
	}
	work, err := os.MkdirTemp(cache, ".making-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	parts, made := filepath.Join(work, "parts"), filepath.Join(work, "guest")
	if _, err := fetch(ctx, parts); err != nil {
		return err
	}
	if err := os.Mkdir(made, 0o755); err != nil {
		return err
	}
	ramdisk, err := pack(ctx, parts)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(made, "ramdisk"), ramdisk, 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(made, "packages"), []byte(names), 0o644); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(parts, "kernel"), filepath.Join(made, "kernel")); err != nil {
		return err
	}
	if err := os.Rename(made, folder); err != nil && !errors.Is(err, fs.ErrExist) { // somebody else was faster
		return err
	}
	return nil
}

// pack makes the ramdisk of what fetch.sh brought.
func pack(ctx context.Context, parts string) ([]byte, error) {
	path := filepath.Join(parts, "busybox")
	busybox, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	all, err := openModules(filepath.Join(parts, "modules"), path)
	if err != nil {
		return nil, err
	}
	loaded, err := all.resolve(ctx, drivers)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	zip := gzip.NewWriter(&out)
	if err := write(&archive{out: zip}, content(busybox, loaded)); err != nil {
		return nil, err
	}
	if err := zip.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// content is everything in the ramdisk, directories first.
func content(busybox []byte, loaded []module) []entry {
	var out []entry
	for _, dir := range []string{"bin", "dev", "modules", "proc", "run", "sys", "www", "www/cgi-bin"} {
		out = append(out, entry{name: dir, mode: typeDirectory | 0o755})
	}
	order := ""
	for _, m := range loaded {
		order += m.name + ".ko\n"
		out = append(out, entry{name: "modules/" + m.name + ".ko", mode: typeFile | 0o644, data: m.content})
	}
	return slices.Concat(out, []entry{
		{name: "modules/order", mode: typeFile | 0o644, data: []byte(order)},
		{name: "dev/console", mode: typeDevice | 0o600, major: 5, minor: 1},
		{name: "bin/busybox", mode: typeFile | 0o755, data: busybox},
		{name: "init", mode: typeFile | 0o755, data: script("init")},
		{name: "dhcp", mode: typeFile | 0o755, data: script("dhcp")},
		// What httpd runs for a request of "/".
		{name: "www/cgi-bin/index.cgi", mode: typeFile | 0o755, data: script("answer")},
	})
}

func write(a *archive, entries []entry) error {
	for _, e := range entries {
		a.add(e)
	}
	return a.close()
}
