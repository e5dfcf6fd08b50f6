package etcd

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"nines/internal/store"
)

func brief(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestRestartKeepsState(t *testing.T) {
	noLeaks(t)
	a := newAuthority(t)
	cfg := configs(t, a, 1)[0]
	s, err := StartServer(brief(t), cfg)
	check(t, err)
	ready(t, s)
	c := connect(t, a, cfg)
	rev, err := c.Put(brief(t), "k", []byte("v"), 0)
	check(t, err)
	events := c.Watch(brief(t), "k", rev)
	check(t, s.Close())

	if _, err := c.Get(short(t), "k"); !errors.Is(err, store.ErrNoQuorum) {
		t.Errorf("error without a server is %v, want %v", err, store.ErrNoQuorum)
	}
	s, err = StartServer(brief(t), cfg)
	check(t, err)
	defer s.Close()
	ready(t, s)
	e, err := c.Get(brief(t), "k")
	check(t, err)
	if string(e.Value) != "v" || e.Revision != rev {
		t.Errorf("got %+v, want v at %d", e, rev)
	}
	_, err = c.Put(brief(t), "k", []byte("w"), rev)
	check(t, err)
	select {
	case got := <-events: // the watch went on by itself
		if string(got.Value) != "w" {
			t.Errorf("got event %+v, want w", got)
		}
	case <-brief(t).Done():
		t.Error("the watch did not survive the restart")
	}
	check(t, c.Close())
}

func short(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}

func TestLostDataIsRefused(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	cfgs := configs(t, a, 3)
	servers := startAll(t, cfgs)
	check(t, servers[2].Close())
	servers[2] = nil

	check(t, os.RemoveAll(cfgs[2].Dir))
	_, err := StartServer(brief(t), cfgs[2])
	if !errors.Is(err, ErrLostState) {
		t.Errorf("start with the data gone: %v, want %v", err, ErrLostState)
	}
	contains(t, err, "ctl3", "add it again")

	check(t, os.Remove(identityFile(cfgs[2].Dir))) // the others still know it
	_, err = StartServer(brief(t), cfgs[2])
	if !errors.Is(err, ErrLostState) {
		t.Errorf("start with everything gone: %v, want %v", err, ErrLostState)
	}
}

func TestForeignDataIsRefused(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	cfg := configs(t, a, 1)[0]
	s, err := StartServer(brief(t), cfg)
	check(t, err)
	check(t, s.Close())
	other := cfg
	other.ClusterToken = "lab-0002"
	_, err = StartServer(brief(t), other)
	if !errors.Is(err, ErrForeign) {
		t.Errorf("start for another cluster: %v, want %v", err, ErrForeign)
	}
	contains(t, err, "lab-0001", "lab-0002", cfg.Dir)
}

func TestDamagedDataIsAnError(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	cfg := configs(t, a, 1)[0]
	s, err := StartServer(brief(t), cfg)
	check(t, err)
	ready(t, s)
	check(t, s.Close())
	logs, err := filepath.Glob(filepath.Join(cfg.Dir, "member", "wal", "*.wal"))
	check(t, err)
	for _, l := range logs {
		b, err := os.ReadFile(l)
		check(t, err)
		for i := range min(len(b), 4096) {
			b[i] ^= 0x55
		}
		check(t, os.WriteFile(l, b, 0o600))
	}
	// In a process of its own: etcd leaves goroutines behind that go on writing.
	conf, err := json.Marshal(cfg)
	check(t, err)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), memberEnv+"="+string(conf))
	out, err := cmd.CombinedOutput()
	if err == nil || strings.Contains(string(out), "goroutine ") || !strings.Contains(string(out), cfg.Dir) {
		t.Errorf("a damaged log ends in %v, want an error that names %s; it said\n%s", err, cfg.Dir, out)
	}
}

func TestBadConfigIsRefused(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	for _, c := range []struct {
		name   string
		change func(*ServerConfig)
		want   string
	}{
		{"not a member", func(c *ServerConfig) { c.Name = "ctl9" }, "ctl9"},
		{"every address", func(c *ServerConfig) { c.ClientAddr = netip.MustParseAddrPort("0.0.0.0:7442") }, "management address"},
		{"no TLS", func(c *ServerConfig) { c.KeyFile = "" }, "TLS"},
		{"plain peer", func(c *ServerConfig) { c.Members = map[string]string{"ctl1": "http://127.0.0.1:1"} }, "https"},
		{"no token", func(c *ServerConfig) { c.ClusterToken = "" }, "token"},
		{"missing certificate", func(c *ServerConfig) { c.CertFile += ".gone" }, ".gone"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := configs(t, a, 1)[0]
			c.change(&cfg)
			s, err := StartServer(brief(t), cfg)
			if err == nil {
				s.Close()
			}
			contains(t, err, c.want)
		})
	}
}

func TestAddressInUse(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	cfgs := configs(t, a, 2)
	first, second := cfgs[0], cfgs[1]
	first.Members = map[string]string{first.Name: first.Members[first.Name]}
	startAll(t, []ServerConfig{first})
	second.Members = map[string]string{second.Name: second.Members[second.Name]}
	second.ClientAddr = first.ClientAddr
	_, err := StartServer(brief(t), second)
	contains(t, err, "address already in use", first.ClientAddr.String())
}

func TestStrangersAreRefused(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	cfg := configs(t, a, 1)[0]
	startAll(t, []ServerConfig{cfg})
	stranger := newAuthority(t).tls
	for name, conf := range map[string]*tls.Config{
		"certificate of another authority": {RootCAs: a.tls.RootCAs, Certificates: stranger.Certificates},
		"no certificate":                   {RootCAs: a.tls.RootCAs},
		"server of another authority":      {RootCAs: stranger.RootCAs, Certificates: a.tls.Certificates},
		"old TLS":                          {RootCAs: a.tls.RootCAs, Certificates: a.tls.Certificates, MaxVersion: tls.VersionTLS12},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := Connect(ClientConfig{Endpoints: []string{cfg.ClientAddr.String()}, TLS: conf, Log: testLog(t)})
			check(t, err)
			defer c.Close()
			if _, err := c.Get(short(t), "k"); !errors.Is(err, store.ErrNoQuorum) {
				t.Errorf("error is %v, want %v", err, store.ErrNoQuorum)
			}
		})
	}
}

func TestMembers(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	cfgs := configs(t, a, 3)
	servers := startAll(t, cfgs)
	c := connect(t, a, cfgs[0])
	members, err := c.Members(brief(t))
	check(t, err)
	leaders := 0
	for i, m := range members {
		if !m.Healthy || m.DBSize == 0 || m.ID == 0 {
			t.Errorf("member %d is %+v, want it healthy", i, m)
		}
		if m.Leader {
			leaders++
		}
	}
	if len(members) != 3 || leaders != 1 {
		t.Errorf("%d members with %d leaders, want 3 with 1", len(members), leaders)
	}

	closeAll(servers[1:]) // no majority: the list is still there
	servers[1], servers[2] = nil, nil
	members, err = c.Members(brief(t))
	check(t, err)
	for _, m := range members {
		if m.Name != "ctl1" && (m.Healthy || m.Problem == "") {
			t.Errorf("stopped member is %+v, want it unhealthy with a reason", m)
		}
	}
	alone := brief(t)
	ok, reason := servers[0].HasQuorum()
	for ; ok && alone.Err() == nil; ok, reason = servers[0].HasQuorum() {
		time.Sleep(lookInterval)
	}
	if ok || reason == "" {
		t.Errorf("one member of three says %v %q, want no with a reason", ok, reason)
	}
	if _, err := c.Put(short(t), "k", nil, store.Any); !errors.Is(err, store.ErrNoQuorum) {
		t.Errorf("put without a majority: %v, want %v", err, store.ErrNoQuorum)
	}
}

// TestLeaseIsLostInTime: the holder that cannot reach the majority knows before anybody else can win.
func TestLeaseIsLostInTime(t *testing.T) {
	noLeaks(t)
	a := newAuthority(t)
	cfg := configs(t, a, 1)[0]
	servers := startAll(t, []ServerConfig{cfg})
	c := connect(t, a, cfg)
	l, err := c.Campaign(brief(t), "leader", "ctl1")
	check(t, err)
	closeAll(servers)
	cut := time.Now()
	servers[0] = nil
	select {
	case <-l.Lost():
		if took := time.Since(cut); took > leaseTTL {
			t.Errorf("lost after %s, want before the lease ends after %s", took, leaseTTL)
		}
	case <-brief(t).Done():
		t.Error("the loss is not told")
	}
	check(t, c.Close())
}

func TestCompactedWatchEnds(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	cfg := configs(t, a, 1)[0]
	startAll(t, []ServerConfig{cfg})
	c := connect(t, a, cfg)
	first, err := c.Put(brief(t), "k", []byte("1"), 0)
	check(t, err)
	last, err := c.Put(brief(t), "k", []byte("2"), first)
	check(t, err)
	_, err = c.etcd.Compact(brief(t), last, clientv3.WithCompactPhysical())
	check(t, err)
	select {
	case e, ok := <-c.Watch(brief(t), "k", first-1):
		if ok {
			t.Errorf("got %+v, want the watch to end: the history before is gone", e)
		}
	case <-brief(t).Done():
		t.Error("the watch does not end")
	}
}
