package openstack

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"nines/internal/model"
	"nines/internal/service"
	"nines/internal/service/servicetest"
)

func reporting() *Service {
	return New(Description{Service: "x", APIs: []WSGI{{Unit: "x-api.service"}},
		Reports: &Reports{Database: "x", Limit: time.Minute},
		Daemons: []Daemon{
			{Role: model.RoleController, Unit: "x-worker.service", Reports: "x-worker"},
			{Role: model.RoleController, Unit: "x-mute.service"},
			{Role: model.RoleCompute, Unit: "x-agent.service", Reports: "x-agent"},
		}})
}

// sees is a controller's observation with reports.
func sees(facts ...string) service.Observation {
	o := service.Observation{Serving: true, Facts: map[string]string{factReports: reportsRead}}
	for i := 0; i < len(facts); i += 2 {
		o.Facts[factReport+facts[i]] = facts[i+1]
	}
	return o
}

func TestJudgeReports(t *testing.T) {
	whole := []string{"x-worker ctl1", "1", "x-worker ctl2", "60", "x-worker ctl3", "-1", "x-agent cmp1", "0"}
	with := func(changes ...string) service.Observation { return sees(slices.Concat(whole, changes)...) }
	missing := with()
	delete(missing.Facts, factReport+"x-worker ctl2")
	for name, tc := range map[string]struct {
		seen map[string]service.Observation
		want []string
	}{
		"all report":             {map[string]service.Observation{"ctl1": with()}, nil},
		"old":                    {map[string]service.Observation{"ctl1": with("x-worker ctl2", "61")}, []string{"daemon-silent ctl2 warning"}},
		"the youngest counts":    {map[string]service.Observation{"ctl1": with("x-worker ctl2", "61"), "ctl3": with()}, nil},
		"never reported":         {map[string]service.Observation{"ctl1": missing}, []string{"daemon-silent ctl2 warning"}},
		"disabled":               {map[string]service.Observation{"ctl1": with("x-agent cmp1", "5 disabled")}, []string{"daemon-disabled cmp1 notice"}},
		"nobody does its work":   {map[string]service.Observation{"ctl1": with("x-agent cmp1", "61 disabled")}, []string{"daemon-silent cmp1 critical"}},
		"the table was not read": {map[string]service.Observation{"ctl1": {Serving: true, Facts: map[string]string{factReports: "unknown: x"}}}, nil},
		"nobody was seen":        {nil, nil},
	} {
		var got []string
		for _, c := range reporting().Judge(servicetest.Cluster(), tc.seen) {
			got = append(got, fmt.Sprintf("%s %s %s", c.Code, c.Node, c.Severity))
		}
		if !slices.Equal(got, tc.want) {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
}

// The table is read now and then, not at each observation, and a database that does not answer is no condition here.
func TestUnreported(t *testing.T) {
	c := servicetest.Cluster()
	node := func(name string) model.Node { n, _ := c.Node(name); return n }
	for name, tc := range map[string]struct {
		node string
		seen service.Observation
		want map[string]time.Duration
	}{
		"it reports":             {"ctl2", sees("x-worker ctl2", "60"), map[string]time.Duration{}},
		"old":                    {"ctl2", sees("x-worker ctl2", "61", "x-worker ctl1", "1"), map[string]time.Duration{"x-worker.service": 61 * time.Second}},
		"never reported":         {"ctl2", sees("x-worker ctl1", "1"), map[string]time.Duration{"x-worker.service": never}},
		"not one of the node's":  {"ctl2", sees("x-worker ctl2", "1", "x-agent cmp1", "900"), map[string]time.Duration{}},
		"the table was not read": {"ctl2", service.Observation{Serving: true, Facts: map[string]string{factReports: "unknown: x"}}, nil},
		"it has no table":        {"cmp1", service.Observation{Serving: true}, nil},
	} {
		if got := reporting().Unreported(c, node(tc.node), tc.seen); !maps.Equal(got, tc.want) {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
}

func TestReportsAreReadNowAndThen(t *testing.T) {
	reads := 0
	var fail error
	r := reportsReader{read: func(ctx context.Context, _ Reports) (map[string]string, error) {
		if _, bounded := ctx.Deadline(); !bounded {
			t.Error("a read without a bound")
		}
		reads++
		return map[string]string{factReports: reportsRead}, fail
	}}
	now := time.Now()
	for range 5 {
		r.seen(t.Context(), now, Reports{})
		now = now.Add(time.Second)
	}
	if reads != 1 {
		t.Errorf("%d reads in 5 s", reads)
	}
	fail = errors.New("gone away\nwith details")
	if facts := r.seen(t.Context(), now, Reports{}); facts[factReports] != "unknown: gone away" {
		t.Errorf("%v", facts)
	}
}
