package lab

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// repositoryScript indexes and signs the repository. The signing key is made
// for it and thrown away after: only its public half is kept.
//
//go:embed scripts/repository.sh
var repositoryScript string

// keyName is the file of the repository's public key, in its root.
const keyName = "packages.asc"

// buildRepository moves the downloaded packages out of the layer in dir/upper
// into dir/repository and makes that a signed repository. Indexing and signing
// are done by Debian's own tools, on an overlay that is thrown away.
func buildRepository(ctx context.Context, spec imageSpec, base, dir string, step func(string)) error {
	step("sign the repository of the lab")
	upper, repository := filepath.Join(dir, "upper"), filepath.Join(dir, "repository")
	pool := filepath.Join(repository, "pool")
	if err := os.MkdirAll(pool, 0o755); err != nil {
		return err
	}
	debs, err := filepath.Glob(filepath.Join(upper, "var/cache/apt/archives/*.deb"))
	if err != nil {
		return err
	}
	if len(debs) == 0 {
		return fmt.Errorf("no packages were downloaded into the image")
	}
	for _, deb := range debs {
		if err := os.Rename(deb, filepath.Join(pool, filepath.Base(deb))); err != nil {
			return err
		}
	}
	tools, root := filepath.Join(dir, "tools"), filepath.Join(dir, "root")
	if err := mountOverlay(upper+":"+base, filepath.Join(tools, "upper"), filepath.Join(tools, "work"), root); err != nil {
		return err
	}
	if err := mountKernelFilesystems(root); err != nil {
		return err
	}
	inside := filepath.Join(root, "srv")
	if err := unix.Mount(repository, inside, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind repository: %w", err)
	}
	if err := runBuild(ctx, build{
		args: []string{"sh", "-eu", "-c", repositoryScript}, root: root,
		env: []string{"SUITE=" + spec.Suite, "KEY=" + keyName},
	}); err != nil {
		return err
	}
	if err := unix.Unmount(root, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount tools: %w", err)
	}
	return os.RemoveAll(tools)
}
