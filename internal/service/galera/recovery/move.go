package recovery

import (
	"strconv"
	"strings"

	"nines/internal/service"
)

// The steps on a node, in the order in which a recovery may need them.
const (
	// StepHalt stops a server that is in no Primary, keeps copies of the evidence, and reads the position.
	StepHalt = "halt"
	// StepClear takes everything away with which a member could form a Primary by itself.
	StepClear = "clear"
	// StepFound starts the one member that founds; StepPromote has a living one do it without a restart.
	StepFound   = "found"
	StepPromote = "promote"
	// StepJoin starts a member that takes the others' state.
	StepJoin = "join"
)

// The arguments of steps.
const (
	// ArgRenew, of StepFound: the cluster gets a new UUID.
	ArgRenew = "renew"
	// ArgKeep, of StepJoin: the whole data directory is set aside first, because it holds what the cluster has not.
	// ArgFresh: the member takes a full copy, because its own is not trusted.
	ArgKeep  = "keep"
	ArgFresh = "fresh"
)

// Next turns the decision into steps. It is called again after each of them: whatever came in between, a new leader
// or a machine that went away, the decision is made anew from what is then known.
func Next(c Case, renewed bool) service.Move {
	d := Decide(c)
	m := service.Move{Diagnosis: string(d.Diagnosis), Act: string(d.Act), Node: d.Node, Reason: d.Reason, Hint: d.Hint, Choices: d.Choices}
	switch d.Act {
	case Halt:
		m.Open = c.Epoch == 0
		m.Steps = [][]service.HealStep{steps(d.Nodes, StepHalt)}
	case Fence:
		m.Open, m.Fence = c.Epoch == 0, d.Node
	case NewEpoch:
		m.Open = true
		switch {
		case c.Settled:
		case c.Evidence[d.Node].Founded == c.Epoch:
			m.Pinned = d.Node
		default:
			m.Pinned = c.Pinned
		}
	case Found, Promote:
		m.Open = c.Epoch == 0
		// Decided once it stays so: the steps clear away what shows another history.
		d.Renew = d.Renew || renewed && d.Act == Found
		m.Founder, m.Renew = d.Node, d.Renew
		m.Steps = goFirst(c, d)
	case Nothing:
		if d.Diagnosis == HasPrimary && c.Epoch > 0 {
			m.Settled = true
			join(c, renewed, &m)
		}
	}
	return m
}

func steps(nodes []string, name string) []service.HealStep {
	var out []service.HealStep
	for _, n := range nodes {
		out = append(out, service.HealStep{Node: n, Name: name})
	}
	return out
}

// goFirst clears the others, all of them, before anybody founds.
func goFirst(c Case, d Decision) [][]service.HealStep {
	var clear []string
	for _, n := range c.known() {
		if n != d.Node && c.Evidence[n].Server == Stopped {
			clear = append(clear, n)
		}
	}
	last := service.HealStep{Node: d.Node, Name: StepFound}
	if d.Act == Promote {
		last.Name = StepPromote
	}
	if d.Renew {
		last.Args = map[string]string{ArgRenew: "true"}
	}
	return [][]service.HealStep{steps(clear, StepClear), {last}}
}

// join has the others join the Primary one at a time, and says when that is done.
func join(c Case, renewed bool, m *service.Move) {
	primary := Position{}
	for _, n := range c.known() {
		if e := c.Evidence[n]; e.Server == Primary && e.Synced {
			primary = e.Live
		}
	}
	if primary.None() {
		m.Reason += "; it is not Synced yet"
		return
	}
	for _, n := range c.known() {
		e := c.Evidence[n]
		if e.Server == Primary && e.Synced {
			continue
		}
		if e.Left && e.Busy == "" {
			m.Act, m.Node, m.Steps = StepHalt, n, [][]service.HealStep{steps([]string{n}, StepHalt)}
			m.Reason += "; " + n + " has left again, and must start anew"
			return
		}
		if e.Server != Stopped || e.Busy != "" {
			m.Rest = true
			m.Reason += "; " + n + " is joining"
			return
		}
		s, ok := c.joins(n, primary, renewed)
		if !ok {
			m.Left = append(m.Left, n)
			continue
		}
		m.Act, m.Node, m.Steps = StepJoin, n, [][]service.HealStep{{s}}
		m.Reason += "; " + n + " is next to join"
		return
	}
	if absent := c.absent(); len(absent) > 0 {
		m.Rest = true // it may have been stopped by this recovery: then it must be started by it
		m.Reason += "; " + strings.Join(absent, ", ") + " is waited for"
		return
	}
	m.Done = true
}

// joins says how a stopped member joins. One with another history does not, unless a person, or the policy, has chosen
// which one lives: its data would be overwritten.
func (c Case) joins(n string, primary Position, renewed bool) (service.HealStep, bool) {
	s := service.HealStep{Node: n, Name: StepJoin}
	class, at := Classify(c.Evidence[n])
	foreign := !at.None() && at.UUID != primary.UUID
	switch {
	case class == ClassUnknown, class == ClassEmpty:
		return s, true
	case foreign && !renewed:
		return s, false
	case foreign || class == ClassSuspect && renewed:
		s.Args = map[string]string{ArgKeep: strconv.FormatBool(true)}
	case class == ClassSuspect:
		s.Args = map[string]string{ArgFresh: strconv.FormatBool(true)}
	}
	return s, true
}
