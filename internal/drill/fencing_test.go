package drill

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"nines/internal/health"
	"nines/internal/model"
)

// fences is what a site has of BMCs.
type fences struct {
	bmc     string // whose is dead
	tells   bool   // status tells of it
	unclean bool   // status tells of a machine that could not be switched off
	heeds   bool   // what a person says
	asked   string // whether a person has said it
	shoots  []string
	farAway bool // the isolated machine does not reach the BMCs
}

func (s *site) KillBMC(_ context.Context, node string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log, s.bmc = append(s.log, "kill the bmc of "+node), node
	return nil
}

func (s *site) Unplug(_ context.Context, node string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log, s.bmc = append(s.log, "unplug "+node), node
	return nil
}

func (s *site) MendBMC(ctx context.Context, node string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log, s.bmc = append(s.log, "mend the bmc of "+node), ""
	return ctx.Err()
}

func (s *site) TestBMC(context.Context, string) error { return nil }

func (s *site) ofBMCs() []health.Condition {
	var out []health.Condition
	if s.bmc != "" && s.tells {
		out = append(out, health.Condition{Code: codeBMC, Severity: health.Warning, Node: s.bmc})
	}
	if s.unclean && s.bmc != "" && s.away != "" && s.asked == "" {
		out = append(out, health.Condition{Code: codeUnclean, Severity: health.Critical, Node: s.away})
	}
	return out
}

// fencing answers scripts. The lock is held.
func (s *site) fencing(node, script string) string {
	switch {
	case strings.Contains(script, "stonith_admin"):
		s.log, s.asked = append(s.log, node+": "+script), node
		if s.heeds {
			s.deaf = time.Now().Add(time.Second)
		}
	case strings.Contains(script, "/dev/tcp") && !s.farAway:
		return "reached\n"
	case strings.Contains(script, "systemctl show") && s.away != "" && slices.Contains(s.shoots, node):
		return "2\n"
	case strings.Contains(script, "systemctl show"):
		return "1\n"
	}
	return ""
}

func fencedCluster(engine model.VIPEngine) *model.Cluster {
	c := testCluster()
	c.VIP.Engine, c.Fencing = engine, model.FencingOn
	for i := range c.Nodes {
		c.Nodes[i].BMC = model.BMC{Protocol: model.Redfish, Address: "198.18.0.61", User: "nines"}
	}
	return c
}

func TestFencingDrills(t *testing.T) {
	const never = time.Hour
	for name, tc := range map[string]struct {
		engine model.VIPEngine
		drill  string
		site   *site
		reason string // "": it passes
		log    []string
	}{
		"keepalived takes over without a BMC": {model.EngineKeepalived, "bmc-dead-then-node-dead", &site{failover: 300 * ms, fences: fences{tells: true}}, "",
			[]string{"kill the bmc of ctl1", "cut ctl1", "on ctl1", "mend the bmc of ctl1", "close"}},
		"nobody tells of the dead BMC": {model.EngineKeepalived, "bmc-dead-then-node-dead", &site{failover: 300 * ms}, "nothing in status said bmc-unreachable of ctl1", nil},
		"Pacemaker waits for a person": {model.EnginePacemaker, "bmc-dead-then-node-dead", &site{failover: never, fences: fences{tells: true, unclean: true, heeds: true}}, "",
			[]string{"kill the bmc of ctl1", "cut ctl1", "ctl2: stonith_admin --confirm ctl1", "on ctl1", "mend the bmc of ctl1", "close"}},
		"Pacemaker waits and does not say so": {model.EnginePacemaker, "bmc-dead-then-node-dead", &site{failover: never, fences: fences{tells: true, heeds: true}}, "nothing in status said pacemaker-unclean of ctl1", nil},
		"Pacemaker does not wait":             {model.EnginePacemaker, "bmc-dead-then-node-dead", &site{failover: time.Second, fences: fences{tells: true, unclean: true, heeds: true}}, "somebody took over", nil},
		"Pacemaker does not heed the person":  {model.EnginePacemaker, "bmc-dead-then-node-dead", &site{failover: 2 * time.Minute, fences: fences{tells: true, unclean: true}}, "nobody had the VIP", nil},
		"the minority is shot":                {model.EnginePacemaker, "fence-duel", &site{failover: time.Second, fences: fences{shoots: []string{"ctl1"}}}, "", nil},
		"both are shot":                       {model.EnginePacemaker, "fence-duel", &site{failover: time.Second, fences: fences{shoots: []string{"ctl1", "ctl3"}}}, "ctl3 lost its power though it was in the majority", nil},
		"nobody is shot":                      {model.EnginePacemaker, "fence-duel", &site{failover: time.Second}, "nobody took the power of ctl1", nil},
		"the minority could not shoot":        {model.EnginePacemaker, "fence-duel", &site{failover: time.Second, fences: fences{shoots: []string{"ctl1"}, farAway: true}}, "proves nothing", nil},
	} {
		t.Run(name, func(t *testing.T) {
			s := tc.site
			s.vip = "ctl1"
			r := runnerFor(t, s)
			r.Cluster = fencedCluster(tc.engine)
			all := Catalogue(r.Cluster, nil)
			i := slices.IndexFunc(all, func(d Drill) bool { return d.Name == tc.drill })
			if i < 0 {
				t.Fatal("there is no such drill")
			}
			synctest.Test(t, func(t *testing.T) {
				rep, err := r.Run(t.Context(), all[i], 42)
				if err != nil {
					t.Fatal(err)
				}
				reasons := strings.Join(rep.Reasons, "; ")
				if (rep.Verdict == Pass) != (tc.reason == "") || !strings.Contains(reasons, tc.reason) {
					t.Errorf("%s: %q, want %q", rep.Verdict, reasons, tc.reason)
				}
				if tc.log != nil && !slices.Equal(s.log, tc.log) {
					t.Errorf("did %q, want %q", s.log, tc.log)
				}
			})
		})
	}
}

// With a second BMC on each controller nobody waits for a person; where only some have one, it depends on who is hurt.
func TestSecondBMCs(t *testing.T) {
	c := fencedCluster(model.EnginePacemaker)
	second := model.BMC{Protocol: model.IPMI, Address: "198.18.0.61", User: "nines"}
	c.Nodes[0].SecondBMC = second
	if d := fencingDrills(c); len(d) != 1 || d[0].Name != "fence-duel" {
		t.Errorf("one has a second: %v", d)
	}
	for i := range c.Nodes {
		c.Nodes[i].SecondBMC = second
	}
	dead := fencingDrills(c)[0]
	if dead.Name != "bmc-dead-then-node-dead" || dead.waitsForPerson(c) || !slices.ContainsFunc(dead.Limits, func(l Limit) bool { return l.Probe == ProbeTCP && l.Outage == bySecond }) {
		t.Errorf("all have a second: %+v", dead)
	}
}

// Without a BMC on each controller, or with fencing off, nobody can be fenced.
func TestFencingDrillsNeedBMCs(t *testing.T) {
	one := fencedCluster(model.EnginePacemaker)
	one.Nodes[1].BMC = model.BMC{}
	off := fencedCluster(model.EnginePacemaker)
	off.Fencing = model.FencingOff
	for _, c := range []*model.Cluster{one, off} {
		if d := fencingDrills(c); len(d) > 0 {
			t.Errorf("%s", d[0].Name)
		}
	}
}

// A machine that must stay away has no BMC either: others would switch it on.
func TestWhoStaysAwayIsUnplugged(t *testing.T) {
	for engine, unplugged := range map[model.VIPEngine]bool{model.EnginePacemaker: true, model.EngineKeepalived: false} {
		s := &site{vip: "ctl1", stuck: "galera"}
		r := runnerFor(t, s)
		r.Cluster = fencedCluster(engine)
		synctest.Test(t, func(t *testing.T) {
			if _, err := r.Run(t.Context(), drillNamed(t, "galera-one-member-gone"), 3); err != nil {
				t.Fatal(err)
			}
		})
		ons := slices.DeleteFunc(slices.Clone(s.log), func(line string) bool { return !strings.HasPrefix(line, "on ") })
		late := slices.IndexFunc(ons, func(line string) bool { return line != ons[0] && line != ons[1] })
		away := strings.TrimPrefix(ons[late], "on ")
		killed, mended := slices.Index(s.log, "unplug "+away), slices.Index(s.log, "mend the bmc of "+away)
		if unplugged != (killed >= 0) || unplugged != (mended > killed) || killed > slices.Index(s.log, ons[0]) {
			t.Errorf("%s: did %q", engine, s.log)
		}
	}
}

// An interrupted run leaves no dead BMC behind.
func TestInterruptedRunMendsTheBMC(t *testing.T) {
	s := &site{vip: "ctl1"}
	r := runnerFor(t, s)
	r.Cluster = fencedCluster(model.EngineKeepalived)
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		if _, err := r.Run(ctx, fencingDrills(r.Cluster)[0], 1); err == nil {
			t.Error("no error")
		}
		if !slices.Contains(s.log, "mend the bmc of ctl1") || slices.Contains(s.log, "cut ctl1") {
			t.Errorf("did %q", s.log)
		}
	})
}
