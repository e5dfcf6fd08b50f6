package agent

import (
	"testing"
	"time"

	"nines/internal/api"
	"nines/internal/model"
)

// A node that cannot be spoken to because of its certificate is told as that; the
// authority, which all nodes have, is told once.
func TestCertificateConditions(t *testing.T) {
	if c := unreachable(api.NodeStatus{Node: "ctl1", Error: "x", Expired: true}); c.Code != "certificate-expired" || c.Node != "ctl1" {
		t.Errorf("%+v", c)
	}
	if c := unreachable(api.NodeStatus{Node: "ctl1", Error: "x"}); c.Code != "node-unreachable" {
		t.Errorf("%+v", c)
	}
	now := time.Date(2027, 6, 1, 0, 0, 0, 0, time.UTC)
	year := 365 * 24 * time.Hour
	authority := model.Validity{NotBefore: now.Add(-9*year - year/2), NotAfter: now.Add(year / 2)}
	report := func(left time.Duration) *api.NodeReport {
		return &api.NodeReport{Version: api.Version{Authority: authority, Certificate: model.Validity{NotBefore: now.Add(left - year), NotAfter: now.Add(left)}}}
	}
	nodes := []api.NodeStatus{{Node: "ctl1", Report: report(time.Hour)}, {Node: "ctl2", Report: report(year/2 - time.Hour)}, {Node: "ctl3"}}
	var got []string
	for _, c := range certificates(nodes, model.RenewedByLeader, now) {
		got = append(got, c.Code+" "+c.Node)
	}
	want := []string{"certificate-expires ctl1", "authority-expires "}
	if len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("got %q, want %q", got, want)
	}
}
