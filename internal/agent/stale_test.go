package agent

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"nines/internal/model"
)

func TestStandingAsideIsSaid(t *testing.T) {
	s := newAside()
	if _, _, ok := s.now(); ok || len(s.conditions(cluster())) > 0 {
		t.Error("it is said, and does not")
	}
	s.set(netip.MustParseAddr("198.18.0.11"))
	s.set(netip.MustParseAddr("198.18.0.11")) // nobody has listened yet: it must not wait
	select {
	case <-s.changed:
	default:
		t.Error("the guard of the VIP is not told")
	}
	if got := s.conditions(cluster()); len(got) != 1 || !strings.Contains(got[0].Text, "ctl1") {
		t.Errorf("%+v, want one that names ctl1", got)
	}
	_, since, _ := s.now()
	s.set(netip.MustParseAddr("198.18.0.11"))
	select {
	case <-s.changed:
		t.Error("told what is known")
	default:
	}
	if _, again, _ := s.now(); !again.Equal(since) {
		t.Error("it seems to have begun anew")
	}
	s.set(netip.Addr{})
	if _, _, ok := s.now(); ok {
		t.Error("it is over, and still said")
	}
}

func TestHeardOfWhomNobodyHeard(t *testing.T) {
	a := &Agent{}
	for query, want := range map[string]string{"about=198.18.0.12": "never answered", "about=ctl1": "unable to parse"} {
		err := a.getHeard(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/?"+query, nil))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", query, err, want)
		}
	}
}

// With another engine this node might be the one that it leaves the VIP to.
func TestNobodyAsksWithAnotherEngine(t *testing.T) {
	a := &Agent{}
	c := cluster()
	c.VIP.Engine = model.EnginePacemaker
	a.spec.Store(c)
	if _, err := a.askThird(t.Context(), netip.Addr{}, netip.Addr{}); err == nil {
		t.Error("a third was asked")
	}
}
