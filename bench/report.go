package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"nines/internal/plan"
)

// report is all that one run measured; a part that could not be measured is nil.
type report struct {
	Nines string       `json:"nines"` // version
	Date  time.Time    `json:"date"`
	Cores int          `json:"cores"`
	Load  float64      `json:"load"` // average of the machine's last minute, at the start
	Nodes int          `json:"nodes"`
	Apply *applyReport `json:"first_apply,omitempty"`
	Noop  *noopReport  `json:"noop,omitempty"`
	Rest  *restReport  `json:"rest,omitempty"`
	// Presets is a run of its own: with it there is nothing else.
	Presets *presetsReport `json:"presets,omitempty"`
}

// applyReport is the first apply. Times are seconds.
type applyReport struct {
	since           time.Time
	Load            float64 `json:"load"`
	LabUp           float64 `json:"lab_up_seconds"`
	Before          float64 `json:"before_apply_seconds"` // machines, agents
	Apply           float64 `json:"apply_seconds"`
	Operations      int     `json:"operations"`
	Critical        float64 `json:"critical_path_seconds"`
	Work            float64 `json:"operations_seconds"` // of all operations, one after the other
	ApplyToCritical float64 `json:"apply_to_critical_path"`
	WorkToApply     float64 `json:"operations_to_apply"`
	Path            []step  `json:"critical_path"`
}

// step is one operation of the critical path.
type step struct {
	ID      plan.ID `json:"id"`
	Node    string  `json:"node"`
	Summary string  `json:"summary"`
	Seconds float64 `json:"seconds"`
}

// noopReport compares applies that change nothing.
type noopReport struct {
	Load      float64        `json:"load"`
	Resources resources      `json:"resources"`
	Nines     timing         `json:"nines"`
	Discarded int            `json:"nines_discarded"` // runs that met something to do, and do not count
	Ansible   *ansibleReport `json:"ansible,omitempty"`
}

// resources counts what the cluster wants, on all nodes together.
type resources struct {
	Packages int `json:"packages"`
	Files    int `json:"files"`
	Units    int `json:"units"`
	Actions  int `json:"actions"`
}

// timing is what repeated runs took, in seconds.
type timing struct {
	Runs   []float64 `json:"runs_seconds"`
	Median float64   `json:"median_seconds"`
	// ToNines is the median as a multiple of that of nines.
	ToNines float64 `json:"to_nines,omitempty"`
}

// ansibleReport is the no-op of Ansible, with and without gathering facts.
type ansibleReport struct {
	Version   string `json:"version"`
	Gathering timing `json:"gathering"`
	Bare      timing `json:"gather_facts_false"`
}

// restReport is the agents at rest.
type restReport struct {
	Load            float64       `json:"load"`
	Seconds         float64       `json:"seconds"`
	Agents          []agentReport `json:"agents"`
	MaxCPU          float64       `json:"max_cpu_percent"`
	MaxWithChildren float64       `json:"max_cpu_with_children_percent"`
	MaxResident     float64       `json:"max_resident_mib"`
}

// agentReport is one agent at rest.
type agentReport struct {
	Node   string  `json:"node"`
	Leader bool    `json:"leader"`
	CPU    float64 `json:"cpu_percent"` // of one core
	// WithChildren counts the programs too that the agent ran meanwhile.
	WithChildren float64 `json:"cpu_with_children_percent"`
	Resident     float64 `json:"resident_mib"` // VmRSS
}

func writeJSON(w io.Writer, r report) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(r)
}

// writeText shows the report to people.
func writeText(w io.Writer, r report) error {
	fmt.Fprintf(w, "nines %s, a lab of %d nodes on one machine with %d cores, %s\n", r.Nines, r.Nodes, r.Cores, r.Date.Format(time.DateTime+" MST"))
	fmt.Fprintf(w, "load at the start: %.2f (much above 0: other work runs, trust the ratios less)\n", r.Load)
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if r.Apply != nil {
		writeApply(out, *r.Apply)
	}
	if r.Noop != nil {
		writeNoop(out, *r.Noop)
	}
	if r.Rest != nil {
		writeRest(out, *r.Rest)
	}
	if r.Presets != nil {
		writePresets(out, *r.Presets)
	}
	return out.Flush()
}

func writeApply(w io.Writer, a applyReport) {
	fmt.Fprintf(w, "\n1. First apply: fresh lab, image cached, load %.2f before\n", a.Load)
	fmt.Fprintf(w, "  lab up in all\t%.1f s\n", a.LabUp)
	fmt.Fprintf(w, "  before the apply\t%.1f s\tmachines, agents\n", a.Before)
	fmt.Fprintf(w, "  apply\t%.1f s\t%d operations\n", a.Apply, a.Operations)
	fmt.Fprintf(w, "  its critical path\t%.1f s\t%d operations\n", a.Critical, len(a.Path))
	fmt.Fprintf(w, "  apply / critical path\t%.2f\t1 is the least there can be\n", a.ApplyToCritical)
	fmt.Fprintf(w, "  all operations / apply\t%.2f\thow much went on side by side\n", a.WorkToApply)
	fmt.Fprintf(w, "\n  the critical path:\n")
	for _, s := range a.Path {
		fmt.Fprintf(w, "  %7.2f s\t%s\t%s\n", s.Seconds, s.Node, s.Summary)
	}
}

func writeNoop(w io.Writer, n noopReport) {
	fmt.Fprintf(w, "\n2. Nothing to do: %d packages, %d files, %d units, and for nines %d actions; load %.2f before\n",
		n.Resources.Packages, n.Resources.Files, n.Resources.Units, n.Resources.Actions, n.Load)
	fmt.Fprintf(w, "  \tmedian\tnines = 1\truns, s\n")
	writeTiming(w, "nines apply --yes", n.Nines, 1)
	if a := n.Ansible; a != nil {
		writeTiming(w, "ansible-playbook "+a.Version, a.Gathering, a.Gathering.ToNines)
		writeTiming(w, "the same, gather_facts: false", a.Bare, a.Bare.ToNines)
	}
	if n.Discarded > 0 {
		fmt.Fprintf(w, "  (discarded %d of nines: there was something to do, as the machine was busy)\n", n.Discarded)
	}
}

func writeTiming(w io.Writer, name string, t timing, toNines float64) {
	var runs []string
	for _, r := range t.Runs {
		runs = append(runs, fmt.Sprintf("%.2f", r))
	}
	fmt.Fprintf(w, "  %s\t%.2f s\t%.1f\t%s\n", name, t.Median, toNines, strings.Join(runs, " "))
}

func writeRest(w io.Writer, r restReport) {
	fmt.Fprintf(w, "\n3. Agents at rest, over %.0f s, load %.2f before\n", r.Seconds, r.Load)
	fmt.Fprintf(w, "  \tCPU of one core\twith programs it ran\tmemory (VmRSS)\n")
	for _, a := range r.Agents {
		name := a.Node
		if a.Leader {
			name += ", leader"
		}
		fmt.Fprintf(w, "  %s\t%.2f %%\t%.2f %%\t%.1f MiB\n", name, a.CPU, a.WithChildren, a.Resident)
	}
	fmt.Fprintf(w, "  the most\t%.2f %%\t%.2f %%\t%.1f MiB\n", r.MaxCPU, r.MaxWithChildren, r.MaxResident)
}
