package pacemaker

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

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
	}{
		"works":              {"monitor", true, true, "running", success, ""},
		"frozen":             {"monitor", false, true, "running", generic, ""},
		"stopped":            {"monitor", false, false, "running", notRunning, ""},
		"start":              {"start", true, true, "running", success, "start haproxy.service\n"},
		"stop":               {"stop", true, true, "running", success, "--job-mode=ignore-dependencies stop haproxy.service\n"},
		"machine goes down":  {"stop", true, true, "stopping", success, ""},
		"what it cannot do":  {"promote", true, true, "running", 3, ""},
		"what it is":         {"meta-data", false, false, "running", success, ""},
		"nothing to be said": {"validate-all", false, false, "running", success, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			put := func(name, content string) {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			put("agent", string(script))
			put("ocf-shellfuncs", "OCF_SUCCESS=0 OCF_ERR_GENERIC=1 OCF_ERR_UNIMPLEMENTED=3 OCF_NOT_RUNNING=7\nocf_log() { :; }\n")
			active, answer := "exit 3", "exit 1"
			if tc.running {
				active = "exit 0"
			}
			if tc.answers {
				answer = "echo 'Pid: 1'"
			}
			put("systemctl", "#!/bin/sh\ncase \"$*\" in *is-active*) "+active+" ;; is-system-running) echo "+tc.state+" ;; *) echo \"$*\" >>"+dir+"/calls ;; esac\n")
			put("socat", "#!/bin/sh\ncat >/dev/null\n"+answer+"\n")
			cmd := exec.Command("sh", filepath.Join(dir, "agent"), tc.verb)
			cmd.Env = []string{"OCF_FUNCTIONS_DIR=" + dir, "PATH=" + dir + ":/usr/bin:/bin"}
			err := cmd.Run()
			var exit *exec.ExitError
			if err != nil && !errors.As(err, &exit) {
				t.Fatal(err)
			}
			calls, _ := os.ReadFile(filepath.Join(dir, "calls")) // none: it called nothing
			if code := cmd.ProcessState.ExitCode(); code != tc.code || string(calls) != tc.calls {
				t.Errorf("exit code %d, want %d; it called %q, want %q", code, tc.code, calls, tc.calls)
			}
		})
	}
}
