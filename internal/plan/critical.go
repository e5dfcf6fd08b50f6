package plan

import (
	"slices"
	"time"
)

// CriticalPath returns the chain of ops that decided how long an apply took, in order:
// the op that ended last, before it the op it waited for longest, and so on.
func CriticalPath(ops []Op, results map[ID]Result) []ID {
	after := make(map[ID][]ID, len(ops))
	var last ID
	var end time.Time
	for _, op := range ops {
		after[op.ID] = op.After
		if r, ok := results[op.ID]; ok && !r.Skipped && r.Started.Add(r.Took).After(end) {
			last, end = op.ID, r.Started.Add(r.Took)
		}
	}
	var path []ID
	for id := last; id != ""; id = latest(after[id], results) {
		path = append(path, id)
	}
	slices.Reverse(path)
	return path
}

func latest(ids []ID, results map[ID]Result) ID {
	var last ID
	var end time.Time
	for _, id := range ids {
		if r, ok := results[id]; ok && !r.Skipped && r.Started.Add(r.Took).After(end) {
			last, end = id, r.Started.Add(r.Took)
		}
	}
	return last
}
