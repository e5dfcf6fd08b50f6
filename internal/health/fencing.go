package health

import "nines/internal/model"

// Fencing says what may happen in a cluster that does not fence.
func Fencing(c *model.Cluster) []Condition {
	if c.Fences() {
		return nil
	}
	return []Condition{{Code: "fencing-off", Severity: Warning, Standing: true,
		Text: "no machine's power can be taken away: one that hangs or is cut off may go on with what others took over, and where that must be ruled out, the cluster waits for a person",
		Hint: "give each controller a bmc in cluster.yaml, hand over its password with 'nines fence password NODE', set fencing: on"}}
}
