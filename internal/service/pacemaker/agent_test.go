package pacemaker

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// runAgent runs an agent with the programs that stand in for the real ones, and returns its exit code.
func runAgent(t *testing.T, dir string, script []byte, verb string, programs map[string]string) int {
	t.Helper()
	programs["agent"] = string(script)
	programs["ocf-shellfuncs"] = "OCF_SUCCESS=0 OCF_ERR_GENERIC=1 OCF_ERR_UNIMPLEMENTED=3 OCF_NOT_RUNNING=7 HA_RSCTMP=" + dir + "\nocf_log() { :; }\n"
	for name, content := range programs {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("sh", filepath.Join(dir, "agent"), verb)
	cmd.Env = []string{"OCF_FUNCTIONS_DIR=" + dir, "PATH=" + dir + ":/usr/bin:/bin"}
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode()
}

// The agent is the real one; systemd and HAProxy are not.
func TestAgent(t *testing.T) {
	const success, generic, notRunning = 0, 1, 7
	script, err := render("haproxy.ocf", map[string]string{"Unit": proxyUnit, "Socket": proxySocket})
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		verb             string
		answers, running bool
		state            string // of the system
		code             int
		calls            string // of systemctl, beside questions
		silent           bool   // when it was looked at before
	}{
		"works":              {"monitor", true, true, "running", success, "", false},
		"frozen":             {"monitor", false, true, "running", generic, "", false},
		"stopped":            {"monitor", false, false, "running", notRunning, "", false},
		"start":              {"start", true, true, "running", success, "start haproxy.service\n", false},
		"stop":               {"stop", true, true, "running", success, "--job-mode=ignore-dependencies stop haproxy.service\n", false},
		"stop a frozen one":  {"monitor stop", false, true, "running", success, "kill --signal=KILL haproxy.service\n--job-mode=ignore-dependencies stop haproxy.service\n", false},
		"it answers again":   {"monitor stop", true, true, "running", success, "--job-mode=ignore-dependencies stop haproxy.service\n", true},
		"machine goes down":  {"stop", true, true, "stopping", success, "", false},
		"what it cannot do":  {"promote", true, true, "running", 3, "", false},
		"what it is":         {"meta-data", false, false, "running", success, "", false},
		"nothing to be said": {"validate-all", false, false, "running", success, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			active, answer := "exit 3", "exit 1"
			if tc.running {
				active = "exit 0"
			}
			if tc.answers {
				answer = "echo 'Pid: 1'"
			}
			if tc.silent {
				if err := os.WriteFile(filepath.Join(dir, "nines-haproxy-silent"), nil, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			code := 0
			for verb := range strings.FieldsSeq(tc.verb) {
				code = runAgent(t, dir, script, verb, map[string]string{
					"systemctl": "#!/bin/sh\ncase \"$*\" in *is-active*) " + active + " ;; is-system-running) echo " + tc.state + " ;; *) echo \"$*\" >>" + dir + "/calls ;; esac\n",
					"socat":     "#!/bin/sh\ncat >/dev/null\n" + answer + "\n"})
			}
			calls, _ := os.ReadFile(filepath.Join(dir, "calls")) // none: it called nothing
			if code != tc.code || string(calls) != tc.calls {
				t.Errorf("exit code %d, want %d; it called %q, want %q", code, tc.code, calls, tc.calls)
			}
		})
	}
}

// The agent is the real one; the network and Pacemaker are not.
func TestReach(t *testing.T) {
	const success, generic, notRunning = 0, 1, 7
	c := cluster(false)
	script, err := render("reach.ocf", newReachView(c, c.Nodes[0]))
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		verb    string
		started bool
		reached bool
		refuses bool // Pacemaker
		told    string
		code    int
	}{
		"start":              {"start", false, true, false, "--name reach --update 1\n", success},
		"not started":        {"monitor", false, true, false, "", notRunning},
		"somebody answers":   {"monitor", true, true, false, "--name reach --update 1\n", success},
		"nobody answers":     {"monitor", true, false, false, "--name reach --update 0\n", success},
		"nobody to tell":     {"monitor", true, true, true, "--name reach --update 1\n", generic},
		"start, once more":   {"start", true, true, false, "--name reach --update 1\n", success},
		"stop":               {"stop", true, false, false, "--name reach --delete\n", success},
		"what it cannot do":  {"promote", true, false, false, "", 3},
		"what it is":         {"meta-data", false, false, false, "", success},
		"nothing to be said": {"validate-all", false, false, false, "", success},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			programs := map[string]string{"fping": "#!/bin/sh\nexit 1\n", "attrd_updater": "#!/bin/sh\necho \"$*\" >>" + dir + "/told\n"}
			if tc.reached { // its own address is not one of those asked
				programs["fping"] = "#!/bin/sh\ncase \"$*\" in *' 198.18.0.12 198.18.0.13') exit 0 ;; esac\nexit 1\n"
			}
			if tc.refuses {
				programs["attrd_updater"] += "exit 102\n"
			}
			if tc.started {
				programs["nines-reach"] = ""
			}
			code := runAgent(t, dir, script, tc.verb, programs)
			told, _ := os.ReadFile(filepath.Join(dir, "told")) // none: it told nothing
			if code != tc.code || string(told) != tc.told {
				t.Errorf("exit code %d, want %d; it told %q, want %q", code, tc.code, told, tc.told)
			}
		})
	}
}

// What Pacemaker knows it is told again after thirty looks, and what changes at once.
func TestReachTellsChanges(t *testing.T) {
	c := cluster(false)
	script, err := render("reach.ocf", newReachView(c, c.Nodes[0]))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	look := func(answers string) {
		programs := map[string]string{"nines-reach": "", "fping": "#!/bin/sh\n" + answers + "\n", "attrd_updater": "#!/bin/sh\necho \"$*\" >>" + dir + "/told\n"}
		if code := runAgent(t, dir, script, "monitor", programs); code != 0 {
			t.Fatalf("exit code %d", code)
		}
	}
	for range 31 {
		look("exit 0")
	}
	look("exit 1")
	look("exit 1")
	look("exit 0")
	const reached, not = "--name reach --update 1\n", "--name reach --update 0\n"
	if told, err := os.ReadFile(filepath.Join(dir, "told")); err != nil || string(told) != reached+reached+not+reached {
		t.Errorf("it told %q (%v)", told, err)
	}
}

// The wrapper is the real one; the fence agent is not.
func TestFence(t *testing.T) {
	for name, tc := range map[string]struct {
		options string // on stdin
		args    []string
		known   string // what it can do
		fails   bool   // the real one
		out     string
		code    int
	}{
		"what it can do, for the first time":    {"action=metadata\n", nil, "", false, "real -o metadata|", 0},
		"what it can do, again":                 {"action=metadata\n", nil, "kept", false, "kept", 0},
		"what it can do, and the file is empty": {"action=metadata\n", nil, " ", false, "real -o metadata|", 0},
		"what it cannot say":                    {"action=metadata\n", nil, "", true, "", 1},
		"monitor":                               {"nodename=ctl2\naction=monitor\nip=10.0.0.1\n", nil, "kept", true, "", 0},
		"off":                                   {"action=off\nip=10.0.0.1\npassword_script=cat /etc/nines/fence/$x ctl2\n", nil, "kept", false, "real |action=off|ip=10.0.0.1|password_script=cat /etc/nines/fence/$x ctl2|", 0},
		"off fails":                             {"action=off\n", nil, "kept", true, "real |action=off|", 1},
		"by hand":                               {"", []string{"-o", "status"}, "kept", false, "real -o status|", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			view := fenceView{Real: filepath.Join(dir, "real"), Known: filepath.Join(dir, "known.xml")}
			script, err := render("fence", view)
			if err != nil {
				t.Fatal(err)
			}
			real := "#!/bin/sh\necho \"real $*\"\n[ $# -gt 0 ] || cat\n"
			if tc.fails {
				real += "exit 1\n"
			}
			for path, content := range map[string]string{filepath.Join(dir, "wrapper"): string(script), view.Real: real} {
				if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			before := time.Now().Add(-time.Hour)
			if err := os.Chtimes(view.Real, before, before); err != nil {
				t.Fatal(err)
			}
			if tc.known != "" {
				if err := os.WriteFile(view.Known, []byte(strings.TrimSpace(tc.known)), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			cmd := exec.Command("sh", append([]string{filepath.Join(dir, "wrapper")}, tc.args...)...)
			cmd.Stdin = strings.NewReader(tc.options)
			out, err := cmd.Output()
			var exit *exec.ExitError
			if err != nil && !errors.As(err, &exit) {
				t.Fatal(err)
			}
			if got := strings.ReplaceAll(string(out), "\n", "|"); got != tc.out || cmd.ProcessState.ExitCode() != tc.code {
				t.Errorf("exit %d, %q; want %d, %q", cmd.ProcessState.ExitCode(), got, tc.code, tc.out)
			}
		})
	}
}

// TestAddressAgent: IPaddr2 is told the interface that carries the address, and none where none does.
func TestAddressAgent(t *testing.T) {
	script, err := render("address.ocf", nil)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for path, content := range map[string]string{
		"agent":                        string(script),
		"ip":                           "#!/bin/sh\n[ \"$*\" = '-o address show to 192.0.2.10' ] && echo '6: ext0    inet 192.0.2.10/24 scope global secondary ext0'\n",
		"resource.d/heartbeat/IPaddr2": "#!/bin/sh\necho \"$1 on ${OCF_RESKEY_nic-whichever}\"\n",
	} {
		path = filepath.Join(dir, path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	for address, want := range map[string]string{"192.0.2.10": "stop on ext0\n", "192.0.2.11": "stop on whichever\n"} {
		cmd := exec.Command("sh", filepath.Join(dir, "agent"), "stop")
		cmd.Env = []string{"OCF_ROOT=" + dir, "OCF_RESKEY_ip=" + address, "OCF_RESKEY_nic=other", "PATH=" + dir + ":/usr/bin:/bin"}
		if out, err := cmd.CombinedOutput(); err != nil || string(out) != want {
			t.Errorf("%s: %q, %v", address, out, err)
		}
	}
}
