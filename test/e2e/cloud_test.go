package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestCloud goes the way of a new user to a whole cloud, uses it, and cuts the power of a controller under use.
func TestCloud(t *testing.T) {
	requireLab(t)
	must(t, 5*time.Minute, "lab", "down", "--name", labName)
	t.Cleanup(func() { nines(t, 5*time.Minute, "lab", "down", "--name", labName) })
	must(t, 20*time.Minute, "lab", "up", "--name", labName)
	cluster := "/var/lib/nines-lab/" + labName + "/cluster.yaml"

	part(t, cluster, "healthy", func(t *testing.T) { healthy(t, cluster) })
	part(t, cluster, "second apply changes nothing", func(t *testing.T) { unchanged(t, cluster) })
	part(t, cluster, "every service of OpenStack is up on every node", allUp)
	part(t, cluster, "proved by use", func(t *testing.T) { smoked(t, cluster) })
	part(t, cluster, "computes hear what libvirt says", hearLibvirt)
	part(t, cluster, "no classic queue", noClassicQueue)
	part(t, cluster, "a daemon is killed", func(t *testing.T) { drilled(t, cluster, "kill-nova-conductor") })
	part(t, cluster, "a controller loses its power under use", func(t *testing.T) { cutUnderUse(t, cluster) })
	part(t, cluster, "every service is up again", allUp)
	part(t, cluster, "keepalived has its processor", realTime)

	must(t, 5*time.Minute, "lab", "down", "--name", labName)
	gone(t, labName)
}

// allUp asks OpenStack itself, with the ordinary client.
func allUp(t *testing.T) {
	for _, of := range []struct {
		words      string
		what, host string // columns that name a service
		state      string // the column, and what it says of one that works
		up         any
		count      int
	}{
		{"compute service list", "Binary", "Host", "State", "up", 8},           // conductor and scheduler on three, compute on two
		{"network agent list", "Agent Type", "Host", "Alive", true, 3 + 2 + 2}, // gateways, controllers of computes, their metadata agents
		{"volume service list", "Binary", "Host", "State", "up", 3 + 1},        // scheduler on three, volume on one at a time
		{"orchestration service list", "Binary", "Hostname", "Status", "up", 3},
	} {
		t.Run(of.words, func(t *testing.T) {
			up := map[any]bool{} // of one node's service; Heat lists those that ended as well
			down := func() any {
				asked := nines(t, time.Minute, append([]string{"lab", "exec", "--name", labName, "--", "openstack"}, append(strings.Fields(of.words), "-f", "json")...)...)
				if asked.code != 0 { // Nova answers 500 when a query of cell0 fails: it goes through the error as if it were a list (2025.1)
					t.Log(asked.stderr)
					return asked.stderr
				}
				clear(up)
				for _, r := range decode[[]map[string]any](t, asked.stdout) {
					name := fmt.Sprint(r[of.what], " of ", r[of.host])
					up[name] = up[name] || r[of.state] == of.up
				}
				for name, is := range up {
					if !is {
						return name
					}
				}
				return nil
			}
			why := down()
			for deadline := time.Now().Add(2 * time.Minute); why != nil && time.Now().Before(deadline); why = down() { // they report once a minute
				time.Sleep(5 * time.Second)
			}
			if why != nil || len(up) != of.count {
				t.Errorf("%d, want %d; not up: %v; all: %v", len(up), of.count, why, up)
			}
		})
	}
}

// realTime: whatever was switched off and on, keepalived of each controller has the same share of real time. One with less sends its advertisements
// late, and two machines hold the VIP.
func realTime(t *testing.T) {
	files, err := filepath.Glob("/sys/fs/cgroup/*/nines-lab/" + labName + "/ctl*/machine/cpu.rt_runtime_us")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files { // a kernel that does not share real time has none
		share, err := os.ReadFile(file)
		if err != nil || strings.TrimSpace(string(share)) != "90000" {
			t.Errorf("%s: %s %v", file, share, err)
		}
	}
	for _, node := range []string{"ctl1", "ctl2", "ctl3"} {
		how := must(t, time.Minute, "lab", "ssh", "--name", labName, node, "--", "for p in $(pidof keepalived); do chrt --pid $p; done")
		if !strings.Contains(how, "SCHED_RR") {
			t.Errorf("keepalived on %s: %s", node, how)
		}
	}
}

func smoked(t *testing.T, cluster string) {
	r := nines(t, 8*time.Minute, "-c", cluster, "smoke", "--json")
	got := decode[struct {
		OK    bool `json:"ok"`
		Steps []struct {
			Name  string `json:"name"`
			Error string `json:"error"`
		} `json:"steps"`
	}](t, r.stdout)
	if !got.OK || len(got.Steps) < 20 {
		t.Errorf("exit %d, %+v\n%s", r.code, got, tail(r.stderr, 20))
	}
}

// hearLibvirt reads what nova-compute said at its first start, in which Nova by itself connects too early to hear libvirt's events, and whether it
// heard of the instances that the smoke test has made.
func hearLibvirt(t *testing.T) {
	heard := false
	for _, node := range []string{"cmp1", "cmp2"} {
		log := must(t, time.Minute, "lab", "ssh", "--name", labName, node, "--", "journalctl -b -o cat --no-pager -u nova-compute")
		if !strings.Contains(log, "Starting compute node") || strings.Contains(log, "does not support events") {
			t.Errorf("%s: %s", node, tail(log, 20))
		}
		heard = heard || strings.Contains(log, "(Lifecycle Event)")
	}
	if !heard {
		t.Error("no compute has heard of an instance")
	}
}

func noClassicQueue(t *testing.T) {
	out := must(t, time.Minute, "lab", "ssh", "--name", labName, "ctl1", "--", "rabbitmqctl -q list_queues name type --formatter json")
	queues := decode[[]struct{ Name, Type string }](t, out)
	if len(queues) < 20 {
		t.Errorf("only %d queues: %s", len(queues), out)
	}
	for _, q := range queues {
		if q.Type != "quorum" && q.Type != "stream" {
			t.Errorf("%s is a %s queue", q.Name, q.Type)
		}
	}
}

// cutUnderUse cuts the power of the VIP's holder while users work. On an idle machine one operation fails at most; what is asked here
// holds on one that tests, too, where booting an instance alone takes half a minute. No
// operation may hang, and all must be whole again by itself.
func cutUnderUse(t *testing.T, cluster string) {
	victim := decode[status](t, nines(t, time.Minute, "-c", cluster, "status", "--json").stdout).VIPHolders
	if len(victim) != 1 {
		t.Fatalf("the VIP is on %v", victim)
	}
	type report struct {
		Count    int `json:"count"`
		Failed   int `json:"failed"`
		Failures []struct {
			Name  string `json:"name"`
			Error string `json:"error"`
		} `json:"failures"`
	}
	loop := begin(t, "-c", cluster, "smoke", "--loop", "--for", "2m30s", "--limit", "1m", "--json")
	loop.says(t, 5*time.Minute, "start   make volume") // it has made what it needs
	must(t, time.Minute, "lab", "power", "cut", victim[0], "--name", labName)
	time.Sleep(20 * time.Second)
	must(t, 2*time.Minute, "lab", "power", "on", victim[0], "--name", labName)
	loop.wait(t, 8*time.Minute)
	got := decode[report](t, loop.stdout.String())
	t.Logf("%d operations, failed: %+v", got.Count, got.Failures)
	if got.Count < 10 || got.Failed > 3 {
		t.Errorf("%d of %d operations failed\n%s", got.Failed, got.Count, tail(loop.stderr.String(), 20))
	}
	healthyWithin(t, cluster, 5*time.Minute)
	tookTurns(t, victim[0])
}

// tookTurns looks at a controller that has booted: what takes much processor time was started when the one before it was ready, but for
// what was started again since.
func tookTurns(t *testing.T, node string) {
	out := must(t, time.Minute, "lab", "ssh", "--name", labName, node, "--", `cd /etc/systemd/system && for f in *.d/nines-turn.conf; do
	u=${f%.d/*}; echo "$u before=$(sed -n s/^After=//p $f)" $(systemctl show -p NRestarts,ExecMainStartTimestampMonotonic,ActiveEnterTimestampMonotonic $u); done`)
	type start struct {
		before       string
		again        bool
		began, ready int
	}
	starts := map[string]start{}
	for line := range strings.Lines(out) {
		fields := strings.Fields(line)
		said := map[string]string{}
		for _, f := range fields[1:] {
			key, value, _ := strings.Cut(f, "=")
			said[key] = value
		}
		number := func(key string) int {
			n, err := strconv.Atoi(said[key])
			if err != nil {
				t.Fatalf("%s: %s", line, err)
			}
			return n
		}
		starts[fields[0]] = start{said["before"], number("NRestarts") > 0, number("ExecMainStartTimestampMonotonic"), number("ActiveEnterTimestampMonotonic")}
	}
	compared := 0
	for unit, s := range starts {
		before, ok := starts[s.before]
		if !ok || s.again || before.again {
			continue
		}
		compared++
		if s.began < before.ready {
			t.Errorf("%s was started %d ms before %s was ready", unit, (before.ready-s.began)/1000, s.before)
		}
	}
	if compared < len(starts)/2 {
		t.Errorf("only %d of %d could be compared:\n%s", compared, len(starts), out)
	}
}
