package drill

import (
	"slices"
	"time"
)

// Sample is one request.
type Sample struct {
	// At is when it was planned to be sent, since the load began: a late sender does not hide waiting.
	At time.Duration
	// Took is from At to the answer or the failure.
	Took time.Duration
	// Failure is empty when it succeeded, otherwise why not, in one line.
	Failure string
}

// OK reports whether the request succeeded.
func (s Sample) OK() bool { return s.Failure == "" }

func (s Sample) end() time.Duration { return s.At + s.Took }

// since is the part of a request from a moment on that it was under way at; of others all.
func (s Sample) since(moment time.Duration) Sample {
	if s.At < moment && moment < s.end() {
		s.At, s.Took = moment, s.end()-moment
	}
	return s
}

// Felt is what the clients of one probe felt.
type Felt struct {
	Requests, Failed int
	// Longest and Total are the outages, see Measure.
	Longest, Total time.Duration
	// Slowest is the longest time a successful request took, Median the usual one.
	Slowest, Median time.Duration
}

// Measure says what clients felt.
//
// A client that wants something at the planned time of request i has it at the
// earliest moment at which a request planned then or later is answered with
// success; until then it waits. The wait counts as an outage from the
// planned time on if request i failed, or if the wait is longer than late.
// Longest is the longest such wait; Total is the time covered by any of them. So a stall in which
// nothing fails but everything waits is an outage, and one failed or slow request among
// prompt ones costs no more than the time until the next prompt answer. end is when
// the load ended: an outage that nobody saw end ends there.
func Measure(samples []Sample, late, end time.Duration) Felt {
	sorted := slices.Clone(samples)
	slices.SortStableFunc(sorted, func(a, b Sample) int { return int(a.At - b.At) })
	f := Felt{Requests: len(sorted)}
	var took []time.Duration
	served, begin := end, end // begin: start of the outages counted so far
	for _, s := range slices.Backward(sorted) {
		if s.OK() {
			served = min(served, s.end())
			took = append(took, s.Took)
		} else {
			f.Failed++
		}
		wait := max(served-s.At, 0)
		if s.OK() && wait <= late {
			continue
		}
		f.Longest = max(f.Longest, wait)
		f.Total += max(min(served, begin)-s.At, 0)
		begin = min(begin, s.At)
	}
	if len(took) > 0 {
		slices.Sort(took)
		f.Slowest, f.Median = took[len(took)-1], took[len(took)/2]
	}
	return f
}
