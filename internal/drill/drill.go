// Package drill proves high availability: it puts load on a cluster from outside the
// controllers, injects one real fault, and measures what clients felt, whether every
// acknowledged write survived, and how long the cluster was not whole.
//
// Invariants: a drill starts only on a whole cluster (Gate); the load's schedule does not
// depend on answers (open loop), so a stall is not hidden by requests that were never
// sent; whatever the drill did to a node it undoes, also when it is interrupted. It must never
// call a run passed that it could not measure, and never touch data that is not its own.
package drill

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"nines/internal/model"
	"nines/internal/service"
)

// Target says which node a drill hurts. It is looked up at the moment of the fault.
type Target string

// The targets.
const (
	VIPHolder    Target = "the node that holds the VIP"
	NotVIPHolder Target = "a node without the VIP"
	Writer       Target = "the node that takes the database writes"
	QueueLeader  Target = "the node that leads the probed queue"
	Compute      Target = "a compute"
	Gateway      Target = "the gateway of an instance"
	Controllers  Target = "all controllers"
	Majority     Target = "most of the controllers"
)

// Drill is one fault, where it strikes, and what clients may feel of it at most.
type Drill struct {
	Name   string  `json:"name"`
	Title  string  `json:"title"`
	Target Target  `json:"target"`
	Limits []Limit `json:"limits"`
	// Way is how a node is hurt. With BySignal, Fault says which, to what.
	Way   Way           `json:"way"`
	Fault service.Fault `json:"-"`
	// Service is the one whose unit gets the signal.
	Service string `json:"service,omitempty"`
	// Site, if set, says how more than one machine goes down.
	Site *Site `json:"-"`
	// Network, with ByNetwork, says what happens to the network between machines.
	Network *Disorder `json:"-"`
	// Fence, if set, says what it has to do with BMCs.
	Fence *Fence `json:"-"`
	// Hold is how long the fault lasts at least; a kill ends by itself.
	Hold time.Duration `json:"-"`
	// Says is the code of a condition of a hurt node that status must show while the fault lasts.
	Says string `json:"-"`
}

// NeedsInstance: the cluster's users have an instance while it runs, made for it.
func (d Drill) NeedsInstance() bool { return d.Target == Gateway }

// Way is a way to hurt a node.
type Way string

// The ways. Without power, what was not flushed to the disk is lost; without its cable a machine runs on and reaches nobody in the
// management network.
const (
	ByPower  Way = "power"
	ByCable  Way = "cable"
	ByDisk   Way = "disk"  // something fills it
	ByClock  Way = "clock" // Keystone's
	BySignal Way = "signal"
	// ByNetwork: the machines run, and the network between them is not as it should be.
	ByNetwork Way = "network"
)

// Site is a fault of more than one machine. Clients are promised nothing but that
// every acknowledged write survives, and that nobody has to lend a hand.
type Site struct {
	// Clean: the machines are shut down instead of losing their power.
	Clean bool
	// Spread is the time within which all go down, in random order. InTurn: one after the other, Spread apart.
	Spread time.Duration
	InTurn bool
	// Lost is a file that the first machine loses before it goes, well before the others.
	Lost string
	// Silent are probes that must get nothing acknowledged as long as a machine is away.
	Silent []string
	// Waits is a service that must wait for one machine, and say so: the first to go, or the last if they went in turn, stays
	// away for Late longer than the others.
	Waits string
	Late  time.Duration
	// Leader: in the middle of the recovery, the node whose agent leads it loses its power for a moment.
	Leader bool
	// Diverged: before the others are switched on, one that was not the writer founds a cluster of its own and takes writes. Nobody may go first
	// until a person has chosen; the drill chooses what most members have.
	Diverged bool
}

// Limit is the most that clients of one probe may feel. A run that exceeds it fails.
type Limit struct {
	Probe string
	// Outage bounds the longest outage.
	Outage time.Duration
	// NoFailures: not a single request may fail.
	NoFailures bool
	// QuietAfter, if not 0: no request planned later than this after the fault was in place may fail.
	QuietAfter time.Duration
}

// String says the limit in words: "vip-tcp: outage at most 600 ms".
func (l Limit) String() string {
	s := fmt.Sprintf("%s: outage at most %d ms", l.Probe, l.Outage.Milliseconds())
	if l.NoFailures {
		s = l.Probe + ": no failed request"
	}
	if l.QuietAfter > 0 {
		s += fmt.Sprintf(", no failed request later than %d ms after the fault", l.QuietAfter.Milliseconds())
	}
	return s
}

// The names of the probes.
const (
	ProbeTCP       = "vip-tcp"
	ProbeAPI       = "keystone"
	ProbeKeepalive = "keystone-keepalive"
	ProbeToken     = "keystone-token"
	ProbeWrite     = "db-write"
	ProbeConnect   = "db-connect-write"
	ProbeBroker    = "amqp"
	ProbeInstance  = "instance" // over its floating address
)

// The figures the product promises on the lab. A drill without a figure of its own is held to the
// figures of the layer it hurts, and to these for every other.
var (
	limitTCP       = Limit{Probe: ProbeTCP, Outage: 600 * time.Millisecond}
	limitAPI       = Limit{Probe: ProbeAPI, Outage: 1500 * time.Millisecond}
	limitKeepalive = Limit{Probe: ProbeKeepalive, Outage: 1500 * time.Millisecond}
	limitToken     = Limit{Probe: ProbeToken, Outage: 4 * time.Second} // it needs the database
	limitWrite     = Limit{Probe: ProbeWrite, Outage: 4 * time.Second}
	limitConnect   = Limit{Probe: ProbeConnect, Outage: 4 * time.Second}
	limitBroker    = Limit{Probe: ProbeBroker, Outage: 8 * time.Second}
	limitInstance  = Limit{Probe: ProbeInstance, Outage: 4 * time.Second}
)

func standardLimits() []Limit {
	return []Limit{limitTCP, limitAPI, limitKeepalive, limitToken, limitWrite, limitConnect, limitBroker}
}

// withLimit returns the limits with those of the same probe replaced.
func withLimit(limits []Limit, changes ...Limit) []Limit {
	out := slices.Clone(limits)
	for _, c := range changes {
		i := slices.IndexFunc(out, func(l Limit) bool { return l.Probe == c.Probe })
		if i < 0 {
			out = append(out, c)
		} else {
			out[i] = c
		}
	}
	return out
}

const (
	holdPower  = 8 * time.Second  // longer than every failover in the limits
	holdFreeze = 10 * time.Second // the same, for a process that says nothing
	holdKill   = 3 * time.Second
	holdCable  = 20 * time.Second // the node must have noticed by itself that it is alone
	holdDisk   = 20 * time.Second // with nothing left
	holdClock  = 30 * time.Second
	// noticeClock is when a wrong clock has been noticed: clocks are compared every ten seconds, and twice.
	noticeClock = 20 * time.Second
)

// Catalogue lists the drills of a cluster: the power cuts, and a drill for each fault of its services.
func Catalogue(c *model.Cluster, services []service.Service) []Drill {
	var out []Drill
	apis := APIs(c, services)
	for _, d := range powerDrills(c) {
		out = append(out, limitAPIs(d, "", apis))
	}
	for _, d := range partitionDrills(c) {
		if !d.Network.Claim {
			d = limitAPIs(d, "", apis)
		}
		out = append(out, d)
	}
	for _, d := range fencingDrills(c) {
		if !d.waitsForPower(c) {
			d = limitAPIs(d, "", apis)
		}
		out = append(out, d)
	}
	out = append(out, siteDrills(c)...)
	out = append(out, lastDrills(c)...)
	for _, s := range services {
		f, ok := s.(service.Faulty)
		if !ok || !c.Runs(s.Name()) {
			continue
		}
		faults := f.Faults(c)
		for _, fault := range faults {
			d := faultDrill(victim(s.Name(), fault, faults), fault)
			d.Service = s.Name()
			out = append(out, limitAPIs(d, s.Name(), apis))
			if s.Name() == "galera" {
				out = append(out, limitAPIs(ofWriter(d), s.Name(), apis))
			}
			if fault.AtVIP {
				out = append(out, limitAPIs(atVIP(d), s.Name(), apis))
			}
		}
	}
	for i, d := range out {
		if c.VIP.Engine == model.EnginePacemaker && d.Target != NotVIPHolder && d.Target != Compute {
			out[i].Limits = whilePacemakerMoves(d.Limits)
		}
	}
	return out
}

// Pacemaker waits until Corosync has agreed that a machine is gone, and, with fencing, until that machine is off. A request
// over the VIP takes as much longer than the VIP as with keepalived.
const (
	pacemakerVIP     = 4 * time.Second
	pacemakerRequest = 5 * time.Second
)

// whilePacemakerMoves are the limits of a drill in which the VIP may move.
func whilePacemakerMoves(limits []Limit) []Limit {
	out := slices.Clone(limits)
	for i, l := range out {
		most := pacemakerRequest
		if l.Probe == ProbeTCP {
			most = pacemakerVIP
		}
		if !l.NoFailures {
			out[i].Outage = max(l.Outage, most)
		}
		if l.QuietAfter > 0 {
			out[i].QuietAfter = max(l.QuietAfter, most)
		}
	}
	return out
}

// victim is what a drill's name ends in: the service or, where it has more units than one, the unit.
func victim(svc string, f service.Fault, all []service.Fault) string {
	if slices.ContainsFunc(all, func(other service.Fault) bool { return other.Unit != f.Unit }) {
		return strings.TrimSuffix(f.Unit, ".service")
	}
	return svc
}

func powerDrills(c *model.Cluster) []Drill {
	var out []Drill
	add := func(needs, name string, target Target, own ...Limit) {
		if c.Runs(needs) {
			out = append(out, Drill{Name: name, Title: "cut the power of " + string(target), Target: target,
				Way: ByPower, Hold: holdPower, Limits: withLimit(standardLimits(), own...)})
		}
	}
	add("haproxy", "vip-holder-power-off", VIPHolder, Limit{Probe: ProbeToken, Outage: limitAPI.Outage})
	add("galera", "db-writer-power-off", Writer)
	add("rabbitmq", "rabbitmq-node-power-off", QueueLeader)
	if c.Runs("nova") {
		add("neutron", "gateway-power-off", Gateway, limitInstance)
	}
	full := func(needs string, target Target) {
		if c.Runs(needs) {
			out = append(out, Drill{Name: "disk-full-" + needs, Title: "fill the disk of " + string(target), Target: target,
				Way: ByDisk, Hold: holdDisk, Says: "disk-drained", Limits: standardLimits()})
		}
	}
	full("galera", Writer)
	full("rabbitmq", QueueLeader)
	if c.Runs("keystone") && len(c.Controllers()) > 2 {
		// A machine whose hardware clock holds local time. With minutes nobody would feel anything: tokens are valid for an hour.
		out = append(out, Drill{Name: "clock-jump", Title: "start Keystone anew with a clock two hours ahead (faked for it alone: a lab has one clock) on " + string(NotVIPHolder),
			Target: NotVIPHolder, Way: ByClock, Hold: holdClock, Says: "clock-skew", Service: "keystone",
			Limits: withLimit(standardLimits(), Limit{Probe: ProbeToken, Outage: 4 * time.Second, QuietAfter: noticeClock})})
	}
	if c.Runs("haproxy") {
		out = append(out, Drill{Name: "management-nic-cut", Title: "pull the management network's cable of " + string(VIPHolder), Target: VIPHolder,
			Way: ByCable, Hold: holdCable, Limits: standardLimits()})
	}
	return out
}

// siteDrills are about the database, which has to be told after a full outage who goes first; the rest of the control plane comes along.
func siteDrills(c *model.Cluster) []Drill {
	if !c.Runs("galera") || len(c.Controllers()) < 3 {
		return nil
	}
	const spread = 3 * time.Second
	const late = 45 * time.Second // longer than the others take to know that they must not go on alone
	writes := []string{ProbeWrite, ProbeConnect}
	all := func(name, title string, hold time.Duration, s Site) Drill {
		return Drill{Name: name, Title: title, Target: Controllers, Way: ByPower, Site: &s, Hold: hold}
	}
	two := all("two-of-three-lost", "cut the power of most of the controllers", 20*time.Second, Site{Spread: spread / 6, Silent: writes})
	two.Target = Majority
	return []Drill{
		all("site-power-cut", "cut the power of all controllers", 5*time.Second, Site{Spread: spread}),
		all("site-clean-stop", "shut all controllers down", 5*time.Second, Site{Spread: spread, Clean: true}),
		two,
		all("galera-grastate-missing", "cut the power of all controllers, the first of which loses grastate.dat", 5*time.Second,
			Site{Spread: spread, Lost: "/var/lib/mysql/grastate.dat"}),
		all("galera-diverged", "cut the power of all controllers; before it is back, one of them founds a database of its own", 5*time.Second,
			Site{Spread: spread / 6, Silent: writes, Diverged: true}),
		all("galera-one-member-gone", "cut the power of all controllers, and keep it from one of them for longer", 5*time.Second,
			Site{Spread: spread, Silent: writes, Waits: "galera", Late: late}),
		// After a clean stop the database never comes back by itself: there is a recovery to be led.
		all("leader-killed-during-recovery", "shut all controllers down, and cut the power of the one that leads the recovery", 5*time.Second,
			Site{Spread: spread, Clean: true, Leader: true}),
	}
}

// verbs says in words what the known faults do.
var verbs = map[string]string{"kill": "kill (SIGKILL)", "freeze": "freeze (SIGSTOP)"}

func faultDrill(svc string, f service.Fault) Drill {
	verb := verbs[f.Name]
	if verb == "" {
		verb = fmt.Sprintf("%s (signal %d)", f.Name, f.Signal)
	}
	target := NotVIPHolder
	if f.Role == model.RoleCompute {
		target = Compute
	}
	d := Drill{Name: f.Name + "-" + svc, Title: fmt.Sprintf("%s %s on %s", verb, f.Unit, target),
		Target: target, Way: BySignal, Fault: f, Hold: holdKill, Limits: standardLimits()}
	if f.Heal != 0 {
		d.Hold = holdFreeze
	}
	switch d.Name {
	case "kill-keystone", "kill-haproxy":
		// The VIP is elsewhere and a read can be asked again: nobody may notice.
		d.Limits = withLimit(d.Limits, unnoticed(ProbeTCP), unnoticed(ProbeAPI), unnoticed(ProbeKeepalive))
	case "freeze-keystone":
		d.Limits = withLimit(d.Limits, unnoticed(ProbeTCP), frozen(ProbeAPI), frozen(ProbeKeepalive))
	}
	return d
}

// atVIP is the same drill where the VIP is: clients feel as much as when that machine loses its power, not more. A
// frozen process is found out by the answers it owes: its port still takes connections.
func atVIP(d Drill) Drill {
	d.Name += "-of-vip-holder"
	d.Title = strings.Replace(d.Title, string(NotVIPHolder), string(VIPHolder), 1)
	d.Target, d.Limits = VIPHolder, standardLimits()
	if d.Fault.Heal != 0 {
		d.Limits = withLimit(d.Limits, frozen(ProbeAPI), frozen(ProbeKeepalive))
	}
	return d
}

// ofWriter is the same drill where the database takes its writes: of other members clients feel little.
func ofWriter(d Drill) Drill {
	d.Name += "-of-writer"
	d.Title = strings.Replace(d.Title, string(d.Target), string(Writer), 1)
	d.Target = Writer
	return d
}

// Named returns the drill of that name. One of a unit may also be called by the unit's name: freeze-mariadb is freeze-galera.
func Named(all []Drill, name string) (Drill, bool) {
	for _, d := range all {
		unit := strings.TrimSuffix(d.Fault.Unit, ".service")
		if d.Name == name || unit != "" && strings.Replace(d.Name, "-"+d.Service, "-"+unit, 1) == name {
			return d, true
		}
	}
	return Drill{}, false
}

// unnoticed: no request fails. frozen: until the health checks take the frozen process out, some wait.
func unnoticed(probe string) Limit { return Limit{Probe: probe, NoFailures: true} }

func frozen(probe string) Limit {
	return Limit{Probe: probe, Outage: 3 * time.Second, QuietAfter: 3 * time.Second}
}

// Machines is what can be done to machines from outside. Cut takes the power away so that what was not flushed is lost, and
// leaves the machine off.
type Machines interface {
	Cut(ctx context.Context, node string) error
	On(ctx context.Context, node string) error
	// Stop shuts a machine down as it wants to be shut down.
	Stop(ctx context.Context, node string) error
	// Lose has a machine that runs lose a file, for good.
	Lose(ctx context.Context, node, path string) error
	// CableOut pulls the machine's cable out of the management network, CableIn puts it in again.
	CableOut(ctx context.Context, node string) error
	CableIn(ctx context.Context, node string) error
	// Fill has something take the room on the machine's disk until none is left; Free takes that away.
	Fill(ctx context.Context, node string) error
	Free(ctx context.Context, node string) error
	// SkewKeystone starts a machine's Keystone anew with a clock that is so far ahead of the others', RightKeystone with the right one.
	SkewKeystone(ctx context.Context, node string, ahead time.Duration) error
	RightKeystone(ctx context.Context, node string) error
	// Shell runs a script as root on a machine that is on, and returns what it printed.
	Shell(ctx context.Context, node, script string) (string, error)
	Links
	BMCs
}

// Person is somebody who answers what only a person can.
type Person interface {
	// Asked returns between what a recovery of the service has a person choose; none: it does not ask.
	Asked(ctx context.Context, svc string) ([]service.Choice, error)
	Choose(ctx context.Context, svc, node string) error
	// TestBMC has the controllers test a machine's BMC now.
	TestBMC(ctx context.Context, node string) error
}

// Injector sends a signal to all processes of a unit on a node.
type Injector interface {
	Signal(ctx context.Context, node, unit string, signal int) error
}

// Observer says how the cluster is, as its agents see it.
type Observer interface {
	// Snapshot is cheap: under load it is asked for again and again, and must not be felt itself.
	Snapshot(ctx context.Context) (Snapshot, error)
	// Inspect also tells what is not as the last apply left it.
	Inspect(ctx context.Context) (Snapshot, error)
}

// Credentials hands out the secrets that probes need, by name.
type Credentials interface {
	Secret(ctx context.Context, name string) (string, error)
}

// Probe is one kind of request, sent at a fixed rate.
type Probe struct {
	Name string
	// Every is the time between two requests, Timeout what a client would wait for one.
	Every, Timeout time.Duration
	// Late: an answer that takes longer is an outage too, though not a failure.
	Late time.Duration
	// Send sends the n-th request, n counted from 0, and returns when it is answered. It is called
	// from many goroutines at once.
	Send func(ctx context.Context, n int) error
}

// Instance is an instance in the cluster's cloud.
type Instance interface {
	// Address is where it answers from outside.
	Address() netip.AddrPort
	// Gateway says which node what is sent there goes through now.
	Gateway(ctx context.Context) (node string, err error)
	// Remove deletes it with all that was made for it.
	Remove(ctx context.Context) error
}

// Acks is what became of acknowledged writes.
type Acks struct {
	Written int `json:"written"` // acknowledged to the probes
	Lost    int `json:"lost"`    // of these, not there afterwards
	// Stuck counts messages that came only to a consumer that connected anew after the load: not lost, but nobody would have got them.
	Stuck int `json:"stuck"`
	// Repeated counts messages delivered more than once: allowed, but shown.
	Repeated int `json:"repeated"`
	// Which says which writes were lost or stuck, and what the members said of them; the report has it among its notes.
	Which []string `json:"-"`
}

// Workload is the load of a drill and what is known through it. Network is the real one.
type Workload interface {
	// Open prepares tables and queues and returns the probes.
	Open(ctx context.Context, ledger *Ledger) ([]Probe, error)
	// Locate says which node is the Writer, the QueueLeader or the Gateway now.
	Locate(ctx context.Context, t Target) (node string, err error)
	// Verify compares the ledger with what the cluster still has, after the load has ended.
	Verify(ctx context.Context) (Acks, error)
	// Close removes what Open made.
	Close(ctx context.Context) error
}
