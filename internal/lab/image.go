package lab

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"nines/internal/model"
	"nines/internal/progress"
)

// imageVersion changes when a build step changes in a way that its inputs do
// not show, so that cached images are not used any more.
const imageVersion = "1"

// guest holds the files every machine has beside Debian's own.
//
//go:embed all:guest
var guest embed.FS

// image names the cached layers a lab's machines run on.
type image struct {
	// Base is a layer of a bare Debian with systemd and SSH.
	Base string `json:"base"`
	// Packages is a layer over Base with the packages of all services but
	// those left for nines to install.
	Packages string `json:"packages"`
	// Repository has every package file that Base lacks, signed.
	Repository string `json:"repository"`
}

// imageSpec is everything an image depends on; images are cached by its hash.
type imageSpec struct {
	Suite     string
	Arch      string
	Base      []string // packages of the base layer
	Installed []string // packages of the packages layer
	Offered   []string // packages only in the repository
}

// basePackages make a minimal Debian a server one can log in to. No Python:
// nines needs none on a node.
var basePackages = []string{
	"systemd", "systemd-sysv", "dbus", "iproute2", "iputils-ping",
	"openssh-server", "ca-certificates", "procps", "netbase",
}

// leftOut are the services whose packages are not in the image: nines installs
// them from the lab's repository, as it does on a bare server.
var leftOut = []string{"memcached"}

// unwantedUnits start work of their own in the background, or need hardware a
// container does not have.
var unwantedUnits = []string{
	"apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer",
	"e2scrub_reap.service", "fstrim.timer", "man-db.timer", "console-getty.service", "getty@.service", "getty.target",
	"systemd-networkd.service", "systemd-networkd.socket", "systemd-timesyncd.service", "systemd-pstore.service",
	"sshd-keygen.service", "systemd-firstboot.service",
}

// newImageSpec derives the image from what the release says these services need. What others
// need does not change it: an image stays cached when nines learns a service.
func newImageSpec(facts model.ReleaseFacts, services []string) imageSpec {
	spec := imageSpec{Suite: facts.Suite, Arch: runtime.GOARCH, Base: basePackages}
	for _, service := range services {
		var packages []string // of all machines: they share the image
		for _, key := range packageKeys(service) {
			packages = append(packages, facts.Packages[key]...)
		}
		// What a service is made of with another backend than the default one is at hand, and nothing more.
		for _, key := range backendKeys(facts, service) {
			spec.Offered = append(spec.Offered, facts.Packages[key]...)
		}
		if slices.Contains(leftOut, service) {
			spec.Offered = append(spec.Offered, packages...)
		} else {
			spec.Installed = append(spec.Installed, packages...)
		}
	}
	slices.Sort(spec.Offered)
	slices.Sort(spec.Installed)
	spec.Installed = slices.Compact(spec.Installed)
	spec.Offered = slices.DeleteFunc(slices.Compact(spec.Offered), func(p string) bool { return slices.Contains(spec.Installed, p) })
	return spec
}

// packageKeys are the names under which a release lists the packages of a service, one for each role.
func packageKeys(service string) []string {
	keys := []string{service}
	for _, r := range model.Roles {
		if r != model.RoleController {
			keys = append(keys, service+"/"+string(r))
		}
	}
	return keys
}

// backendKeys are the names under which a release lists the packages of a service for its further backends.
func backendKeys(facts model.ReleaseFacts, service string) []string {
	return slices.Sorted(func(yield func(string) bool) {
		for key := range facts.Packages {
			if strings.HasPrefix(key, service+":") && !yield(key) {
				return
			}
		}
	})
}

// layers returns where the layers of the spec are cached.
func (s imageSpec) layers() image {
	base := sha256.New()
	fmt.Fprintln(base, imageVersion, s.Suite, s.Arch, s.Base, unwantedUnits)
	_ = fs.WalkDir(guest, "guest", func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			content, _ := guest.ReadFile(path) // embedded: cannot fail
			fmt.Fprintf(base, "%s %x\n", path, sha256.Sum256(content))
		}
		return err
	})
	baseID := hex.EncodeToString(base.Sum(nil))[:16]
	packages := sha256.New()
	fmt.Fprintln(packages, baseID, s.Installed, s.Offered, installScript, repositoryScript)
	packagesDir := filepath.Join(cacheRoot, "packages-"+hex.EncodeToString(packages.Sum(nil))[:16])
	return image{
		Base:       filepath.Join(cacheRoot, "base-"+baseID, "root"),
		Packages:   filepath.Join(packagesDir, "upper"),
		Repository: filepath.Join(packagesDir, "repository"),
	}
}

// lower returns the overlay's lowerdir option, topmost layer first.
func (i image) lower(bare bool) string {
	if bare {
		return i.Base
	}
	return i.Packages + ":" + i.Base
}

// cached reports whether both layers are complete. A layer's directory gets
// its name only when it is complete.
func (i image) cached() bool {
	for _, dir := range []string{i.Base, i.Packages, i.Repository} {
		if _, err := os.Stat(dir); err != nil {
			return false
		}
	}
	return true
}

// ensureImage builds what is missing of the image. One build runs at a time on
// a host; the others wait for it and then use its result.
func ensureImage(ctx context.Context, spec imageSpec, emit progress.Emit) (image, error) {
	img := spec.layers()
	if img.cached() {
		return img, nil
	}
	if err := os.MkdirAll(cacheRoot, 0o755); err != nil {
		return img, fmt.Errorf("image cache: %w", err)
	}
	unlock, err := lockFile(ctx, filepath.Join(cacheRoot, "lock"))
	if err != nil {
		return img, fmt.Errorf("another image build: %w", err)
	}
	defer unlock()
	if err := removeUnfinished(); err != nil {
		return img, err
	}
	source := debianMirror(readAptSources("/etc/apt"))
	if err := buildLayer(ctx, "image-base", "Debian "+spec.Suite+" base system", filepath.Dir(img.Base), emit,
		func(dir string, step func(string)) error { return buildBase(ctx, spec, source, dir, step) }); err != nil {
		return img, err
	}
	return img, buildLayer(ctx, "image-packages", "packages of the services", filepath.Dir(img.Packages), emit,
		func(dir string, step func(string)) error {
			return buildPackages(ctx, spec, source, img.Base, dir, step)
		})
}

// removeUnfinished deletes what interrupted builds left. The caller holds the
// lock, so nobody is at work on them.
func removeUnfinished() error {
	stale, err := filepath.Glob(filepath.Join(cacheRoot, "unfinished-*"))
	if err != nil {
		return err
	}
	for _, dir := range stale {
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("remove unfinished image: %w", err)
		}
	}
	return nil
}

// buildLayer runs build on a temporary directory that becomes final only when
// build succeeds. build runs in a mount namespace of its own.
func buildLayer(ctx context.Context, id, title, final string, emit progress.Emit, build func(dir string, step func(string)) error) error {
	if _, err := os.Stat(final); err == nil {
		return nil
	}
	start := time.Now()
	step := func(detail string) {
		emit(progress.Event{ID: id, Title: title, State: progress.Running, Detail: detail})
	}
	step("")
	dir, err := os.MkdirTemp(cacheRoot, "unfinished-*")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err == nil {
		err = inPrivateMounts("", func() error { return build(dir, step) })
	}
	if err == nil {
		err = os.Rename(dir, final)
	}
	if err != nil {
		err = errors.Join(err, os.RemoveAll(dir))
		emit(progress.Event{ID: id, Title: title, State: progress.Failed, Detail: err.Error(), Took: time.Since(start)})
		return fmt.Errorf("%s: %w", title, err)
	}
	emit(progress.Event{ID: id, Title: title, State: progress.Done, Took: time.Since(start)})
	return nil
}

// purgeCache removes all cached images.
func purgeCache(ctx context.Context) error {
	if _, err := os.Stat(cacheRoot); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	unlock, err := lockFile(ctx, filepath.Join(cacheRoot, "lock"))
	if err != nil {
		return err
	}
	defer unlock()
	return os.RemoveAll(cacheRoot)
}

// installGuestFiles writes the files all machines share below root.
func installGuestFiles(root string) error {
	err := fs.WalkDir(guest, "guest", func(path string, d fs.DirEntry, err error) error {
		target := filepath.Join(root, strings.TrimPrefix(path, "guest"))
		if err != nil || d.IsDir() {
			return errors.Join(err, os.MkdirAll(target, 0o755))
		}
		content, err := guest.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(target, content, 0o644)
	})
	if err != nil {
		return fmt.Errorf("files of the image: %w", err)
	}
	units := filepath.Join(root, "etc/systemd/system")
	for _, unit := range unwantedUnits {
		if err := replaceSymlink("/dev/null", filepath.Join(units, unit)); err != nil {
			return err
		}
	}
	wants := filepath.Join(units, "multi-user.target.wants")
	if err := os.MkdirAll(wants, 0o755); err != nil {
		return err
	}
	return replaceSymlink("/etc/systemd/system/lab-network.service", filepath.Join(wants, "lab-network.service"))
}

func replaceSymlink(target, link string) error {
	if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Symlink(target, link)
}
