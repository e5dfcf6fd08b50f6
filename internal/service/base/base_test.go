package base

import (
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nines/internal/host"
	"nines/internal/host/hosttest"
	"nines/internal/model"
	"nines/internal/plan"
	"nines/internal/secret"
	"nines/internal/service"
	"nines/internal/service/servicetest"
)

func resources(t *testing.T, c *model.Cluster) map[plan.ID]plan.Resource {
	t.Helper()
	rs, err := New(nil).Resources(c, secret.Map{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := plan.Graph(rs); err != nil {
		t.Fatal(err)
	}
	return plan.Index(rs)
}

func TestGoldenFiles(t *testing.T) {
	container := servicetest.Cluster()
	container.NTP.ControlClock, container.NTP.Upstreams = false, nil
	for dir, c := range map[string]*model.Cluster{"machine": servicetest.Cluster(), "container": container} {
		rs, err := New(nil).Resources(c, secret.Map{})
		if err != nil {
			t.Fatal(err)
		}
		for _, node := range []string{"ctl2", "cmp1"} {
			servicetest.Golden(t, filepath.Join("testdata", dir, node), node, rs)
		}
	}
}

func TestPackageSource(t *testing.T) {
	render := func(p model.Packages) string {
		c := servicetest.Cluster()
		c.Packages = p
		f := resources(t, c)["base/ctl1/file:package-source"].File
		if f == nil {
			return ""
		}
		return string(f.Content)
	}
	if got := render(model.Packages{}); got != "" {
		t.Errorf("without a source there is a file:\n%s", got)
	}
	if got := render(model.Packages{Source: "http://x", Suite: "trixie"}); strings.Contains(got, "Signed-By") || !strings.Contains(got, "Components: main") {
		t.Errorf("without a key:\n%s", got)
	}
	if got := render(model.Packages{Source: "http://x", Suite: "./"}); strings.Contains(got, "Components") {
		t.Errorf("a flat repository has no components:\n%s", got)
	}
}

// Something provides the package source whether or not there is an extra one: services wait for it.
func TestPackagesCanAlwaysBeInstalled(t *testing.T) {
	for _, source := range []string{"", "http://198.18.0.1"} {
		c := servicetest.Cluster()
		c.Packages.Source = source
		provided := map[string]bool{}
		for _, r := range resources(t, c) {
			for _, p := range r.Provides {
				provided[p] = true
			}
		}
		if !provided[service.CapPackages] || !provided[service.CapBase] {
			t.Errorf("source %q: provided %v", source, provided)
		}
	}
}

func testEnv(node string) (service.Env, *hosttest.Host) {
	h := hosttest.New()
	c := servicetest.Cluster()
	n, _ := c.Node(node)
	return service.Env{Host: h, Cluster: c, Node: n, Log: slog.New(slog.NewTextHandler(io.Discard, nil))}, h
}

func put(h *hosttest.Host, path, content string) {
	h.PutFile(host.File{Path: path, Mode: 0o644, Content: []byte(content)})
}

func TestKernelSettings(t *testing.T) {
	cases := map[string]struct {
		given func(*hosttest.Host)
		done  bool
	}{
		"all there": {func(*hosttest.Host) {}, true},
		"one differs": {func(h *hosttest.Host) {
			put(h, "/proc/sys/net/ipv4/tcp_retries2", "15\n")
		}, false},
		"a key the kernel does not have": {func(h *hosttest.Host) { h.DropFile("/proc/sys/net/ipv4/tcp_retries2") }, true},
		"a machine must have its swappiness": {func(h *hosttest.Host) {
			put(h, "/proc/sys/vm/swappiness", "60\n")
		}, false},
		"a container need not": {func(h *hosttest.Host) {
			put(h, "/proc/sys/vm/swappiness", "60\n")
			put(h, containerFile, "systemd-nspawn")
		}, true},
	}
	for name, c := range cases {
		env, h := testEnv("ctl1")
		for _, s := range settings(env.Node) {
			put(h, procPath(s.Key), s.Value+"\n")
		}
		c.given(h)
		done, reason, err := sysctlLive(t.Context(), env, nil)
		if err != nil || done != c.done || done == (reason != "") {
			t.Errorf("%s: %v %q %v", name, done, reason, err)
		}
	}
}

func TestAKernelSettingThatDoesNotStick(t *testing.T) {
	env, h := testEnv("ctl1")
	put(h, "/proc/sys/net/ipv4/tcp_retries2", "15\n")
	h.Answer("/usr/sbin/sysctl", "", 0)
	if err := sysctlApply(t.Context(), env, nil); err == nil || !strings.Contains(err.Error(), "tcp_retries2") {
		t.Errorf("error %v", err)
	}
	h.Handle("/usr/sbin/sysctl", func(host.Cmd) (host.Output, error) {
		// Some keys of the file cannot be had here: sysctl complains, ours is set.
		return host.Output{}, &host.ExitError{Args: []string{"sysctl"}, Code: 255}
	})
	put(h, "/proc/sys/net/ipv4/tcp_retries2", "6\n")
	if err := sysctlApply(t.Context(), env, nil); err != nil {
		t.Errorf("error %v", err)
	}
}

func TestPackageListsAreFetchedOncePerSource(t *testing.T) {
	env, h := testEnv("ctl1")
	args := map[string]string{"source": sourceMark(env.Cluster.Packages)}
	if done, _, err := listsFetched(t.Context(), env, args); done || err != nil {
		t.Fatalf("%v %v", done, err)
	}
	h.Answer("/usr/bin/apt-get update", "E: no", 100)
	if err := fetchLists(t.Context(), env, args); err == nil || !strings.Contains(err.Error(), "packages.source") {
		t.Errorf("error %v", err)
	}
	if done, _, _ := listsFetched(t.Context(), env, args); done {
		t.Error("done after a failure")
	}
	h.Answer("/usr/bin/apt-get update", "", 0)
	if err := fetchLists(t.Context(), env, args); err != nil {
		t.Fatal(err)
	}
	if done, reason, err := listsFetched(t.Context(), env, args); !done || err != nil {
		t.Errorf("%v %q %v", done, reason, err)
	}
	if done, _, _ := listsFetched(t.Context(), env, map[string]string{"source": "other"}); done {
		t.Error("done for another source")
	}
}

const trackingLine = "C6120101,198.18.0.11,3,1795230000.123,-0.000012,0.000003,0.00002,1.5,0.01,0.2,0.001,0.002,64.5,Normal\n"

func TestClock(t *testing.T) {
	cases := map[string]struct {
		answer    string
		code      int
		serving   bool
		condition string
	}{
		"fine":       {trackingLine, 0, true, ""},
		"far off":    {strings.Replace(trackingLine, "-0.000012", "61.5", 1), 0, true, "time-offset"},
		"no source":  {strings.Replace(trackingLine, "Normal", "Not synchronised", 1), 0, true, "time-unsynchronised"},
		"no daemon":  {"506 Cannot talk to daemon", 1, false, "time-down"},
		"new format": {"1,2,3\n", 0, false, "time-down"},
	}
	for name, c := range cases {
		env, h := testEnv("ctl1")
		h.Answer("/usr/bin/chronyc", c.answer, c.code)
		o := New(nil).Observe(t.Context(), env)
		var got string
		if len(o.Conditions) > 0 {
			got = o.Conditions[0].Code
		}
		if o.Serving != c.serving || got != c.condition {
			t.Errorf("%s: %+v", name, o)
		}
	}
}

func FuzzParseTracking(f *testing.F) {
	f.Add(trackingLine)
	f.Add(`"a,b`)
	f.Fuzz(func(t *testing.T, text string) {
		tr, err := parseTracking(text)
		if err == nil && tr.Offset.Abs() > 1e9*time.Second+time.Second {
			t.Errorf("%q gave %+v", text, tr)
		}
	})
}
