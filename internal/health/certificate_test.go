package health

import (
	"strings"
	"testing"
	"time"

	"nines/internal/model"
)

func TestCertificates(t *testing.T) {
	now := time.Date(2027, 6, 1, 12, 0, 0, 0, time.UTC)
	span := func(life, left time.Duration) model.Validity {
		return model.Validity{NotBefore: now.Add(left - life), NotAfter: now.Add(left)}
	}
	const day = 24 * time.Hour
	authority := span(3650*day, 3000*day)
	short := span(3650*day, 20*day)
	node := func(v, a model.Validity) []Condition { return Certificate("ctl1", v, a, model.RenewedByOperator, now) }
	led := func(v, a model.Validity) []Condition { return Certificate("ctl1", v, a, model.RenewedByLeader, now) }
	for name, tc := range map[string]struct {
		got      []Condition
		code     string // "": none
		severity Severity
		says     string
	}{
		"new":                        {node(span(365*day, 360*day), authority), "", "", ""},
		"a third left":               {node(span(360*day, 120*day), authority), "", "", ""},
		"less":                       {node(span(360*day, 119*day), authority), "certificate-expires", Warning, "in 119 days"},
		"the leader's, due":          {led(span(360*day, 119*day), authority), "", "", ""},
		"the leader's, late":         {led(span(360*day, 89*day), authority), "certificate-expires", Warning, "the leader has not renewed it"},
		"the leader's, expired":      {led(span(360*day, -time.Minute), authority), "certificate-expired", Critical, "expired on"},
		"the leader's, cut short":    {led(span(300*day, 20*day), short), "", "", ""},
		"hours":                      {node(span(360*day, 50*time.Hour), authority), "certificate-expires", Warning, "2027-06-03 14:00 UTC, in 50 hours"},
		"minutes":                    {node(span(360*day, 5*time.Minute), authority), "certificate-expires", Warning, "in 5 minutes"},
		"expired":                    {node(span(360*day, -time.Minute), authority), "certificate-expired", Critical, "expired on 2027-06-01 11:59 UTC"},
		"not known":                  {node(model.Validity{}, model.Validity{}), "", "", ""},
		"cut short by the authority": {node(span(300*day, 20*day), short), "", "", ""},
		"the operator's":             {OperatorCertificate(span(365*day, 300*day), authority, now), "", "", ""},
		"the operator's, near":       {OperatorCertificate(span(365*day, 30*day), authority, now), "operator-certificate-expires", Warning, "in 30 days"},
		"no operator's":              {OperatorCertificate(model.Validity{}, authority, now), "", "", ""},
		"authority":                  {Authority(authority, 365*day, now), "", "", ""},
		"authority, last year":       {Authority(span(3650*day, 364*day), 365*day, now), "authority-expires", Warning, "in 364 days"},
		"authority not known":        {Authority(model.Validity{}, 365*day, now), "", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.code == "" {
				if len(tc.got) != 0 {
					t.Fatalf("%+v, want nothing", tc.got)
				}
				return
			}
			if len(tc.got) != 1 {
				t.Fatalf("%+v, want one condition", tc.got)
			}
			c := tc.got[0]
			if c.Code != tc.code || c.Severity != tc.severity || !strings.Contains(c.Text, tc.says) || c.Hint == "" {
				t.Errorf("%+v, want %s %s %q", c, tc.severity, tc.code, tc.says)
			}
		})
	}
}
