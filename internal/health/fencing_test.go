package health

import (
	"testing"

	"nines/internal/model"
)

func TestWithoutFencingIsShownAndHealthy(t *testing.T) {
	cs := Fencing(&model.Cluster{Fencing: model.FencingOff})
	if len(cs) != 1 || cs[0].Code != "fencing-off" || cs[0].Severity != Warning {
		t.Fatalf("%+v", cs)
	}
	if !Healthy(cs) {
		t.Error("what cluster.yaml asks for takes the health away")
	}
	if Healthy(append(cs, Condition{Code: "drift", Severity: Warning})) {
		t.Error("another condition does not take the health away")
	}
	if cs := Fencing(&model.Cluster{Fencing: model.FencingOn}); len(cs) != 0 {
		t.Errorf("with fencing: %+v", cs)
	}
}
