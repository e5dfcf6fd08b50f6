package drill

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"nines/internal/health"
	"nines/internal/model"
	"nines/internal/plan"
	"nines/internal/progress"
	"nines/internal/secret"
	"nines/internal/service"
	"nines/internal/supervise"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func testCluster() *model.Cluster {
	c := &model.Cluster{VIP: model.VIP{Engine: model.EngineKeepalived}, Services: []string{"galera", "rabbitmq", "haproxy", "keystone", "mended"}}
	for i := range 3 {
		c.Nodes = append(c.Nodes, model.Node{Name: fmt.Sprintf("ctl%d", i+1), Roles: []model.Role{model.RoleController},
			Addresses: map[model.NetworkName]netip.Addr{model.Management: netip.AddrFrom4([4]byte{198, 18, 0, byte(11 + i)})}})
	}
	return c
}

// site is a cluster of three nodes on which time passes only in tests. It fails over when a
// node dies and is whole a while after it returns.
type site struct {
	mu       sync.Mutex
	vip      string
	deaf     time.Time     // clients are refused until then
	failover time.Duration // how long a fault is felt
	rejoin   time.Duration
	away     string    // node that is not whole
	back     time.Time // when it is; zero: not before it is healed
	log      []string
	acks     Acks
	verify   error
	silent   bool // faults are never healed by the product
	drift    bool // something is not as the last apply left it: health does not tell
	inspects int  // how often it was looked for
	writes   bool // the database is probed too
	// What is said of a recovery, until the power was given back as often as told.
	recovering bool
	ons        int
	stuck      string // status says that this service waits for the machines without power
	onFault    func()
	hangs      bool // machines do not shut down
	// mends is how long after a freeze the agents have restarted what is frozen; 0: they do not.
	mends  time.Duration
	frozen string // the unit on away
	until  time.Time
	// One member has another history; whether the product asks a person then, and keeps what was not chosen.
	diverged, refuses, kept bool
	says                    string // what status says of the node that is hurt
	// Of the network: when an address was claimed, when status tells, whether a minority can be reached and writes.
	claimed          time.Time
	alarmAfter       time.Duration
	unreached, split bool
	fences
}

func (s *site) Snapshot(context.Context) (Snapshot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	snap := Snapshot{VIPHolders: []string{s.vip}, Leader: "ctl1", Nodes: map[string]map[string]service.Observation{}}
	snap.Conditions = append(snap.Conditions, s.alarm()...)
	snap.Conditions = append(snap.Conditions, s.ofBMCs()...)
	for _, n := range testCluster().Nodes {
		if last := s.last(n.Name); s.stuck != "" && last != "" && last != "on" {
			snap.Conditions = append(snap.Conditions, health.Condition{Code: codeStuck, Service: s.stuck, Text: "last-missing: " + n.Name + " was still serving"})
		}
	}
	if s.says != "" && s.back.IsZero() && s.away != "" {
		snap.Conditions = append(snap.Conditions, health.Condition{Code: s.says, Severity: health.Warning, Node: s.away})
	}
	if s.diverged && s.refuses {
		snap.Conditions = append(snap.Conditions, health.Condition{Code: codeStuck, Service: "galera", Severity: health.Critical, Text: "split-history: ctl2: " + otherUUID + ":7"})
	}
	if s.recovering && len(s.log) > 0 {
		snap.Conditions = append(snap.Conditions, health.Condition{Code: codeUnderWay, Severity: health.Warning, Text: "all crashed"})
	}
	if s.frozen != "" && (s.mends == 0 || time.Now().Before(s.until)) {
		snap.Ailing = []supervise.Ailing{{Node: s.away, Unit: s.frozen, Stopped: time.Second}}
	} else if s.frozen != "" {
		s.away = ""
	}
	for _, n := range testCluster().Nodes {
		if s.frozen != "" && n.Name == s.away {
			snap.Nodes[n.Name] = map[string]service.Observation{"galera": {Reason: "no answer"}}
			continue
		}
		if n.Name == s.away && (s.back.IsZero() || time.Now().Before(s.back)) {
			snap.Conditions = append(snap.Conditions, health.Condition{Code: "node-away", Severity: health.Warning, Node: n.Name, Text: "no answer"})
			continue
		}
		snap.Nodes[n.Name] = map[string]service.Observation{"galera": {Serving: true}}
	}
	return snap, nil
}

// last is what was done to a node last.
func (s *site) last(node string) string {
	for _, line := range slices.Backward(s.log) {
		if what, ok := strings.CutSuffix(line, " "+node); ok {
			return what
		}
	}
	return ""
}

func (s *site) Inspect(ctx context.Context) (Snapshot, error) {
	snap, err := s.Snapshot(ctx)
	s.inspects++
	if s.drift {
		snap.Conditions = append(snap.Conditions, health.Condition{Code: "drift", Severity: health.Warning, Node: "ctl2", Text: "content differs"})
	}
	return snap, err
}

func (s *site) hurt(what, node string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log = append(s.log, what+" "+node)
	s.deaf, s.away, s.back = time.Now().Add(s.failover), node, time.Time{}
	if s.vip == node {
		s.vip = "ctl2"
	}
	if s.onFault != nil {
		s.onFault()
	}
	return nil
}

func (s *site) heal(what, node string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log = append(s.log, what+" "+node)
	if !s.silent {
		s.back = time.Now().Add(s.rejoin)
	}
	return nil
}

func (s *site) CableOut(_ context.Context, node string) error { return s.hurt("pull", node) }
func (s *site) CableIn(ctx context.Context, node string) error {
	return errors.Join(ctx.Err(), s.heal("plug", node))
}
func (s *site) Cut(_ context.Context, node string) error { return s.hurt("cut", node) }
func (s *site) On(ctx context.Context, node string) error {
	s.mu.Lock()
	if s.ons--; s.ons == 0 {
		s.recovering = false
	}
	s.mu.Unlock()
	return errors.Join(ctx.Err(), s.heal("on", node))
}
func (s *site) Stop(_ context.Context, node string) error {
	if s.hangs {
		return fmt.Errorf("shut down %s: it still runs", node)
	}
	return s.hurt("stop", node)
}
func (s *site) Lose(_ context.Context, node, path string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log = append(s.log, "lose "+path+" "+node)
	return nil
}
func (s *site) Fill(_ context.Context, node string) error { return s.hurt("fill", node) }
func (s *site) Free(ctx context.Context, node string) error {
	return errors.Join(ctx.Err(), s.heal("free", node))
}

func (s *site) SkewKeystone(_ context.Context, node string, _ time.Duration) error {
	return s.hurt("skew", node)
}

func (s *site) RightKeystone(ctx context.Context, node string) error {
	return errors.Join(ctx.Err(), s.heal("right", node))
}

// otherUUID is what a member that founds a cluster of its own calls it.
const otherUUID = "cccccccc-1111-2222-3333-444444444444"

func (s *site) Shell(_ context.Context, node, script string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case strings.Contains(script, "galera-bootstrap"):
		s.log = append(s.log, "diverge "+node)
		s.diverged = true
		return otherUUID + "\n", nil
	case strings.Contains(script, "stonith_admin") || strings.Contains(script, "systemctl show") || strings.Contains(script, "/dev/tcp"):
		return s.fencing(node, script), nil
	case strings.Contains(script, "grep") && s.kept:
		return "/var/lib/mysql.nines-epoch-3/grastate.dat\n", nil
	}
	return "", nil
}

func (s *site) Asked(context.Context, string) ([]service.Choice, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.diverged || !s.refuses {
		return nil, nil
	}
	return []service.Choice{{Node: "ctl1", Members: []string{"ctl1", "ctl3"}}, {Node: "ctl2", Members: []string{"ctl2"}, Data: otherUUID}}, nil
}

func (s *site) Choose(_ context.Context, svc, node string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log = append(s.log, "choose "+svc+" "+node)
	s.diverged = false
	return nil
}

func (s *site) Signal(ctx context.Context, node, unit string, signal int) error {
	if signal == 18 {
		s.mu.Lock()
		s.frozen = ""
		s.mu.Unlock()
		return errors.Join(ctx.Err(), s.heal("cont", node))
	}
	what := fmt.Sprintf("signal %d %s", signal, unit)
	if err := s.hurt(what, node); err != nil || signal != 9 {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.frozen, s.until = unit, time.Now().Add(s.mends)
		return err
	}
	return s.heal("systemd starts "+unit+" on", node)
}

func (s *site) Open(context.Context, *Ledger) ([]Probe, error) {
	send := func(context.Context, int) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if time.Now().Before(s.deaf) {
			return errors.New("refused")
		}
		return nil
	}
	var writes []Probe
	if s.writes {
		writes = []Probe{{Name: ProbeWrite, Every: 50 * ms, Timeout: time.Second, Late: 100 * ms, Send: send}}
	}
	return append(writes, []Probe{
		{Name: ProbeTCP, Every: 10 * ms, Timeout: time.Second, Late: 100 * ms, Send: send},
		{Name: ProbeAPI, Every: 50 * ms, Timeout: time.Second, Late: 100 * ms, Send: send},
	}...), nil
}
func (s *site) Locate(_ context.Context, t Target) (string, error) {
	return map[Target]string{Writer: "ctl1", QueueLeader: "ctl3"}[t], nil
}
func (s *site) Verify(context.Context) (Acks, error) { return s.acks, s.verify }
func (s *site) Close(ctx context.Context) error {
	s.log = append(s.log, "close")
	return ctx.Err()
}

func drillNamed(t *testing.T, name string) Drill {
	t.Helper()
	all := Catalogue(testCluster(), []service.Service{faulty("keystone"), faulty("haproxy"), faulty("absent"), faulty("mended")})
	i := slices.IndexFunc(all, func(d Drill) bool { return d.Name == name })
	if i < 0 {
		t.Fatalf("no drill %s", name)
	}
	return all[i]
}

// While Pacemaker moves the VIP, clients wait longer; what does not touch it is promised as before.
func TestLimitsFollowTheEngine(t *testing.T) {
	c := testCluster()
	c.VIP.Engine = model.EnginePacemaker
	for _, d := range Catalogue(c, []service.Service{faulty("haproxy")}) {
		before := drillNamed(t, d.Name).Limits
		for i, l := range d.Limits {
			moves := d.Target != NotVIPHolder && !l.NoFailures
			if l != before[i] && !moves || moves && l.Outage < pacemakerVIP {
				t.Errorf("%s: %s, with keepalived %s", d.Name, l, before[i])
			}
		}
	}
}

// faulty is a service that can be killed and frozen.
type faulty string

func (f faulty) Name() string { return string(f) }
func (faulty) Resources(*model.Cluster, secret.Source) ([]plan.Resource, error) {
	return nil, nil
}
func (f faulty) Faults(*model.Cluster) []service.Fault {
	if f == "mended" {
		return []service.Fault{{Name: "freeze", Unit: "mended.service", Signal: 19, Heal: 18, Mended: true}}
	}
	return []service.Fault{{Name: "kill", Unit: string(f) + ".service", Signal: 9},
		{Name: "freeze", Unit: string(f) + ".service", Signal: 19, Heal: 18}}
}

func runnerFor(t *testing.T, s *site) *Runner {
	dir := t.TempDir()
	return &Runner{Cluster: testCluster(), Machines: s, Injector: s, Observer: s, Person: s, Emit: progress.Discard,
		Workload: func(string, Drill) Workload { return s },
		Ledger:   func(run string) (*Ledger, error) { return NewLedger(filepath.Join(dir, run)) }}
}

func TestRuns(t *testing.T) {
	for name, tc := range map[string]struct {
		drill   string
		site    *site
		verdict string
		reason  string
		log     []string
	}{
		"VIP moves in time": {"vip-holder-power-off", &site{failover: 300 * ms, rejoin: 20 * time.Second}, Pass, "",
			[]string{"cut ctl1", "on ctl1", "close"}},
		"VIP moves too slowly": {"vip-holder-power-off", &site{failover: 3 * time.Second}, Fail, "vip-tcp: outage of",
			[]string{"cut ctl1", "on ctl1", "close"}},
		"writer":          {"db-writer-power-off", &site{failover: 100 * ms}, Pass, "", []string{"cut ctl1", "on ctl1", "close"}},
		"queue leader":    {"rabbitmq-node-power-off", &site{}, Pass, "", []string{"cut ctl3", "on ctl3", "close"}},
		"a row is lost":   {"db-writer-power-off", &site{acks: Acks{Written: 7, Lost: 1}}, Fail, "1 acknowledged writes of 7 are lost", nil},
		"a message hangs": {"db-writer-power-off", &site{acks: Acks{Written: 7, Stuck: 2}}, Fail, "2 confirmed messages came only", nil},
		"cannot verify":   {"db-writer-power-off", &site{verify: errors.New("no route")}, Fail, "could not be verified: no route", nil},
		"never whole":     {"db-writer-power-off", &site{silent: true}, Fail, "not whole again", nil},
		"kill unnoticed":  {"kill-keystone", &site{vip: "ctl3", rejoin: time.Second}, Pass, "", nil},
		"kill noticed":    {"kill-keystone", &site{vip: "ctl3", failover: 60 * ms}, Fail, "none is allowed (refused)", nil},
		"all machines":    {"site-power-cut", &site{failover: 100 * ms}, Pass, "", nil},
		"two machines, and somebody still writes": {"two-of-three-lost", &site{failover: 100 * ms, writes: true}, Fail, "acknowledged while a machine was missing", nil},
		"two machines, and nobody writes":         {"two-of-three-lost", &site{failover: 40 * time.Second, writes: true}, Pass, "", nil},
		"shut down":                               {"site-clean-stop", &site{}, Pass, "", nil},
		"does not shut down":                      {"site-clean-stop", &site{hangs: true}, Fail, "shut down ctl1: it still runs", nil},
		"a lost file":                             {"galera-grastate-missing", &site{}, Pass, "", nil},
		"a cable":                                 {"management-nic-cut", &site{failover: 300 * ms}, Pass, "", []string{"pull ctl1", "plug ctl1", "close"}},
		"one stays away":                          {"galera-one-member-gone", &site{stuck: "galera"}, Pass, "", nil},
		"one stays away, and nobody says so":      {"galera-one-member-gone", &site{}, Fail, "nothing in status said that galera waits for", nil},
		"the leader goes too":                     {"leader-killed-during-recovery", &site{recovering: true, ons: 4}, Pass, "", nil},
		"a history of its own":                    {"galera-diverged", &site{refuses: true, kept: true}, Pass, "", nil},
		"two histories, and nobody is asked":      {"galera-diverged", &site{kept: true}, Fail, "nobody was asked which of two histories goes on", nil},
		"two histories, and one is thrown away":   {"galera-diverged", &site{refuses: true}, Fail, "was not kept", nil},
		"a full disk":                             {"disk-full-galera", &site{failover: 100 * ms, says: "disk-drained"}, Pass, "", []string{"fill ctl1", "free ctl1", "close"}},
		"a full disk of the queue's leader":       {"disk-full-rabbitmq", &site{failover: 9 * time.Second}, Fail, "vip-tcp: outage of", []string{"fill ctl3", "free ctl3", "close"}},
		"a full disk that nobody saw coming":      {"disk-full-galera", &site{failover: 100 * ms}, Fail, "nothing in status said disk-drained of ctl1", nil},
		"a clock":                                 {"clock-jump", &site{vip: "ctl3", says: "clock-skew"}, Pass, "", nil},
		"a clock that nobody looks at":            {"clock-jump", &site{vip: "ctl3"}, Fail, "nothing in status said clock-skew", nil},
		"freeze":                                  {"freeze-haproxy", &site{vip: "ctl3"}, Pass, "", nil},
		"freeze, and the agents end it": {"freeze-mended", &site{vip: "ctl1", mends: 40 * time.Second}, Pass, "",
			[]string{"signal 19 mended.service ctl2", "close"}},
		"freeze, and nobody ends it": {"freeze-mended", &site{vip: "ctl1"}, Fail, "the agents left mended.service on ctl2 frozen",
			[]string{"signal 19 mended.service ctl2", "cont ctl2", "close"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := tc.site
			if s.vip == "" {
				s.vip = "ctl1"
			}
			r := runnerFor(t, s)
			d := drillNamed(t, tc.drill)
			synctest.Test(t, func(t *testing.T) {
				rep, err := r.Run(t.Context(), d, 42)
				if err != nil {
					t.Fatal(err)
				}
				reasons := strings.Join(rep.Reasons, "; ")
				if rep.Verdict != tc.verdict || !strings.Contains(reasons, tc.reason) {
					t.Errorf("%s: %s; want %s %q", rep.Verdict, reasons, tc.verdict, tc.reason)
				}
				if tc.log != nil && !slices.Equal(s.log, tc.log) {
					t.Errorf("did %q, want %q", s.log, tc.log)
				}
				if d.Target == NotVIPHolder && rep.Node == s.vip {
					t.Errorf("struck the holder of the VIP")
				}
			})
		})
	}
}

// Members that went on without the one that stays away need not wait for it.
func TestWhoStaysAwayGoesLast(t *testing.T) {
	for seed := range uint64(20) {
		s := &site{vip: "ctl1", stuck: "galera"}
		r := runnerFor(t, s)
		synctest.Test(t, func(t *testing.T) {
			if _, err := r.Run(t.Context(), drillNamed(t, "galera-one-member-gone"), seed); err != nil {
				t.Fatal(err)
			}
		})
		var cut, on []string
		for _, line := range s.log {
			if node, ok := strings.CutPrefix(line, "cut "); ok {
				cut = append(cut, node)
			} else if node, ok := strings.CutPrefix(line, "on "); ok && !slices.Contains(on, node) {
				on = append(on, node)
			}
		}
		if len(cut) != 3 || len(on) != 3 || cut[2] != on[2] {
			t.Errorf("seed %d: cut %v, on %v", seed, cut, on)
		}
	}
}

func TestRunMeasures(t *testing.T) {
	s := &site{vip: "ctl1", failover: 300 * ms, rejoin: 20 * time.Second, acks: Acks{Written: 9}}
	r := runnerFor(t, s)
	synctest.Test(t, func(t *testing.T) {
		rep, err := r.Run(t.Context(), drillNamed(t, "vip-holder-power-off"), 7)
		if err != nil {
			t.Fatal(err)
		}
		tcp := rep.Probes[0]
		if tcp.Longest < 290 || tcp.Longest > 300 || tcp.Total != tcp.Longest || tcp.Failed != 30 {
			t.Errorf("%+v, want an outage of 300 ms", tcp)
		}
		if rep.HealedAfter < 8000 || rep.HealedAfter > 9000 || rep.RedundantAfter < rep.HealedAfter+20000 || rep.RedundantAfter > rep.HealedAfter+21500 {
			t.Errorf("healed after %d ms, redundant after %d ms", rep.HealedAfter, rep.RedundantAfter)
		}
		if rep.Reproduce != "nines drill run vip-holder-power-off --seed 7" || rep.Acks.Written != 9 {
			t.Errorf("%+v", rep)
		}
	})
}

// The same seed strikes at the same moment and the same node.
func TestSeedIsHonoured(t *testing.T) {
	strike := func(seed uint64) (at time.Duration, node string) {
		s := &site{vip: "ctl3"}
		r := runnerFor(t, s)
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			s.onFault = func() { at = time.Since(start) }
			rep, err := r.Run(t.Context(), drillNamed(t, "kill-keystone"), seed)
			if err != nil {
				t.Fatal(err)
			}
			node = rep.Node
		})
		return at, node
	}
	moments := map[time.Duration]bool{}
	for seed := range uint64(5) {
		at, node := strike(seed)
		if again, other := strike(seed); again != at || other != node {
			t.Errorf("seed %d: %s on %s, then %s on %s", seed, at, node, again, other)
		}
		moments[at] = true
	}
	if len(moments) < 4 {
		t.Errorf("5 seeds strike at %d moments", len(moments))
	}
}

func TestInterruptedRunHeals(t *testing.T) {
	for name, healed := range map[string]string{"freeze-keystone": "cont", "db-writer-power-off": "on ctl1"} {
		t.Run(name, func(t *testing.T) {
			s := &site{vip: "ctl1"}
			r := runnerFor(t, s)
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				s.onFault = func() { time.AfterFunc(time.Second, cancel) }
				_, err := r.Run(ctx, drillNamed(t, name), 1)
				if !errors.Is(err, context.Canceled) {
					t.Fatalf("error %v", err)
				}
				if log := strings.Join(s.log, ", "); !strings.Contains(log, healed) || !strings.HasSuffix(log, "close") {
					t.Errorf("did %s", log)
				}
			})
		})
	}
}

func TestGateRefuses(t *testing.T) {
	for says, s := range map[string]*site{"ctl2 does not answer": {vip: "ctl1", away: "ctl2"}, "drift": {vip: "ctl1", drift: true}} {
		r := runnerFor(t, s)
		synctest.Test(t, func(t *testing.T) {
			_, err := r.Run(t.Context(), drillNamed(t, "kill-keystone"), 1)
			var refused *NotWholeError
			if !errors.As(err, &refused) || !strings.Contains(err.Error(), says) || len(s.log) > 0 {
				t.Fatalf("want %q: error %v, did %q", says, err, s.log)
			}
			if most := int(gateLimit/inspectAgain) + 1; s.inspects > most || s.drift == (s.inspects == 0) {
				t.Errorf("%s: %d close looks, at most %d and only at what looks whole", says, s.inspects, most)
			}
		})
	}
}

// A fault is not done before clients are served steadily; what they felt until then is not counted.
func TestSteadyFirst(t *testing.T) {
	for _, tc := range []struct {
		rough   time.Duration // from the first request on
		refuses bool
	}{{0, false}, {20 * time.Second, false}, {time.Hour, true}} {
		s := &site{vip: "ctl3", rejoin: time.Second}
		r := runnerFor(t, s)
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			s.deaf = start.Add(tc.rough)
			var at time.Duration
			s.onFault = func() { at = time.Since(start) }
			rep, err := r.Run(t.Context(), drillNamed(t, "kill-keystone"), 1)
			var refused *NotSteadyError
			if errors.As(err, &refused) != tc.refuses {
				t.Fatalf("rough for %v: error %v", tc.rough, err)
			}
			if tc.refuses {
				if !strings.Contains(err.Error(), "vip-tcp") || !slices.Equal(s.log, []string{"close"}) {
					t.Errorf("error %v, did %q", err, s.log)
				}
				return
			}
			if rep.Verdict != Pass || at < tc.rough+baseline {
				t.Errorf("rough for %v: %s %v, fault after %v", tc.rough, rep.Verdict, rep.Reasons, at)
			}
		})
	}
}

func TestGate(t *testing.T) {
	c := testCluster()
	whole := func() Snapshot {
		s := Snapshot{VIPHolders: []string{"ctl1"}, Leader: "ctl1", Nodes: map[string]map[string]service.Observation{}}
		for _, n := range c.Nodes {
			s.Nodes[n.Name] = map[string]service.Observation{"galera": {Serving: true}}
		}
		return s
	}
	for name, tc := range map[string]struct {
		change func(*Snapshot)
		want   string
	}{
		"whole":     {func(*Snapshot) {}, ""},
		"a notice":  {func(s *Snapshot) { s.Conditions = []health.Condition{{Code: "n", Severity: health.Notice}} }, ""},
		"a warning": {func(s *Snapshot) { s.Conditions = []health.Condition{{Code: "w", Severity: health.Warning}} }, "w: "},
		"a slow clock": {func(s *Snapshot) {
			s.Conditions = []health.Condition{{Code: "time-offset", Severity: health.Warning}}
		}, ""},
		"two holders":     {func(s *Snapshot) { s.VIPHolders = []string{"ctl1", "ctl2"} }, "more than one"},
		"no holder":       {func(s *Snapshot) { s.VIPHolders = nil }, "nobody holds"},
		"an apply":        {func(s *Snapshot) { s.Busy = "root@desk" }, "apply by root@desk"},
		"no leader":       {func(s *Snapshot) { s.Leader = "" }, "no agent leads"},
		"a node is away":  {func(s *Snapshot) { delete(s.Nodes, "ctl3") }, "ctl3 does not answer"},
		"one not serving": {func(s *Snapshot) { s.Nodes["ctl2"]["galera"] = service.Observation{Reason: "Joining"} }, "galera on ctl2 does not serve: Joining"},
	} {
		t.Run(name, func(t *testing.T) {
			s := whole()
			tc.change(&s)
			why := strings.Join(Gate(c, s), "; ")
			if (why == "") != (tc.want == "") || !strings.Contains(why, tc.want) {
				t.Errorf("%q, want %q", why, tc.want)
			}
		})
	}
}

func TestCatalogueNames(t *testing.T) {
	var names []string
	for _, d := range Catalogue(testCluster(), []service.Service{faulty("keystone"), faulty("haproxy"), faulty("absent")}) {
		names = append(names, d.Name)
	}
	want := []string{"vip-holder-power-off", "db-writer-power-off", "rabbitmq-node-power-off",
		"disk-full-galera", "disk-full-rabbitmq", "clock-jump", "management-nic-cut", "partition-minority", "partition-asymmetric", "vip-duplicate", "site-power-cut", "site-clean-stop", "two-of-three-lost", "galera-grastate-missing",
		"galera-diverged", "galera-one-member-gone", "leader-killed-during-recovery", "rabbitmq-last-node-gone", "kill-keystone", "freeze-keystone", "kill-haproxy", "freeze-haproxy"}
	if !slices.Equal(names, want) {
		t.Errorf("%q", names)
	}
}

// TestSiteGoesDownFileFirst: the machine that loses a file goes before the others, and all come back.
func TestSiteGoesDownFileFirst(t *testing.T) {
	s := &site{vip: "ctl1"}
	r := runnerFor(t, s)
	d := drillNamed(t, "galera-grastate-missing")
	synctest.Test(t, func(t *testing.T) {
		rep, err := r.Run(t.Context(), d, 5)
		if err != nil {
			t.Fatal(err)
		}
		first, _, _ := strings.Cut(rep.Node, ",")
		if len(s.log) < 7 || s.log[0] != "lose /var/lib/mysql/grastate.dat "+first || s.log[1] != "cut "+first {
			t.Errorf("did %q", s.log)
		}
		for _, n := range testCluster().Nodes {
			if !slices.Contains(s.log, "on "+n.Name) {
				t.Errorf("%s was left off: %q", n.Name, s.log)
			}
		}
	})
}

// TestTheLastOneStaysAway: all are stopped in turn, all but the last come back, and it is told whether the service says for whom it waits.
func TestTheLastOneStaysAway(t *testing.T) {
	for _, says := range []bool{true, false} {
		s := &site{vip: "ctl1"}
		r := runnerFor(t, s)
		d := drillNamed(t, "rabbitmq-last-node-gone")
		synctest.Test(t, func(t *testing.T) {
			if says {
				s.stuck = "rabbitmq"
			}
			rep, err := r.Run(t.Context(), d, 5)
			if err != nil {
				t.Fatal(err)
			}
			turn := strings.Split(rep.Node, ", ")
			want := []string{"stop " + turn[0], "stop " + turn[1], "stop " + turn[2]}
			if len(s.log) < 6 || !slices.Equal(s.log[:3], want) || slices.Contains(s.log[:5], "on "+turn[2]) || !slices.Contains(s.log[5:], "on "+turn[2]) {
				t.Errorf("did %q", s.log)
			}
			told := strings.Contains(strings.Join(rep.Reasons, "; "), "nothing in status said that rabbitmq waits for "+turn[2])
			if told == says {
				t.Errorf("said %t: %q", says, rep.Reasons)
			}
		})
	}
}
