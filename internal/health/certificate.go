package health

import (
	"fmt"
	"time"

	"nines/internal/model"
)

// Certificate judges the certificate of a node: expired, or near its end. What the leader renews by itself is told when
// that has failed for a while. One that the authority's own end cuts short is the authority's matter.
func Certificate(node string, v, authority model.Validity, by model.Renewer, now time.Time) []Condition {
	switch {
	case v.NotAfter.IsZero():
		return nil // not known: an agent of an earlier version
	case v.Expired(now):
		return []Condition{{Code: "certificate-expired", Severity: Critical, Node: node,
			Text: "the node's certificate expired on " + Day(v.NotAfter) + ": nobody accepts a new connection to its services",
			Hint: "'nines apply' renews it over SSH"}}
	case v.Overdue(authority, by, now) && by == model.RenewedByLeader:
		return []Condition{{Code: "certificate-expires", Severity: Warning, Node: node,
			Text: "the node's certificate ends " + in(v.NotAfter, now) + ", and the leader has not renewed it",
			Hint: "'journalctl -u nines-agent | grep certificate' on the leader says why; 'nines apply' renews it over SSH"}}
	case v.Overdue(authority, by, now):
		return []Condition{{Code: "certificate-expires", Severity: Warning, Node: node,
			Text: "the node's certificate ends " + in(v.NotAfter, now) + ": from then on nobody accepts a new connection to its services",
			Hint: "'nines apply' renews it over SSH; no service is interrupted"}}
	}
	return nil
}

// OperatorCertificate judges the certificate of who asks. An expired one is an error: nobody answers it.
func OperatorCertificate(v, authority model.Validity, now time.Time) []Condition {
	if v.NotAfter.IsZero() || !v.Renewable(authority, now) {
		return nil
	}
	return []Condition{{Code: "operator-certificate-expires", Severity: Warning,
		Text: "your own certificate ends " + in(v.NotAfter, now), Hint: "'nines apply' renews it"}}
}

// Authority judges the cluster's certificate authority. issued is how long the certificates
// it issues live: once less than that is left, each one is shorter than the one before.
func Authority(v model.Validity, issued time.Duration, now time.Time) []Condition {
	if v.NotAfter.IsZero() || v.NotAfter.Sub(now) >= issued {
		return nil
	}
	return []Condition{{Code: "authority-expires", Severity: Warning,
		Text: "the cluster's certificate authority ends " + in(v.NotAfter, now) + ", and with it every certificate",
		Hint: "nines cannot replace an authority yet: see 'The authority' in docs/guide.md and plan it now"}}
}

// Day shows a moment as people compare it with a clock.
func Day(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

func in(t, now time.Time) string {
	left := t.Sub(now)
	n, unit := int(left.Hours()/24), "days"
	switch {
	case left < 2*time.Hour:
		n, unit = int(left.Minutes()), "minutes"
	case left < 3*24*time.Hour:
		n, unit = int(left.Hours()), "hours"
	}
	return fmt.Sprintf("on %s, in %d %s", Day(t), n, unit)
}
