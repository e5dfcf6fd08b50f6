package service_test

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"nines/internal/host"
	"nines/internal/host/hosttest"
	"nines/internal/model"
	"nines/internal/service"
)

func TestAnswersThroughTheListener(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c := &model.Cluster{}
	c.VIP.Address = netip.MustParsePrefix("127.0.0.1/8")
	action := service.AnswersAction(func(*model.Cluster) []service.Listener {
		return []service.Listener{{Name: "x", Port: l.Addr().(*net.TCPAddr).Port}}
	})
	if done, reason, err := action.Check(t.Context(), service.Env{Cluster: c}, nil); !done || err != nil {
		t.Errorf("not done: %s (%v)", reason, err)
	}
	l.Close()
	if done, _, err := action.Check(t.Context(), service.Env{Cluster: c}, nil); done || err != nil {
		t.Errorf("done %v (%v) although nothing listens", done, err)
	}
}

// Pacemaker is detached while it runs; where it does not, there is nothing to do.
func TestDetach(t *testing.T) {
	h := hosttest.New()
	env := service.Env{Host: h}
	detach := service.DetachAction()
	h.PutUnit("pacemaker.service", host.UnitState{Loaded: true, Active: "inactive"})
	if done, _, err := detach.Check(t.Context(), env, nil); !done || err != nil {
		t.Error("it does not run:", err)
	}
	h.PutUnit("pacemaker.service", host.UnitState{Loaded: true, Active: "active"})
	mode := "false"
	h.Handle("crm_attribute --type crm_config --name maintenance-mode", func(cmd host.Cmd) (host.Output, error) {
		if i := slices.Index(cmd.Args, "--update"); i > 0 {
			mode = cmd.Args[i+1]
		}
		return host.Output{Stdout: []byte(mode + "\n")}, nil
	})
	if done, reason, err := detach.Check(t.Context(), env, nil); done || reason == "" || err != nil {
		t.Error("it runs:", done, reason, err)
	}
	if err := detach.Run(t.Context(), env, nil); err != nil {
		t.Fatal(err)
	}
	if done, _, err := detach.Check(t.Context(), env, nil); !done || err != nil {
		t.Error("it is detached:", done, err)
	}
	h.Answer("crm_attribute --type crm_config --name maintenance-mode", "", 102)
	if done, reason, err := detach.Check(t.Context(), env, nil); done || !strings.Contains(reason, "does not answer") || err != nil {
		t.Error("it does not answer:", done, reason, err)
	}
}
