package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestHostsWithoutLab brings a lab up where it cannot run: told before anything is begun, with what works all the same.
func TestHostsWithoutLab(t *testing.T) {
	requireLab(t)
	meminfo, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		t.Fatal(err)
	}
	var little strings.Builder
	for line := range strings.Lines(string(meminfo)) {
		if name, _, _ := strings.Cut(line, ":"); name == "MemAvailable" || name == "MemFree" {
			line = name + ": 900000 kB\n"
		}
		little.WriteString(line)
	}
	dir := t.TempDir()
	anybody := filepath.Join("/tmp", filepath.Base(filepath.Dir(dir))+"-nines") // other users cannot enter dir
	t.Cleanup(func() { os.Remove(anybody) })
	program, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	for path, f := range map[string]struct {
		content []byte
		mode    os.FileMode
	}{filepath.Join(dir, "meminfo"): {[]byte(little.String()), 0o644}, anybody: {program, 0o755},
		filepath.Join(dir, "os-release"): {[]byte("ID=fedora\nVERSION_ID=43\n"), 0o644}} {
		if err := os.WriteFile(path, f.content, f.mode); err != nil {
			t.Fatal(err)
		}
	}
	up := " lab up --name " + labName + "-none"
	for name, c := range map[string]struct{ script, says string }{
		"no root":       {"setpriv --reuid=65534 --regid=65534 --clear-groups " + anybody + up, "it needs root"},
		"no mounts":     {"setpriv --bounding-set -sys_admin --inh-caps -sys_admin " + anybody + up, "it may not mount file systems"},
		"little memory": {"unshare -m sh -ec 'mount --bind " + dir + "/meminfo /proc/meminfo; exec " + anybody + up + "'", "of memory are free"},
		"little disk":   {"unshare -m sh -ec 'mkdir -p /var/lib/nines-lab; mount -t tmpfs -o size=200m none /var/lib/nines-lab; exec " + anybody + up + "'", "of disk are free"},
		"not Debian":    {"unshare -m sh -ec 'mount --bind " + dir + "/os-release /etc/os-release; mount --bind /dev/null $(command -v debootstrap); exec " + anybody + up + "'", "it is not Debian 12 or 13"},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := exec.Command("sh", "-c", c.script).CombinedOutput()
			if err == nil || !strings.Contains(string(out), c.says) || !strings.Contains(string(out), "nines render") {
				t.Errorf("%v:\n%s", err, out)
			}
			t.Log(tail(string(out), 2))
		})
	}
	mine := labName
	labName += "-none"
	defer func() { labName = mine }()
	gone(t, labName)
}
