package agent

import (
	"testing"
	"time"

	"nines/internal/api"
	"nines/internal/fence"
)

func TestMayBeSwitchedOn(t *testing.T) {
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	on := fence.Order{Node: "ctl3", Action: fence.TurnOn, Since: ago(20 * time.Second), Finished: ago(15 * time.Second)}
	failed, failedLongAgo := on, on
	failed.Error = "no answer"
	failedLongAgo.Error, failedLongAgo.Since, failedLongAgo.Finished = "no answer", ago(3*time.Minute), ago(2*time.Minute)
	for name, tc := range map[string]struct {
		fenced time.Time
		heard  time.Duration // ago
		last   fence.Order
		want   bool
	}{
		"it was there since":           {ago(time.Minute), 20 * time.Second, fence.Order{}, false},
		"silent for a moment":          {ago(time.Minute), time.Second, fence.Order{}, false},
		"no order":                     {ago(30 * time.Second), 40 * time.Second, fence.Order{}, true},
		"just now":                     {ago(time.Second), 40 * time.Second, fence.Order{}, false},
		"long ago":                     {ago(time.Hour), 40 * time.Second, fence.Order{}, false},
		"an order for another":         {ago(30 * time.Second), 40 * time.Second, fence.Order{Node: "ctl1", Action: fence.TurnOff, Finished: ago(time.Minute)}, true},
		"an order under way":           {ago(30 * time.Second), 40 * time.Second, fence.Order{ID: "1", Node: "ctl1", Action: fence.TurnOn, Todo: []fence.Power{fence.On}}, false},
		"a person wants it off":        {ago(30 * time.Second), 40 * time.Second, fence.Order{Node: "ctl3", Action: fence.TurnOff, Finished: ago(35 * time.Second)}, false},
		"switched on since":            {ago(30 * time.Second), 40 * time.Second, on, false},
		"switched on, fenced again":    {ago(10 * time.Second), 12 * time.Second, on, true},
		"its BMC has just not obeyed":  {ago(30 * time.Second), 40 * time.Second, failed, false},
		"its BMC did not obey earlier": {ago(4 * time.Minute), 5 * time.Minute, failedLongAgo, true},
	} {
		t.Run(name, func(t *testing.T) {
			if got := mayBeSwitchedOn("ctl3", tc.fenced, hearing{at: ago(tc.heard), answered: true}, tc.last, now); got != tc.want {
				t.Errorf("%v, want %v", got, tc.want)
			}
		})
	}
}

func TestHeard(t *testing.T) {
	began := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	there, silent := api.NodeStatus{Node: "ctl1", Report: &api.NodeReport{}}, api.NodeStatus{Node: "ctl2"}
	h := heard{}
	h.note([]api.NodeStatus{there, silent}, began)
	h.note([]api.NodeStatus{there, silent}, began.Add(time.Minute))
	if want := (hearing{began.Add(time.Minute), true}); h["ctl1"] != want {
		t.Errorf("%+v", h["ctl1"])
	}
	if want := (hearing{began, false}); h["ctl2"] != want {
		t.Errorf("%+v", h["ctl2"])
	}
}
