package pacemaker

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"nines/internal/host"
	"nines/internal/host/hosttest"
	"nines/internal/service"
	"nines/internal/service/servicetest"
)

// links is what Corosync says of two links, each with these states of ctl1 and ctl2.
func links(states ...[2]string) string {
	var b strings.Builder
	for i, s := range states {
		fmt.Fprintf(&b, "LINK ID %d udp\n\taddr\t= 198.18.0.13\n\tstatus:\n\t\tnodeid:          1:\t%s\n\t\tnodeid:          2:\t%s\n\t\tnodeid:          3:\tlocalhost\n", i, s[0], s[1])
	}
	return b.String()
}

func TestYield(t *testing.T) {
	const here, gone = "connected", "disconnected"
	for name, tc := range map[string]struct {
		corosync string
		code     int
		on, nft  bool
		fails    bool
	}{
		"Corosync has lost it too":        {links([2]string{here, gone}, [2]string{here, gone}), 0, true, true, false},
		"it answers on the other link":    {links([2]string{here, gone}, [2]string{here, here}), 0, true, false, false},
		"Corosync hears it":               {links([2]string{here, here}, [2]string{here, here}), 0, true, false, false},
		"Corosync hears nobody":           {links([2]string{gone, gone}, [2]string{gone, gone}), 0, true, false, false},
		"each has lost one of the links":  {links([2]string{gone, here}, [2]string{here, gone}), 0, true, false, false},
		"Corosync does not answer":        {"", 1, true, false, true},
		"no longer, wherever Corosync is": {"", 1, false, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			h := hosttest.New()
			h.PutUnit(UnitCorosync, host.UnitState{Loaded: true, Active: "active"})
			h.Answer("corosync-cfgtool -s", tc.corosync, tc.code)
			var stdin string
			h.Handle("nft -f -", func(c host.Cmd) (host.Output, error) {
				stdin = string(c.Stdin)
				return host.Output{}, nil
			})
			c := servicetest.Cluster()
			err := (&Service{}).Yield(t.Context(), service.Env{Host: h, Cluster: c, Node: c.Nodes[2]}, tc.on)
			if (err != nil) != tc.fails || (stdin != "") != tc.nft {
				t.Fatalf("%v; nft was told %q", err, stdin)
			}
			if tc.nft && strings.Contains(stdin, "5406 timeout 15s") != tc.on {
				t.Errorf("nft was told %q", stdin)
			}
		})
	}
}

func TestYieldBeforeCorosyncRuns(t *testing.T) {
	h := hosttest.New()
	h.PutUnit(UnitCorosync, host.UnitState{Loaded: true, Active: "inactive"})
	c := servicetest.Cluster()
	if err := (&Service{}).Yield(t.Context(), service.Env{Host: h, Cluster: c, Node: c.Nodes[2]}, true); err != nil || len(h.Calls()) > 0 {
		t.Errorf("%v, ran %v", err, h.Calls())
	}
}

// TestQuiet has nft itself read the rules.
func TestQuiet(t *testing.T) {
	alone := []string{"--net"}
	if os.Geteuid() != 0 { // root of a user namespace may do the same there
		alone = append(alone, "--user", "--map-root-user")
	}
	for _, on := range []bool{true, false} {
		cmd := exec.CommandContext(t.Context(), "unshare", append(alone, "--", "nft", "-f", "-")...)
		cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
		cmd.Stdin = strings.NewReader(quiet(on) + quiet(on)) // once more, as when an agent starts
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v: %s\n%s", on, out, quiet(on))
		}
	}
}

func TestYieldSaysWhyNot(t *testing.T) {
	h := hosttest.New()
	h.Handle("nft -f -", func(host.Cmd) (host.Output, error) { return host.Output{}, errors.New("no such program") })
	c := servicetest.Cluster()
	if err := (&Service{}).Yield(t.Context(), service.Env{Host: h, Cluster: c, Node: c.Nodes[2]}, false); err == nil || !strings.Contains(err.Error(), "ring") {
		t.Errorf("%v", err)
	}
}
