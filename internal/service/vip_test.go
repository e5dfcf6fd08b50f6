package service_test

import (
	"net"
	"net/netip"
	"testing"

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
