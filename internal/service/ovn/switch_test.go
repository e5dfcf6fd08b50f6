package ovn

import (
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"nines/internal/host"
	"nines/internal/host/hosttest"
	"nines/internal/model"
)

// kernel scripts what the node's kernel has.
func kernel(h *hosttest.Host, loaded, loadable bool) {
	code := map[bool]int{true: 0, false: 1}
	for _, m := range modules {
		if loaded {
			h.PutFile(host.File{Path: "/sys/module/" + m + "/initstate", Mode: 0o444, Owner: "root", Group: "root", Content: []byte("live\n")})
		}
	}
	h.Answer("modprobe --dry-run", "", code[loadable])
}

func TestDatapathIsAFactOfTheNode(t *testing.T) {
	for name, tc := range map[string]struct {
		loaded, loadable bool
		want             string
	}{
		"loaded":   {true, false, datapathKernel},
		"loadable": {false, true, datapathKernel},
		"neither":  {false, false, datapathUser},
	} {
		e, h := env("ctl1")
		kernel(h, tc.loaded, tc.loadable)
		if got, err := datapath(t.Context(), e); got != tc.want || err != nil {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

// switchAnswers is a switch that is as its node wants it.
func switchAnswers(want settings) daemons {
	set := func(m map[string]string) string {
		var out [][2]string
		for k, v := range m {
			if v != "" {
				out = append(out, [2]string{k, v})
			}
		}
		b, _ := json.Marshal([]any{"map", out})
		return string(b)
	}
	var bridges, ports, managers []string
	for i, b := range want.bridges {
		id := string(rune('a' + i))
		list := `["uuid","` + id + `0"]`
		ports = append(ports, `{"_uuid":["uuid","`+id+`0"],"name":"`+b.name+`"}`)
		if b.port != "" {
			ports = append(ports, `{"_uuid":["uuid","`+id+`1"],"name":"`+b.port+`"}`)
			list = `["set",[["uuid","` + id + `0"],["uuid","` + id + `1"]]]`
		}
		mode := `["set",[]]`
		if b.failMode != "" {
			mode = `"` + b.failMode + `"`
		}
		bridges = append(bridges, `{"name":"`+b.name+`","datapath_type":"`+want.datapath+`","fail_mode":`+mode+`,"ports":`+list+`}`)
	}
	for _, m := range want.managers {
		managers = append(managers, `{"target":"`+m+`"}`)
	}
	key := switchSocket + " transact "
	return daemons{
		key + "Open_vSwitch": table(`{"external_ids":` + set(want.external) + `,"other_config":` + set(want.other) + `}`),
		key + "Manager":      table(strings.Join(managers, ",")),
		key + "Port":         table(strings.Join(ports, ",")),
		key + "Bridge":       table(strings.Join(bridges, ",")),
	}
}

func TestSwitchAsWanted(t *testing.T) {
	for _, node := range []string{"ctl1", "cmp1"} {
		for path, has := range map[string]bool{datapathKernel: true, datapathUser: false} {
			e, h := env(node)
			kernel(h, has, false)
			s := &Service{rpc: switchAnswers(desired(e, path))}
			if done, why, err := s.switchSet(t.Context(), e, nil); !done || err != nil {
				t.Errorf("%s, %s: %q, %v", node, path, why, err)
			}
		}
	}
}

func TestSwitchDrift(t *testing.T) {
	e, h := env("ctl1")
	kernel(h, false, false)
	for name, change := range map[string]func(*settings){
		"another datapath":      func(s *settings) { s.datapath = datapathKernel },
		"no gateway":            func(s *settings) { s.external["ovn-cms-options"] = "" },
		"other databases":       func(s *settings) { s.external["ovn-remote"] = "tcp:192.0.2.1:6642" },
		"checksums left out":    func(s *settings) { s.other["userspace-tso-enable"] = "" },
		"no tunnel bridge":      func(s *settings) { s.bridges = s.bridges[:2] },
		"no way out":            func(s *settings) { s.bridges[1].port = "" },
		"switch forwards alone": func(s *settings) { s.bridges[0].failMode = "" },
	} {
		have := desired(e, datapathUser)
		change(&have)
		s := &Service{rpc: switchAnswers(have)}
		if done, why, err := s.switchSet(t.Context(), e, nil); done || why == "" || err != nil {
			t.Errorf("%s: %v %q %v", name, done, why, err)
		}
	}
	if done, why, err := (&Service{rpc: daemons{}}).switchSet(t.Context(), e, nil); done || why == "" || err != nil {
		t.Errorf("stopped: %v %q %v", done, why, err)
	}
}

func TestDesired(t *testing.T) {
	ctl, _ := env("ctl1")
	cmp, _ := env("cmp1")
	ctl.Node.Addresses = map[model.NetworkName]netip.Addr{model.Management: ctl.Node.Address()}
	a, b := desired(ctl, datapathUser), desired(cmp, datapathKernel)
	if a.external["ovn-cms-options"] != "enable-chassis-as-gw" || b.external["ovn-cms-options"] != "" {
		t.Error("controllers alone are gateways")
	}
	if a.external["ovn-encap-ip"] != "198.18.0.11" || b.external["ovn-encap-ip"] != "198.18.2.21" {
		t.Errorf("tunnels end at %s and %s", a.external["ovn-encap-ip"], b.external["ovn-encap-ip"])
	}
	if len(a.managers) != 0 || len(b.managers) != 1 || len(a.bridges) != 3 || len(b.bridges) != 2 {
		t.Errorf("%+v\n%+v", a, b)
	}
	ctl.Cluster.Neutron.ProviderInterface = ""
	if c := desired(ctl, datapathKernel); len(c.bridges) != 1 || c.external["ovn-bridge-mappings"] != "" || c.external["ovn-cms-options"] != "" {
		t.Errorf("without a way out: %+v", c)
	}
}

const bare = `[{"ifname":"x","addr_info":[{"local":"fe80::1","scope":"link"}]}]`

func addressed(a string) string {
	return `[{"ifname":"x","addr_info":[{"local":"` + a + `","scope":"global"},{"local":"fe80::1","scope":"link"}]}]`
}

func commands(h *hosttest.Host) []string {
	var out []string
	for _, c := range h.Calls() {
		for _, verb := range []string{"run ovs-vsctl", "run " + linksPath, "start ", "stop "} {
			if strings.HasPrefix(c, verb) {
				out = append(out, strings.Join(strings.Fields(c)[:min(4, len(strings.Fields(c)))], " "))
			}
		}
	}
	return out
}

func TestSetSwitch(t *testing.T) {
	for name, tc := range map[string]struct {
		provider string // its addresses
		unit     string
		tso      string
		tunnel   string
		want     []string // nil: refused
	}{
		"before the first start": {bare, "inactive", "", "tenant0", []string{"run ovs-vsctl --timeout=20 --no-wait"}},
		"while it runs":          {bare, "active", "true", "tenant0", []string{"run ovs-vsctl --timeout=20 set", "run " + linksPath}},
		"what only a start reads": {bare, "active", "", "tenant0",
			[]string{"stop " + UnitSwitch, "run ovs-vsctl --timeout=20 --no-wait", "start " + UnitSwitch}},
		"the node's own interface":       {addressed("198.18.1.11"), "inactive", "", "tenant0", nil},
		"nothing for tunnels to go over": {bare, "inactive", "", "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			e, h := env("ctl1")
			kernel(h, false, false)
			e.Cluster.Neutron.TunnelInterface = tc.tunnel
			h.Answer("ip -json address show dev provider0", tc.provider, 0)
			h.Answer("ip -json address show dev tenant0", addressed("198.18.2.11"), 0)
			h.Answer("ovs-vsctl", "", 0)
			h.Answer(linksPath, "", 0)
			h.PutUnit(UnitSwitch, host.UnitState{Loaded: true, Active: tc.unit})
			have := settings{datapath: datapathUser, other: map[string]string{"userspace-tso-enable": tc.tso}}
			err := (&Service{rpc: switchAnswers(have)}).setSwitch(t.Context(), e, nil)
			if got := commands(h); !slices.Equal(got, tc.want) || (err == nil) != (tc.want != nil) {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}

func TestTunnelEnd(t *testing.T) {
	for name, tc := range map[string]struct {
		answer string
		code   int
		ok     bool
	}{
		"there":   {addressed("198.18.2.11"), 0, true},
		"lost":    {bare, 0, false},
		"no port": {"", 1, false},
	} {
		e, h := env("ctl1")
		kernel(h, false, false)
		h.Answer("ip -json address show dev "+bridgeTunnel, tc.answer, tc.code)
		why, err := (&Service{}).tunnelEnd(t.Context(), e)
		if (why == "") != tc.ok || err != nil {
			t.Errorf("%s: %q, %v", name, why, err)
		}
	}
}

// The real daemons send echo requests of their own.
func TestUnixCaller(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	served := make(chan error, 1)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				served <- nil
				return
			}
			var ask struct{ Method string }
			_ = json.NewDecoder(conn).Decode(&ask)
			switch ask.Method {
			case "good":
				conn.Write([]byte(`{"id":"echo","method":"echo","params":[]}{"id":0,"result":"fine","error":null}`))
			case "bad":
				conn.Write([]byte(`{"id":0,"result":null,"error":"no such command"}`))
			}
			conn.Close()
		}
	}()
	if got, err := text(t.Context(), unixCaller{}, path, "good"); got != "fine" || err != nil {
		t.Errorf("%q %v", got, err)
	}
	if _, err := text(t.Context(), unixCaller{}, path, "bad"); err == nil || !strings.Contains(err.Error(), "no such command") {
		t.Errorf("%v", err)
	}
	if _, err := text(t.Context(), unixCaller{}, path, "none"); !errors.Is(err, errSilent) || absent(err) {
		t.Errorf("%v", err)
	}
	l.Close()
	<-served
	if _, err := text(t.Context(), unixCaller{}, path, "good"); !errors.Is(err, errSilent) || !absent(err) {
		t.Errorf("%v", err)
	}
}

func FuzzRows(f *testing.F) {
	f.Add([]byte(`{"options":["map",[["a","b"]]],"ports":["set",[["uuid","x"]]],"_uuid":["uuid","y"]}`))
	f.Fuzz(func(_ *testing.T, raw []byte) {
		var r row
		if json.Unmarshal(raw, &r) != nil {
			return
		}
		for column := range r {
			r.text(column)
			r.number(column)
			r.pairs(column)
			r.refs(column)
		}
	})
}
