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
	"sync"
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

// command is a run of nines that goes on beside the test.
type command struct {
	cmd            *exec.Cmd
	stdout, stderr written
	ended          chan error
}

// written is what was written so far.
type written struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (w *written) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.all.Write(p)
}

func (w *written) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.all.String()
}

func begin(t *testing.T, args ...string) *command {
	t.Helper()
	c := &command{cmd: exec.Command(binary, args...), ended: make(chan error, 1)}
	c.cmd.Stdout, c.cmd.Stderr = &c.stdout, &c.stderr
	c.cmd.WaitDelay = time.Second // what it started may hold the pipe
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		c.ended <- c.cmd.Wait()
		close(c.ended)
	}()
	t.Cleanup(func() {
		_ = c.cmd.Process.Kill() // it has ended by itself, as a rule
		<-c.ended
	})
	return c
}

// kill is kill -9 of the program alone. One that has ended by itself is fine: the moment was late.
func (c *command) kill(t *testing.T) {
	t.Helper()
	_ = c.cmd.Process.Kill() // it may have ended
	err := <-c.ended
	t.Logf("interrupted (%v) at: %s", err, lastLine(c.stderr.String()))
}

// says waits until the program has told its user something.
func (c *command) says(t *testing.T, limit time.Duration, what string) {
	t.Helper()
	for deadline := time.Now().Add(limit); !strings.Contains(c.stderr.String(), what); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) || len(c.ended) > 0 {
			c.kill(t)
			t.Fatalf("it did not say %q:\n%s", what, tail(c.stderr.String(), 20))
		}
	}
}

// wait waits for the program's end.
func (c *command) wait(t *testing.T, limit time.Duration) {
	t.Helper()
	select {
	case <-c.ended:
	case <-time.After(limit):
		c.kill(t)
		t.Fatalf("not ended within %s", limit)
	}
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

// part runs one part of a test whose parts share a lab. After one that failed it shows a lab that does not become whole, and the test ends:
// what came after would tell of the same.
func part(t *testing.T, cluster, name string, f func(t *testing.T)) {
	t.Helper()
	if t.Run(name, f) {
		return
	}
	for _, node := range []string{"ctl1", "ctl2", "ctl3"} { // a machine that is off has none to show
		r := nines(t, time.Minute, "lab", "ssh", "--name", labName, node, "--", `journalctl --no-pager --since=-3min -o cat | grep -a ' ERROR [^ ]* \[' | tail -n 12 | cut -c1-250`) // without their tracebacks
		t.Logf("errors of OpenStack on %s:\n%s", node, r.stdout)
	}
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(5 * time.Second) { // it may just not be ready yet
		if r := nines(t, time.Minute, "-c", cluster, "status", "--json"); r.code == 0 {
			return
		}
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
