package service_test

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"nines/internal/host"
	"nines/internal/host/hosttest"
	"nines/internal/model"
	"nines/internal/service"
)

func TestAnswersThroughTheListener(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c := &model.Cluster{}
	c.VIP.Address = netip.MustParsePrefix("127.0.0.1/8")
	action := service.AnswersAction(func(*model.Cluster) []service.Listener {
		return []service.Listener{{Name: "x", Port: l.Addr().(*net.TCPAddr).Port}}
	})
	if done, reason, err := action.Check(t.Context(), service.Env{Cluster: c}, nil); !done || err != nil {
		t.Errorf("not done: %s (%v)", reason, err)
	}
	l.Close()
	if done, _, err := action.Check(t.Context(), service.Env{Cluster: c}, nil); done || err != nil {
		t.Errorf("done %v (%v) although nothing listens", done, err)
	}
}

// Pacemaker is detached while it runs; where it does not, there is nothing to do.
func TestDetach(t *testing.T) {
	h := hosttest.New()
	env := service.Env{Host: h}
	detach := service.DetachAction()
	h.PutUnit("pacemaker.service", host.UnitState{Loaded: true, Active: "inactive"})
	if done, _, err := detach.Check(t.Context(), env, nil); !done || err != nil {
		t.Error("it does not run:", err)
	}
	h.PutUnit("pacemaker.service", host.UnitState{Loaded: true, Active: "active"})
	mode := "false"
	h.Handle("crm_attribute --type crm_config --name maintenance-mode", func(cmd host.Cmd) (host.Output, error) {
		if i := slices.Index(cmd.Args, "--update"); i > 0 {
			mode = cmd.Args[i+1]
		}
		return host.Output{Stdout: []byte(mode + "\n")}, nil
	})
	if done, reason, err := detach.Check(t.Context(), env, nil); done || reason == "" || err != nil {
		t.Error("it runs:", done, reason, err)
	}
	if err := detach.Run(t.Context(), env, nil); err != nil {
		t.Fatal(err)
	}
	if done, _, err := detach.Check(t.Context(), env, nil); !done || err != nil {
		t.Error("it is detached:", done, err)
	}
	h.Answer("crm_attribute --type crm_config --name maintenance-mode", "", 102)
	if done, reason, err := detach.Check(t.Context(), env, nil); done || !strings.Contains(reason, "does not answer") || err != nil {
		t.Error("it does not answer:", done, reason, err)
	}
}

func TestHolding(t *testing.T) {
	carry := func(of ...string) (out []net.Addr) {
		for _, a := range of {
			p := netip.MustParsePrefix(a)
			out = append(out, &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)})
		}
		return out
	}
	one := model.VIP{Address: netip.MustParsePrefix("198.18.0.10/24")}
	two := one
	two.Public = netip.MustParsePrefix("198.18.1.10/24")
	for name, tc := range map[string]struct {
		vip   model.VIP
		addrs []net.Addr
		want  string // holder and part
	}{
		"none of one":    {one, carry("198.18.0.11/24", "198.18.1.10/24"), "false "},
		"one":            {one, carry("198.18.0.11/24", "198.18.0.10/24"), "true "},
		"both":           {two, carry("198.18.0.10/24", "198.18.1.10/24"), "true "},
		"none of two":    {two, carry("198.18.0.11/24"), "false "},
		"the public one": {two, carry("198.18.1.10/24"), "false 198.18.1.10"},
		"the other one":  {two, carry("198.18.0.10/24"), "false 198.18.0.10"},
	} {
		facts, words := service.Holding(tc.addrs, tc.vip)
		if got := facts[service.FactHolder] + " " + facts[service.FactPart]; got != tc.want || words == "" {
			t.Errorf("%s: %q (%s), want %q", name, got, words, tc.want)
		}
	}
}

func TestJudgeVIP(t *testing.T) {
	c := &model.Cluster{Nodes: []model.Node{{Name: "a", Roles: []model.Role{model.RoleController}}, {Name: "b", Roles: []model.Role{model.RoleController}}}}
	node := func(holder, part string) service.Observation {
		return service.Observation{Facts: map[string]string{service.FactHolder: holder, service.FactPart: part}}
	}
	for name, tc := range map[string]struct {
		a, b service.Observation
		want string
	}{
		"one holds it":        {node("true", ""), node("false", ""), ""},
		"both hold it":        {node("true", ""), node("true", ""), "vip-two-holders"},
		"nobody holds it":     {node("false", ""), node("false", ""), "vip-no-holder"},
		"each holds a part":   {node("false", "198.18.0.10"), node("false", "198.18.1.10"), "vip-parted vip-parted vip-no-holder"},
		"one holds all of it": {node("true", ""), node("false", "198.18.1.10"), "vip-parted"},
	} {
		var got []string
		for _, cond := range service.JudgeVIP(c, map[string]service.Observation{"a": tc.a, "b": tc.b}, "two", "none") {
			got = append(got, cond.Code)
		}
		if strings.Join(got, " ") != tc.want {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
}
