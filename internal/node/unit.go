package node

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"nines/internal/host"
	"nines/internal/plan"
)

// What a unit's op does: the words of plan.Status.Change.
const (
	changeStart   = "start"
	changeRestart = "restart"
	changeReload  = "reload"
	changeEnable  = "enable"
	changeDisable = "disable"
	changeStop    = "stop"
	changeWait    = "wait" // it runs as it should and does not serve yet
)

// clockGrain is how far a file's change time may lie before the real change (the
// kernel takes it from its last tick, up to 10 ms ago), with a margin.
const clockGrain = 50 * time.Millisecond

// input is a resource that a unit reads when it starts (RestartOn) or reloads (ReloadOn).
type input struct {
	id      plan.ID
	name    string    // for people: the path
	hash    string    // of the desired content
	inPlace bool      // the node has the desired content
	changed time.Time // when it last changed on the node; zero if that cannot be told
	live    bool      // hash is of its fixed part only: the unit takes up the rest while it runs
}

// unitView is everything that decides what is to be done about a unit.
//
// Does the running unit use the files as they should be? systemd cannot tell, so nines
// records, each time it has (re)started or reloaded a unit, what it started it with and systemd's
// invocation ID. There are two cases:
//
// The invocation is the recorded one. Then the unit uses exactly what is recorded: it
// needs a restart if, and only if, the fingerprint differs. Files read at a reload may have been
// edited, reloaded by hand and put right since: one whose change time is not the recorded one needs
// a reload (which does no harm).
//
// The invocation is another one: a reboot, Restart=always, an operator, or a crash of nines between
// start and record. Then the unit read what was on disk when it started. That was the desired content if
// all inputs are in place now and either none changed since the record (no clock involved: a
// plain reboot never needs a restart), or each last changed before the unit began to start. Otherwise it is restarted:
// an unneeded restart is better than a daemon that runs with other files than the plan says.
// Change times are the inode's ctime, which no program can set back; if the node's clock was
// set back between change and start, a restart more may be the consequence.
type unitView struct {
	want        plan.Unit
	fingerprint plan.Fingerprint
	state       host.UnitState
	record      *record // nil: nines never started it
	restartOn   []input
	reloadOn    []input
}

// decide says how the unit stands, without regard to readiness.
func (v unitView) decide() plan.Status {
	if !v.want.Running {
		return v.decideStopped()
	}
	if !v.state.Loaded {
		return plan.Status{State: plan.Missing, Change: changeStart, Reason: "no such unit on the node"}
	}
	if strings.HasPrefix(v.state.FileState, "masked") {
		return plan.Status{State: plan.Drifted, Change: changeStart, Reason: "is masked"}
	}
	if !running(v.state) {
		return plan.Status{State: plan.Drifted, Change: changeStart, Reason: stateReason(v.state)}
	}
	if reason := v.needsRestart(); reason != "" {
		return plan.Status{State: plan.Drifted, Change: changeRestart, Reason: reason}
	}
	if reason := v.needsReload(); reason != "" {
		return plan.Status{State: plan.Drifted, Change: changeReload, Reason: reason}
	}
	return v.decideEnabled()
}

func (v unitView) decideStopped() plan.Status {
	if active := v.state.Active; active != "" && active != "inactive" && active != "failed" {
		return plan.Status{State: plan.Drifted, Change: changeStop, Reason: "is " + active}
	}
	return v.decideEnabled()
}

func (v unitView) decideEnabled() plan.Status {
	switch can := canEnable(v.state); {
	case can && v.want.Enabled && !v.state.Enabled:
		return plan.Status{State: plan.Drifted, Change: changeEnable, Reason: "does not start at boot"}
	case can && !v.want.Enabled && v.state.Enabled:
		return plan.Status{State: plan.Drifted, Change: changeDisable, Reason: "starts at boot"}
	}
	return plan.Status{State: plan.InSync}
}

// canEnable is false for units that are started by others or have nothing to be enabled by. An "indirect" one can
// be: a package's alias leads to its own unit of that name, and nines's stands in its place.
func canEnable(st host.UnitState) bool {
	switch st.FileState {
	case "static", "generated", "transient", "alias", "masked", "masked-runtime":
		return false
	}
	return st.Loaded
}

// running reports whether the unit is up, as far as systemd knows.
func running(st host.UnitState) bool {
	return st.Active == "active" || st.Active == "reloading" || st.Active == "refreshing"
}

func stateReason(st host.UnitState) string {
	s := "is " + st.Active
	switch {
	case st.Active == "failed" && st.Result != "" && st.Result != "success":
		s += " (" + st.Result + ")"
	case st.Active == "activating" && st.Sub != "":
		s += " (" + st.Sub + ")"
	}
	return s
}

// ours reports whether the running unit is the one nines started.
func (v unitView) ours() bool {
	return v.record != nil && v.record.Invocation != "" && v.record.Invocation == v.state.Invocation
}

func (v unitView) needsRestart() string {
	if v.ours() {
		if v.record.Restart == v.fingerprint.Restart {
			return ""
		}
		return v.changedSinceStart(v.restartOn)
	}
	recorded := v.record != nil && v.record.Restart == v.fingerprint.Restart
	return v.readOthers(v.restartOn, recorded)
}

func (v unitView) needsReload() string {
	recorded := v.record != nil && v.record.Reload == v.fingerprint.Reload
	if !v.ours() {
		return v.readOthers(v.reloadOn, recorded)
	}
	if !recorded {
		return v.changedSinceStart(v.reloadOn)
	}
	for _, in := range v.reloadOn {
		if !v.record.unchanged(in) {
			return in.name + " was written again since it was read"
		}
	}
	return ""
}

// changedSinceStart names what differs from the record.
func (v unitView) changedSinceStart(inputs []input) string {
	var names []string
	for _, in := range inputs {
		if v.record.Inputs[in.id].Hash != in.hash {
			names = append(names, in.name)
		}
	}
	if len(names) == 0 {
		return "what it depends on changed"
	}
	return "runs without the change of " + strings.Join(names, ", ")
}

// readOthers says why a unit that nines did not start itself may have read something else
// than desired; empty if it has not. recorded: nines last started it with the same fingerprint.
func (v unitView) readOthers(inputs []input, recorded bool) string {
	for _, in := range inputs {
		switch {
		case in.live && v.record.has(in):
			// What needs a restart is what it was last started with; what does not may change at any time.
		case !in.inPlace:
			return in.name + " is not as it should be"
		case recorded && v.record.unchanged(in):
		case in.changed.IsZero():
			// Nothing says when: trust the record alone.
			if !recorded {
				return "it is not known whether it started after " + in.name
			}
		case !v.state.Started.After(in.changed.Add(clockGrain)):
			return fmt.Sprintf("started before %s last changed", in.name)
		}
	}
	return ""
}

// record is what nines started a unit with, kept in StateDir/units/NAME.json.
type record struct {
	plan.Fingerprint
	Invocation string                   `json:"invocation"`
	Inputs     map[plan.ID]recordedItem `json:"inputs"`
}

type recordedItem struct {
	Hash    string    `json:"hash"`
	Changed time.Time `json:"changed,omitzero"`
}

// unchanged reports whether the input is untouched since the record. A nil record knows nothing.
func (r *record) unchanged(in input) bool {
	if r == nil {
		return false
	}
	was, ok := r.Inputs[in.id]
	return ok && was.Hash == in.hash && was.Changed.Equal(in.changed)
}

// has reports whether nines last started the unit with the same input. A nil record knows nothing.
func (r *record) has(in input) bool { return r != nil && r.Inputs[in.id].Hash == in.hash }

// newRecord is what is to be recorded once the unit has read its inputs.
func (v unitView) newRecord() record {
	r := record{Fingerprint: v.fingerprint, Inputs: map[plan.ID]recordedItem{}}
	for _, in := range slices.Concat(v.restartOn, v.reloadOn) {
		r.Inputs[in.id] = recordedItem{Hash: in.hash, Changed: in.changed}
	}
	return r
}
