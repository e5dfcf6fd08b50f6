package lab

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestHierarchiesOfAllLayouts(t *testing.T) {
	for name, c := range map[string]struct {
		mountinfo string
		want      []hierarchy
	}{
		"unified": {
			"30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n",
			[]hierarchy{{"/sys/fs/cgroup", true}},
		},
		"hybrid": {
			"29 23 0:25 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n" +
				"31 29 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n" +
				"32 29 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n" +
				"33 29 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
			[]hierarchy{{"/sys/fs/cgroup/cpu,cpuacct", false}, {"/sys/fs/cgroup/systemd", false}, {"/sys/fs/cgroup/unified", true}},
		},
		"mounted twice": {
			"30 24 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n" +
				"40 24 0:26 / /srv/also\\040here rw - cgroup2 cgroup2 rw\n",
			[]hierarchy{{"/sys/fs/cgroup", true}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "mountinfo")
			if err := os.WriteFile(file, []byte(c.mountinfo), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := hierarchies(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got, cmp.AllowUnexported(hierarchy{})); diff != "" {
				t.Errorf("hierarchies (-want +got):\n%s", diff)
			}
		})
	}
}

func TestNoHierarchy(t *testing.T) {
	file := filepath.Join(t.TempDir(), "mountinfo")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := hierarchies(file); err == nil {
		t.Error("a host without control groups was accepted")
	}
}

func TestMountLines(t *testing.T) {
	got, ok := parseMount(`36 35 98:0 /mnt1 /mnt/a\040b rw,noatime master:1 propagate_from:2 - ext3 /dev/root\134x rw,errors=continue`)
	want := mountPoint{device: "98:0", target: "/mnt/a b", fstype: "ext3", source: `/dev/root\x`}
	if !ok || got != want {
		t.Errorf("got %+v, %t", got, ok)
	}
	for _, line := range []string{"", "1 2 3", "a - b", "1 2 0:1 / /x rw - "} {
		if _, ok := parseMount(line); ok {
			t.Errorf("%q was taken for a mount", line)
		}
	}
}

func FuzzMountLine(f *testing.F) {
	f.Add(`36 35 98:0 / /mnt\040 rw - ext4 /dev/x rw`)
	f.Fuzz(func(t *testing.T, line string) {
		if m, ok := parseMount(line); ok && (m.target == "" || m.fstype == "") {
			t.Errorf("%q: %+v", line, m)
		}
	})
}

// What Down removes is decided by path: never a neighbour with a longer name.
func TestOnlyWhatIsBelow(t *testing.T) {
	for path, want := range map[string]bool{
		"/run/nines-lab/a": true, "/run/nines-lab/a/nodes/x": true,
		"/run/nines-lab/ab": false, "/run/nines-lab": false, "/": false, "": false,
	} {
		if got := isBelow(path, "/run/nines-lab/a"); got != want {
			t.Errorf("isBelow(%q) = %t", path, got)
		}
	}
}

func TestDeletingRefusesToGoThroughMounts(t *testing.T) {
	mounts, err := readMounts("/proc/thread-self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mounts {
		if m.target != "/proc" {
			continue
		}
		if err := removeUnmounted("/proc"); err == nil || !strings.Contains(err.Error(), "still mounted") {
			t.Errorf("deleting below a mount: %v", err)
		}
	}
}

func TestSupportedDebian(t *testing.T) {
	for release, want := range map[string]bool{
		"ID=debian\nVERSION_ID=\"12\"\n":       true,
		"VERSION_ID=\"13\"\nID=debian\n":       true,
		"ID=debian\nVERSION_ID=\"11\"\n":       false,
		"ID=ubuntu\nVERSION_ID=\"24.04\"\n":    false,
		"ID=fedora\nVERSION_ID=12\n":           false,
		"PRETTY_NAME=\"Debian GNU/Linux\"\n":   false,
		"":                                     false,
		"ID='debian'\nVERSION_ID='13'\n#x=1\n": true,
	} {
		if got := supportedDebian(release); got != want {
			t.Errorf("%q: %t", release, got)
		}
	}
}

func TestAvailableMemory(t *testing.T) {
	if got := availableMemory([]byte("MemTotal:  100 kB\nMemAvailable:    2048 kB\n")); got != 2<<20 {
		t.Errorf("got %d", got)
	}
	if got := availableMemory([]byte("MemTotal: 100 kB\n")); got != 0 {
		t.Errorf("got %d of a file that does not say", got)
	}
}

func TestRefusalNamesWhatStillWorks(t *testing.T) {
	var err error = &CannotRunError{Reason: "no room", Remedy: "make some"}
	var hinted interface{ Hint() string }
	if !errors.As(err, &hinted) || !strings.Contains(hinted.Hint(), "nines render") || !strings.Contains(hinted.Hint(), "make some") {
		t.Errorf("%v", err)
	}
	if !strings.Contains(err.Error(), "no room") {
		t.Errorf("%v", err)
	}
}

// A host without a Debian archive leaves the choice to debootstrap: no build writes a package source then.
func TestCleanLayerWithoutSource(t *testing.T) {
	upper := t.TempDir()
	if err := cleanLayer(upper); err != nil {
		t.Fatal(err)
	}
	list, err := os.ReadFile(filepath.Join(upper, "etc/apt/sources.list"))
	if err != nil || !strings.HasPrefix(string(list), "# None") {
		t.Errorf("the machines' package sources: %q, %v", list, err)
	}
}
