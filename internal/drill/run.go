package drill

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"nines/internal/health"
	"nines/internal/model"
	"nines/internal/progress"
	"nines/internal/supervise"
)

// Runner runs drills on one cluster.
type Runner struct {
	Cluster  *model.Cluster
	Machines Machines // nil: nobody can switch machines here
	Injector Injector
	Observer Observer
	Person   Person
	// Workload makes the load of one run of a drill; the run's name is unique.
	Workload func(run string, d Drill) Workload
	// Ledger makes the ledger of one run.
	Ledger func(run string) (*Ledger, error)
	// Evidence, if set, is told the samples of each run, by probe, and returns where it put them.
	Evidence    func(run string, samples map[string][]Sample) (string, error)
	Emit        progress.Emit
	Versions    map[string]string
	Environment string // "lab" or ""
}

// NotWholeError says why a drill does not start.
type NotWholeError struct{ Reasons []string }

func (e *NotWholeError) Error() string {
	return "the cluster is not whole, a drill would measure more than its own fault: " + strings.Join(e.Reasons, "; ")
}

// Hint says what to do now.
func (*NotWholeError) Hint() string {
	return "see 'nines status', mend what it shows, and run the drill again"
}

// NotSteadyError says why a run ended before its fault: clients already felt something.
type NotSteadyError struct{ Felt string }

func (e *NotSteadyError) Error() string {
	return fmt.Sprintf("clients are not served steadily without any fault, so a fault's share could not be told; in the last %.0f s: %s", baseline.Seconds(), e.Felt)
}

// Hint says what to do now.
func (*NotSteadyError) Hint() string {
	return "look for what else keeps these machines, or the one that measures, busy, and run the drill again"
}

// The times of a run.
const (
	baseline     = 5 * time.Second // load before the fault: clients must be served all the time
	steadyLimit  = 3 * time.Minute // caches and connections are filled until then, also on a slow machine
	settleWindow = 2 * time.Second // without a failure for so long: clients are served again
	settleLimit  = 60 * time.Second
	wholeLimit   = 5 * time.Minute
	lookEvery    = 500 * time.Millisecond
	inspectAgain = 5 * time.Second // what a close look found takes a while to be mended
	siteLimit    = 10 * time.Minute
	gateLimit    = 20 * time.Second // a passing condition must not refuse a drill
	undoLimit    = time.Minute
	mendLimit    = 4 * time.Minute // for the agents to find a frozen daemon, and for it to stop
	leaderLimit  = 2 * time.Minute // until a recovery is seen under way
	leaderSpread = 5 * time.Second // its leader is cut within this time
	leaderAway   = 3 * time.Second // and is without power for this
	// grace is how long after a fault answers may still come of what was under way.
	grace = 5 * time.Second
)

// skew is by how much a wrong clock is ahead.
const skew = 2 * time.Hour

// Conditions of a recovery.
const (
	codeUnderWay = "recovery-under-way"
	codeStuck    = "recovery-stuck" // it waits for something that it names
)

// codesFrozen are the conditions that say why a frozen unit is not restarted (yet): after a few times in a quarter of an hour agents wait longer.
var codesFrozen = []string{"daemon-frozen", "restart-given-up"}

// run is one run under way.
type run struct {
	*Runner
	drill  Drill
	name   string
	rng    *rand.Rand
	work   Workload
	report Report
	load   *load
	// from is when clients began to be served steadily, and fault the moment of the fault, since the load began. What
	// was before from is not counted.
	from, fault time.Duration
	// there is when the fault was in place: a Keystone that gets another clock has to start with it first.
	there time.Duration
	// victims are the nodes that are hurt; a site's were all off from down to up.
	victims  []string
	down, up time.Duration
	mended   bool              // the agents have ended the fault
	other    *history          // that the drill gave one of them
	booted   map[string]string // when each machine was, before the fault; nil: it does not matter
	bmcDead  string            // the machine whose BMC the drill has ended

	mu      sync.Mutex
	said    bool            // what status must say, it has said
	double  time.Duration   // with two holders of the VIP
	wounded map[string]bool // what fails the run beside its limits
	slower  float64         // how many times longer than usual a login takes here, 1 at least
}

// Run does one run. An error means that nothing was measured (the cluster was not whole,
// the run was interrupted); a failed verdict is no error.
func (r *Runner) Run(ctx context.Context, d Drill, seed uint64) (Report, error) {
	if d.Way != BySignal && r.Machines == nil {
		return Report{}, fmt.Errorf("%s: nobody can switch a machine off here, touch its network, fill its disk or set its clock: in a lab this drill works", d.Name)
	}
	started := time.Now()
	x := &run{Runner: r, drill: d, rng: rand.New(rand.NewPCG(seed, 0)), wounded: map[string]bool{},
		name: fmt.Sprintf("%s-%s-%d", started.UTC().Format("20060102T150405"), d.Name, seed)}
	x.slower = 1
	x.report = Report{Name: d.Name, Seed: seed, Started: started, Fault: d.Title, RedundantAfter: -1, Versions: r.Versions,
		Environment: r.Environment, Reproduce: fmt.Sprintf("nines drill run %s --seed %d", d.Name, seed)}
	x.limit(d.Limits)
	if err := x.step("gate", "the cluster is whole", func() error { return x.gate(ctx) }); err != nil {
		return x.report, err
	}
	err := x.underLoad(ctx)
	return x.report, err
}

// limit sets what clients may feel.
func (x *run) limit(limits []Limit) {
	x.drill.Limits, x.report.Limits = limits, nil
	for _, l := range limits {
		x.report.Limits = append(x.report.Limits, l.String())
	}
}

func (x *run) step(id, title string, f func() error) error {
	return progress.Step(x.Emit, x.name+"/"+id, title, f)
}

func (x *run) say(id, title, detail string) {
	x.Emit(progress.Event{ID: x.name + "/" + id, Title: title, State: progress.Running, Detail: detail})
}

// gate waits a little for the cluster to be whole, and refuses if it is not.
func (x *run) gate(ctx context.Context) error {
	why, err := x.whole(ctx, time.Now().Add(gateLimit))
	if err == nil && len(why) > 0 {
		err = &NotWholeError{why}
	}
	return err
}

// whole waits until the cluster is seen to be whole twice in a row and a close look finds nothing, and says why it was not by the deadline.
// A close look has every node compare all that it has with what it should have, which the clients of a busy cluster feel.
func (x *run) whole(ctx context.Context, deadline time.Time) ([]string, error) {
	for good := 0; ; {
		why, wait := x.look(ctx, x.Observer.Snapshot), lookEvery
		if good++; len(why) > 0 {
			good = 0
		}
		late := time.Now().After(deadline)
		if good == 2 || late && good == 1 {
			if why = x.look(ctx, x.Observer.Inspect); len(why) == 0 {
				return nil, nil
			}
			good, wait = 0, inspectAgain
		}
		if late {
			return why, nil
		}
		if !pause(ctx, wait) {
			return nil, context.Cause(ctx)
		}
	}
}

func (x *run) look(ctx context.Context, see func(context.Context) (Snapshot, error)) []string {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	s, err := see(ctx)
	if err != nil {
		return []string{"its state is not known: " + failure(err)}
	}
	return Gate(x.Cluster, s)
}

func (x *run) underLoad(ctx context.Context) (err error) {
	ledger, err := x.Ledger(x.name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ledger.Close()) }()
	x.work = x.Workload(x.name, x.drill)
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoLimit)
		defer cancel()
		if e := x.work.Close(ctx); e != nil && err == nil {
			x.note("cleaning up: " + failure(e))
		}
	}()
	var probes []Probe
	err = x.step("open", "clients connect", func() (err error) {
		if probes, err = x.work.Open(ctx, ledger); err == nil {
			x.pace(ctx, probes)
		}
		return err
	})
	if err != nil {
		return err
	}
	x.load = startLoad(ctx, probes)
	end, whole, err := x.strike(ctx)
	if err != nil {
		return err
	}
	return x.conclude(ctx, end, whole)
}

// strike does the fault under load and waits for the cluster to be whole again. The load has ended when it returns.
func (x *run) strike(ctx context.Context) (end time.Duration, whole bool, err error) {
	watched, stopWatch := context.WithCancel(ctx)
	var watch sync.WaitGroup
	defer func() {
		end = x.load.stop()
		stopWatch()
		watch.Wait()
	}()
	if err = x.step("baseline", "load without a fault", func() error { return x.steady(ctx) }); err != nil {
		return 0, false, err
	}
	if err = x.choose(ctx); err != nil {
		return 0, false, err
	}
	watch.Go(func() { x.watch(watched) })
	if err = x.hurt(ctx); err != nil {
		return 0, false, err
	}
	if x.drill.Site != nil && x.drill.Site.Leader {
		if err = x.cutLeader(ctx); err != nil {
			return 0, false, err
		}
	}
	err = x.step("whole", "wait until the cluster is whole again", func() error {
		limit := wholeLimit
		if x.drill.Site != nil {
			limit = siteLimit
		}
		limit = time.Duration(float64(limit) * x.slower) // a boot is work too
		why, err := x.whole(ctx, time.Now().Add(limit))
		if whole = err == nil && len(why) == 0; whole {
			x.report.RedundantAfter = (time.Since(x.load.start) - x.fault).Milliseconds()
		}
		for _, w := range why {
			x.note("not whole: " + w)
		}
		return err
	})
	switch {
	case whole && x.other != nil:
		x.otherKept(ctx)
	case whole && x.booted != nil:
		err = x.shot(ctx)
	}
	if err == nil {
		pause(ctx, settleWindow) // what the last step of the recovery costs belongs to the drill
	}
	return 0, whole, err
}

// steady waits until clients have felt nothing for the length of the baseline, and then for a random time: the fault comes at
// any phase of everybody's timers.
func (x *run) steady(ctx context.Context) error {
	for pause(ctx, lookEvery) {
		now := time.Since(x.load.start)
		x.from = max(0, now-baseline)
		felt := x.felt()
		if now >= baseline && felt == nobody && x.load.settled(baseline) {
			break
		}
		if now > steadyLimit {
			return &NotSteadyError{felt}
		}
	}
	if !pause(ctx, time.Duration(x.rng.Int64N(int64(2*time.Second)))) {
		return context.Cause(ctx)
	}
	return nil
}

// choose says which nodes are hurt.
func (x *run) choose(ctx context.Context) error {
	if x.drill.Site == nil {
		node, err := x.victim(ctx)
		x.report.Node, x.victims = node, []string{node}
		return err
	}
	nodes := x.Cluster.Controllers()
	for _, i := range x.rng.Perm(len(nodes)) {
		x.victims = append(x.victims, nodes[i].Name)
	}
	if x.drill.Target == Majority {
		x.victims = x.victims[:model.Quorum(len(nodes))]
	}
	if x.drill.Site.Diverged {
		if err := x.writerLast(ctx); err != nil {
			return err
		}
	}
	x.report.Node = strings.Join(x.victims, ", ")
	return nil
}

// victim looks up the node to hurt, now.
func (x *run) victim(ctx context.Context) (string, error) {
	if slices.Contains([]Target{Writer, QueueLeader, Gateway}, x.drill.Target) {
		return x.work.Locate(ctx, x.drill.Target)
	}
	s, err := x.Observer.Snapshot(ctx)
	if err != nil {
		return "", fmt.Errorf("find %s: %w", x.drill.Target, err)
	}
	candidates := x.Cluster.Controllers()
	if x.drill.Target == Compute {
		candidates = x.Cluster.With(model.RoleCompute)
	}
	var nodes []string
	for _, n := range candidates {
		if slices.Contains(s.VIPHolders, n.Name) == (x.drill.Target == VIPHolder) {
			nodes = append(nodes, n.Name)
		}
	}
	if len(nodes) == 0 {
		return "", fmt.Errorf("find %s: there is none", x.drill.Target)
	}
	return nodes[x.rng.IntN(len(nodes))], nil
}

// hurt injects the fault, holds it until clients are served again, and takes its cause away:
// always, even when ctx ends in between.
func (x *run) hurt(ctx context.Context) (err error) {
	node := x.report.Node
	defer func() {
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoLimit)
		defer cancel()
		heal := x.undo(undo)
		if heal != nil {
			heal = fmt.Errorf("%s is left as the fault made it: %w", node, heal)
		}
		err = errors.Join(err, heal)
	}()
	if err := x.aim(ctx); err != nil {
		return err
	}
	x.fault = time.Since(x.load.start)
	err = x.step("fault", fmt.Sprintf("%s: %s", x.drill.Title, node), func() error {
		switch {
		case x.drill.Site != nil:
			return x.switchOff(ctx)
		case x.drill.Way == ByPower:
			return x.Machines.Cut(ctx, node)
		case x.drill.Way == ByCable:
			return x.Machines.CableOut(ctx, node)
		case x.drill.Way == ByDisk:
			return x.Machines.Fill(ctx, node)
		case x.drill.Way == ByClock:
			return x.Machines.SkewKeystone(ctx, node, skew)
		case x.drill.Way == ByNetwork:
			return x.disturb(ctx)
		}
		return x.Injector.Signal(ctx, node, x.drill.Fault.Unit, x.drill.Fault.Signal)
	})
	if err != nil {
		return err
	}
	if x.there = x.fault; x.drill.Way == ByClock {
		x.there = time.Since(x.load.start)
	}
	switch {
	case x.drill.Way == ByNetwork:
		return x.disturbed(ctx)
	case x.drill.waitsForPerson(x.Cluster):
		if err := x.unfenced(ctx); err != nil {
			return err
		}
	}
	if err := x.hold(ctx); err != nil || x.drill.Site == nil {
		return err
	}
	switch s := x.drill.Site; {
	case s.Waits != "":
		return x.oneAway(ctx)
	case s.Diverged:
		return x.diverge(ctx)
	}
	return nil
}

// lostFirst is how much earlier the machine goes that loses a file: what the others still commit, it does not have.
const lostFirst = 2 * time.Second

// switchOff has the machines of a site go down, each at its own moment.
func (x *run) switchOff(ctx context.Context) error {
	s := x.drill.Site
	if s.InTurn {
		return x.stopInTurn(ctx)
	}
	errs := make([]error, len(x.victims))
	var wg sync.WaitGroup
	for i, node := range x.victims {
		at := time.Duration(x.rng.Int64N(int64(s.Spread)))
		switch {
		case s.Lost != "" && i == 0:
			at = 0
		case s.Lost != "":
			at += lostFirst
		case s.Waits != "" && i == 0:
			at = s.Spread // the last one: two that outlive it for seconds go on without it, and rightly begin without it
		}
		wg.Go(func() {
			if !pause(ctx, at) {
				errs[i] = context.Cause(ctx)
				return
			}
			if s.Lost != "" && i == 0 {
				errs[i] = x.Machines.Lose(ctx, node, s.Lost)
			}
			if s.Clean {
				errs[i] = errors.Join(errs[i], x.shutDown(ctx, node))
				return
			}
			errs[i] = errors.Join(errs[i], x.Machines.Cut(ctx, node))
		})
	}
	wg.Wait()
	x.down = time.Since(x.load.start)
	return errors.Join(errs...)
}

// shutDown has a machine shut down. One that does not has failed the drill, and its power is taken as a person would take it: until it is
// off nobody can switch it on.
func (x *run) shutDown(ctx context.Context, node string) error {
	err := x.Machines.Stop(ctx, node)
	if err == nil {
		return nil
	}
	if ctx.Err() == nil {
		x.wound(failure(err))
		err = nil
	}
	cut, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoLimit)
	defer cancel()
	return errors.Join(err, x.Machines.Cut(cut, node))
}

// switchOn gives machines their power back. Each is tried, whatever became of the others; one that is on stays as it is.
func (x *run) switchOn(ctx context.Context, nodes []string) error {
	errs := make([]error, len(nodes))
	var wg sync.WaitGroup
	for i, node := range nodes {
		wg.Go(func() { errs[i] = x.Machines.On(ctx, node) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// wound notes something that fails the run.
func (x *run) wound(what string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.wounded[what] = true
}

// cutLeader takes the power of the node that leads a recovery for a moment, soon after the recovery was seen under way.
func (x *run) cutLeader(ctx context.Context) error {
	leader, err := x.recoveryLeader(ctx)
	if err != nil {
		return err
	}
	return x.step("leader", "cut the power of the recovery's leader for a moment: "+leader, func() error {
		err := x.Machines.Cut(ctx, leader)
		pause(ctx, leaderAway)
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoLimit)
		defer cancel()
		return errors.Join(err, x.Machines.On(undo, leader), context.Cause(ctx))
	})
}

func (x *run) recoveryLeader(ctx context.Context) (string, error) {
	for deadline := time.Now().Add(leaderLimit); time.Now().Before(deadline); {
		s, err := x.Observer.Snapshot(ctx)
		if err == nil && s.Leader != "" && slices.ContainsFunc(s.Conditions, func(c health.Condition) bool { return c.Code == codeUnderWay }) {
			pause(ctx, time.Duration(x.rng.Int64N(int64(leaderSpread))))
			return s.Leader, nil
		}
		if !pause(ctx, lookEvery/5) {
			return "", context.Cause(ctx)
		}
	}
	return "", errors.New("no recovery was seen under way, so its leader could not be cut: 'nines recover galera --explain' shows what it did; run the drill again")
}

// written says whether something was acknowledged while that must not be.
func (x *run) written() []string {
	var why []string
	if x.drill.Site == nil {
		return nil
	}
	for _, probe := range x.drill.Site.Silent {
		if n := x.load.successes(probe, x.down+grace, x.up); n > 0 {
			why = append(why, fmt.Sprintf("%s: %d requests were acknowledged while a machine was missing that they need", probe, n))
		}
	}
	return why
}

// hold waits for the least time of the fault, then until clients are served again, within bounds.
func (x *run) hold(ctx context.Context) error {
	from := time.Now()
	for {
		held := time.Since(from)
		x.say("hold", "clients meanwhile", x.felt())
		if held >= x.drill.Hold && (x.drill.Site != nil || x.load.settled(settleWindow) || held > settleLimit) {
			x.Emit(progress.Event{ID: x.name + "/hold", State: progress.Done, Detail: x.felt()})
			if x.drill.Fault.Mended {
				return x.awaitMended(ctx)
			}
			return nil
		}
		if !pause(ctx, lookEvery) {
			return context.Cause(ctx)
		}
	}
}

// awaitMended waits until the agents have ended the fault by themselves.
func (x *run) awaitMended(ctx context.Context) error {
	unit, node := x.drill.Fault.Unit, x.report.Node
	return x.step("mended", fmt.Sprintf("wait until %s on %s is restarted by the agents", unit, node), func() error {
		said := "status does not say why"
		for deadline := time.Now().Add(mendLimit); time.Now().Before(deadline); {
			s, err := x.Observer.Snapshot(ctx)
			_, answers := s.Nodes[node]
			if err == nil && answers && !slices.ContainsFunc(s.Ailing, func(a supervise.Ailing) bool { return a.Node == node && a.Unit == unit }) {
				x.mended = true
				return nil
			}
			for _, c := range s.Conditions {
				if c.Node == node && slices.Contains(codesFrozen, c.Code) {
					said = c.Text
				}
			}
			if !pause(ctx, lookEvery) {
				return context.Cause(ctx)
			}
		}
		x.wound(fmt.Sprintf("the agents left %s on %s frozen: %s", unit, node, said))
		return nil
	})
}

const nobody = "nobody has felt anything"

// felt says in one line which probes have felt something so far.
func (x *run) felt() string {
	var parts []string
	for i, f := range x.load.measured(x.from, x.fault, time.Since(x.load.start)) {
		if f.Failed > 0 || f.Longest > 0 {
			parts = append(parts, fmt.Sprintf("%s %.1f s", x.load.probes[i].Name, f.Longest.Seconds()))
		}
	}
	if len(parts) == 0 {
		return nobody
	}
	return "longest outage: " + strings.Join(parts, ", ")
}

// undo takes the cause of the fault away.
func (x *run) undo(ctx context.Context) error {
	var f func() error
	title := "power on " + x.report.Node
	switch {
	case x.drill.Site != nil:
		x.up = time.Since(x.load.start)
		f = func() error { return x.switchOn(ctx, x.victims) }
	case x.drill.Way == ByPower:
		f = func() error { return x.Machines.On(ctx, x.report.Node) }
	case x.drill.Way == ByDisk:
		title = "give the room on the disk of " + x.report.Node + " back"
		f = func() error { return x.Machines.Free(ctx, x.report.Node) }
	case x.drill.Way == ByClock:
		title = "give Keystone on " + x.report.Node + " the right clock"
		f = func() error { return x.Machines.RightKeystone(ctx, x.report.Node) }
	case x.drill.Way == ByCable:
		title = "put the cable of " + x.report.Node + " in again"
		f = func() error { return x.Machines.CableIn(ctx, x.report.Node) }
	case x.drill.Way == ByNetwork:
		title = "mend the network"
		f = func() error { return x.Machines.Mend(ctx) }
	case x.drill.Fault.Heal != 0 && !x.mended:
		title = fmt.Sprintf("end the fault of %s on %s", x.drill.Fault.Unit, x.report.Node)
		f = func() error {
			return x.Injector.Signal(ctx, x.report.Node, x.drill.Fault.Unit, x.drill.Fault.Heal)
		}
	default:
		if x.mended {
			x.report.HealedAfter = (time.Since(x.load.start) - x.fault).Milliseconds()
		}
		return nil
	}
	err := x.step("undo", title, f)
	if x.bmcDead != "" {
		err = errors.Join(err, x.bmcMended(ctx))
	}
	x.report.HealedAfter = (time.Since(x.load.start) - x.fault).Milliseconds()
	return err
}

// watch looks at the cluster while it is hurt: two holders of the VIP, survivors that lose the majority.
func (x *run) watch(ctx context.Context) {
	last := time.Now()
	for pause(ctx, lookEvery) {
		look, cancel := context.WithTimeout(ctx, 3*time.Second)
		s, err := x.Observer.Snapshot(look)
		cancel()
		now := time.Now()
		if err == nil {
			x.see(s, now.Sub(last))
		}
		last = now
	}
}

func (x *run) see(s Snapshot, since time.Duration) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(s.VIPHolders) > 1 {
		x.double += since
	}
	// Two members that disagree about each other have all of them regroup: the limits say for how long.
	regroup := x.drill.Site != nil || x.drill.Network != nil && x.drill.Network.OneWay
	for _, c := range s.Conditions {
		x.said = x.said || c.Code == x.drill.Says && slices.Contains(x.victims, c.Node)
		if !regroup && c.Code == "galera-non-primary" && c.Severity == health.Critical && !slices.Contains(x.victims, c.Node) {
			x.wounded[c.Node+" lost the database's majority though it was not hurt"] = true
		}
	}
}

func (x *run) note(text string) { x.report.Notes = append(x.report.Notes, text) }

// conclude verifies the ledger and gives the verdict.
func (x *run) conclude(ctx context.Context, end time.Duration, whole bool) error {
	err := x.step("verify", "compare every acknowledged write", func() (err error) {
		x.report.Acks, err = x.work.Verify(ctx)
		return err
	})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	for _, which := range x.report.Acks.Which {
		x.note(which)
	}
	e := evidence{acks: x.report.Acks, whole: whole, after: map[string]int{}}
	for w := range x.wounded {
		e.wounded = append(e.wounded, w)
	}
	slices.Sort(e.wounded)
	e.wounded = append(e.wounded, x.written()...)
	if x.drill.Says != "" && !x.said {
		e.wounded = append(e.wounded, "nothing in status said "+x.drill.Says+" of "+strings.Join(x.victims, " or "))
	}
	if err != nil { // what cannot be verified is not passed
		e.wounded = append(e.wounded, "acknowledged writes could not be verified: "+failure(err))
	}
	for i, f := range x.load.measured(x.from, x.fault, end) {
		name := x.load.probes[i].Name
		all, reason := x.load.failures(name, x.from)
		e.probes = append(e.probes, probeReport(name, f, reason))
		if since, _ := x.load.failures(name, x.fault-x.load.probes[i].Timeout); all > since {
			e.baseline = append(e.baseline, name)
		}
	}
	for _, l := range x.drill.Limits {
		e.after[l.Probe], _ = x.load.failures(l.Probe, x.there+l.QuietAfter)
	}
	x.report.Probes, x.report.TwoHolders = e.probes, x.double.Milliseconds()
	x.report.Verdict = Pass
	if x.report.Reasons = judge(x.drill.Limits, e); len(x.report.Reasons) > 0 {
		x.report.Verdict = Fail
	}
	if x.Evidence != nil {
		where, err := x.Evidence(x.name, x.load.samples)
		if err != nil {
			x.note("evidence not written: " + failure(err))
		}
		x.report.Evidence = where
	}
	return nil
}
