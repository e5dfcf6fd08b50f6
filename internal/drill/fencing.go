package drill

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"nines/internal/model"
)

// BMCs is what can be done to the machines' BMCs.
type BMCs interface {
	// KillBMC has the machine's BMC answer nothing, Unplug its second one too; MendBMC ends both.
	KillBMC(ctx context.Context, node string) error
	Unplug(ctx context.Context, node string) error
	MendBMC(ctx context.Context, node string) error
}

// Fence is what a drill has to do with BMCs. One field is set.
type Fence struct {
	// Dead: the target's BMC dies first, and status must say so before its machine dies too. Where others may only take over from a machine
	// that is off (Pacemaker), nobody may, until it was switched off by its second BMC, or a person has said that it is.
	Dead bool
	// Shot: the target loses its power once, by the others, and none of these does.
	Shot bool
}

const (
	// noticeBMC is when status must tell of a dead BMC: each is tested every three minutes.
	noticeBMC = 200 * time.Second
	// noticeUnclean is when status must say that a machine could not be switched off.
	noticeUnclean = 30 * time.Second
	// afterWord is how long the VIP may be away after a person has said that the machine is off: Pacemaker first waits for the attempt that is
	// under way, 20 s for each of two controllers at most.
	afterWord = 45 * time.Second
	// bySecond is how long the VIP may be away where a second BMC takes the power: 20 s at most for the first, and a takeover.
	bySecond = 30 * time.Second

	codeBMC     = "bmc-unreachable"
	codeUnclean = "pacemaker-unclean"
)

// fencingDrills are about machines that are to be switched off by others.
func fencingDrills(c *model.Cluster) []Drill {
	without := func(n model.Node) bool { return n.BMC == (model.BMC{}) }
	if !c.Runs("haproxy") || len(c.Controllers()) < 3 || !c.Fences() || slices.ContainsFunc(c.Controllers(), without) {
		return nil
	}
	dead := Drill{Name: "bmc-dead-then-node-dead", Title: "cut the power of the node that holds the VIP, whose BMC died before", Target: VIPHolder,
		Way: ByPower, Hold: holdPower, Fence: &Fence{Dead: true}, Limits: standardLimits()}
	if c.VIP.Engine != model.EnginePacemaker {
		return []Drill{dead}
	}
	drills := []Drill{dead}
	switch withSecond(c) {
	case 0:
		drills[0].Limits = []Limit{limitBroker} // the others wait for a person
	case len(c.Controllers()):
		drills[0].Limits = []Limit{limitBroker, {Probe: ProbeTCP, Outage: bySecond}}
	default: // it depends on who is hurt
		drills = nil
	}
	return append(drills,
		Drill{Name: "fence-duel", Title: "cut the node that holds the VIP off from all others, but not from their BMCs", Target: VIPHolder,
			Way: ByNetwork, Network: &Disorder{Isolate: true}, Hold: holdPartition, Fence: &Fence{Shot: true}, Limits: standardLimits()})
}

// withSecond is how many controllers have a second BMC.
func withSecond(c *model.Cluster) (n int) {
	for _, m := range c.Controllers() {
		if len(m.Levels()) > 1 {
			n++
		}
	}
	return n
}

// waitsForPower: nobody takes over until the machine is off.
func (d Drill) waitsForPower(c *model.Cluster) bool {
	return d.Fence != nil && d.Fence.Dead && c.VIP.Engine == model.EnginePacemaker
}

// waitsForPerson: nobody can switch it off, so a person has to say that it is.
func (d Drill) waitsForPerson(c *model.Cluster) bool { return d.waitsForPower(c) && withSecond(c) == 0 }

// aim is what comes before the fault of a drill that has to do with BMCs.
func (x *run) aim(ctx context.Context) (err error) {
	switch f := x.drill.Fence; {
	case f == nil:
	case f.Dead:
		err = x.bmcDies(ctx)
	case f.Shot:
		x.booted, err = x.boots(ctx)
	}
	return err
}

// bmcDies ends the target's BMC, and waits for status to tell of it.
func (x *run) bmcDies(ctx context.Context) error {
	node := x.report.Node
	return x.step("bmc", "the BMC of "+node+" dies, and status must say so", func() error {
		x.bmcDead = node // until the fault is undone
		if err := x.Machines.KillBMC(ctx, node); err != nil {
			return err
		}
		return x.await(ctx, codeBMC, noticeBMC)
	})
}

// await waits until status says the code of the target, and fails the run if it does not in time.
func (x *run) await(ctx context.Context, code string, limit time.Duration) error {
	from := time.Now()
	for !x.told(ctx, code, x.report.Node) {
		if time.Since(from) > limit {
			x.wound(fmt.Sprintf("nothing in status said %s of %s within %.0f s", code, x.report.Node, limit.Seconds()))
			return nil
		}
		if !pause(ctx, lookEvery) {
			return context.Cause(ctx)
		}
	}
	x.note(fmt.Sprintf("status said %s after %.0f s", code, time.Since(from).Seconds()))
	return nil
}

// unplug ends all BMCs of a machine that stays away, where others would switch it on by it: Pacemaker takes the power of a member that it does not see,
// and the leader gives it back.
func (x *run) unplug(ctx context.Context, node string) error {
	if x.Cluster.VIP.Engine != model.EnginePacemaker || !x.Cluster.Fences() {
		return nil
	}
	x.bmcDead = node // until the fault is undone
	return x.Machines.Unplug(ctx, node)
}

// bmcMended gives the BMC back, and has it tested: until then status says what it was.
func (x *run) bmcMended(ctx context.Context) error {
	if err := x.Machines.MendBMC(ctx, x.bmcDead); err != nil {
		return fmt.Errorf("the BMC of %s is left dead: %w", x.bmcDead, err)
	}
	if err := x.Person.TestBMC(ctx, x.bmcDead); err != nil {
		x.note("the BMC was not tested at the end: " + failure(err))
	}
	return nil
}

// unfenced is the time in which nobody can switch the dead machine off: nobody takes over, and status says why. Then a person says that it
// is off, which it is.
func (x *run) unfenced(ctx context.Context) error {
	err := x.step("unclean", "nobody may take over from "+x.report.Node+", and status must say so", func() error {
		if err := x.await(ctx, codeUnclean, noticeUnclean); err != nil {
			return err
		}
		if !pause(ctx, x.drill.Hold) {
			return context.Cause(ctx)
		}
		if n := x.load.successes(ProbeTCP, x.fault+grace, time.Since(x.load.start)); n > 0 {
			x.wound(fmt.Sprintf("somebody took over from a machine that nobody had switched off: %d connections to the VIP", n))
		}
		return nil
	})
	if err != nil {
		return err
	}
	return x.step("word", "a person says that "+x.report.Node+" is off", func() error {
		other, err := x.survivor()
		if err != nil {
			return err
		}
		if _, err := x.Machines.Shell(ctx, other, "stonith_admin --confirm "+x.report.Node); err != nil {
			return err
		}
		said := time.Since(x.load.start)
		for x.load.successes(ProbeTCP, said, time.Since(x.load.start)) == 0 {
			if time.Since(x.load.start) > said+afterWord {
				x.wound(fmt.Sprintf("nobody had the VIP %.0f s after a person had said that the machine is off", afterWord.Seconds()))
				return nil
			}
			if !pause(ctx, lookEvery/5) {
				return context.Cause(ctx)
			}
		}
		x.note(fmt.Sprintf("the VIP was there %.1f s after a person had said that the machine is off", (time.Since(x.load.start) - said).Seconds()))
		return nil
	})
}

// survivor is a controller that is not hurt.
func (x *run) survivor() (string, error) {
	for _, n := range x.Cluster.Controllers() {
		if !slices.Contains(x.victims, n.Name) {
			return n.Name, nil
		}
	}
	return "", errors.New("every controller is hurt")
}

// boots says of each controller when it was booted.
func (x *run) boots(ctx context.Context) (map[string]string, error) {
	out := map[string]string{}
	for _, n := range x.Cluster.Controllers() {
		at, err := x.Machines.Shell(ctx, n.Name, "systemctl show --property UserspaceTimestampMonotonic --value")
		if err != nil {
			return nil, fmt.Errorf("when was %s booted: %w", n.Name, err)
		}
		out[n.Name] = strings.TrimSpace(at)
	}
	return out, nil
}

// aims has the isolated machine reach the BMC of another: otherwise that it leaves them alone would prove nothing.
func (x *run) aims(ctx context.Context) error {
	other, err := x.survivor()
	if err != nil {
		return err
	}
	n, _ := x.Cluster.Node(other)
	at, err := n.BMC.Endpoint()
	if err != nil {
		return err
	}
	script := fmt.Sprintf("timeout 1 bash -c '</dev/tcp/%s/%d' && echo reached", at.Addr(), at.Port())
	if said, err := x.Machines.Shell(ctx, x.report.Node, script); err != nil || strings.TrimSpace(said) != "reached" {
		x.wound(fmt.Sprintf("%s did not reach the BMC of %s: that it left it alone proves nothing", x.report.Node, other))
	}
	return nil
}

// shot compares who was booted since the fault.
func (x *run) shot(ctx context.Context) error {
	after, err := x.boots(ctx)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(after)) {
		switch booted := after[name] != x.booted[name]; {
		case booted && !slices.Contains(x.victims, name):
			x.wound(name + " lost its power though it was in the majority")
		case !booted && slices.Contains(x.victims, name):
			x.wound("nobody took the power of " + name)
		}
	}
	return nil
}
