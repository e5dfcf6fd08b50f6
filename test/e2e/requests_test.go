package e2e

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// build makes the program from this tree, with a version of its own.
func build(t *testing.T, path, version string) {
	t.Helper()
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w -X nines/internal/cli.version="+version, "-o", path, "nines/cmd/nines")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
}

func ninesAs(t *testing.T, path string, limit time.Duration, args ...string) result {
	t.Helper()
	mine := binary
	binary = path
	defer func() { binary = mine }()
	return nines(t, limit, args...)
}

// requests asks Keystone through the VIP, ten times a second, from inside the lab.
type requests struct{ *command }

func startRequests(t *testing.T) requests {
	t.Helper()
	script := `for i in $(seq 1200); do curl -sk -m 2 -o /dev/null -w '%{http_code} after %{time_total} s %{errormsg}\n' https://198.18.0.10:5000/v3; sleep 0.1; done`
	return requests{begin(t, "lab", "exec", "--name", labName, "--", "sh", "-c", script)}
}

// stop ends the requests and counts them. What failed is told.
func (r requests) stop() (n int, failed []string) {
	_ = r.cmd.Process.Signal(os.Interrupt) // it may have ended by itself
	<-r.ended                              // interrupted: that is no failure
	for line := range strings.Lines(r.stdout.String()) {
		if n++; !strings.HasPrefix(line, "200 ") {
			failed = append(failed, strings.TrimSpace(line))
		}
	}
	return n, failed
}

// followed sends pairs of requests on kept connections, the second right after the answer to the first and one that is never sent again by
// anybody, from twelve programs at once: busy processors are what makes servers late to close a connection that they will not use again.
func followed(t *testing.T) {
	const script = `
import http.client, ssl
lost = 0
c = http.client.HTTPSConnection("198.18.0.10", 5000, context=ssl._create_unverified_context(), timeout=20)
for i in range(100):
    try:
        for method in "GET", "DELETE":
            c.request(method, "/v3/users/none")
            c.getresponse().read()
    except (http.client.HTTPException, OSError):
        lost += 1
        c.close()
print(lost)
`
	out := must(t, 2*time.Minute, "lab", "exec", "--name", labName, "--", "sh", "-c", `for i in $(seq 12); do python3 -c "$1" & done; wait`, "sh", script)
	if answers := strings.Fields(out); len(answers) != 12 || strings.Trim(strings.Join(answers, ""), "0") != "" {
		t.Errorf("lost of 100 pairs each: %v", answers)
	}
}
