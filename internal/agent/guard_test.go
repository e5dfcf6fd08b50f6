package agent

import (
	"os"
	"path/filepath"
	"testing"

	"nines/internal/host"
	"nines/internal/host/hosttest"
	"nines/internal/model"
)

// While the engine is changed, keepalived has its guard file until it is stopped.
func TestGuarded(t *testing.T) {
	file := filepath.Join(t.TempDir(), "vip-guard")
	h := hosttest.New()
	pacemaker := &model.Cluster{VIP: model.VIP{Engine: model.EnginePacemaker}}
	if !guarded(t.Context(), h, &model.Cluster{VIP: model.VIP{Engine: model.EngineKeepalived}}, file) {
		t.Error("keepalived's file is not written")
	}
	if guarded(t.Context(), h, pacemaker, file) {
		t.Error("a file for nobody is written")
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	h.PutUnit("keepalived.service", host.UnitState{Loaded: true, Active: "active"})
	if !guarded(t.Context(), h, pacemaker, file) {
		t.Error("keepalived still runs, and its file is not written")
	}
	h.Halt("keepalived.service", "inactive")
	if guarded(t.Context(), h, pacemaker, file) {
		t.Error("keepalived is stopped, and its file is written")
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("the file is left behind")
	}
}
