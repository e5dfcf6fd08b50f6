package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// otherEngine gives the running cluster's VIP to Pacemaker, takes the power of its holder, changes Pacemaker's configuration by
// hand, and gives the VIP back to keepalived.
func otherEngine(t *testing.T, cluster string) {
	back := edit(t, cluster, func(text string) string {
		return strings.Replace(text, "engine: keepalived", "engine: pacemaker", 1)
	})
	must(t, 4*time.Minute, "-c", cluster, "apply", "--yes")
	healthy(t, cluster)
	drilled(t, cluster, "vip-holder-power-off")
	cycledOnce(t, cluster)
	restartedInPlace(t, cluster)

	must(t, time.Minute, "lab", "ssh", "--name", labName, "ctl2", "--",
		"crm_resource --ban --resource vip --node ctl3 && crm_attribute --name maintenance-mode --update true")
	r := nines(t, time.Minute, "-c", cluster, "plan")
	for _, want := range []string{"cli-ban-vip-on-ctl3 was added", "maintenance-mode (crm_config) was added"} {
		if r.code != 2 || !strings.Contains(r.stdout, want) {
			t.Errorf("plan exits %d without %q\n%s", r.code, want, r.stdout)
		}
	}
	must(t, 2*time.Minute, "-c", cluster, "apply", "--yes")
	unchanged(t, cluster)
	must(t, time.Minute, "lab", "ssh", "--name", labName, "ctl1", "--", "crm_verify --live-check")

	back()
	must(t, 4*time.Minute, "-c", cluster, "apply", "--yes")
	healthy(t, cluster)
	unchanged(t, cluster)
}

// cycledOnce takes a machine's power and gives it back: Pacemaker must have counted it out by then, or it takes the power once more.
func cycledOnce(t *testing.T, cluster string) {
	taken := func() int {
		log, err := os.ReadFile(filepath.Join(filepath.Dir(cluster), "supervisor.log"))
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(string(log), "node=ctl3 reset=ForceOff")
	}
	before := taken()
	must(t, time.Minute, "-c", cluster, "fence", "cycle", "--yes", "ctl3")
	healthy(t, cluster)
	if n := taken() - before; n != 1 {
		t.Errorf("the power of ctl3 was taken %d times", n)
	}
}

// restartedInPlace changes Corosync's unit by hand, restarts it with that, and moves the VIP there. The apply that puts the unit back restarts Corosync and
// Pacemaker, and the VIP and HAProxy stay where they are.
func restartedInPlace(t *testing.T, cluster string) {
	holder := func() string {
		return strings.Join(decode[status](t, nines(t, time.Minute, "-c", cluster, "status", "--json").stdout).VIPHolders, " ")
	}
	at := "ctl2"
	if holder() == at {
		at = "ctl3"
	}
	run := func(script string) string {
		return must(t, time.Minute, "lab", "ssh", "--name", labName, at, "--", script)
	}
	started := func(unit string) string { return run("systemctl show --property=InvocationID " + unit) }
	run("echo '# by hand' >>/etc/systemd/system/corosync.service.d/nines.conf; systemctl daemon-reload; systemctl restart corosync")
	run("until crm_mon --one-shot | grep -q 'Online:.* " + at + " '; do sleep 0.5; done")
	run("crm_resource --move --resource vip --node " + at + "; until ip -brief address | grep -qF 198.18.0.10/; do sleep 0.2; done")
	proxy, ring := started("haproxy"), started("corosync")
	must(t, 3*time.Minute, "-c", cluster, "apply", "--yes")
	healthy(t, cluster)
	if started("corosync") == ring {
		t.Error("Corosync was not restarted")
	}
	if started("haproxy") != proxy || holder() != at {
		t.Errorf("HAProxy was restarted, or the VIP went from %s to %s", at, holder())
	}
}
