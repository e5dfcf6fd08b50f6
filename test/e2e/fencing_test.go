package e2e

import (
	"strings"
	"testing"
	"time"
)

// fencing breaks a BMC and mends it: status tells both, and nothing of the cluster itself changes. Then a machine's power
// is switched for real.
func fencing(t *testing.T, cluster string) {
	bmc := func(mode string) { must(t, time.Minute, "lab", "--name", labName, "bmc", mode, "ctl2") }
	t.Cleanup(func() { nines(t, time.Minute, "lab", "--name", labName, "bmc", "ok", "ctl2") })
	must(t, time.Minute, "-c", cluster, "fence", "test")
	for mode, code := range map[string]string{"password": "bmc-credentials", "certificate": "bmc-certificate", "dead": "bmc-unreachable"} {
		bmc(mode)
		if r := nines(t, time.Minute, "-c", cluster, "fence", "test", "ctl2"); r.code != 2 || !strings.Contains(r.stdout, strings.TrimPrefix(code, "bmc-")) {
			t.Errorf("BMC %s: exit %d\n%s%s", mode, r.code, r.stdout, r.stderr)
		}
		if r := nines(t, time.Minute, "-c", cluster, "status"); r.code != 2 || !strings.Contains(r.stdout, code) {
			t.Errorf("BMC %s: status exits %d without %s\n%s", mode, r.code, code, r.stdout)
		}
	}
	bmc("ok")
	must(t, time.Minute, "-c", cluster, "fence", "test", "ctl2")
	back := onlySecond(t, cluster)
	must(t, 2*time.Minute, "-c", cluster, "fence", "off", "--yes", "ctl3")
	if s := must(t, time.Minute, "lab", "--name", labName, "status"); !strings.Contains(s, "198.18.0.13  off") {
		t.Errorf("the power of ctl3 is still on:\n%s", s)
	}
	if r := nines(t, time.Minute, "-c", cluster, "fence", "off", "--yes", "ctl2"); r.code != 1 || !strings.Contains(r.stderr, "is not taken away") {
		t.Errorf("a second controller: exit %d\n%s", r.code, r.stderr)
	}
	must(t, 2*time.Minute, "-c", cluster, "fence", "on", "ctl3")
	must(t, time.Minute, "lab", "--name", labName, "bmc", "ok", "ctl3")
	nines(t, time.Minute, "-c", cluster, "fence", "test", "ctl3") // status tells of it; ctl3 itself may still boot and not ask
	healthy(t, cluster)
	back()
	must(t, 3*time.Minute, "-c", cluster, "apply", "--yes")
}

// onlySecond gives ctl3 another way to its power and takes the first away; back is what cluster.yaml was.
func onlySecond(t *testing.T, cluster string) (back func()) {
	back = edit(t, cluster, func(text string) string {
		first := "    bmc: {protocol: redfish, address: 198.18.0.113, user: nines}\n"
		return strings.Replace(text, first, first+strings.NewReplacer("bmc:", "second_bmc:", ".113", ".153").Replace(first), 1)
	})
	must(t, 3*time.Minute, "-c", cluster, "apply", "--yes")
	must(t, time.Minute, "lab", "--name", labName, "bmc", "dead", "ctl3")
	t.Cleanup(func() { nines(t, time.Minute, "lab", "--name", labName, "bmc", "ok", "ctl3") })
	if r := nines(t, time.Minute, "-c", cluster, "fence", "test", "ctl3"); r.code != 2 || !strings.Contains(r.stdout, "198.18.0.153 (second)") || !strings.Contains(r.stdout, "unreachable") {
		t.Errorf("exit %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	return back
}

// cuts are seen while they last, and end.
func cuts(t *testing.T, cluster string) {
	t.Cleanup(func() { nines(t, time.Minute, "lab", "--name", labName, "heal") })
	must(t, time.Minute, "lab", "--name", labName, "cut", "--one-way", "ctl1", "ctl2")
	must(t, time.Minute, "lab", "--name", labName, "cut", "ctl2", "ctl3")
	s := must(t, time.Minute, "lab", "--name", labName, "status")
	for _, want := range []string{"ctl1 does not reach ctl2", "ctl2 and ctl3 do not reach each other"} {
		if !strings.Contains(s, want) {
			t.Errorf("no %q in\n%s", want, s)
		}
	}
	must(t, time.Minute, "lab", "--name", labName, "heal")
	if s := must(t, time.Minute, "lab", "--name", labName, "status"); strings.Contains(s, "reach") {
		t.Errorf("healed, and still:\n%s", s)
	}
	healthy(t, cluster)
}

// broughtBack cuts the power of all controllers, and gives it back to two of them. Before these go on without the third the leader makes sure that it is dead, and
// gives it its power back too: so nobody has to be left behind.
func broughtBack(t *testing.T, cluster string) {
	back := edit(t, cluster, func(text string) string { return text + "tuning: {galera: {missing_member_after: 20s}}\n" })
	defer func() {
		back()
		must(t, 5*time.Minute, "-c", cluster, "apply", "--yes")
	}()
	must(t, 5*time.Minute, "-c", cluster, "apply", "--yes")
	for _, n := range []string{"ctl1", "ctl2", "ctl3"} {
		must(t, time.Minute, "lab", "--name", labName, "power", "cut", n)
	}
	t.Cleanup(func() { nines(t, time.Minute, "lab", "--name", labName, "power", "on", "ctl3") })
	for _, n := range []string{"ctl1", "ctl2"} {
		must(t, time.Minute, "lab", "--name", labName, "power", "on", n)
	}
	healthyWithin(t, cluster, 5*time.Minute)
	explained := must(t, time.Minute, "-c", cluster, "recover", "galera", "--explain")
	if !strings.Contains(explained, "the power of ctl3 was seen to be off") || strings.Contains(explained, "left behind") {
		t.Errorf("ctl3 was not brought back by the recovery:\n%s", explained)
	}
}
