package model

import "time"

// Validity is the span of time in which a certificate is accepted.
type Validity struct {
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
}

// Expired reports whether the span has ended.
func (v Validity) Expired(now time.Time) bool { return !now.Before(v.NotAfter) }

// Due reports whether it is time for a new certificate: less than a third of the span is left (four
// months of a year), enough for an operator who looks once a quarter.
func (v Validity) Due(now time.Time) bool {
	return v.NotAfter.Sub(now) < v.NotAfter.Sub(v.NotBefore)/3
}

// Late reports whether whoever was to renew it when it was Due has not: less than a quarter of the span is left.
func (v Validity) Late(now time.Time) bool {
	return v.NotAfter.Sub(now) < v.NotAfter.Sub(v.NotBefore)/4
}

// Overdue reports whether a person has to see to a new certificate: the one who renews has not, or cannot by itself.
func (v Validity) Overdue(authority Validity, by Renewer, now time.Time) bool {
	return v.Renewable(authority, now) && (by != RenewedByLeader || v.Late(now))
}

// Renewable reports whether a new certificate would be better: Due, and not cut short by the
// end of the authority that would issue the new one as well.
func (v Validity) Renewable(authority Validity, now time.Time) bool {
	return v.Due(now) && v.NotAfter.Before(authority.NotAfter)
}
