package openvswitch

import (
	"encoding/json"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"nines/internal/host"
	"nines/internal/host/hosttest"
	"nines/internal/model"
	"nines/internal/ovsdb"
	"nines/internal/ovsdb/ovsdbtest"
	"nines/internal/secret"
	"nines/internal/service"
	"nines/internal/service/servicetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConforms(t *testing.T) {
	servicetest.Conform(t, New(nil), servicetest.Cluster(), secret.Map{})
}

func TestGoldenFiles(t *testing.T) {
	rs, err := New(nil).Resources(servicetest.Cluster(), secret.Map{})
	if err != nil {
		t.Fatal(err)
	}
	servicetest.Golden(t, "testdata/controller", "ctl1", rs)
	servicetest.Golden(t, "testdata/compute", "cmp1", rs)
}

func env(node string) (service.Env, *hosttest.Host) {
	h, c := hosttest.New(), servicetest.Cluster()
	n, _ := c.Node(node)
	return service.Env{Host: h, Cluster: c, Node: n, Log: slog.New(slog.NewTextHandler(io.Discard, nil))}, h
}

// with is the service with daemons in place of the real ones; controllers' switches are told more than computes'.
func with(d ovsdbtest.Daemons) *Service {
	s := New(func(_ *model.Cluster, n model.Node, datapath string) map[string]string {
		out := map[string]string{"datapath": datapath, "gateway": ""}
		if n.Has(model.RoleController) {
			out["gateway"] = "yes"
		}
		return out
	})
	s.rpc = d
	return s
}

func desired(e service.Env, path string) settings { return with(nil).desired(e, path) }

// kernel scripts what the node's kernel has.
func kernel(h *hosttest.Host, loaded, loadable bool) {
	code := map[bool]int{true: 0, false: 1}
	for _, m := range modules(servicetest.Cluster()) {
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
func switchAnswers(want settings) ovsdbtest.Daemons {
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
	key := ovsdb.SwitchSocket + " transact "
	return ovsdbtest.Daemons{
		key + "Open_vSwitch": ovsdbtest.Table(`{"external_ids":` + set(want.external) + `,"other_config":` + set(want.other) + `}`),
		key + "Manager":      ovsdbtest.Table(strings.Join(managers, ",")),
		key + "Port":         ovsdbtest.Table(strings.Join(ports, ",")),
		key + "Bridge":       ovsdbtest.Table(strings.Join(bridges, ",")),
	}
}

func TestSwitchAsWanted(t *testing.T) {
	for _, node := range []string{"ctl1", "cmp1"} {
		for path, has := range map[string]bool{datapathKernel: true, datapathUser: false} {
			e, h := env(node)
			kernel(h, has, false)
			s := with(switchAnswers(desired(e, path)))
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
		"no gateway":            func(s *settings) { s.external["gateway"] = "" },
		"another name":          func(s *settings) { s.external["system-id"] = "other" },
		"checksums left out":    func(s *settings) { s.other["userspace-tso-enable"] = "" },
		"no tunnel bridge":      func(s *settings) { s.bridges = s.bridges[:2] },
		"no way out":            func(s *settings) { s.bridges[1].port = "" },
		"switch forwards alone": func(s *settings) { s.bridges[0].failMode = "" },
	} {
		have := desired(e, datapathUser)
		change(&have)
		s := with(switchAnswers(have))
		if done, why, err := s.switchSet(t.Context(), e, nil); done || why == "" || err != nil {
			t.Errorf("%s: %v %q %v", name, done, why, err)
		}
	}
	if done, why, err := with(nil).switchSet(t.Context(), e, nil); done || why == "" || err != nil {
		t.Errorf("stopped: %v %q %v", done, why, err)
	}
}

func TestDesired(t *testing.T) {
	ctl, _ := env("ctl1")
	cmp, _ := env("cmp1")
	a, b := desired(ctl, datapathUser), desired(cmp, datapathKernel)
	if a.external["system-id"] != "ctl1" || a.external["gateway"] != "yes" || a.external["datapath"] != datapathUser || b.external["datapath"] != datapathKernel {
		t.Errorf("%v\n%v", a.external, b.external)
	}
	if len(a.managers) != 0 || len(b.managers) != 1 || len(a.bridges) != 3 || len(b.bridges) != 2 {
		t.Errorf("%+v\n%+v", a, b)
	}
	if a.bridges[1].failMode != "" {
		t.Error("nobody tells br-ex what to forward")
	}
	ctl.Cluster.Neutron.ProviderInterface = ""
	if c := desired(ctl, datapathKernel); len(c.bridges) != 1 {
		t.Errorf("without a way out: %+v", c)
	}
}

// Neutron's agent programs br-ex, and its tunnels need another module.
func TestUnderAgents(t *testing.T) {
	e, _ := env("ctl1")
	e.Cluster.Neutron.Backend = model.BackendOVS
	if s := desired(e, datapathUser); s.bridges[1].failMode != failSecure {
		t.Errorf("%+v", s.bridges)
	}
	if got := modules(e.Cluster); !slices.Equal(got, []string{"openvswitch", "vxlan"}) {
		t.Errorf("%q", got)
	}
}

func TestObserve(t *testing.T) {
	good := func() ovsdbtest.Daemons {
		return ovsdbtest.Daemons{
			"/run/openvswitch/ovs-vswitchd.7.ctl version": ovsdbtest.Quoted("ovs-vswitchd (Open vSwitch) 3.5.0"),
			ovsdb.SwitchSocket + " transact Bridge":       ovsdbtest.Table(`{"name":"br-int"}`),
		}
	}
	for name, tc := range map[string]struct {
		node, without string
		codes         string
	}{
		"well":                 {"ctl1", "none", ""},
		"does not run":         {"ctl1", "/run/openvswitch/ovs", "switch-down warning"},
		"on a compute":         {"cmp1", "/run/openvswitch/ovs", "switch-down critical"},
		"without its database": {"cmp1", ovsdb.SwitchSocket, "switch-down critical"},
	} {
		e, h := env(tc.node)
		h.PutFile(host.File{Path: ovsdb.SwitchPID, Mode: 0o644, Owner: "root", Group: "root", Content: []byte("7\n")})
		d := good()
		for key := range d {
			if strings.HasPrefix(key, tc.without) {
				delete(d, key)
			}
		}
		o := with(d).Observe(t.Context(), e)
		var codes []string
		for _, c := range o.Conditions {
			codes = append(codes, c.Code+" "+string(c.Severity))
		}
		if o.Serving != (tc.codes == "") || strings.Join(codes, ",") != tc.codes || o.Reason == "" {
			t.Errorf("%s: %+v", name, o)
		}
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
			err := with(switchAnswers(have)).setSwitch(t.Context(), e, nil)
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
		why, err := with(nil).tunnelEnd(t.Context(), e)
		if (why == "") != tc.ok || err != nil {
			t.Errorf("%s: %q, %v", name, why, err)
		}
	}
}
