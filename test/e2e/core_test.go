package e2e

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// drills are all of the core's.
var drills = []string{"vip-holder-power-off", "db-writer-power-off", "rabbitmq-node-power-off", "kill-keystone", "kill-haproxy", "freeze-keystone", "freeze-galera-of-writer",
	"management-nic-cut", "disk-full-galera", "disk-full-rabbitmq", "clock-jump", "partition-minority", "partition-asymmetric", "vip-duplicate"}

// siteDrills take more than one machine down. What they promise is that nothing is lost and that nobody lends a hand.
var siteDrills = []string{"site-power-cut", "galera-one-member-gone", "leader-killed-during-recovery", "rabbitmq-last-node-gone"}

// run is what the tests read of a drill's report.
type run struct {
	Name    string   `json:"name"`
	Verdict string   `json:"verdict"`
	Seed    int64    `json:"seed"`
	Reasons []string `json:"reasons"`
	Notes   []string `json:"notes"`
	Probes  []struct {
		Name     string  `json:"name"`
		Requests int     `json:"requests"`
		Failed   int     `json:"failed"`
		Longest  float64 `json:"longest_outage_ms"`
	} `json:"probes"`
	Acks struct {
		Written int `json:"written"`
		Lost    int `json:"lost"`
	} `json:"acks"`
	RedundantAfter float64 `json:"redundant_after_ms"`
}

// TestCore goes the way of a new user: a cluster from nothing, used, hurt, changed, removed.
func TestCore(t *testing.T) {
	requireLab(t)
	must(t, 5*time.Minute, "lab", "down", "--name", labName)
	t.Cleanup(func() { nines(t, 5*time.Minute, "lab", "down", "--name", labName) })
	must(t, 20*time.Minute, "lab", "up", "--profile", "core", "--name", labName, "--set", "vip.public_address="+publicVIP+"/24")
	cluster := "/var/lib/nines-lab/" + labName + "/cluster.yaml"

	part(t, cluster, "healthy", func(t *testing.T) { healthy(t, cluster) })
	part(t, cluster, "token through the VIP", func(t *testing.T) {
		out := must(t, time.Minute, "lab", "exec", "--name", labName, "--", "openstack", "token", "issue", "-f", "value", "-c", "id")
		if len(strings.TrimSpace(out)) < 100 {
			t.Errorf("no fernet token: %q", out)
		}
	})
	part(t, cluster, "requests follow each other on a connection", followed)
	part(t, cluster, "second apply changes nothing", func(t *testing.T) { unchanged(t, cluster) })
	part(t, cluster, "users have an address of their own", func(t *testing.T) { ownAddress(t, cluster) })
	part(t, cluster, "secrets stay secret", func(t *testing.T) { secretsStaySecret(t, cluster) })
	part(t, cluster, "drift is seen and put back", func(t *testing.T) { drift(t, cluster) })
	part(t, cluster, "a replica that refuses its leader is made anew", divergedReplica)
	part(t, cluster, "certificates come to their end", func(t *testing.T) { certificates(t, cluster) })
	part(t, cluster, "fencing", func(t *testing.T) { fencing(t, cluster) })
	part(t, cluster, "a recovery brings a machine back", func(t *testing.T) { broughtBack(t, cluster) })
	part(t, cluster, "cuts", func(t *testing.T) { cuts(t, cluster) })
	part(t, cluster, "a member that left comes back", func(t *testing.T) { leftForGood(t, cluster) })
	for _, name := range drills {
		part(t, cluster, name, func(t *testing.T) { drilled(t, cluster, name) })
	}
	for _, name := range siteDrills {
		part(t, cluster, name, func(t *testing.T) { drilled(t, cluster, name) })
	}
	part(t, cluster, "a torn state transfer is begun anew", func(t *testing.T) { tornTransfer(t, cluster) })
	part(t, cluster, "a loss is found", func(t *testing.T) { lossIsFound(t, cluster) })
	part(t, cluster, "the VIP under Pacemaker and back", func(t *testing.T) { otherEngine(t, cluster) })
	part(t, cluster, "agents survive their upgrade", func(t *testing.T) { upgrade(t, cluster) })
	part(t, cluster, "kill -9 of an agent during apply", func(t *testing.T) { killedAgent(t, cluster) })

	must(t, 5*time.Minute, "lab", "down", "--name", labName)
	gone(t, labName)
}

// drilled runs a drill. The limits are those of a machine that does nothing else, which the one that tests may
// not be: a run that misses one is repeated, and most of three must pass. Nothing may ever be lost, and every
// run must leave a whole cluster.
func drilled(t *testing.T, cluster, name string) {
	var missed []string
	for passed := 0; passed <= len(missed); {
		r := nines(t, 12*time.Minute, "-c", cluster, "drill", "run", name, "--json")
		if r.code != 0 && r.code != 2 {
			t.Fatalf("nothing was measured: exit %d\n%s", r.code, r.stderr)
		}
		got := decode[run](t, r.stdout)
		for _, p := range got.Probes {
			t.Logf("%-16s %5d requests, %4d failed, longest outage %.0f ms", p.Name, p.Requests, p.Failed, p.Longest)
		}
		if got.Name != name || got.Acks.Lost != 0 || got.Acks.Written == 0 || got.RedundantAfter < 0 {
			t.Fatalf("%+v", got)
		}
		healthy(t, cluster)
		if got.Verdict == "pass" {
			passed++
			continue
		}
		t.Logf("missed: %v\n%s", got.Reasons, r.stderr)
		if missed = append(missed, strings.Join(got.Reasons, "; ")); len(missed) == 2 {
			t.Fatalf("two runs of %s missed its limits: %s", name, strings.Join(missed, ", and "))
		}
	}
}

// leftForGood has a member leave its cluster as it does after a state transfer that broke: it runs, and goes back only with a new start.
func leftForGood(t *testing.T, cluster string) {
	const state = `mariadb -NBe "show status like 'wsrep_cluster_status'" | cut -f2`
	left := must(t, time.Minute, "lab", "ssh", "--name", labName, "ctl2", "--", `mariadb -e "set global wsrep_cluster_address=''"; `+state)
	if strings.TrimSpace(left) != "Disconnected" {
		t.Fatalf("it did not leave: %s", left)
	}
	must(t, 3*time.Minute, "lab", "ssh", "--name", labName, "ctl2", "--", "until "+state+" | grep -qx Primary; do sleep 0.5; done")
	healthyWithin(t, cluster, time.Minute)
}

// tornTransfer leaves a member as a power cut soon after a state transfer does: Galera knows its position, and the files that describe
// the tables are empty.
func tornTransfer(t *testing.T, cluster string) {
	const table = "/var/lib/mysql/keystone/project.frm"
	must(t, 2*time.Minute, "lab", "ssh", "--name", labName, "ctl2", "--", "systemctl stop mariadb && truncate --size 0 "+table+" && systemctl --no-block start mariadb")
	must(t, 2*time.Minute, "lab", "ssh", "--name", labName, "ctl2", "--", "until test -s "+table+"; do sleep 0.5; done")
	healthyWithin(t, cluster, time.Minute)
	must(t, time.Minute, "lab", "ssh", "--name", labName, "ctl2", "--", "mariadb -e 'select count(*) from keystone.project'")
}

// lossIsFound has the database acknowledge writes that are not on any disk, and takes the power of all machines: a ledger that finds
// nothing then would prove nothing in the other drills.
func lossIsFound(t *testing.T, cluster string) {
	for _, node := range []string{"ctl1", "ctl2", "ctl3"} {
		must(t, time.Minute, "lab", "ssh", "--name", labName, node, "--",
			"mariadb -e 'set global innodb_flush_log_at_trx_commit=0, global innodb_flush_log_at_timeout=60'") // until the next start
	}
	r := nines(t, 12*time.Minute, "-c", cluster, "drill", "run", "site-power-cut", "--json")
	got := decode[run](t, r.stdout)
	t.Logf("%d of %d acknowledged writes lost, %s", got.Acks.Lost, got.Acks.Written, got.Verdict)
	if r.code != 2 || got.Acks.Lost == 0 || got.Verdict == "pass" || got.RedundantAfter < 0 {
		t.Errorf("exit %d, %+v", r.code, got)
	}
	healthy(t, cluster)
}

type status struct {
	Healthy    bool     `json:"healthy"`
	VIPHolders []string `json:"vip_holders"`
	PublicVIP  string   `json:"public_vip"`
	Apply      struct {
		Who   string `json:"who"`
		State string `json:"state"`
	} `json:"apply"`
	Conditions []struct {
		Code string `json:"code"`
		Node string `json:"node"`
		Text string `json:"text"`
	} `json:"conditions"`
}

// healthy waits until the status is good: health checks take a moment to notice.
func healthy(t *testing.T, cluster string) {
	t.Helper()
	healthyWithin(t, cluster, 30*time.Second)
}

// healthyWithin waits until the status is good. Machines that boot answer nothing for a while: an error counts only at the end.
func healthyWithin(t *testing.T, cluster string, limit time.Duration) {
	t.Helper()
	var st status
	var last result
	for deadline := time.Now().Add(limit); !st.Healthy && time.Now().Before(deadline); {
		asked := time.Now()
		st = status{}
		if last = nines(t, time.Minute, "-c", cluster, "status", "--json"); last.code != 1 {
			st = decode[status](t, last.stdout)
		}
		if !st.Healthy { // who is asked compares all that is on each node: what keeps machines busy that have to become whole
			time.Sleep(max(time.Second, 2*time.Since(asked)))
		}
	}
	if !st.Healthy || len(st.VIPHolders) != 1 {
		t.Errorf("not healthy: VIP on %v, %+v\n%s", st.VIPHolders, st.Conditions, last.stderr)
	}
}

func unchanged(t *testing.T, cluster string) {
	t.Helper()
	if r := nines(t, time.Minute, "-c", cluster, "plan"); r.code != 0 {
		t.Errorf("plan exits %d, want 0 (no changes):\n%s%s", r.code, r.stdout, r.stderr)
	}
	got := decode[struct {
		State string `json:"state"`
		Plan  struct {
			Ops []any `json:"ops"`
		} `json:"plan"`
	}](t, must(t, time.Minute, "-c", cluster, "apply", "--yes", "--json"))
	if got.State != "converged" || len(got.Plan.Ops) != 0 {
		t.Errorf("second apply: %+v", got)
	}
}

// secretsStaySecret looks for passwords where everybody may read.
func secretsStaySecret(t *testing.T, cluster string) {
	clouds, err := os.ReadFile(strings.TrimSuffix(cluster, "cluster.yaml") + "clouds.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var password string
	for line := range strings.Lines(string(clouds)) {
		if _, v, ok := strings.Cut(line, "password:"); ok {
			password = strings.Trim(strings.TrimSpace(v), `"'`)
		}
	}
	if len(password) < 20 {
		t.Fatalf("no generated password in clouds.yaml")
	}
	for _, where := range []string{
		"grep -rlsF -- %s /etc /var/log --include=* | xargs -r stat -c '%%A %%n' | grep -E '^.......r' || true",
		"journalctl --no-pager -b | grep -cF -- %s | grep -v '^0$' || true",
	} {
		script := strings.ReplaceAll(strings.ReplaceAll(where, "%s", password), "%%", "%")
		if out := must(t, time.Minute, "lab", "ssh", "--name", labName, "ctl1", "--", script); strings.TrimSpace(out) != "" {
			t.Errorf("the admin's password is readable: %s", out)
		}
	}
}

func drift(t *testing.T, cluster string) {
	must(t, time.Minute, "lab", "ssh", "--name", labName, "ctl2", "--", "echo '# by hand' >> /etc/haproxy/haproxy.cfg")
	r := nines(t, time.Minute, "-c", cluster, "status", "--json")
	st := decode[status](t, r.stdout)
	seen := slices.ContainsFunc(st.Conditions, func(c struct {
		Code string `json:"code"`
		Node string `json:"node"`
		Text string `json:"text"`
	}) bool {
		return c.Code == "drift" && c.Node == "ctl2" && strings.Contains(c.Text, "haproxy.cfg")
	})
	if !seen || r.code == 0 {
		t.Errorf("edited file not seen: exit %d, %+v", r.code, st.Conditions)
	}
	if r := nines(t, time.Minute, "-c", cluster, "plan"); r.code != 2 {
		t.Errorf("plan exits %d, want 2 (there are changes)", r.code)
	}
	must(t, 2*time.Minute, "-c", cluster, "apply", "--yes")
	healthy(t, cluster)
	unchanged(t, cluster)
}

// upgrade brings another build to all agents while requests go on.
func upgrade(t *testing.T, cluster string) {
	other := t.TempDir() + "/nines"
	build(t, other, "v0-other")
	clients := startRequests(t)
	r := ninesAs(t, other, 3*time.Minute, "-c", cluster, "upgrade", "agents")
	if r.code != 0 {
		t.Fatalf("upgrade: exit %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	if n, failed := clients.stop(); len(failed) > 0 || n == 0 {
		t.Errorf("%d of %d requests failed during the upgrade: %s", len(failed), n, strings.Join(failed, "; "))
	}
	must(t, 3*time.Minute, "-c", cluster, "upgrade", "agents")
	healthy(t, cluster)
}

// killedAgent changes a file everywhere and kills an agent in the middle.
func killedAgent(t *testing.T, cluster string) {
	for _, n := range []string{"ctl1", "ctl2", "ctl3"} {
		must(t, time.Minute, "lab", "ssh", "--name", labName, n, "--", "echo '# by hand' >> /etc/mysql/mariadb.conf.d/90-nines.cnf; echo '# by hand' >> /etc/haproxy/haproxy.cfg")
	}
	done := make(chan result, 1)
	go func() { done <- nines(t, 5*time.Minute, "-c", cluster, "apply", "--yes") }()
	time.Sleep(1500 * time.Millisecond) // in the middle: the restarts take far longer
	must(t, time.Minute, "lab", "ssh", "--name", labName, "ctl2", "--", "systemctl kill -s KILL nines-agent")
	if r := <-done; r.code != 0 {
		t.Logf("the apply ended with %d: %s", r.code, r.stderr)
		must(t, 5*time.Minute, "-c", cluster, "apply", "--yes")
	}
	unchanged(t, cluster)
	healthy(t, cluster)
}
