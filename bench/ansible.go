package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"nines/internal/config"
	"nines/internal/lab"
	"nines/internal/model"
	"nines/internal/plan"
)

const ansibleRuns = 3

// player runs a playbook and returns what it took, in seconds. A run that changed something is an error.
type player func(ctx context.Context, playbook string) (float64, error)

// ansible makes Ansible ready for the nodes: installed, with its project written, and after one
// run that proves there is nothing to change and opens the connections. hangUp is never nil: it
// closes them and removes the project.
func (b *bench) ansible(ctx context.Context, l *lab.Lab) (play player, hangUp func(), err error) {
	hangUp = func() {}
	if err := b.installAnsible(ctx); err != nil {
		return nil, hangUp, err
	}
	c, err := config.Load(l.ClusterFile())
	if err != nil {
		return nil, hangUp, err
	}
	// MkdirTemp makes it 0700: it will hold what the nodes' secret files hold.
	dir, err := os.MkdirTemp("", "nines-bench-")
	if err != nil {
		return nil, hangUp, err
	}
	p := project{
		Dir: dir, KnownHosts: c.SSH.KnownHosts, Identity: c.SSH.Identity, User: c.SSH.User, Port: c.SSH.Port,
		Nodes: c.Nodes, Forks: len(c.Nodes),
	}
	hangUp = func() {
		p.hangUp(context.WithoutCancel(ctx))
		if err := os.RemoveAll(dir); err != nil {
			b.say("copies of the lab's files are left: %v", err)
		}
	}
	b.say("fetching the nodes' files for Ansible")
	if err := b.prepare(ctx, p, l); err != nil {
		return nil, hangUp, err
	}
	play = func(ctx context.Context, playbook string) (float64, error) { return b.play(ctx, p, playbook) }
	b.say("running Ansible once, to see that it finds nothing to change")
	_, err = play(ctx, gathering)
	return play, hangUp, err
}

// play is a player of the project, in the lab's network.
func (b *bench) play(ctx context.Context, p project, playbook string) (float64, error) {
	nines := program{path: b.nines.path, env: p.environment(os.Environ())}
	out, err := nines.run(ctx, "lab", "exec", "--name", b.lab, "--host", "--", "ansible-playbook", filepath.Join(p.Dir, playbook))
	if ctx.Err() != nil {
		return 0, err
	}
	hosts, parseErr := parseRecap(string(out.stdout))
	if parseErr == nil {
		parseErr = unchanged(hosts, p.Nodes)
	}
	if err = errors.Join(err, parseErr); err != nil {
		return 0, fmt.Errorf("%w\n%s", err, problems(string(out.stdout)))
	}
	return out.took.Seconds(), nil
}

// problems returns the lines of Ansible's output that tell of changes and failures.
func problems(text string) string {
	var out []string
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "changed:") || strings.HasPrefix(line, "fatal:") || strings.HasPrefix(line, "failed:") {
			out = append(out, line)
		}
	}
	return lastLines(strings.Join(out, ""), 20)
}

// environment is Ansible's: this process's without another configuration of Ansible,
// and with a locale it accepts.
func (p project) environment(env []string) []string {
	env = slices.DeleteFunc(slices.Clone(env), func(v string) bool {
		return strings.HasPrefix(v, "ANSIBLE_") || strings.HasPrefix(v, "LC_ALL=")
	})
	return append(env, "LC_ALL=C.UTF-8", "ANSIBLE_CONFIG="+filepath.Join(p.Dir, "ansible.cfg"), "ANSIBLE_HOME="+filepath.Join(p.Dir, "home"))
}

// hangUp ends the SSH connections that Ansible left open.
func (p project) hangUp(ctx context.Context) {
	sockets, _ := filepath.Glob(filepath.Join(p.Dir, "cp", "*")) // the pattern is good
	for _, s := range sockets {
		// One that is gone already needs no end.
		_, _ = program{path: "ssh"}.run(ctx, "-F", "none", "-o", "ControlPath="+s, "-O", "exit", "node")
	}
}

// prepare writes Ansible's project: playbooks, variables, and the files of the nodes as they
// are, so that there is nothing to change.
func (b *bench) prepare(ctx context.Context, p project, l *lab.Lab) error {
	rs, err := wanted(l.ClusterFile())
	if err != nil {
		return err
	}
	files, err := p.files(rs)
	if err != nil {
		return err
	}
	for name, content := range files {
		if err := writePrivate(filepath.Join(p.Dir, name), bytes.NewReader(content)); err != nil {
			return err
		}
	}
	for _, n := range p.Nodes {
		if err := b.fetch(ctx, n, rs, filepath.Join(p.Dir, "tree", n.Name)); err != nil {
			return fmt.Errorf("files of %s: %w", n.Name, err)
		}
	}
	return nil
}

// fetch copies the node's files that the resources name below dir.
func (b *bench) fetch(ctx context.Context, n model.Node, rs []plan.Resource, dir string) error {
	command := "tar --create --file=- --directory=/ --"
	for _, r := range rs {
		if r.Node == n.Name && r.File != nil {
			command += " " + quote(strings.TrimPrefix(r.File.Path, "/"))
		}
	}
	out, err := b.nines.run(ctx, "lab", "ssh", "--name", b.lab, n.Name, command)
	if err != nil {
		return err
	}
	return unpack(bytes.NewReader(out.stdout), dir)
}

// quote makes a word of the shell of any text.
func quote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

// unpack writes the regular files of a tar archive below dir, for their owner's eyes only.
func unpack(archive io.Reader, dir string) error {
	for t := tar.NewReader(archive); ; {
		h, err := t.Next()
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		case h.Typeflag != tar.TypeReg:
			return fmt.Errorf("%s is not a regular file", h.Name)
		case !filepath.IsLocal(h.Name):
			return fmt.Errorf("%s lies outside", h.Name)
		}
		if err := writePrivate(filepath.Join(dir, h.Name), t); err != nil {
			return err
		}
	}
}

// writePrivate writes a file that only its owner reads, with the directories above it.
func writePrivate(path string, content io.Reader) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, content)
	return errors.Join(err, f.Close())
}

// installAnsible installs Debian's ansible-core where it is missing. It stays.
func (b *bench) installAnsible(ctx context.Context) error {
	var missing []string
	for name, pkg := range map[string]string{"ansible-playbook": "ansible-core", "ssh": "openssh-client"} {
		if _, err := exec.LookPath(name); err != nil {
			missing = append(missing, pkg)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	slices.Sort(missing)
	b.say("installing %s with apt-get, to compare with (it stays installed)", strings.Join(missing, " and "))
	apt := program{path: "apt-get", env: append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")}
	install := append([]string{"install", "--yes", "--quiet", "--no-install-recommends"}, missing...)
	_, err := apt.run(ctx, install...)
	if err != nil && ctx.Err() == nil {
		// The package lists may be old or absent.
		if _, err = apt.run(ctx, "update", "--quiet"); err == nil {
			_, err = apt.run(ctx, install...)
		}
	}
	if err != nil {
		return fmt.Errorf("no Ansible to compare with; install ansible-core by hand: %w", err)
	}
	return nil
}

// ansibleVersion is what Ansible says of itself: "core 2.14.18".
func ansibleVersion(ctx context.Context) string {
	out, err := program{path: "ansible-playbook", env: append(os.Environ(), "LC_ALL=C.UTF-8")}.run(ctx, "--version")
	if err != nil {
		return ""
	}
	_, rest, _ := strings.Cut(string(out.stdout), "[")
	version, _, _ := strings.Cut(rest, "]")
	return version
}
