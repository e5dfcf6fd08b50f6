package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// liveRepository fills /root/repository, in a bare machine, with what TestLive* install: a flat
// repository that nobody signed, as they want it, from the lab's own. File names lose the quoted colon of an epoch,
// which a file: source would read in another way than an http: one.
const liveRepository = `set -eu
url=http://198.18.0.1:8080
echo "deb [trusted=yes] $url trixie main" >/etc/apt/sources.list.d/lab.list
apt-get -qq update
apt-get -qq install --download-only --no-install-recommends memcached haproxy mariadb-server galera-4 chrony socat keepalived
mkdir -p /root/repository
for deb in /var/cache/apt/archives/*.deb; do
	mv "$deb" "/root/repository/$(basename "$deb" | sed 's/%3a/./')"
done
/usr/lib/apt/apt-helper download-file $url/dists/trixie/main/binary-amd64/Packages /root/Packages >/dev/null
sed -E '/^Filename: /{s#.*/#Filename: ./#;s/%3a/./}' /root/Packages >/root/repository/Packages
cd /root/repository
printf 'Date: %s\nSHA256:\n %s %s Packages\n' "$(date -u '+%a, %d %b %Y %T UTC')" "$(sha256sum Packages | cut -d ' ' -f 1)" "$(stat -c %s Packages)" >Release
rm /etc/apt/sources.list.d/lab.list
chmod -R a+rX /root
`

// TestLive runs the tests that change the machine they run on (TestLive* of host and node)
// on a machine without any package of a service, in a lab of its own.
func TestLive(t *testing.T) {
	requireLab(t)
	t.Parallel() // nothing is measured
	name := labName + "-live"
	must(t, time.Minute, "lab", "down", "--name", name)
	t.Cleanup(func() { must(t, time.Minute, "lab", "down", "--name", name) })
	must(t, 20*time.Minute, "lab", "up", "--profile", "core", "--bare", "--machines-only", "--name", name)
	must(t, time.Minute, "lab", "ssh", "--name", name, "ctl1", "--", liveRepository)
	for _, pkg := range []string{"host", "node"} {
		t.Run(pkg, func(t *testing.T) { liveTests(t, name, pkg) })
	}
}

// liveTests runs the live tests of one package on ctl1. A test that is skipped has not
// been run: that fails too.
func liveTests(t *testing.T, lab, pkg string) {
	path := filepath.Join(t.TempDir(), pkg+".test")
	build := exec.Command("go", "test", "-c", "-ldflags", "-s -w", "-o", path, "nines/internal/"+pkg)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	program, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	there := "/root/" + pkg + ".test"
	copying := exec.Command(binary, "lab", "ssh", "--name", lab, "ctl1", "--", "cat >"+there+" && chmod +x "+there)
	copying.Stdin = program
	if out, err := copying.CombinedOutput(); err != nil {
		t.Fatalf("copy %s: %v\n%s", there, err, out)
	}
	r := nines(t, 3*time.Minute, "lab", "ssh", "--name", lab, "ctl1", "--",
		"cd /root && NINES_LIVE_HOST=/root/repository ./"+pkg+".test -test.run '^TestLive' -test.v -test.timeout 2m")
	if r.code != 0 || !strings.Contains(r.stdout, "--- PASS: TestLive") || strings.Contains(r.stdout, "--- SKIP") {
		t.Errorf("exit %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	for line := range strings.Lines(r.stdout) {
		if strings.HasPrefix(line, "---") {
			t.Log(strings.TrimSpace(line))
		}
	}
}
