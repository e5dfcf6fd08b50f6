package config_test

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"nines/internal/config"
	"nines/internal/model"
)

var update = flag.Bool("update", false, "rewrite the expected reports in testdata")

// Each case in testdata/*.txtar is a cluster.yaml and the report Parse gives of
// it; an empty report means that it is valid.
func TestReports(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if len(a.Files) != 2 || a.Files[1].Name != "report" {
				t.Fatal("want the files cluster.yaml and report")
			}
			got := ""
			if _, err := config.Parse("cluster.yaml", a.Files[0].Data); err != nil {
				got = err.Error() + "\n"
			}
			if *update {
				a.Files[1].Data = []byte(got)
				if err := os.WriteFile(file, txtar.Format(a), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(string(a.Files[1].Data), got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestDefaults(t *testing.T) {
	c, err := config.Parse("cluster.yaml", []byte(small))
	if err != nil {
		t.Fatal(err)
	}
	want := model.Tuning{Preset: model.PresetNines,
		Galera: model.GaleraTuning{SuspectTimeout: 1500 * time.Millisecond, InactiveTimeout: 15 * time.Second, InstallTimeout: 15 * time.Second,
			Keepalive: 300 * time.Millisecond, InactiveCheck: 300 * time.Millisecond, PeerTimeout: 3 * time.Second,
			JoinRetrans: 300 * time.Millisecond, GCache: "128M", BufferPool: "128M"},
		RabbitMQ:  model.RabbitMQTuning{NetTickTime: 15 * time.Second},
		HAProxy:   model.HAProxyTuning{Inter: time.Second, HTTPInter: 10 * time.Second, FastInter: 250 * time.Millisecond, Fall: 4, Rise: 2},
		Pacemaker: model.PacemakerTuning{Token: 600 * time.Millisecond},
		Keystone:  model.KeystoneTuning{Processes: 2, Threads: 2, FernetRotation: 24 * time.Hour, TokenLifetime: time.Hour},
	}
	if diff := cmp.Diff(want, c.Tuning); diff != "" {
		t.Error(diff)
	}
	if c.VIP.Network != model.Management || c.VIP.Engine != model.EngineKeepalived || c.VIP.RouterID != 51 || c.VIP.Advert != 100*time.Millisecond {
		t.Errorf("vip: %+v", c.VIP)
	}
	if c.Release != model.Debian13 || c.SSH.Port != 22 || c.SSH.User != "root" || !c.NTP.ControlClock || c.Checks.Severity != "error" {
		t.Errorf("%+v", c)
	}
}

func TestGivenValuesStay(t *testing.T) {
	text, err := config.Override([]byte(small), []string{"ntp.control_clock=false", "ntp.upstreams=[]", "tuning.haproxy.fall=3"})
	if err != nil {
		t.Fatal(err)
	}
	c, err := config.Parse("cluster.yaml", text)
	if err != nil {
		t.Fatal(err)
	}
	if c.NTP.ControlClock || c.NTP.Upstreams == nil || len(c.NTP.Upstreams) != 0 || c.Tuning.HAProxy.Fall != 3 {
		t.Errorf("ntp %+v, fall %d", c.NTP, c.Tuning.HAProxy.Fall)
	}
}

// What Neutron stands on follows from its backend.
func TestSwitchesFollowFromTheBackend(t *testing.T) {
	for set, want := range map[string][]string{
		"neutron.backend=ovn": {"ovn", "openvswitch"},
		"neutron.backend=ovs": {"openvswitch"},
	} {
		text, err := config.Override([]byte(small), []string{set, "services=[base, galera, rabbitmq, memcached, haproxy, keepalived, keystone, neutron]"})
		if err != nil {
			t.Fatal(err)
		}
		c, err := config.Parse("cluster.yaml", text)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.Services[8:]; !slices.Equal(got, want) {
			t.Errorf("%s: %q", set, got)
		}
		again, err := config.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		if other, err := config.Parse("cluster.yaml", again); err != nil || !cmp.Equal(c.Services, other.Services) {
			t.Errorf("%s, written and read again: %v", set, err)
		}
	}
}

func TestLoadResolvesPaths(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("HOME", "/home/op")
	text := small + "packages: {source: 'http://198.18.0.1:8080', key: keys/p.asc}\nssh: {identity: ssh/id}\n"
	file := filepath.Join(dir, "cluster.yaml")
	write(t, file, text)
	_, err := config.Load(file)
	var bad *config.Errors
	if !errors.As(err, &bad) || len(bad.Problems) != 1 || !strings.Contains(bad.Problems[0].Text, "cannot be read") {
		t.Fatalf("without the key: %v", err)
	}
	write(t, filepath.Join(dir, "keys", "p.asc"), "the key")
	c, err := config.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	if c.SSH.Identity != filepath.Join(dir, "ssh/id") || c.SSH.KnownHosts != "/home/op/.ssh/known_hosts" {
		t.Errorf("ssh: %+v", c.SSH)
	}
	if c.Packages.KeyText != "the key" || c.Packages.Suite != "trixie" {
		t.Errorf("packages: %+v", c.Packages)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestLoadOfMissingFileSaysWhatToDo(t *testing.T) {
	_, err := config.Load(filepath.Join(t.TempDir(), "cluster.yaml"))
	var missing *config.FileError
	if !errors.As(err, &missing) || !errors.Is(err, os.ErrNotExist) || !strings.Contains(missing.Hint(), "nines init") {
		t.Errorf("got %v", err)
	}
}
