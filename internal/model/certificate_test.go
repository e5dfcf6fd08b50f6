package model

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestValidity(t *testing.T) {
	day := 24 * time.Hour
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	year := Validity{NotBefore: begin, NotAfter: begin.Add(365 * day)}
	decade := Validity{NotBefore: begin, NotAfter: begin.Add(3650 * day)}
	for name, tc := range map[string]struct {
		authority               Validity
		after                   time.Duration
		due, renewable, expired bool
		overdue                 [2]bool // where the leader renews, and where the operator does
	}{
		"new":                        {decade, 0, false, false, false, [2]bool{}},
		"more than a third left":     {decade, 243 * day, false, false, false, [2]bool{}},
		"less than a third left":     {decade, 244 * day, true, true, false, [2]bool{false, true}},
		"the last second":            {decade, 365*day - time.Second, true, true, false, [2]bool{true, true}},
		"its end":                    {decade, 365 * day, true, true, true, [2]bool{true, true}},
		"long after":                 {decade, 700 * day, true, true, true, [2]bool{true, true}},
		"cut short by the authority": {year, 300 * day, true, false, false, [2]bool{}},
	} {
		t.Run(name, func(t *testing.T) {
			now := begin.Add(tc.after)
			if year.Due(now) != tc.due || year.Renewable(tc.authority, now) != tc.renewable || year.Expired(now) != tc.expired {
				t.Errorf("due %v, renewable %v, expired %v, want %v %v %v", year.Due(now), year.Renewable(tc.authority, now), year.Expired(now), tc.due, tc.renewable, tc.expired)
			}
			for i, by := range []Renewer{RenewedByLeader, RenewedByOperator} {
				if got := year.Overdue(tc.authority, by, now); got != tc.overdue[i] {
					t.Errorf("overdue %v where the %s renews", got, by)
				}
			}
		})
	}
}

// What has expired was due before, and time never makes a certificate better.
func TestValidityOnlyGetsWorse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		life := time.Duration(rapid.Int64Range(int64(time.Second), int64(20*365*24*time.Hour)).Draw(t, "life"))
		v := Validity{NotBefore: begin, NotAfter: begin.Add(life)}
		at := begin.Add(time.Duration(rapid.Int64Range(0, int64(2*life)).Draw(t, "at")))
		later := at.Add(time.Duration(rapid.Int64Range(0, int64(life)).Draw(t, "later")))
		if v.Expired(at) && !v.Due(at) {
			t.Fatal("expired and not due")
		}
		if (v.Due(at) && !v.Due(later)) || (v.Expired(at) && !v.Expired(later)) {
			t.Fatal("it got better")
		}
	})
}
