package app

import (
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nines/internal/bootstrap"
	"nines/internal/host"
	"nines/internal/host/hosttest"
	"nines/internal/model"
)

func TestOwnUnits(t *testing.T) {
	conf := model.AgentConfig{ClusterName: "test", Node: "ctl1", Address: netip.MustParseAddr("192.0.2.11")}
	units, err := bootstrap.Units(conf)
	if err != nil {
		t.Fatal(err)
	}
	socket, agent := units[0], units[1]
	older := []byte("[Unit]\n")
	cases := map[string]struct {
		have       map[string][]byte
		restarting bool
		calls      []string
	}{
		"as they should be": {map[string][]byte{socket.Path: socket.Content, agent.Path: agent.Content}, false, nil},
		"an older agent": {map[string][]byte{socket.Path: socket.Content, agent.Path: older}, true,
			[]string{"write " + agent.Path, "daemon-reload", "run systemctl --no-block restart nines-agent.service"}},
		"an older socket": {map[string][]byte{socket.Path: older, agent.Path: agent.Content}, true,
			[]string{"write " + socket.Path, "daemon-reload", "run systemctl --no-block restart nines-agent.service nines-health.socket"}},
		"no socket": {map[string][]byte{agent.Path: agent.Content}, true,
			[]string{"write " + socket.Path, "daemon-reload", "run systemctl --no-block restart nines-agent.service nines-health.socket"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			h := hosttest.New()
			for path, content := range c.have {
				h.PutFile(host.File{Path: path, Mode: 0o644, Owner: "root", Group: "root", Content: content})
			}
			h.Answer("systemctl", "", 0)
			restarting, err := ownUnits(t.Context(), conf, h, slog.New(slog.DiscardHandler))
			if err != nil || restarting != c.restarting {
				t.Errorf("restarting %v, %v", restarting, err)
			}
			if diff := cmp.Diff(c.calls, h.Calls()); diff != "" {
				t.Errorf("calls (-want +got):\n%s", diff)
			}
			if again, err := ownUnits(t.Context(), conf, h, slog.New(slog.DiscardHandler)); again || err != nil {
				t.Errorf("the next start: restarting %v, %v", again, err)
			}
		})
	}
	t.Run("no room", func(t *testing.T) {
		h := hosttest.New()
		h.Fail(hosttest.Write, agent.Path, errors.New("no space left on device"))
		restarting, err := ownUnits(t.Context(), conf, h, slog.New(slog.DiscardHandler))
		if restarting || err == nil || !strings.Contains(err.Error(), "no space") {
			t.Errorf("restarting %v, %v", restarting, err)
		}
	})
}
