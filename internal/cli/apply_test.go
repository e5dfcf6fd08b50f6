package cli

import (
	"testing"

	"nines/internal/converge"
	"nines/internal/model"
)

func TestSameUnderWay(t *testing.T) {
	mine := &model.Cluster{Name: "mine"}
	for name, c := range map[string]struct {
		record converge.Record
		want   bool
	}{
		"never applied":      {converge.Record{}, false},
		"ended":              {converge.Record{State: converge.Converged, Spec: mine}, false},
		"failed":             {converge.Record{State: converge.Failed, Spec: mine}, false},
		"the same":           {converge.Record{State: converge.Converging, Spec: &model.Cluster{Name: "mine"}}, true},
		"something else":     {converge.Record{State: converge.Converging, Spec: &model.Cluster{Name: "theirs"}}, false},
		"of an unknown spec": {converge.Record{State: converge.Converging}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := sameUnderWay(c.record, mine); got != c.want {
				t.Errorf("sameUnderWay = %t, want %t", got, c.want)
			}
		})
	}
}
