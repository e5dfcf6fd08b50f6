package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// trouble is one thing that stands in the way of a deployment.
type trouble struct {
	name string
	// arrange makes it; what it returns takes it back.
	arrange func(t *testing.T) (mend func())
	// says is what an operator must be told.
	says []string
}

// TestTroubles deploys to machines with something wrong, one thing at a time: each is told with
// what to do, and no machine is changed. Then they are given agents, and what only a deployed cluster can refuse is tried.
func TestTroubles(t *testing.T) {
	requireLab(t)
	t.Parallel() // nothing is measured
	lab := labName + "-troubles"
	must(t, time.Minute, "lab", "down", "--name", lab)
	t.Cleanup(func() {
		must(t, time.Minute, "lab", "down", "--name", lab)
		gone(t, lab)
	})
	must(t, 20*time.Minute, "lab", "up", "--profile", "core", "--name", lab, "--machines-only")
	cluster := "/var/lib/nines-lab/" + lab + "/cluster.yaml"
	for _, tr := range troubles(lab, cluster) {
		t.Run(tr.name, func(t *testing.T) {
			mend := tr.arrange(t)
			refused(t, tr.says, "-c", cluster, "apply", "--yes")
			mend()
			untouched(t, lab)
		})
	}

	r := nines(t, 2*time.Minute, "-c", cluster, "apply") // nobody says yes: agents are brought, no more
	if r.code == 0 || !strings.Contains(r.stdout+r.stderr, "changes on 3 nodes") {
		t.Fatalf("an apply without consent: exit %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	t.Run("the plan changed", func(t *testing.T) { changedPlan(t, cluster) })
	t.Run("a leftover of another cluster", func(t *testing.T) { leftover(t, cluster) })
}

func troubles(lab, cluster string) []trouble {
	knownHosts := filepath.Join(filepath.Dir(cluster), "ssh", "known_hosts")
	return []trouble{
		{"unreachable node", func(t *testing.T) func() {
			must(t, time.Minute, "lab", "power", "--name", lab, "off", "ctl3")
			return func() {
				must(t, time.Minute, "lab", "power", "--name", lab, "on", "ctl3")
				for deadline := time.Now().Add(time.Minute); nines(t, time.Minute, "lab", "ssh", "--name", lab, "ctl3", "--", "true").code != 0; time.Sleep(time.Second) {
					if time.Now().After(deadline) { // it boots beside other tests
						t.Fatal("ctl3 does not answer after its power is back")
					}
				}
			}
		}, []string{"ctl3", "198.18.0.13:22"}},
		{"changed host key", func(t *testing.T) func() {
			return edit(t, knownHosts, func(text string) string {
				keys := hostKeys(text)
				return strings.ReplaceAll(text, keys["198.18.0.12"], keys["198.18.0.11"])
			})
		}, []string{"THE HOST KEY OF 198.18.0.12:22 HAS CHANGED", "known_hosts:"}},
		{"unknown host key", func(t *testing.T) func() {
			return edit(t, knownHosts, func(text string) string {
				var rest strings.Builder
				for line := range strings.Lines(text) {
					if !strings.HasPrefix(line, "198.18.0.12,") {
						rest.WriteString(line)
					}
				}
				return rest.String()
			})
		}, []string{"198.18.0.12", "not known"}},
		{"no root", func(t *testing.T) func() {
			onNode(t, lab, "ctl1", "useradd -m plain && cp -r /root/.ssh /home/plain/ && chown -R plain /home/plain/.ssh")
			back := edit(t, cluster, func(text string) string { return strings.Replace(text, "user: root", "user: plain", 1) })
			return func() { back(); onNode(t, lab, "ctl1", "userdel -r plain 2>/dev/null") }
		}, []string{"user plain of 198.18.0.11:22", "sudo", "198.18.0.12:22 refuses user plain"}},
		{"full disk", func(t *testing.T) func() {
			onNode(t, lab, "ctl2", `fallocate -l "$(($(df --output=avail -B1 / | tail -1) - 20000000))" /full`)
			return func() { onNode(t, lab, "ctl2", "rm /full") }
		}, []string{"ctl2", "free"}},
		{"wrong package source", func(t *testing.T) func() {
			return edit(t, cluster, func(text string) string { return strings.Replace(text, "198.18.0.1:8080", "198.18.0.1:8081", 1) })
		}, []string{"package source", "198.18.0.1:8081"}},
		{"a port is taken", func(t *testing.T) func() {
			onNode(t, lab, "ctl3", "systemd-run -q --unit thief socat TCP-LISTEN:3306,fork,reuseaddr PIPE")
			return func() { onNode(t, lab, "ctl3", "systemctl stop thief") }
		}, []string{"3306", "socat"}},
	}
}

// refused says that the command ends with an error that says all of that, and what to do.
func refused(t *testing.T, says []string, args ...string) {
	t.Helper()
	r := nines(t, 2*time.Minute, args...)
	if r.code == 0 {
		t.Errorf("%v: exit 0", args)
	}
	for _, s := range says {
		if !strings.Contains(r.stderr, s) {
			t.Errorf("%v does not say %q:\n%s", args, s, r.stderr)
		}
	}
	if !strings.Contains(r.stderr, "next: ") && !strings.Contains(r.stderr, "-> ") {
		t.Errorf("%v does not say what to do:\n%s", args, r.stderr)
	}
	t.Log(tail(r.stderr, 6))
}

// untouched says that nothing of nines is on the machines.
func untouched(t *testing.T, lab string) {
	t.Helper()
	for _, n := range []string{"ctl1", "ctl2", "ctl3"} {
		if left := onNode(t, lab, n, "ls -d /etc/nines /var/lib/nines /usr/local/bin/nines /run/nines-measure 2>/dev/null || true"); left != "" {
			t.Errorf("%s has %s", n, left)
		}
	}
}

// changedPlan agrees to a plan, changes cluster.yaml, and does what was agreed to.
func changedPlan(t *testing.T, cluster string) {
	r := nines(t, time.Minute, "-c", cluster, "plan", "--json")
	hash := decode[struct {
		Hash string `json:"hash"`
	}](t, r.stdout).Hash
	if r.code != 2 || hash == "" {
		t.Fatalf("plan: exit %d, hash %q", r.code, hash)
	}
	defer edit(t, cluster, func(text string) string {
		return strings.Replace(text, "router_id: 51", "router_id: 51\n  advert: 110ms", 1)
	})()
	refused(t, []string{"the plan changed since it was shown"}, "-c", cluster, "apply", "--yes", "--plan", hash)
}

// leftover deploys another cluster to the machines of this one.
func leftover(t *testing.T, cluster string) {
	state := filepath.Join(filepath.Dir(cluster), ".nines")
	aside := state + "-aside"
	if err := os.Rename(state, aside); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := os.RemoveAll(state); err != nil {
			t.Error(err)
		}
		if err := os.Rename(aside, state); err != nil {
			t.Error(err)
		}
	}()
	refused(t, []string{"belongs to another cluster", "take it out of that cluster"}, "-c", cluster, "apply", "--yes")
}

// edit changes a file of the lab; what it returns puts it back.
func edit(t *testing.T, path string, change func(string) string) (back func()) {
	t.Helper()
	was, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	is := change(string(was))
	if is == string(was) {
		t.Fatalf("%s: nothing to change in\n%s", path, was)
	}
	if err := os.WriteFile(path, []byte(is), 0o600); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := os.WriteFile(path, was, 0o600); err != nil {
			t.Error(err)
		}
	}
}

// hostKeys are the keys of a known_hosts file by address.
func hostKeys(text string) map[string]string {
	keys := map[string]string{}
	for line := range strings.Lines(text) {
		if host, key, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			keys[strings.Trim(strings.SplitN(host, ",", 2)[0], "[]")] = key
		}
	}
	return keys
}
