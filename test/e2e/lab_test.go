package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// env of the tests, set by the Makefile.
var (
	binary  = os.Getenv("NINES")
	labName = os.Getenv("NINES_E2E_LAB")
)

// result is what one run of nines gave.
type result struct {
	code   int
	stdout string
	stderr string
}

// nines runs the program as a user would and returns what it said.
func nines(t *testing.T, limit time.Duration, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	started := time.Now()
	err := cmd.Run()
	r := result{stdout: out.String(), stderr: errs.String()}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		r.code = exit.ExitCode()
	case err != nil:
		t.Fatalf("nines %s: %v", strings.Join(args, " "), err)
	}
	t.Logf("nines %s: exit %d after %s", strings.Join(args[:min(len(args), 7)], " "), r.code, time.Since(started).Round(100*time.Millisecond))
	return r
}

// must is nines that has to exit 0.
func must(t *testing.T, limit time.Duration, args ...string) string {
	t.Helper()
	r := nines(t, limit, args...)
	if r.code != 0 {
		t.Fatalf("nines %s: exit %d\n%s%s", strings.Join(args, " "), r.code, r.stdout, r.stderr)
	}
	return r.stdout
}

// decode reads the JSON that nines printed.
func decode[T any](t *testing.T, text string) T {
	t.Helper()
	var v T
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("not JSON: %v\n%s", err, text)
	}
	return v
}

// requireLab skips where no lab can run, and says why.
func requireLab(t *testing.T) {
	t.Helper()
	if binary == "" {
		t.Skip("lab tests skipped: run them with 'make e2e', which builds the program")
	}
	if r := nines(t, time.Minute, "lab", "up", "--check"); r.code != 0 {
		t.Skipf("lab tests skipped: no lab can run here: %s", strings.TrimSpace(r.stderr))
	}
	if labName == "" {
		labName = "e2e"
	}
}

// footprint is everything of a lab that may stay behind on the host. Its network namespaces are mounts.
func footprint(t *testing.T, lab string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for name, command := range map[string]string{
		"mounts":    "grep -c nines-lab/" + lab + "/ /proc/mounts || true",
		"loops":     "losetup -l -n -O BACK-FILE 2>/dev/null | grep -c nines-lab/" + lab + "/ || true",
		"processes": "pgrep -fc '[n]ines-lab/" + lab + "/' || true", // the brackets keep the pattern from matching itself
		"cgroups":   "find /sys/fs/cgroup -maxdepth 4 -type d -path '*/nines-lab/" + lab + "' | wc -l",
		"files":     "ls -d /var/lib/nines-lab/" + lab + " /run/nines-lab/" + lab + " 2>/dev/null | wc -l",
	} {
		b, err := exec.Command("sh", "-c", command).Output()
		if err != nil {
			t.Fatalf("%s: %v", command, err)
		}
		out[name] = strings.TrimSpace(string(b))
	}
	return out
}

// part runs one part of a test whose parts share a lab. After one that failed it shows the lab, and where that is not whole the test ends:
// what came after would tell of the same.
func part(t *testing.T, cluster, name string, f func(t *testing.T)) {
	t.Helper()
	if t.Run(name, f) {
		return
	}
	if r := nines(t, time.Minute, "-c", cluster, "status", "--json"); r.code == 0 && decode[status](t, r.stdout).Healthy {
		return
	}
	r := nines(t, time.Minute, "-c", cluster, "status")
	t.Logf("%s%s", r.stdout, r.stderr)
	for _, node := range []string{"ctl1", "ctl2", "ctl3"} {
		r := nines(t, time.Minute, "lab", "ssh", "--name", labName, node, "--", "systemctl --failed --no-legend; systemctl list-jobs --no-legend; journalctl -u nines-agent -n 12 -o cat | cut -c1-300")
		t.Logf("%s%s", r.stdout, r.stderr)
		if r.code == 0 {
			continue
		}
		if console, err := exec.Command("tail", "-c", "1500", filepath.Join(filepath.Dir(cluster), "nodes", node, "console.log")).Output(); err == nil {
			t.Logf("the console of %s ends with %q", node, console)
		}
	}
	t.Fatalf("the parts after %q were not run: it left a cluster that is not whole", name)
}
