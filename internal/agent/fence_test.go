package agent

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"nines/internal/api"
	"nines/internal/converge"
	"nines/internal/fence"
	"nines/internal/model"
	"nines/internal/secret"
	"nines/internal/service"
	"nines/internal/store/memstore"
)

func TestBMCConditions(t *testing.T) {
	bmc := model.BMC{Protocol: model.Redfish, Address: "198.51.100.11", User: "nines"}
	c := &model.Cluster{Fencing: model.FencingOn}
	tests := map[string]fence.Result{}
	for trouble, code := range map[fence.Trouble]string{"": "", fence.Unreachable: "bmc-unreachable", fence.Credentials: "bmc-credentials",
		fence.Certificate: "bmc-certificate", fence.Slow: "bmc-slow", fence.OtherMachine: "bmc-other-machine"} {
		c.Nodes = []model.Node{{Name: "ctl1", BMC: bmc}, {Name: "ctl2", BMC: bmc}, {Name: "ctl3"}}
		tests["ctl1"] = fence.Result{Node: "ctl1", Address: bmc.Address, Protocol: bmc.Protocol, Trouble: trouble, Text: "seen"}
		got := bmcConditions(c, tests)
		switch {
		case code == "" && len(got) != 0:
			t.Errorf("all is well: %+v", got)
		case code != "" && (len(got) != 1 || got[0].Code != code || got[0].Node != "ctl1" || got[0].Hint == ""):
			t.Errorf("%+v, want %s", got, code)
		}
	}
	second := model.BMC{Protocol: model.IPMI, Address: bmc.Address, User: "nines"}
	c.Nodes[0].SecondBMC = second
	tests["ctl1/2"] = fence.Result{Node: "ctl1", Level: 2, Address: second.Address, Protocol: second.Protocol, Trouble: fence.Credentials, Text: "seen"}
	tests["ctl1"] = fence.Result{Node: "ctl1", Level: 1, Address: bmc.Address, Protocol: bmc.Protocol}
	if got := bmcConditions(c, tests); len(got) != 1 || got[0].Code != "bmc-credentials" || !strings.HasPrefix(got[0].Text, "the second, ") || !strings.Contains(got[0].Hint, "ctl1 --second'") {
		t.Errorf("a second BMC in trouble: %+v", got)
	}
	delete(tests, "ctl1/2")
	c.Nodes[0].BMC.Address = "198.51.100.99"
	if got := bmcConditions(c, tests); len(got) != 0 {
		t.Errorf("the test was of another BMC: %+v", got)
	}
	c.Nodes[0].BMC, c.Fencing = bmc, model.FencingOff
	if got := bmcConditions(c, tests); len(got) != 0 {
		t.Errorf("nobody fences: %+v", got)
	}
}

// A test that hung until its BMC was mended says nothing of the BMC as it is.
func TestLaterTestsCount(t *testing.T) {
	st := memstore.New()
	defer st.Close()
	lease, err := st.Campaign(t.Context(), converge.LeaderLease, "ctl1")
	if err != nil {
		t.Fatal(err)
	}
	a := &Agent{}
	now := time.Now()
	for _, tc := range []struct {
		at   time.Time
		text string
		want string
	}{{now.Add(time.Hour), "by a wrong clock", "by a wrong clock"}, {now, "well", "well"}, {now.Add(-20 * time.Second), "hung", "well"}} {
		if err := a.noteBMCs(t.Context(), st, lease.Fence(), []fence.Result{{Node: "ctl1", Level: 1, At: tc.at, Text: tc.text}}); err != nil {
			t.Fatal(err)
		}
		if known, _, err := bmcTests(t.Context(), st); err != nil || known["ctl1"].Text != tc.want {
			t.Errorf("%s: %+v, %v", tc.text, known, err)
		}
	}
}

// fencer says from its third look on that it has fenced ctl1.
type fencer struct {
	service.Service
	at    time.Time
	looks int
}

func (f *fencer) Name() string { return "moody" }

func (f *fencer) Fenced(map[string]service.Observation) map[string]time.Time {
	if f.looks++; f.looks < 3 {
		return nil
	}
	return map[string]time.Time{"ctl1": f.at}
}

// A controller gets its power back only when whoever fences by itself has done so: what comes later would take it again.
func TestCycleWaitsForFencers(t *testing.T) {
	c := cluster()
	c.Fencing = model.FencingOn
	c.Nodes[0].Addresses = map[model.NetworkName]netip.Addr{model.Management: netip.MustParseAddr("127.0.0.3")}
	c.Nodes = append(c.Nodes, model.Node{Name: "cmp1", Roles: []model.Role{model.RoleCompute}, Addresses: c.Nodes[0].Addresses})
	ordered := time.Now()
	for name, want := range map[string]int{"ctl1": 3, "cmp1": 0} {
		f := &fencer{at: ordered.Add(time.Second)}
		a := &Agent{Options: Options{Config: model.AgentConfig{Node: "ctl2"}, Services: []service.Service{f}, Log: slog.New(slog.DiscardHandler)}, peers: api.NewClient(nil, nil)}
		a.awaitFencers(t.Context(), c, fence.Order{Node: name, Action: fence.Cycle, Since: ordered, Todo: []fence.Power{fence.On}})
		a.peers.Close()
		if f.looks != want {
			t.Errorf("%s: %d looks, want %d", name, f.looks, want)
		}
	}
}

// An order is written down before anybody acts, one at a time, and ends with what became of it.
func TestOrderIsCarriedOut(t *testing.T) {
	ctx := t.Context()
	st := memstore.New()
	defer st.Close()
	key, err := secret.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	c := cluster()
	c.Nodes = append(c.Nodes, model.Node{Name: "cmp1", Roles: []model.Role{model.RoleCompute},
		Addresses: map[model.NetworkName]netip.Addr{model.Management: netip.MustParseAddr("127.0.0.2")},
		BMC:       model.BMC{Protocol: model.Redfish, Address: "127.0.0.1:1", User: "nines"}})
	c.Nodes[0].Addresses = map[model.NetworkName]netip.Addr{model.Management: netip.MustParseAddr("127.0.0.3")}
	raw, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := st.Put(ctx, converge.KeySpec, raw, 0); err != nil {
		t.Fatal(err)
	}
	lease, err := st.Campaign(ctx, converge.LeaderLease, "ctl1")
	if err != nil {
		t.Fatal(err)
	}
	a := &Agent{Options: Options{Config: model.AgentConfig{Node: "ctl1"}, Log: slog.New(slog.DiscardHandler)}, peers: api.NewClient(nil, nil), life: ctx, secrets: newSecrets(t, t.TempDir(), key, st)}
	defer a.peers.Close()
	l := &leadership{ctx: ctx, fence: lease.Fence()}
	give := func(id, node string) error {
		_, err := a.order(ctx, st, l.fence, api.FenceRequest{ID: id, Node: node, Action: fence.Cycle, Who: "me"})
		return err
	}
	if err := give("1", "ctl1"); err == nil || !strings.Contains(err.Error(), "no bmc") {
		t.Errorf("a node without a BMC: %v", err)
	}
	if err := give("1", "cmp1"); err != nil {
		t.Fatal(err)
	}
	var o fence.Order
	for deadline := time.Now().Add(5 * time.Second); ; {
		if o, _, err = lastOrder(ctx, st); err != nil {
			t.Fatal(err)
		}
		if !o.Open() {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("still open: %+v", o)
		}
		pause(ctx, 5*time.Millisecond)
	}
	if o.Executor != "ctl1" || o.Fence != int64(lease.Fence()) || !strings.Contains(o.Error, "never handed over") || o.Hint == "" {
		t.Errorf("%+v", o)
	}
	// Who waits for an order is told how it ended, also of one that was given before.
	wait := func(id string) error {
		return a.cycle(ctx, st, l.fence, api.FenceRequest{ID: id, Node: "cmp1", Action: fence.Cycle, Who: "me"})
	}
	for _, id := range []string{"waited for", "waited for"} {
		if err := wait(id); err == nil || !strings.Contains(err.Error(), "never handed over") {
			t.Errorf("%v", err)
		}
	}
	// An order under way keeps others out; the same one again is no second one.
	open, err := fence.NewOrder("2", "cmp1", fence.TurnOff, "another", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	raw, _ = json.Marshal(open)
	if _, err := st.Put(ctx, keyOrder, raw, -1); err != nil {
		t.Fatal(err)
	}
	var e *api.Error
	if err := give("3", "cmp1"); !errors.As(err, &e) || e.Code != api.CodeBusy {
		t.Errorf("%v, want busy", err)
	}
	if err := give("2", "cmp1"); err != nil {
		t.Errorf("the same order again: %v", err)
	}
	// Once it was off it is dead, whether or not it came back.
	open.Todo, open.Finished, open.Error = nil, time.Now(), ""
	raw, _ = json.Marshal(open)
	if _, err := st.Put(ctx, keyOrder, raw, -1); err != nil {
		t.Fatal(err)
	}
	if err := wait("2"); err != nil {
		t.Errorf("the power was off: %v", err)
	}
}

func TestTroubledBMCsAreTestedSooner(t *testing.T) {
	nodes := func() []model.Node { return []model.Node{{Name: "ctl1"}, {Name: "ctl2"}, {Name: "ctl3"}} }
	names := func(nodes []model.Node) (out []string) {
		for _, n := range nodes {
			out = append(out, n.Name)
		}
		return out
	}
	var d testsDue
	now := time.Now()
	tested := func(want ...string) {
		t.Helper()
		if got := names(d.of(nodes(), now)); !slices.Equal(got, want) {
			t.Fatalf("%v, want %v", got, want)
		}
	}
	tested("ctl1", "ctl2", "ctl3")
	d.note([]fence.Result{{Node: "ctl1"}, {Node: "ctl2", Trouble: fence.Unreachable}, {Node: "ctl2"}, {Node: "ctl3"}})
	if got := d.in(now); got != testTroubled {
		t.Errorf("again in %s", got)
	}
	now = now.Add(testTroubled)
	tested("ctl2")
	d.note([]fence.Result{{Node: "ctl2"}, {Node: "ctl2"}})
	if got := d.in(now); got != testBMCsEvery-testTroubled {
		t.Errorf("all is well, again in %s", got)
	}
	now = now.Add(testBMCsEvery)
	tested("ctl1", "ctl2", "ctl3")
}
