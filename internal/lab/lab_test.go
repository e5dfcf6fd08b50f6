package lab

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"nines/internal/config"
	"nines/internal/model"
)

func coreLab() *Lab {
	return &Lab{state: state{Name: "lab", Profile: "core", Nodes: profiles["core"].nodes}}
}

func TestClusterFileIsAccepted(t *testing.T) {
	document, err := coreLab().clusterYAML("trixie")
	if err != nil {
		t.Fatal(err)
	}
	document, err = config.Override(document, []string{"vip.advert=50ms"})
	if err != nil {
		t.Fatal(err)
	}
	cluster, err := config.Parse("cluster.yaml", document)
	if err != nil {
		t.Fatal(err)
	}
	if cluster.VIP.Advert != 50*time.Millisecond || cluster.Checks.Severity != "warning" || cluster.NTP.ControlClock {
		t.Errorf("cluster %+v", cluster)
	}
	if len(cluster.Controllers()) != 3 || cluster.VIP.Address.Addr().String() != vipAddress {
		t.Errorf("cluster %+v", cluster)
	}
}

func TestCloudHasComputes(t *testing.T) {
	l := &Lab{state: state{Name: "lab", Profile: "cloud", Nodes: profiles["cloud"].nodes}}
	document, err := l.clusterYAML("trixie")
	if err != nil {
		t.Fatal(err)
	}
	cluster, err := config.Parse("cluster.yaml", document)
	if err != nil {
		t.Fatal(err)
	}
	if len(cluster.Controllers()) != 3 || len(cluster.With(model.RoleCompute)) != 2 {
		t.Errorf("%+v", cluster.Nodes)
	}
	var total uint64
	for _, n := range l.state.Nodes {
		total += profiles["cloud"].memory[n.role()]
		if node, _ := cluster.Node(n.Name); node.Addresses[model.Tenant].String() != n.Tenant {
			t.Errorf("%+v", node)
		}
	}
	if total > 14<<30 {
		t.Errorf("the lab needs %d bytes", total)
	}
}

// The way of instances into the external network comes up without an address.
func TestBareInterface(t *testing.T) {
	batch := profiles["cloud"].nodes[3].networkBatch()
	for _, want := range []string{"addr replace 198.18.2.21/24 brd + dev tenant0\n", "link set provider0 up\n"} {
		if !strings.Contains(batch, want) {
			t.Errorf("no %q in\n%s", want, batch)
		}
	}
	if strings.Count(batch, "addr replace") != 3 {
		t.Errorf("got:\n%s", batch)
	}
}

func TestNames(t *testing.T) {
	for name, ok := range map[string]bool{
		"lab": true, "a": true, "my-lab-2": true,
		"": false, "Lab": false, "2lab": false, "a/b": false, "..": false, "a b": false, "abcdefghijklmnopqrstu": false,
	} {
		if err := checkName(name); (err == nil) != ok {
			t.Errorf("checkName(%q) = %v", name, err)
		}
	}
}

func TestEveryInterfaceNameFits(t *testing.T) {
	const limit = 15 // IFNAMSIZ - 1
	for name, p := range profiles {
		seen := map[string]bool{}
		for _, n := range p.nodes {
			for _, plug := range n.plugs() {
				outer := plug.outer(n.Name)
				mac := plug.mac().String()
				if len(outer) > limit || seen[outer] || seen[mac] {
					t.Errorf("profile %s: interface %q with %s is too long or not unique", name, outer, plug.address)
				}
				seen[outer], seen[mac] = true, true
				if !plug.network.prefix.Contains(plug.address.Addr()) || plug.address.Addr() == plug.network.operator() {
					t.Errorf("profile %s: %s is not an address for a machine in %s", name, plug.address, plug.network.prefix)
				}
			}
		}
	}
}

func TestMachineConfiguresItself(t *testing.T) {
	want := `link set lo up
addr replace 198.18.0.11/24 brd + dev mgmt0
link set mgmt0 up
addr replace 198.18.1.11/24 brd + dev ext0
link set ext0 up
`
	if got := profiles["core"].nodes[0].networkBatch(); got != want {
		t.Errorf("got:\n%s", got)
	}
}

func TestImageLeavesOutWhatNinesInstalls(t *testing.T) {
	facts := model.Releases[model.Debian13]
	spec := newImageSpec(facts, profiles["cloud"].services)
	for _, service := range profiles["cloud"].services {
		for _, p := range append(slices.Clone(facts.Packages[service]), facts.Packages[service+"/compute"]...) {
			installed, offered := slices.Contains(spec.Installed, p), slices.Contains(spec.Offered, p)
			if left := service == "memcached"; installed == left || offered != left {
				t.Errorf("%s of %s: installed %t, only in the repository %t", p, service, installed, offered)
			}
		}
	}
}

// Another backend's packages are at hand, and in no machine before nines installs them.
func TestImageOffersTheOtherBackend(t *testing.T) {
	spec := newImageSpec(model.Releases[model.Debian13], profiles["cloud"].services)
	for _, p := range []string{"neutron-l3-agent", "neutron-rpc-server", "pacemaker", "corosync"} {
		if !slices.Contains(spec.Offered, p) || slices.Contains(spec.Installed, p) {
			t.Errorf("%s: %v", p, spec.Offered)
		}
	}
	if slices.Contains(spec.Offered, "neutron-api") {
		t.Error("neutron-api is in the image anyway")
	}
}

// The agents of Neutron need more memory than OVN; the override says which of them it will be.
func TestMemoryFollowsTheBackend(t *testing.T) {
	l := &Lab{state: state{Name: "lab", Profile: "cloud", Nodes: profiles["cloud"].nodes}}
	document, err := l.clusterYAML("trixie")
	if err != nil {
		t.Fatal(err)
	}
	plain := profiles["cloud"].memory[model.RoleController]
	for set, want := range map[string]uint64{"neutron.backend=ovn": plain, "neutron.backend=ovs": plain + agentsMemory} {
		changed, err := config.Override(document, []string{set})
		if err != nil {
			t.Fatal(err)
		}
		if got := profiles["cloud"].forCluster(changed).memory[model.RoleController]; got != want {
			t.Errorf("%s: %d, want %d", set, got, want)
		}
	}
	if profiles["cloud"].memory[model.RoleController] != plain {
		t.Error("the profile itself has changed")
	}
}

func TestImageIsCachedByItsContent(t *testing.T) {
	spec := newImageSpec(model.Releases[model.Debian13], model.CoreServices)
	before := spec.layers()
	if again := newImageSpec(model.Releases[model.Debian13], model.CoreServices).layers(); again != before {
		t.Error("the same content has two places")
	}
	more := spec
	more.Installed = append(slices.Clone(spec.Installed), "another")
	if got := more.layers(); got.Packages == before.Packages || got.Base != before.Base {
		t.Error("another package changes the packages layer, and that only")
	}
	cloud := newImageSpec(model.Releases[model.Debian13], profiles["cloud"].services)
	if got := cloud.layers(); got.Packages == before.Packages || got.Base != before.Base {
		t.Error("the images of two profiles share the base layer, and that only")
	}
	other := spec
	other.Suite = "other"
	if got := other.layers(); got.Packages == before.Packages || got.Base == before.Base {
		t.Error("another suite changes both layers")
	}
}

func TestKeysAreExactBeforeTheFirstBoot(t *testing.T) {
	dir := t.TempDir()
	line, err := ensureKey(filepath.Join(dir, "host_a"), "a")
	if err != nil {
		t.Fatal(err)
	}
	again, err := ensureKey(filepath.Join(dir, "host_a"), "a")
	if err != nil || again != line {
		t.Errorf("a key that is there must stay: %q, %v", again, err)
	}
	raw, err := os.ReadFile(filepath.Join(dir, "host_a"))
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.ParsePrivateKey(raw)
	if err != nil {
		t.Fatal(err)
	}
	if got := knownhosts.Line([]string{"a"}, signer.PublicKey()); !strings.HasPrefix(line, strings.TrimPrefix(got, "a ")) {
		t.Errorf("public half %q does not belong to the private one %q", line, got)
	}
	if st, _ := os.Stat(filepath.Join(dir, "host_a")); st.Mode().Perm() != 0o600 {
		t.Errorf("private key has mode %v", st.Mode())
	}
}

func TestLockKeepsOthersOut(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	unlock, err := lockFile(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := lockFile(ctx, path); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("second lock: %v", err)
	}
	// The holder removes the file, as Down does: the next one must lock the new file.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	unlock()
	unlock, err = lockFile(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	if _, err := os.Stat(path); err != nil {
		t.Error("the lock is on a file nobody else can find")
	}
}

func TestUnknownNode(t *testing.T) {
	_, err := coreLab().SSHArgs("ctl9")
	if err == nil || !strings.Contains(err.Error(), "ctl1, ctl2, ctl3") {
		t.Errorf("error does not name the nodes there are: %v", err)
	}
}

func TestWhatTheImageMayHide(t *testing.T) {
	for dir, want := range map[string]bool{
		"/": false, "/etc": false, "/usr/local": false, "/var/lib/x": false, "/tmp/x": false,
		"/home/a": true, "/root/b": true, "/srv": true,
	} {
		if got := bindable(dir); got != want {
			t.Errorf("bindable(%q) = %t", dir, got)
		}
	}
	for variable, want := range map[string]bool{
		"TERM=xterm": true, "LC_ALL=C": true, "PYTHONPATH=/x": false, "SSL_CERT_FILE=/x": false, "LD_PRELOAD=x": false, "OS_AUTH_URL=x": false,
	} {
		if got := portable(variable); got != want {
			t.Errorf("portable(%q) = %t", variable, got)
		}
	}
}

func TestShareOfAMachine(t *testing.T) {
	pid := os.Getpid() // its root has no pathSettled
	for name, tc := range map[string]struct {
		since time.Duration
		want  map[string]string
	}{
		"boots":              {0, weightBooting},
		"boots for too long": {bootTime + time.Second, weightMachine},
	} {
		if got := shareOf(booted{pid: pid, since: time.Now().Add(-tc.since)}); !maps.Equal(got, tc.want) {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
}
