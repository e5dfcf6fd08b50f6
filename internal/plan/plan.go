package plan

import "time"

// State says how an observed resource stands to its desired state.
type State string

// What an agent may say of one resource.
const (
	InSync  State = "in-sync"
	Missing State = "missing" // not there at all
	Drifted State = "drifted" // there, and different
	Unknown State = "unknown" // could not be told; Reason says why
)

// Status is what an agent observed of one resource.
type Status struct {
	State  State  `json:"state"`
	Reason string `json:"reason,omitempty"` // one line, no secrets: "mode 644, want 600"
	// Change says, for a unit, what its op will do: "start", "restart", "reload", "enable", "disable", "stop",
	// or "wait" when it runs as it should and is not ready yet.
	Change string `json:"change,omitempty"`
}

// Observed is what the agents said, by resource, and which nodes did not answer.
type Observed struct {
	Resources   map[ID]Status     `json:"resources"`
	Unreachable map[string]string `json:"unreachable,omitempty"` // node -> reason
	// Serving holds, for each quorum, the nodes whose members serve now.
	Serving map[string][]string `json:"serving,omitempty"`
}

// Op is one step: bring one resource into its desired state.
type Op struct {
	ID       ID      `json:"id"` // of the resource
	Node     string  `json:"node"`
	Service  string  `json:"service"`
	Kind     string  `json:"kind"`
	Hash     string  `json:"hash"`    // the agent refuses when it computes another
	Summary  string  `json:"summary"` // "install 3 packages", "restart mariadb.service"
	Reason   string  `json:"reason,omitempty"`
	Restarts string  `json:"restarts,omitempty"` // unit that restarts
	After    []ID    `json:"after,omitempty"`
	Quorum   *Quorum `json:"quorum,omitempty"`
}

// Quorum says what is left of a quorum while the op runs.
type Quorum struct {
	Name   string `json:"name"`
	Left   int    `json:"left"`
	Size   int    `json:"size"`
	Needed int    `json:"needed"`
}

// Plan is what would be done, in order.
type Plan struct {
	// Spec is the hash of the cluster spec the plan was made from.
	Spec string `json:"spec"`
	Ops  []Op   `json:"ops"` // in an order that respects After
	// Blocked says why the plan must not run as it is (empty when it may).
	Blocked []Block `json:"blocked,omitempty"`
}

// Block is one reason not to run a plan, with what to do about it.
type Block struct {
	Code string `json:"code"`
	Text string `json:"text"`
	Hint string `json:"hint"`
}

// Empty reports whether nothing would change.
func (p Plan) Empty() bool { return len(p.Ops) == 0 }

// Result is what became of one op.
type Result struct {
	ID      ID            `json:"id"`
	Started time.Time     `json:"started"`
	Took    time.Duration `json:"took"` // nanoseconds
	// Changed is false when the inspector found it already done.
	Changed bool   `json:"changed"`
	Error   string `json:"error,omitempty"`
	Hint    string `json:"hint,omitempty"`
	Skipped bool   `json:"skipped,omitempty"`
}
