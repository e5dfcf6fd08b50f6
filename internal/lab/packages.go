package lab

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// installScript downloads every package, installs those of the image, and
// leaves none of their services to start at boot.
//
//go:embed scripts/install.sh
var installScript string

// hostCertificates is where the host keeps the authorities it trusts; a build
// through an https mirror needs the host's own ones.
const hostCertificates = "/etc/ssl/certs/ca-certificates.crt"

// buildPackages makes the packages layer in dir/upper and the repository in
// dir/repository. It runs on a thread with private mounts.
func buildPackages(ctx context.Context, spec imageSpec, source mirror, base, dir string, step func(string)) error {
	upper, root := filepath.Join(dir, "upper"), filepath.Join(dir, "root")
	if err := mountOverlay(base, upper, filepath.Join(dir, "work"), root); err != nil {
		return err
	}
	if err := prepareBuildRoot(root, spec, source); err != nil {
		return err
	}
	err := runBuild(ctx, build{
		args: []string{"sh", "-eu", "-c", installScript}, root: root, step: stepLine(step),
		env: []string{
			"INSTALL=" + strings.Join(spec.Installed, " "),
			"OFFER=" + strings.Join(spec.Offered, " "),
		},
	})
	if err != nil {
		return err
	}
	if err := unix.Unmount(root, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount build root: %w", err)
	}
	if err := buildRepository(ctx, spec, base, dir, step); err != nil {
		return err
	}
	if err := cleanLayer(upper); err != nil {
		return err
	}
	return errors.Join(os.RemoveAll(filepath.Join(dir, "work")), os.Remove(root))
}

// stepLine passes on the lines that start with "step: ".
func stepLine(step func(string)) func(string) {
	return func(line string) {
		if text, ok := strings.CutPrefix(line, "step: "); ok {
			step(text)
		}
	}
}

// prepareBuildRoot gives the chroot kernel file systems, name resolution, a
// package source and the rule that no service starts.
func prepareBuildRoot(root string, spec imageSpec, source mirror) error {
	if err := mountKernelFilesystems(root); err != nil {
		return err
	}
	resolv, err := os.ReadFile("/etc/resolv.conf")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	files := []struct {
		path    string
		content string
		mode    fs.FileMode
	}{
		{"etc/resolv.conf", string(resolv), 0o644},
		{"usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n", 0o755},
		{"etc/dpkg/dpkg.cfg.d/build", "force-unsafe-io\n", 0o644},
	}
	if source.URI != "" {
		files = append(files, struct {
			path    string
			content string
			mode    fs.FileMode
		}{"etc/apt/sources.list", sourcesList(spec.Suite, source), 0o600})
	}
	if ca, err := os.ReadFile(hostCertificates); err == nil && strings.HasPrefix(source.URI, "https:") {
		files = append(files, []struct {
			path    string
			content string
			mode    fs.FileMode
		}{{"etc/apt/build-ca.crt", string(ca), 0o644},
			{"etc/apt/apt.conf.d/build-ca", "Acquire::https::CAInfo \"/etc/apt/build-ca.crt\";\n", 0o644}}...)
	}
	for _, f := range files {
		if err := os.Remove(filepath.Join(root, f.path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := os.WriteFile(filepath.Join(root, f.path), []byte(f.content), f.mode); err != nil {
			return err
		}
	}
	return nil
}

// sourcesList is the package source of the build.
func sourcesList(suite string, source mirror) string {
	lines := fmt.Sprintf("deb %s %s main\ndeb %s %s-updates main\n", source.URI, suite, source.URI, suite)
	if source.Security != "" {
		lines += fmt.Sprintf("deb %s %s-security main\n", source.Security, suite)
	}
	return lines
}

// cleanLayer removes from a layer what only its build needed. Machines have an
// empty source list: all they can reach is the lab's own repository, which
// nines adds as it would on a real server.
func cleanLayer(upper string) error {
	for _, path := range []string{
		"usr/sbin/policy-rc.d", "etc/dpkg/dpkg.cfg.d/build", "etc/apt/build-ca.crt", "etc/apt/apt.conf.d/build-ca",
		"var/lib/apt/lists", "var/cache/apt", "var/log/apt", "run", "tmp", "root", "proc", "dev", "sys",
		// Made at random by a package, so it differs from server to server; the
		// same one everywhere would hide that somebody forgot to set it.
		"var/lib/rabbitmq/.erlang.cookie",
	} {
		if err := os.RemoveAll(filepath.Join(upper, path)); err != nil {
			return err
		}
	}
	for path, content := range map[string]string{
		"etc/resolv.conf":      "",
		"etc/apt/sources.list": "# None: nines adds the lab's own repository.\n",
	} {
		file := filepath.Join(upper, path)
		// A build that changed nothing in a folder, with debootstrap's own source, has none in its layer.
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			return err
		}
	}
	return nil
}
