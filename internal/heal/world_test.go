package heal

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"nines/internal/service/galera/recovery"
)

// world is a site of machines with Galera as far as a recovery depends on it, with its traps: what the members saved may
// be lost in a power cut, an empty member without a saved state would found a cluster if it were let, a member is brought up to date by its
// position alone and not by what its history really is, the flag of the last to leave stays through a schema change, and a saved view
// works only with exactly its members.
type world struct {
	rng    *rand.Rand
	nodes  []*machine
	names  int // for UUIDs, views and invocations
	writes int
	// acked are the acknowledged writes, in order; excused says that a person, or the policy, gave some of them up.
	acked   []int
	excused bool
	// byHand was founded by hand. untold: its history is another one than the others', and nothing shows it any more: while it was
	// away they went on and were shut down cleanly, which leaves no view (ADR 16 says so).
	byHand *machine
	untold bool
	// damaged: something was done to a copy that only a person can judge.
	damaged bool
	// foundings by epoch.
	foundings map[int64]string
	trace     []string
	broken    string // the first invariant that does not hold
}

// machine is one node: what is on its disk, and what runs.
type machine struct {
	name string
	up   bool
	side int // of a partition; 0: all together
	// agent does a step; meanwhile its evidence says so.
	busy string

	disk struct {
		empty    bool
		uuid     string // InnoDB's
		history  []int
		torn     bool // a state transfer or a schema change was under way: not consistent
		saved    *recovery.Saved
		flushed  *recovery.Saved // what a power cut leaves of it
		view     *recovery.View
		written  *recovery.View // a view that a power cut leaves
		aside    *recovery.View // a view of few, after a boot
		founded  int64
		examined *note
		mark     bool // the permission for one start
	}
	run struct {
		server     recovery.Server
		starting   bool
		frozen     bool
		invocation string
		ident      *recovery.View // the view it believes it belongs to
		again      bool           // the server was started since the boot
		refused    bool           // the unit does not start the server
		queue      []int          // received, not applied
		transfer   bool           // it is being copied to
		unaware    int            // for so many events it does not notice that it is in no Primary any more
	}
}

type note struct {
	epoch      int64
	invocation string
	at         *recovery.Position
	view       *recovery.View
	aside      bool
}

func newWorld(rng *rand.Rand, members int) *world {
	w := &world{rng: rng, foundings: map[int64]string{}}
	uuid := w.name("uuid")
	v := w.view()
	for i := range members {
		m := &machine{name: fmt.Sprintf("c%d", i+1), up: true}
		m.disk.uuid, m.disk.history = uuid, []int{-1}
		m.disk.saved = &recovery.Saved{Position: recovery.Position{UUID: uuid, Seqno: -1}}
		m.run.server, m.run.invocation, m.run.again = recovery.Primary, w.name("run"), true
		w.nodes = append(w.nodes, m)
	}
	w.install(w.nodes, v)
	for _, m := range w.nodes {
		m.disk.flushed, m.disk.written = m.disk.saved, m.disk.view
	}
	return w
}

func (w *world) name(kind string) string {
	w.names++
	if kind == "uuid" {
		return fmt.Sprintf("%08d-0000-4000-8000-000000000000", w.names)
	}
	return fmt.Sprintf("%s-%d", kind, w.names)
}

func (w *world) view() string { return w.name("view") }

func (w *world) say(format string, args ...any) {
	w.trace = append(w.trace, fmt.Sprintf(format, args...))
}

func (w *world) fail(format string, args ...any) {
	if w.broken == "" {
		w.broken = fmt.Sprintf(format, args...)
		w.say("BROKEN: %s", w.broken)
	}
}

func (w *world) chance(p float64) bool { return w.rng.Float64() < p }

func (w *world) any() *machine { return w.nodes[w.rng.IntN(len(w.nodes))] }

// foundByHand has somebody found the database on the one machine that is on, as if there were no others. It takes writes, and loses its power.
func (w *world) foundByHand(m *machine) {
	w.say("%s is founded by hand", m.name)
	w.byHand = m
	w.excused = true // what its history and the others' have, the cluster cannot have both
	if w.chance(0.3) {
		m.disk.saved = &recovery.Saved{Position: recovery.Position{UUID: recovery.ZeroUUID, Seqno: -1}}
	}
	w.kill(m)
	w.off(m)
	m.up, m.disk.mark = true, true
	saved := *m.disk.saved
	saved.SafeToBootstrap = true
	m.disk.saved = &saved
	w.start(m)
	for range w.rng.IntN(5) {
		w.write()
	}
	m.disk.flushed, m.disk.written = m.disk.saved, m.disk.view
	w.powerCut(m)
}

// install makes the members a Primary with a new view.
func (w *world) install(members []*machine, id string) {
	var names []string
	for _, m := range members {
		names = append(names, m.name+"/"+m.run.invocation)
	}
	uuid := members[0].disk.uuid
	for _, m := range members {
		m.run.server, m.run.starting, m.run.transfer = recovery.Primary, false, false
		m.run.ident = &recovery.View{Mine: m.name + "/" + m.run.invocation, ID: id, Members: names}
		m.disk.view, m.disk.aside, m.run.unaware = m.run.ident, nil, 0
		m.disk.saved = &recovery.Saved{Position: recovery.Position{UUID: uuid, Seqno: -1}, SafeToBootstrap: len(members) == 1}
	}
	w.say("primary %s of %v", id, list(members))
	w.check()
}

// list is written out only when it is read.
type list []*machine

func (ms list) String() string {
	var out []string
	for _, m := range ms {
		out = append(out, fmt.Sprintf("%s@%d", m.name, len(m.disk.history)))
	}
	return strings.Join(out, ",")
}

// primaries are the members of each Primary, by view.
func (w *world) primaries() map[string][]*machine {
	out := map[string][]*machine{}
	for _, m := range w.nodes {
		if m.up && m.run.server == recovery.Primary {
			out[m.run.ident.ID] = append(out[m.run.ident.ID], m)
		}
	}
	return out
}

func (w *world) primary() []*machine {
	for _, ms := range w.primaries() {
		return ms
	}
	return nil
}

// write commits one row: durable at the writer, received by all others, acknowledged.
func (w *world) write() {
	p := w.primary()
	if len(p) == 0 {
		return
	}
	writer := p[w.rng.IntN(len(p))]
	if writer.run.frozen {
		return
	}
	w.apply(writer)
	w.writes++
	for _, m := range p {
		if m.run.frozen && m != writer {
			return // the group waits for it
		}
	}
	for _, m := range p {
		if m == writer {
			m.disk.history = append(m.disk.history, w.writes)
		} else {
			m.run.queue = append(m.run.queue, w.writes)
		}
	}
	w.acked = append(w.acked, w.writes)
	for _, m := range p {
		if w.chance(0.5) {
			w.apply(m)
		}
	}
}

func (w *world) apply(m *machine) {
	m.disk.history = append(m.disk.history, m.run.queue...)
	m.run.queue = nil
}

// lose takes members out of their Primary without a word; those that are left go on if they are the majority.
func (w *world) lose(gone ...*machine) {
	for id, ms := range w.primaries() {
		left := slices.DeleteFunc(slices.Clone(ms), func(m *machine) bool { return slices.Contains(gone, m) })
		if len(left) == len(ms) {
			continue
		}
		size := len(ms[0].run.ident.Members)
		for _, m := range gone {
			m.run.server = recovery.NonPrimary
		}
		if 2*len(left) > size {
			for _, m := range left {
				w.apply(m)
			}
			w.install(left, w.view())
			continue
		}
		for _, m := range left {
			m.run.server = recovery.NonPrimary
		}
		w.say("view %s has no majority", id)
	}
}

// off ends what runs on a machine. What it had not applied is gone.
func (w *world) off(m *machine) {
	if m.run.transfer {
		m.disk.torn = true
	}
	m.up = false
	m.run.server, m.run.queue, m.run.frozen, m.run.starting, m.run.transfer, m.run.ident, m.run.invocation = recovery.Stopped, nil, false, false, false, nil, ""
	m.run.unaware = 0
	m.busy = ""
}

func (w *world) powerCut(m *machine) {
	if !m.up {
		return
	}
	w.say("power cut %s", m.name)
	was := m.run.server == recovery.Primary
	if was {
		w.lose(m)
	}
	if m.disk.view != m.disk.written && w.chance(0.3) {
		m.disk.view = nil // it was not flushed
	}
	if m.disk.flushed != m.disk.saved {
		w.say("the saved state of %s was not flushed", m.name)
	}
	m.disk.saved = m.disk.flushed
	if w.chance(0.03) && !m.disk.empty && was {
		// In the middle of a schema change.
		m.disk.saved = &recovery.Saved{Position: recovery.Position{UUID: recovery.ZeroUUID, Seqno: -1}, SafeToBootstrap: m.disk.saved != nil && m.disk.saved.SafeToBootstrap}
		w.damaged = true
	}
	w.off(m)
}

// kill ends the server alone; systemd starts it again.
func (w *world) kill(m *machine) {
	if !m.up || m.run.server == recovery.Stopped {
		return
	}
	w.say("kill %s", m.name)
	if m.run.server == recovery.Primary {
		w.lose(m)
	}
	w.off(m)
	m.up = true
	w.start(m)
}

// stopServer stops the server as it wants to be stopped.
func (w *world) stopServer(m *machine) {
	if m.run.server == recovery.Stopped {
		return
	}
	if m.run.server == recovery.Primary {
		w.apply(m)
		for _, ms := range w.primaries() {
			if i := slices.Index(ms, m); i >= 0 {
				m.run.server = recovery.NonPrimary
				if left := slices.Delete(slices.Clone(ms), i, i+1); len(left) > 0 {
					for _, l := range left {
						w.apply(l)
					}
					w.install(left, w.view())
				}
			}
		}
	}
	if m.run.server == recovery.NonPrimary && !m.run.transfer {
		w.apply(m)
		if s := m.disk.saved; s != nil && !s.None() {
			m.disk.saved = &recovery.Saved{Position: recovery.Position{UUID: s.UUID, Seqno: int64(len(m.disk.history))}, SafeToBootstrap: s.SafeToBootstrap}
		}
		m.disk.view = nil
		w.untold = w.untold || w.byHand != nil && w.byHand != m && w.byHand.run.server != recovery.Primary
	}
	inv, up := m.run.invocation, m.up
	w.off(m)
	m.up, m.run.invocation = up, inv
}

// boot switches a machine on; its server is started with it.
func (w *world) boot(m *machine) {
	if m.up {
		return
	}
	w.say("boot %s", m.name)
	m.up, m.side, m.run.again = true, 0, false
	w.start(m)
}

// start starts the server. It founds only with the mark.
func (w *world) start(m *machine) {
	if m.disk.torn {
		m.disk.saved = nil // the unit does, and what follows
	}
	if s := m.disk.saved; s != nil && s.Seqno >= 0 && s.Seqno != int64(len(m.disk.history)) {
		fixed := *s
		fixed.Seqno = -1
		m.disk.saved = &fixed
	}
	if v := m.disk.view; v != nil && !m.run.again && 2*len(v.Members) <= len(w.nodes) {
		w.say("the view of %s is set aside", m.name)
		m.disk.view, m.disk.aside = nil, v
	}
	m.run.invocation, m.run.again = w.name("run"), true
	m.run.server, m.run.starting = recovery.Silent, true
	mark := m.disk.mark
	m.run.refused = !mark && m.disk.aside != nil
	if m.run.refused {
		return
	}
	m.disk.mark = false
	if mark {
		w.found(m)
		return
	}
	if v := m.disk.view; v != nil && m.disk.saved != nil {
		m.run.ident = v // pc.recovery: it is who it was
	}
}

// found is a start with --wsrep-new-cluster.
func (w *world) found(m *machine) {
	s := m.disk.saved
	if s != nil && !s.SafeToBootstrap {
		w.say("%s refuses to found", m.name)
		m.run.server, m.run.starting = recovery.Stopped, false
		return
	}
	if m.disk.empty {
		w.fail("an empty member founds: %s", m.name)
	}
	if s == nil || s.None() {
		m.disk.uuid = w.name("uuid")
	}
	w.say("%s founds", m.name)
	w.install([]*machine{m}, w.view())
}

// settle lets Galera do one thing by itself.
func (w *world) settle() {
	if p := w.primary(); len(p) > 0 {
		w.joinOne(p)
		return
	}
	w.reform()
}

// reform forms the Primary again that all members of a view remember, if exactly they are there.
func (w *world) reform() {
	for _, m := range w.nodes {
		v := m.run.ident
		if !m.up || v == nil || m.run.frozen {
			continue
		}
		var group []*machine
		for _, o := range w.nodes {
			if o.up && !o.run.frozen && o.side == m.side && o.run.ident != nil && o.run.ident.ID == v.ID {
				group = append(group, o)
			}
		}
		if len(group) != len(v.Members) {
			continue
		}
		longest := group[0]
		for _, o := range group {
			w.apply(o)
			if len(o.disk.history) > len(longest.disk.history) {
				longest = o
			}
		}
		for _, o := range group {
			if o.disk.uuid != longest.disk.uuid || o.disk.torn {
				return
			}
		}
		for _, o := range group {
			w.catchUp(o, longest)
		}
		w.say("the view is formed again")
		w.install(group, w.view())
		return
	}
}

// catchUp brings a member to the donor's position, by the position alone.
func (w *world) catchUp(m, donor *machine) {
	if n := m.position(); n < len(donor.disk.history) {
		m.disk.history = append(slices.Clone(m.disk.history), donor.disk.history[n:]...)
	}
}

// position is where a member takes itself to be: what it saved, if it did, else what InnoDB says.
func (m *machine) position() int {
	if s := m.disk.saved; s != nil && s.Seqno >= 0 && m.run.server != recovery.Primary && m.run.server != recovery.NonPrimary {
		return int(s.Seqno)
	}
	return len(m.disk.history)
}

func (w *world) joinOne(p []*machine) {
	for _, i := range w.rng.Perm(len(w.nodes)) {
		m := w.nodes[i]
		if !m.up || m.run.frozen || m.run.refused || m.run.server == recovery.Primary || m.run.server == recovery.Stopped || m.side != p[0].side {
			continue
		}
		donor := p[0]
		w.apply(donor)
		uuid := m.disk.saved
		incremental := uuid != nil && uuid.UUID == donor.disk.uuid && m.disk.uuid == donor.disk.uuid && !m.disk.empty && !m.run.transfer && len(m.disk.history) <= len(donor.disk.history)
		switch {
		case incremental:
			if m.disk.torn {
				w.fail("%s joins with a torn copy", m.name)
			}
			w.apply(m)
			w.catchUp(m, donor)
		case !m.run.transfer:
			// A full copy begins: the old one is gone.
			m.run.transfer = true
			m.disk.saved = &recovery.Saved{Position: recovery.Position{UUID: recovery.ZeroUUID, Seqno: -1}}
			m.disk.view, m.disk.aside, m.run.ident = nil, nil, nil
			w.say("%s is copied to", m.name)
			return
		default:
			m.disk.uuid, m.disk.history, m.disk.torn, m.disk.empty = donor.disk.uuid, slices.Clone(donor.disk.history), false, false
			m.run.queue = nil
		}
		w.install(append(slices.Clone(p), m), w.view())
		return
	}
}

// divide cuts a machine off from the others, or mends the network.
func (w *world) divide() {
	if w.chance(0.5) {
		w.say("the network is whole")
		for _, m := range w.nodes {
			m.side = 0
		}
		return
	}
	m := w.any()
	m.side = 1 + w.rng.IntN(2)
	w.say("%s on side %d", m.name, m.side)
	for _, ms := range w.primaries() {
		bySide := map[int][]*machine{}
		for _, x := range ms {
			bySide[x.side] = append(bySide[x.side], x)
		}
		if len(bySide) < 2 {
			continue
		}
		var best []*machine
		for _, x := range ms {
			if s := bySide[x.side]; len(s) > len(best) {
				best = s
			}
		}
		var gone []*machine
		for _, x := range ms {
			if !slices.Contains(best, x) {
				gone = append(gone, x)
				x.run.unaware = w.rng.IntN(4)
			}
		}
		if w.chance(0.3) { // as where the network carries one direction only
			w.say("each was alone for a moment")
			gone = ms
		}
		w.lose(gone...)
	}
	w.check()
}

// happen is anything that may happen to a site.
func (w *world) happen() {
	for _, m := range w.nodes {
		m.run.unaware = max(0, m.run.unaware-1)
		if w.chance(0.3) {
			m.disk.flushed, m.disk.written = m.disk.saved, m.disk.view
		}
	}
	switch n := w.rng.IntN(100); {
	case n < 34:
		w.write()
	case n < 52:
		w.settle()
	case n < 60:
		w.powerCut(w.any())
	case n < 63:
		for _, i := range w.rng.Perm(len(w.nodes)) {
			w.powerCut(w.nodes[i])
			if w.chance(0.5) {
				w.write()
			}
		}
	case n < 66:
		for _, i := range w.rng.Perm(len(w.nodes)) {
			if m := w.nodes[i]; m.up && !m.run.frozen {
				w.say("clean stop %s", m.name)
				w.stopServer(m)
				w.off(m)
				m.disk.flushed = m.disk.saved
			}
		}
	case n < 82:
		w.boot(w.any())
	case n < 86:
		w.kill(w.any())
	case n < 89:
		if m := w.any(); m.up && m.run.server != recovery.Stopped {
			m.run.frozen = !m.run.frozen
			w.say("frozen %s: %t", m.name, m.run.frozen)
		}
	case n < 94:
		w.divide()
	case n < 95:
		if m := w.any(); !m.up {
			w.say("the saved state of %s is lost", m.name)
			m.disk.saved, m.disk.flushed, w.damaged = nil, nil, true
		}
	default:
		if m := w.any(); m.up && m.run.server == recovery.Stopped && m.busy == "" {
			w.say("somebody starts %s", m.name)
			w.start(m)
		}
	}
	w.check()
}

// check holds the invariants against what is.
func (w *world) check() {
	all := w.primaries()
	if len(all) > 1 {
		w.fail("%d Primaries at once", len(all))
	}
	for _, ms := range all {
		longest := ms[0]
		for _, m := range ms {
			if len(m.whole()) > len(longest.whole()) {
				longest = m
			}
		}
		whole := longest.whole()
		for _, m := range ms {
			h := m.whole()
			if !slices.Equal(h, whole[:len(h)]) && !w.untold {
				w.fail("%s and %s have different histories", m.name, longest.name)
			}
		}
		if w.excused {
			continue
		}
		i := 0
		for _, t := range whole {
			if i < len(w.acked) && w.acked[i] == t {
				i++
			}
		}
		if i < len(w.acked) {
			w.fail("write %d was acknowledged, and is not in the Primary of %s", w.acked[i], list(ms))
		}
	}
}

func (m *machine) whole() []int { return append(slices.Clone(m.disk.history), m.run.queue...) }

// evidence is what the agent of the machine says.
func (w *world) evidence(m *machine, epoch int64) json.RawMessage {
	e := recovery.Evidence{Server: m.run.server, Starting: m.run.starting, Empty: m.disk.empty, Saved: m.disk.saved, View: m.disk.view, Torn: m.disk.torn,
		Founded: m.disk.founded, Busy: m.busy, Formed: m.name == "c1"}
	if e.View == nil {
		e.View, e.Aside = m.disk.aside, m.disk.aside != nil
	}
	if m.run.frozen && m.run.server != recovery.Stopped {
		e.Server = recovery.Silent
	}
	if e.Server == recovery.Primary || e.Server == recovery.NonPrimary {
		e.Synced = e.Server == recovery.Primary
		e.Live = recovery.Position{UUID: m.disk.uuid, Seqno: int64(len(m.whole()))}
		for _, o := range w.nodes {
			hears := o.run.server == recovery.NonPrimary || o.run.server == recovery.Silent && o.run.starting
			if e.Server == recovery.Primary {
				hears = o.run.server == recovery.Primary
			}
			if o.up && o.side == m.side && !o.run.frozen && hears {
				e.Size++
			}
		}
		if e.Server == recovery.NonPrimary && m.run.unaware > 0 {
			e.Server, e.Synced, e.Size = recovery.Primary, true, len(m.run.ident.Members)
		}
	}
	if x := m.disk.examined; x != nil && epoch > 0 && x.epoch == epoch && x.invocation == m.run.invocation && e.Server == recovery.Stopped {
		e.Recovered = x.at
		if x.at == nil {
			e.RecoveredError = "there is no database"
		}
		if e.View == nil {
			e.View, e.Aside = x.view, x.aside
		}
	}
	b, err := json.Marshal(e)
	if err != nil {
		panic(err)
	}
	return b
}
