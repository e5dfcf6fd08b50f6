package drill

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"nines/internal/health"
	"nines/internal/model"
)

// Links is what can be done to the network between machines from outside. Mend ends all of it.
type Links interface {
	// Isolate cuts a machine off from all others, but not from clients.
	Isolate(ctx context.Context, node string) error
	// CutOneWay has nothing that from sends arrive at to.
	CutOneWay(ctx context.Context, from, to string) error
	// Claim has a foreign machine claim the VIP.
	Claim(ctx context.Context) error
	Mend(ctx context.Context) error
}

// Disorder is a fault of the network between machines. One field is set.
type Disorder struct {
	Isolate bool // of the target; clients go on asking it directly, too
	OneWay  bool // between the target and another controller
	Claim   bool // of the VIP, by a foreign machine
}

const (
	holdPartition = 30 * time.Second // longer than every time-out of members for each other
	holdClaim     = 15 * time.Second
	// alarmLimit is how soon status must tell of a claim.
	alarmLimit    = 5 * time.Second
	codeDuplicate = "vip-duplicate"
)

// partitionDrills are about machines that run and do not hear each other.
func partitionDrills(c *model.Cluster) []Drill {
	if !c.Runs("haproxy") || len(c.Controllers()) < 3 {
		return nil
	}
	aside, asymmetric := "", standardLimits()
	if len(c.Controllers()) == 3 {
		aside = "stands-aside"
	}
	if c.VIP.Engine == model.EnginePacemaker {
		// Corosync may leave out the other of the two first. It loses its resources then, HAProxy among them, and gets them back when the one that stands aside is quiet.
		asymmetric = withLimit(asymmetric, Limit{Probe: ProbeWrite, Outage: 8 * time.Second}, Limit{Probe: ProbeConnect, Outage: 8 * time.Second})
	}
	return []Drill{
		{Name: "partition-minority", Title: "cut the node that holds the VIP off from all others, not from clients", Target: VIPHolder,
			Way: ByNetwork, Network: &Disorder{Isolate: true}, Hold: holdPartition, Limits: standardLimits()},
		{Name: "partition-asymmetric", Title: "have one of two controllers not hear the other any more: the holder of the VIP and another", Target: VIPHolder,
			Way: ByNetwork, Network: &Disorder{OneWay: true}, Hold: holdPartition, Says: aside, Limits: asymmetric},
		// Who believes the foreign machine is not served: what is promised is that it is told.
		{Name: "vip-duplicate", Title: "have a foreign machine claim the VIP", Target: VIPHolder,
			Way: ByNetwork, Network: &Disorder{Claim: true}, Hold: holdClaim},
	}
}

// Direct is a Workload whose clients can ask one node past the VIP.
type Direct interface {
	// Direct returns probes that write to one node, and what ends them. What they write belongs to the ledger. The
	// probe ProbeReach tells whether the node was reached at all.
	Direct(ctx context.Context, node string) ([]Probe, func(), error)
}

// The names of the probes of one node.
const (
	ProbeReach         = "direct-tcp"
	ProbeDirectWrite   = "direct-db-write"
	ProbeDirectPublish = "direct-amqp"
)

// directFrom is the number of the first row and message that are written past the VIP.
const directFrom = 1 << 30

// Direct implements Direct.
func (w *Network) Direct(_ context.Context, node string) ([]Probe, func(), error) {
	n, ok := w.Cluster.Node(node)
	if !ok {
		return nil, nil, fmt.Errorf("the cluster has no node %s", node)
	}
	probes := []Probe{{Name: ProbeReach, Every: time.Second / 5, Timeout: time.Second, Send: tcpProbe(hostPort(n.Address(), model.PortAgent))}}
	var ends []func()
	if w.rows != nil {
		conf := w.rows.conf
		conf.address = hostPort(n.Address(), model.PortMariaDB)
		connector, err := w.rows.open(conf.address)
		if err != nil {
			return nil, nil, err
		}
		db := sql.OpenDB(connector)
		db.SetMaxOpenConns(20)
		one := &rows{conf: conf}
		ends = append(ends, func() { _ = db.Close() }) // the node may never answer a goodbye
		probes = append(probes, Probe{Name: ProbeDirectWrite, Every: time.Second / 5, Timeout: writeTimeout,
			Send: func(ctx context.Context, n int) error { return one.write(ctx, db, directFrom+n, w.ledger) }})
	}
	if w.broker != nil {
		conf := w.broker.conf
		conf.hosts = []string{hostPort(n.Address(), model.PortAMQP)}
		one := &broker{conf: conf, turn: make(chan struct{}, 1), seen: map[int]int{}}
		ends = append(ends, func() {
			if s := one.living(); s != nil {
				s.drop()
			}
		})
		probes = append(probes, Probe{Name: ProbeDirectPublish, Every: time.Second / 5, Timeout: confirmTimeout,
			Send: func(ctx context.Context, n int) error { return one.publish(ctx, directFrom+n, w.ledger) }})
	}
	return probes, func() {
		for _, end := range ends {
			end()
		}
	}, nil
}

// disturb does the fault to the network.
func (x *run) disturb(ctx context.Context) error {
	d, node := x.drill.Network, x.report.Node
	switch {
	case d.Isolate:
		return x.Machines.Isolate(ctx, node)
	case d.Claim:
		return x.Machines.Claim(ctx)
	}
	others := slices.DeleteFunc(slices.Clone(x.Cluster.Controllers()), func(n model.Node) bool { return n.Name == node })
	if len(others) == 0 {
		return errors.New("there is no other controller")
	}
	from, to := node, others[x.rng.IntN(len(others))].Name
	if x.rng.IntN(2) == 0 {
		from, to = to, from
	}
	x.mu.Lock()
	x.victims = []string{from, to} // whoever watches status reads it
	x.mu.Unlock()
	x.note(fmt.Sprintf("%s did not hear %s", to, from))
	return x.Machines.CutOneWay(ctx, from, to)
}

// disturbed is the time of a fault of the network.
func (x *run) disturbed(ctx context.Context) error {
	switch {
	case x.drill.Fence != nil:
		if err := x.aims(ctx); err != nil {
			return err
		}
	case x.drill.Network.Isolate:
		return x.minority(ctx)
	case x.drill.Network.Claim:
		return x.alarmed(ctx)
	}
	return x.hold(ctx)
}

// minority has clients write to the isolated node while the fault lasts: nothing may be acknowledged there.
func (x *run) minority(ctx context.Context) error {
	direct, ok := x.work.(Direct)
	if !ok {
		return errors.New("clients cannot ask a node past the VIP here")
	}
	node := x.report.Node
	probes, end, err := direct.Direct(ctx, node)
	if err != nil {
		return fmt.Errorf("clients of %s: %w", node, err)
	}
	defer end()
	side := startLoad(ctx, probes)
	err = x.hold(ctx)
	until := side.stop()
	for _, p := range probes {
		n := side.successes(p.Name, 0, until)
		switch {
		case p.Name == ProbeReach && n == 0:
			x.wound("clients did not reach " + node + ": that it acknowledges nothing was not shown")
		case p.Name != ProbeReach && n > 0:
			x.wound(fmt.Sprintf("%s: %s acknowledged %d writes without a majority", p.Name, node, n))
		case p.Name != ProbeReach:
			failed, why := side.failures(p.Name, 0)
			x.note(fmt.Sprintf("%s to %s: none of %d was acknowledged (%s)", p.Name, node, failed, why))
		}
	}
	return err
}

// alarmed waits for status to tell of the claim, and for the rest of its time.
func (x *run) alarmed(ctx context.Context) error {
	from := time.Now()
	err := x.step("alarm", "status must tell of the claim", func() error {
		for !x.told(ctx, codeDuplicate, "") {
			if time.Since(from) > 2*alarmLimit {
				x.wound("nothing in status said " + codeDuplicate)
				return nil
			}
			if !pause(ctx, lookEvery/5) {
				return context.Cause(ctx)
			}
		}
		took := time.Since(from)
		x.note(fmt.Sprintf("status said %s %.1f s after the claim", codeDuplicate, took.Seconds()))
		if took > alarmLimit {
			x.wound(fmt.Sprintf("status said %s after %.1f s, later than %.0f s", codeDuplicate, took.Seconds(), alarmLimit.Seconds()))
		}
		return nil
	})
	if err == nil && !pause(ctx, x.drill.Hold-time.Since(from)) {
		err = context.Cause(ctx)
	}
	return err
}

// told reports whether status has a condition of that code, of that node unless it is empty.
func (x *run) told(ctx context.Context, code, node string) bool {
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	s, err := x.Observer.Snapshot(ctx)
	return err == nil && slices.ContainsFunc(s.Conditions, func(c health.Condition) bool { return c.Code == code && (node == "" || c.Node == node) })
}
