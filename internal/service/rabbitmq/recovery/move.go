package recovery

import (
	"strings"

	"nines/internal/service"
)

// The steps on a node.
const (
	// StepStart has systemd start the broker, StepRestart start it anew; neither waits for it.
	StepStart   = "start"
	StepRestart = "restart"
	// StepForget, on a member that serves, removes ArgMember from its cluster.
	StepForget = "forget"
	// StepHalt stops a broker, and keeps copies of what it saved.
	StepHalt = "halt"
	// StepForce starts a broker that does not wait for its peers.
	StepForce = "force"
)

// The arguments of steps.
const (
	// ArgMember of StepForget is the member to be forgotten.
	ArgMember = "member"
	// ArgServing of StepRestart and StepHalt: the member serves, and is to be restarted, or stopped, all the same.
	ArgServing = "serving"
	// ArgWaiting of StepRestart: the member is starting, and waits for its peers.
	ArgWaiting = "waiting"
	// ArgPlain of StepStart: whatever mark for a start by force is left there does not count.
	ArgPlain = "plain"
	// ArgGone of StepForce are the members that are taken for gone, separated by commas: if one of their machines
	// answers to anything nobody is forced.
	ArgGone = "gone"
)

// Next turns the decision into steps. It is called again after each of them: whatever came in between, the decision is made anew
// from what is then known. A new epoch is opened only where there is none: another force needs another word of a person.
func Next(c Case) service.Move {
	d := Decide(c)
	m := service.Move{Diagnosis: string(d.Diagnosis), Act: string(d.Act), Node: d.Node, Reason: d.Reason, Hint: d.Hint}
	serving := c.in(Serving)
	divided := c.divided(serving)
	m.Rest = len(serving) >= c.quorum() && !(divided && d.Act == Wait) // what waits here is about to be done
	m.Settled = c.Epoch > 0 && len(serving) > 0 && !divided            // a split may wait for a person's word
	switch d.Act {
	case Start:
		m.Steps = [][]service.HealStep{steps(d.Nodes, StepStart)}
		for i := range m.Steps[0] {
			if c.Choice != "" {
				m.Steps[0][i].Args = map[string]string{ArgPlain: "true"}
			}
		}
	case Halt:
		m.Steps = [][]service.HealStep{steps(d.Nodes, StepHalt)}
		for i, n := range d.Nodes {
			if c.Evidence[n].Broker == Serving { // of a split, at a person's word
				m.Steps[0][i].Args = map[string]string{ArgServing: "true"}
			}
		}
	case Restart:
		s := service.HealStep{Node: d.Node, Name: StepRestart}
		switch d.Diagnosis {
		case Split:
			s.Args = map[string]string{ArgServing: "true"}
		case Unmet:
			s.Args = map[string]string{ArgWaiting: "true"}
		}
		m.Steps = [][]service.HealStep{{s}}
	case Forget:
		m.Steps = [][]service.HealStep{{{Node: serving[0], Name: StepForget, Args: map[string]string{ArgMember: d.Node}}}}
	case Force:
		m.Founder = d.Node
		m.Steps = [][]service.HealStep{{{Node: d.Node, Name: StepForce, Args: map[string]string{ArgGone: strings.Join(c.absent(), ",")}}}}
	case Nothing:
		m.Done = c.Epoch > 0 && c.over(d, serving)
	}
	m.Open = c.Epoch == 0 && len(m.Steps) > 0
	m.Rest = m.Rest && !m.Done && len(m.Steps) == 0
	return m
}

// over: all who answer serve. Whoever does not answer starts with its machine.
func (c Case) over(d Decision, serving []string) bool {
	return d.Diagnosis == Whole || d.Diagnosis == Running && len(serving) >= c.quorum() && len(serving) == len(c.known())
}

func steps(nodes []string, name string) []service.HealStep {
	var out []service.HealStep
	for _, n := range nodes {
		out = append(out, service.HealStep{Node: n, Name: name})
	}
	return out
}
