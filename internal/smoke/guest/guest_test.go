package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// unpack reads an archive as the kernel does.
func unpack(t *testing.T, data []byte) []entry {
	t.Helper()
	var out []entry
	r := bytes.NewReader(data)
	align := func() {
		for r.Len() > 0 && (len(data)-r.Len())%4 != 0 {
			_, _ = r.ReadByte()
		}
	}
	for {
		header := make([]byte, 110)
		if _, err := io.ReadFull(r, header); err != nil {
			t.Fatalf("after %d entries: %v", len(out), err)
		}
		if string(header[:6]) != "070701" {
			t.Fatalf("after %d entries: magic %q", len(out), header[:6])
		}
		field := func(n int) uint32 {
			v, err := strconv.ParseUint(string(header[6+8*n:14+8*n]), 16, 32)
			if err != nil {
				t.Fatal(err)
			}
			return uint32(v)
		}
		name := make([]byte, field(11))
		_, _ = io.ReadFull(r, name)
		align()
		body := make([]byte, field(6))
		_, _ = io.ReadFull(r, body)
		align()
		if name[len(name)-1] != 0 {
			t.Fatalf("name %q does not end with a zero", name)
		}
		e := entry{name: string(name[:len(name)-1]), mode: field(1), major: field(9), minor: field(10)}
		if e.name == "TRAILER!!!" {
			return out
		}
		if len(body) > 0 {
			e.data = body
		}
		out = append(out, e)
	}
}

func TestArchiveRoundTrip(t *testing.T) {
	want := []entry{
		{name: "a", mode: typeDirectory | 0o755},
		{name: "a/empty", mode: typeFile | 0o600},
		{name: "dev/console", mode: typeDevice | 0o600, major: 5, minor: 1},
	}
	for size := range 9 { // every padding, of names and contents
		want = append(want, entry{name: "f" + strings.Repeat("x", size), mode: typeFile | 0o644, data: bytes.Repeat([]byte{7}, size+1)})
	}
	var out, again bytes.Buffer
	if err := write(&archive{out: &out}, want); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, unpack(t, out.Bytes()), cmp.AllowUnexported(entry{})); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if out.Len()%512 != 0 {
		t.Errorf("%d bytes are no whole blocks", out.Len())
	}
	if err := write(&archive{out: &again}, want); err != nil || !bytes.Equal(out.Bytes(), again.Bytes()) {
		t.Errorf("the same entries make other bytes (%v)", err)
	}
	if cpio, err := exec.LookPath("cpio"); err == nil {
		cmd := exec.Command(cpio, "-t", "--quiet")
		cmd.Stdin = bytes.NewReader(out.Bytes())
		list, err := cmd.CombinedOutput()
		if err != nil || !strings.HasPrefix(string(list), "a\na/empty\ndev/console\nf\nfx\n") {
			t.Errorf("cpio -t: %v\n%s", err, list)
		}
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space left") }

func TestArchiveKeepsTheFirstError(t *testing.T) {
	err := write(&archive{out: full{}}, []entry{{name: "a", mode: typeFile}})
	if err == nil || !strings.Contains(err.Error(), "no space left") {
		t.Error(err)
	}
}

// kernel is a set of modules with what they depend on.
func kernel(t *testing.T, depends map[string]string, builtin ...string) *modules {
	t.Helper()
	m := &modules{files: map[string]string{}, builtin: map[string]bool{}}
	for name := range depends {
		m.files[name] = name
	}
	for _, name := range builtin {
		m.builtin[name] = true
	}
	m.read = func(_ context.Context, path string) ([]byte, error) { return object(depends[path]), nil }
	return m
}

// object is the smallest file that is a module to us: an ELF file with one section, .modinfo, and the one with names.
func object(depends string) []byte {
	info := []byte("license=GPL\x00depends=" + depends + "\x00name=x\x00")
	names := []byte("\x00.modinfo\x00.shstrtab\x00")
	const head, section = 64, 64
	var b bytes.Buffer
	num := func(size int, v int) {
		for range size {
			b.WriteByte(byte(v))
			v >>= 8
		}
	}
	b.WriteString("\x7fELF\x02\x01\x01" + strings.Repeat("\x00", 9))
	num(2, 1)  // relocatable
	num(2, 62) // x86-64
	num(4, 1)
	num(8, 0)
	num(8, 0)
	num(8, head+len(info)+len(names)) // section headers
	num(4, 0)
	for _, v := range []int{head, 0, 0, section, 3, 2} {
		num(2, v)
	}
	b.Write(info)
	b.Write(names)
	header := func(name, kind, offset, size int) {
		for _, f := range [][2]int{{4, name}, {4, kind}, {8, 0}, {8, 0}, {8, offset}, {8, size}, {4, 0}, {4, 0}, {8, 1}, {8, 0}} {
			num(f[0], f[1])
		}
	}
	header(0, 0, 0, 0)
	header(1, 1, head, len(info))
	header(10, 3, head+len(info), len(names))
	return b.Bytes()
}

func TestModulesComeAfterWhatTheyNeed(t *testing.T) {
	m := kernel(t, map[string]string{
		"virtio": "", "virtio_ring": "virtio", "virtio_pci": "virtio_ring,virtio,virtio-pci-legacy-dev", "virtio_pci_legacy_dev": "",
		"virtio_net": "virtio,virtio_ring,net_failover,ipv6", "net_failover": "failover", "failover": "", "other": "",
	}, "ipv6", "virtio_blk")
	got, err := m.resolve(t.Context(), []string{"virtio_pci", "virtio_net", "virtio_blk"})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, g := range got {
		names = append(names, g.name)
	}
	want := []string{"virtio", "virtio_ring", "virtio_pci_legacy_dev", "virtio_pci", "failover", "net_failover", "virtio_net"}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestModulesThatCannotBeLoaded(t *testing.T) {
	for name, tc := range map[string]struct {
		depends map[string]string
		want    string
	}{
		"missing": {map[string]string{"a": "b"}, "the kernel has no module a -> b"},
		"circle":  {map[string]string{"a": "b", "b": "a"}, "a -> b -> a"},
	} {
		_, err := kernel(t, tc.depends).resolve(t.Context(), []string{"a"})
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	m := kernel(t, map[string]string{"a": ""})
	m.read = func(context.Context, string) ([]byte, error) { return []byte("no module"), nil }
	if _, err := m.resolve(t.Context(), []string{"a"}); err == nil {
		t.Error("a file that is no module was taken for one")
	}
	if _, err := readModule(t.Context(), "x.ko.zst", ""); err == nil || !strings.Contains(err.Error(), "--kernel") {
		t.Error(err)
	}
}

func TestModulesOfAFolder(t *testing.T) {
	dir := t.TempDir()
	for path, text := range map[string]string{"kernel/a/virtio-pci.ko": string(object("")), "kernel/b/x_y.ko.xz": "", "modules.order": "x.ko", "modules.builtin": "kernel/fs/ext4.ko\nkernel/net/ipv6.ko\n"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, path)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, path), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	m, err := openModules(dir, "")
	if err != nil || len(m.files) != 2 || m.files["virtio_pci"] == "" || m.files["x_y"] == "" || !m.builtin["ipv6"] {
		t.Errorf("%v, %+v", err, m)
	}
	if got, err := m.resolve(t.Context(), []string{"virtio_pci", "ext4"}); err != nil || len(got) != 1 {
		t.Errorf("%v, %v", got, err)
	}
}

func TestRamdisk(t *testing.T) {
	var out bytes.Buffer
	if err := write(&archive{out: &out}, content([]byte("busybox"), []module{{"virtio", []byte("1")}, {"virtio_net", []byte("2")}})); err != nil {
		t.Fatal(err)
	}
	have := map[string]entry{}
	for _, e := range unpack(t, out.Bytes()) {
		dir := filepath.Dir(e.name)
		if _, ok := have[dir]; !ok && dir != "." {
			t.Errorf("%s comes before its directory", e.name)
		}
		have[e.name] = e
	}
	if string(have["modules/order"].data) != "virtio.ko\nvirtio_net.ko\n" || string(have["modules/virtio_net.ko"].data) != "2" {
		t.Errorf("modules: %+v", have["modules/order"])
	}
	for _, program := range []string{"init", "dhcp", "bin/busybox", "www/cgi-bin/index.cgi"} {
		if have[program].mode != typeFile|0o755 || len(have[program].data) == 0 {
			t.Errorf("%s: %o, %d bytes", program, have[program].mode, len(have[program].data))
		}
	}
}

func TestScriptsAreScripts(t *testing.T) {
	for _, name := range []string{"fetch.sh", "init", "dhcp", "answer"} {
		cmd := exec.Command("sh", "-n")
		cmd.Stdin = bytes.NewReader(script(name))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

// fakeApt puts an apt and a dpkg-deb into the way that know one kernel. Its modules are those of a kernel that has
// the drivers built in.
func fakeApt(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"apt-cache": `case $3 in
linux-image-cloud-amd64) echo "linux-image-cloud-amd64"; echo "  Depends: linux-image-6.1.0-9-cloud-amd64" ;;
linux-image-6.1.0-9-cloud-amd64) echo "  Depends: kmod"; echo "  Depends: linux-base"; echo "  Depends: linux-modules-6.1.0-9-cloud-amd64" ;;
esac`,
		"apt-get": `if [ "$2" = --print-uris ]; then shift 2; for p in "$@"; do echo "'http://x/$p.deb' ${p}_1.deb 100 SHA256:00"; done; exit; fi
shift 2; for p in "$@"; do echo $p >${p}_1.deb; done; echo "fetched $*" >>"$APT_LOG"`,
		"dpkg-deb": `mkdir -p $3/boot $3/bin $3/usr/lib/modules/6.1/
case $2 in
*busybox*) echo busybox >$3/bin/busybox ;;
*modules*) echo "kernel/virtio_pci.ko kernel/virtio_net.ko kernel/virtio_blk.ko" >$3/usr/lib/modules/6.1/modules.builtin ;;
*) echo kernel >$3/boot/vmlinuz-6.1; echo x >$3/boot/config-6.1 ;;
esac`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	t.Setenv("APT_LOG", filepath.Join(dir, "log"))
}

func TestGuestIsMadeOnce(t *testing.T) {
	fakeApt(t)
	cache, made := filepath.Join(t.TempDir(), "a", "guest"), 0
	var first Image
	for i := range 2 {
		image, err := Ensure(t.Context(), cache, func() { made++ })
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = image
		}
		if image != first {
			t.Errorf("%+v, then %+v", first, image)
		}
	}
	if made != 1 {
		t.Errorf("made %d times", made)
	}
	text, err := os.ReadFile(first.Kernel)
	if err != nil || string(text) != "kernel\n" {
		t.Errorf("%q, %v", text, err)
	}
	log, _ := os.ReadFile(os.Getenv("APT_LOG"))
	if string(log) != "fetched busybox-static linux-image-6.1.0-9-cloud-amd64 linux-modules-6.1.0-9-cloud-amd64\n" {
		t.Errorf("apt: %q", log)
	}
	entries, _ := os.ReadDir(cache)
	if len(entries) != 1 {
		t.Errorf("left in the cache: %v", entries)
	}

	// Without apt the one that was made is good enough.
	t.Setenv("PATH", fakePath(t, "apt-get", "apt-cache"))
	if image, err := Ensure(t.Context(), cache, func() { made++ }); err != nil || image != first || made != 1 {
		t.Errorf("%+v, %v", image, err)
	}
	var hint interface{ Hint() string }
	if _, err := Ensure(t.Context(), t.TempDir(), func() {}); !errors.As(err, &hint) || !strings.Contains(hint.Hint(), "--kernel") {
		t.Errorf("%v", err)
	}
}

// fakePath is a PATH on which these programs fail.
func fakePath(t *testing.T, programs ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range programs {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\necho no >&2\nexit 100\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return fmt.Sprintf("%s:%s", dir, os.Getenv("PATH"))
}
