package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// How often and when: NINES_E2E_INTERRUPTS trials of each test, drawn from NINES_E2E_SEED.
// Without them one trial, drawn anew every time; its seed is in the log.
const (
	trialsEnv = "NINES_E2E_INTERRUPTS"
	seedEnv   = "NINES_E2E_SEED"
)

// endless is how long a repeated command may take before it counts as hung.
const endless = 3 * time.Minute

// victims of an interruption. The leader may be the founder as well.
const (
	cutLeader  = "CLI killed, leader cut"
	cutFounder = "CLI killed, founder cut"
	killAgent  = "agent killed"
)

// founder is the machine that founds the database cluster: the first controller.
const founder = "ctl1"

// trial is one drawn interruption.
type trial struct {
	seed   uint64
	victim string
	moment time.Duration // from the start of the command to the kill
	dark   time.Duration // from the cut to the power's return
	agent  string        // whose agent is killed
}

func (tr trial) String() string {
	return fmt.Sprintf("seed %d: %s after %s, dark for %s", tr.seed, tr.victim, tr.moment, tr.dark)
}

// draw is a pure function of the seed. length is how long the command takes when nobody interrupts it. Half of
// the moments fall into the second third, where the database is founded and joined and the broker forms.
func draw(seed uint64, length time.Duration) trial {
	r := rand.New(rand.NewPCG(seed, 0))
	tr := trial{
		seed:   seed,
		victim: []string{cutLeader, cutFounder, killAgent}[r.IntN(3)],
		moment: time.Duration(r.Int64N(int64(length))).Round(100 * time.Millisecond),
		dark:   time.Duration(r.Int64N(int64(10 * time.Second))).Round(100 * time.Millisecond),
		agent:  []string{"ctl1", "ctl2", "ctl3"}[r.IntN(3)],
	}
	if r.IntN(2) == 0 {
		tr.moment = (length + tr.moment) / 3
	}
	return tr
}

// interruptions runs f for every trial that is asked for.
func interruptions(t *testing.T, length time.Duration, f func(t *testing.T, tr trial)) {
	requireLab(t)
	n, first := 1, rand.Uint64N(1_000_000)
	for name, parse := range map[string]func(string) error{
		trialsEnv: func(s string) (err error) { n, err = strconv.Atoi(s); return err },
		seedEnv:   func(s string) (err error) { first, err = strconv.ParseUint(s, 10, 64); return err },
	} {
		if s := os.Getenv(name); s != "" {
			if err := parse(s); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
	}
	for i := range n {
		tr := draw(first+uint64(i), length)
		t.Run(strconv.FormatUint(tr.seed, 10), func(t *testing.T) {
			must(t, 5*time.Minute, "lab", "down", "--name", labName)
			t.Cleanup(func() {
				if t.Failed() && os.Getenv(trialsEnv) != "" {
					return // the lab stays as it is, to be looked at
				}
				must(t, 5*time.Minute, "lab", "down", "--name", labName)
				gone(t, labName)
			})
			f(t, tr)
		})
		if t.Failed() {
			return
		}
	}
}

// TestInterrupted interrupts what brings a cluster up, and repeats it.
func TestInterrupted(t *testing.T) {
	t.Parallel() // nothing is measured
	t.Run("apply", interruptedApply)
	t.Run("lab up", interruptedLabUp)
}

// interruptedApply interrupts the first apply of a cluster and repeats it.
func interruptedApply(t *testing.T) {
	interruptions(t, 50*time.Second, func(t *testing.T, tr trial) {
		t.Log(tr)
		must(t, 5*time.Minute, "lab", "up", "--profile", "core", "--name", labName, "--machines-only")
		cluster := "/var/lib/nines-lab/" + labName + "/cluster.yaml"
		cli := begin(t, "-c", cluster, "apply", "--yes")
		time.Sleep(tr.moment)
		hurt(t, tr, cluster, cli)
		again(t, "-c", cluster, "apply", "--yes")
		whole(t, cluster)
	})
}

// interruptedLabUp kills lab up in the middle and repeats it.
func interruptedLabUp(t *testing.T) {
	interruptions(t, 60*time.Second, func(t *testing.T, tr trial) {
		if tr.seed%2 == 0 {
			tr.moment /= 25 // while the machines are made and boot
		}
		t.Logf("seed %d: killed after %s", tr.seed, tr.moment)
		cli := begin(t, "lab", "up", "--profile", "core", "--name", labName)
		time.Sleep(tr.moment)
		cli.kill(t)
		if tr.seed%3 == 0 { // what was begun is only removed
			return
		}
		again(t, "lab", "up", "--profile", "core", "--name", labName)
		whole(t, "/var/lib/nines-lab/"+labName+"/cluster.yaml")
	})
}

// hurt does what the trial says; every machine has power when it returns.
func hurt(t *testing.T, tr trial, cluster string, cli *command) {
	t.Helper()
	if tr.victim == killAgent {
		r := nines(t, time.Minute, "lab", "ssh", "--name", labName, tr.agent, "--", "systemctl kill -s KILL nines-agent")
		t.Logf("agent of %s killed: exit %d", tr.agent, r.code) // there may be none yet
		cli.kill(t)
		return
	}
	node := founder
	if tr.victim == cutLeader {
		node = leader(t, cluster)
	}
	cli.kill(t)
	must(t, time.Minute, "lab", "power", "--name", labName, "cut", node)
	t.Logf("%s cut", node)
	time.Sleep(tr.dark)
	must(t, time.Minute, "lab", "power", "--name", labName, "on", node)
}

// leader is the node whose agent leads, or the founder while none does.
func leader(t *testing.T, cluster string) string {
	t.Helper()
	var st struct {
		Leader string `json:"leader"`
	}
	r := nines(t, 20*time.Second, "-c", cluster, "status", "--json")
	if strings.HasPrefix(r.stdout, "{") {
		st = decode[struct {
			Leader string `json:"leader"`
		}](t, r.stdout)
	}
	if st.Leader == "" {
		return founder
	}
	return st.Leader
}

// again repeats the interrupted command; an operator who is told what to do does so once.
func again(t *testing.T, args ...string) {
	t.Helper()
	started := time.Now()
	r := nines(t, endless, args...)
	if r.code == 0 {
		return
	}
	t.Logf("the repeated command says after %s:\n%s", time.Since(started), tail(r.stderr, 25))
	if r.code < 0 || !(strings.Contains(r.stderr, "-> ") || strings.Contains(r.stderr, " next: ")) {
		t.Fatalf("exit %d without a hint what to do", r.code)
	}
	for _, n := range []string{"ctl1", "ctl2", "ctl3"} { // the machine that was cut may still boot
		must(t, time.Minute, "lab", "ssh", "--name", labName, n, "--", "true")
	}
	must(t, endless, args...)
}

// whole says that the cluster is what an apply that nobody interrupted would have left.
func whole(t *testing.T, cluster string) {
	t.Helper()
	healthy(t, cluster)
	if r := nines(t, time.Minute, "-c", cluster, "status"); r.code != 0 {
		t.Errorf("status exits %d:\n%s%s", r.code, r.stdout, r.stderr)
	}
	if r := nines(t, time.Minute, "-c", cluster, "plan"); r.code != 0 {
		t.Errorf("plan exits %d, want 0 (no changes):\n%s%s", r.code, r.stdout, r.stderr)
	}
	members := map[string]bool{}
	for _, n := range []string{"ctl1", "ctl2", "ctl3"} {
		out := must(t, time.Minute, "lab", "ssh", "--name", labName, n, "--",
			`mariadb -N -e "SHOW STATUS WHERE Variable_name IN ('wsrep_cluster_state_uuid','wsrep_cluster_size','wsrep_cluster_status','wsrep_local_state_comment')"`)
		members[strings.Join(strings.Fields(out), " ")] = true
		brokers := must(t, time.Minute, "lab", "ssh", "--name", labName, n, "--", `rabbitmqctl -q eval 'length(rabbit_nodes:list_running()).'`)
		if strings.TrimSpace(brokers) != "3" {
			t.Errorf("%s sees %q RabbitMQ members, want 3", n, brokers)
		}
	}
	for m := range members {
		if len(members) != 1 || !strings.Contains(m, "wsrep_cluster_size 3") || !strings.Contains(m, "Primary") || !strings.Contains(m, "Synced") {
			t.Errorf("Galera: %s", m)
		}
	}
	token := must(t, time.Minute, "lab", "exec", "--name", labName, "--", "openstack", "token", "issue", "-f", "value", "-c", "id")
	if len(strings.TrimSpace(token)) < 100 {
		t.Errorf("no fernet token: %q", token)
	}
}

// gone says that nothing of the lab is left on the host.
func gone(t *testing.T, lab string) {
	t.Helper()
	for what, n := range footprint(t, lab) {
		if n != "0" {
			t.Errorf("lab down left %s %s behind", n, what)
		}
	}
}

func lastLine(s string) string { return tail(s, 1) }

func tail(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
