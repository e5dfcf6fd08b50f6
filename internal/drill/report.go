package drill

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"
)

// The verdicts of a run.
const (
	Pass = "pass"
	Fail = "fail"
)

// Report is one run.
type Report struct {
	Name    string        `json:"name"`
	Verdict string        `json:"verdict"`
	Reasons []string      `json:"reasons,omitempty"` // why it failed
	Seed    uint64        `json:"seed"`
	Node    string        `json:"node"` // where the fault struck
	Started time.Time     `json:"started"`
	Fault   string        `json:"fault"`
	Probes  []ProbeReport `json:"probes"`
	Acks    Acks          `json:"acks"`
	// RedundantAfter is from the fault until the cluster was whole again, hold included; -1: it never was.
	RedundantAfter int64 `json:"redundant_after_ms"`
	// HealedAfter is from the fault until its cause was taken away (power on, SIGCONT); 0: it ends by itself.
	HealedAfter int64 `json:"healed_after_ms"`
	// TwoHolders is for how long more than one node was seen to hold the VIP.
	TwoHolders int64             `json:"two_vip_holders_ms"`
	Limits     []string          `json:"limits"`
	Notes      []string          `json:"notes,omitempty"`
	Versions   map[string]string `json:"versions,omitempty"`
	// Environment is "lab" when all machines share one kernel and one clock.
	Environment string `json:"environment"`
	// Reproduce is the command that runs the same again; Evidence the folder with ledger and samples.
	Reproduce string `json:"reproduce"`
	Evidence  string `json:"evidence,omitempty"`
}

// ProbeReport is what the clients of one probe felt.
type ProbeReport struct {
	Name     string `json:"name"`
	Requests int    `json:"requests"`
	Failed   int    `json:"failed"`
	Longest  int64  `json:"longest_outage_ms"`
	Total    int64  `json:"total_outage_ms"`
	Median   int64  `json:"median_ms"`
	Slowest  int64  `json:"slowest_ms"`
	// FirstFailure is the reason of the first failed request.
	FirstFailure string `json:"first_failure,omitempty"`
}

func probeReport(name string, f Felt, reason string) ProbeReport {
	return ProbeReport{Name: name, Requests: f.Requests, Failed: f.Failed, FirstFailure: reason,
		Longest: f.Longest.Milliseconds(), Total: f.Total.Milliseconds(), Median: f.Median.Milliseconds(), Slowest: f.Slowest.Milliseconds()}
}

// evidence is everything a verdict is made of.
type evidence struct {
	probes []ProbeReport
	// after counts, by probe, the failures later than the limit's QuietAfter after the fault.
	after    map[string]int
	baseline []string // probes that failed before the fault
	acks     Acks
	whole    bool
	wounded  []string // survivors that lost the majority though they were not hurt
}

// judge says why a run failed; nothing: it passed. Pure.
func judge(limits []Limit, e evidence) []string {
	var why []string
	for _, b := range e.baseline {
		why = append(why, "requests failed before the fault: "+b)
	}
	for _, l := range limits {
		i := slices.IndexFunc(e.probes, func(p ProbeReport) bool { return p.Name == l.Probe })
		if i < 0 {
			continue
		}
		why = append(why, exceeds(l, e.probes[i], e.after[l.Probe])...)
	}
	for _, p := range e.probes {
		if p.Requests == 0 {
			why = append(why, p.Name+" sent no request: nothing is proved")
		}
	}
	if e.acks.Lost > 0 {
		why = append(why, fmt.Sprintf("%d acknowledged writes of %d are lost", e.acks.Lost, e.acks.Written))
	}
	if e.acks.Stuck > 0 {
		why = append(why, fmt.Sprintf("%d confirmed messages came only to a consumer that connected anew", e.acks.Stuck))
	}
	if !e.whole {
		why = append(why, "the cluster was not whole again in time")
	}
	return append(why, e.wounded...)
}

func exceeds(l Limit, p ProbeReport, after int) []string {
	var why []string
	if l.NoFailures && p.Failed > 0 {
		why = append(why, fmt.Sprintf("%s: %d failed requests, none is allowed (%s)", p.Name, p.Failed, p.FirstFailure))
	}
	if l.Outage > 0 && p.Longest > l.Outage.Milliseconds() {
		why = append(why, fmt.Sprintf("%s: outage of %d ms, the limit is %d ms", p.Name, p.Longest, l.Outage.Milliseconds()))
	}
	if l.QuietAfter > 0 && after > 0 {
		why = append(why, fmt.Sprintf("%s: %d failed requests later than %d ms after the fault", p.Name, after, l.QuietAfter.Milliseconds()))
	}
	return why
}

// WriteJSON writes one run as an object, several as a list.
func WriteJSON(w io.Writer, runs []Report, repeated bool) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	if !repeated && len(runs) == 1 {
		return enc.Encode(runs[0])
	}
	return enc.Encode(runs)
}
