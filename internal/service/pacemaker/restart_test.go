package pacemaker

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"nines/internal/host"
	"nines/internal/host/hosttest"
)

// restarts is a member of a whole cluster that notes what Pacemaker is told around a restart.
func restarts(t *testing.T) (h *hosttest.Host, told func() string) {
	t.Helper()
	var calls []string
	h = running(t, "crm_mon-whole.xml")
	h.Handle("cibadmin --modify", func(cmd host.Cmd) (host.Output, error) {
		if !strings.Contains(string(cmd.Stdin), `name="maintenance-mode" value="true"`) {
			t.Errorf("told %s", cmd.Stdin)
		}
		calls = append(calls, "detach")
		return host.Output{}, nil
	})
	h.Handle("cibadmin --delete", func(host.Cmd) (host.Output, error) {
		calls = append(calls, "attach")
		return host.Output{}, nil
	})
	return h, func() string { return strings.Join(calls, " ") }
}

// Both daemons are restarted while Pacemaker manages nothing, and it manages everything again afterwards.
func TestRestartDetached(t *testing.T) {
	for unit, run := range map[string]func(*hosttest.Host) error{
		Unit: func(h *hosttest.Host) error {
			return start(t.Context(), testEnv(h), map[string]string{"restart": "true"})
		},
		UnitCorosync: func(h *hosttest.Host) error {
			return startCorosync(t.Context(), testEnv(h), map[string]string{"restart": "true"})
		},
	} {
		h, told := restarts(t)
		before, _ := h.Unit(t.Context(), unit)
		if err := run(h); err != nil || told() != "detach attach" {
			t.Errorf("%s: %v, %q", unit, err, told())
		}
		if after, _ := h.Unit(t.Context(), unit); after.Invocation == before.Invocation {
			t.Errorf("%s was not restarted", unit)
		}
	}
}

// A restart that fails leaves nothing unmanaged, and neither does one whose time is over.
func TestRestartFails(t *testing.T) {
	h, told := restarts(t)
	h.Fail(hosttest.Restart, Unit, errors.New("no"))
	if err := restart(t.Context(), testEnv(h), Unit); err == nil || told() != "detach attach" {
		t.Errorf("%v, %q", err, told())
	}
	h, told = restarts(t)
	ctx, cancel := context.WithCancel(t.Context())
	h.Handle("cibadmin --modify", func(host.Cmd) (host.Output, error) {
		cancel()
		return host.Output{}, nil
	})
	if err := restart(ctx, testEnv(h), Unit); err == nil || told() != "attach" {
		t.Errorf("%v, %q", err, told())
	}
}

// One that takes part in nothing runs nothing that should stay.
func TestRestartOutside(t *testing.T) {
	h, told := restarts(t)
	h.Answer("crm_mon", "", 102)
	if err := restart(t.Context(), testEnv(h), Unit); err != nil || told() != "" {
		t.Errorf("%v, %q", err, told())
	}
}

// It ends by itself.
func TestDetachEnds(t *testing.T) {
	h := hosttest.New()
	var said string
	h.Handle("cibadmin", func(cmd host.Cmd) (host.Output, error) {
		said = string(cmd.Stdin)
		return host.Output{}, nil
	})
	if err := detach(t.Context(), testEnv(h), time.Date(2026, 1, 2, 3, 4, 5, 0, time.FixedZone("", 3600))); err != nil || !strings.Contains(said, `operation="lt" end="2026-01-02 02:05:35Z"`) {
		t.Error(err, said)
	}
	if _, err := parseCIB([]byte("<cib><configuration><crm_config>" + said + "</crm_config></configuration></cib>")); err != nil {
		t.Error(err)
	}
}
