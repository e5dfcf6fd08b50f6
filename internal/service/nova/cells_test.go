package nova

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"nines/internal/host/hosttest"
	"nines/internal/openstack"
	"nines/internal/secret"
	"nines/internal/service"
	"nines/internal/service/servicetest"
)

func cellArgs() map[string]string {
	return New().cellsResource(servicetest.Cluster()).Action.Args
}

func testEnv(h *hosttest.Host) service.Env {
	c := servicetest.Cluster()
	return service.Env{Host: h, Cluster: c, Node: c.Controllers()[0], Secrets: secret.Map{openstack.DatabaseSecret(Name): "dbpassword"}}
}

func TestCells(t *testing.T) {
	args := cellArgs()
	zero := mapping{UUID: cell0UUID, Name: "cell0", Transport: cell0Transport, Database: cell0Database}
	one := mapping{UUID: "u1", Name: cell1Name, Transport: args["transport"], Database: cell1Database}
	older, off := one, one
	older.Transport, off.Disabled = transport(1), true
	moved := zero
	moved.Database = "mysql://elsewhere"
	for name, tc := range map[string]struct {
		have []mapping
		err  error
		want []string // subcommands of nova-manage, in order
		fail bool
	}{
		"all mapped":            {have: []mapping{zero, one}},
		"others' cells stay":    {have: []mapping{zero, {UUID: "u2", Name: "cell2"}, one}},
		"none":                  {want: []string{"map_cell0", "create_cell"}},
		"interrupted":           {have: []mapping{zero}, want: []string{"create_cell"}},
		"a controller came":     {have: []mapping{zero, older}, want: []string{"update_cell"}},
		"disabled":              {have: []mapping{zero, off}, want: []string{"update_cell"}},
		"cell0 leads elsewhere": {have: []mapping{moved, one}, want: []string{"update_cell"}},
		"no database":           {err: errors.New("connect: no such file"), fail: true},
	} {
		t.Run(name, func(t *testing.T) {
			h := hosttest.New()
			h.Answer("nova-manage", "", 0)
			env := testEnv(h)
			c := cells{readMappings: func(context.Context) ([]mapping, error) { return tc.have, tc.err }}
			done, reason, err := c.check(t.Context(), env, args)
			if err != nil || done != (tc.want == nil && !tc.fail) || done == (reason != "") {
				t.Errorf("done %v (%s), %v", done, reason, err)
			}
			if err := c.run(t.Context(), env, args); (err != nil) != tc.fail {
				t.Error(err)
			}
			var got []string
			for _, call := range h.Commands() {
				if !slices.ContainsFunc(call.Env, func(v string) bool { return strings.HasPrefix(v, "OS_API_DATABASE__CONNECTION=") }) {
					t.Errorf("%v does not use the node's own member", call.Args)
				}
				got = append(got, call.Args[slices.Index(call.Args, "cell_v2")+1])
				for _, arg := range call.Args {
					if strings.Contains(arg, "://") && !strings.HasPrefix(arg, "{scheme}") && arg != cell0Transport {
						t.Errorf("a URL that is no template: %s", arg)
					}
				}
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("%q, want %q", got, tc.want)
			}
		})
	}
}

func TestTransport(t *testing.T) {
	want := "{scheme}://{username1}:{password1}@{hostname1}:{port1},{username2}:{password2}@{hostname2}:{port2}/{path}"
	if got := transport(2); got != want {
		t.Errorf("%s", got)
	}
}

// A compute that comes late is waited for; one that the schedulers find meanwhile needs nothing.
func TestMapCompute(t *testing.T) {
	for name, tc := range map[string]struct {
		reportsAfter, mappedAfter time.Duration
		exit                      int
		runs, fail                bool
	}{
		"comes late":              {reportsAfter: 10 * time.Second, mappedAfter: time.Hour, runs: true},
		"found by the schedulers": {reportsAfter: time.Hour, mappedAfter: 5 * time.Second},
		"found in the moment":     {reportsAfter: time.Second, mappedAfter: 1200 * time.Millisecond, exit: 1, runs: true},
		"never comes":             {reportsAfter: time.Hour, mappedAfter: time.Hour, fail: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := hosttest.New()
				h.Answer("nova-manage", "", tc.exit)
				start := time.Now()
				c := cells{readHosts: func(_ context.Context, query, host string) (bool, error) {
					if host != "cmp1" {
						t.Errorf("asked for %q", host)
					}
					after := tc.mappedAfter
					if query == queryReported {
						after = tc.reportsAfter
					}
					return time.Since(start) >= after, nil
				}}
				ctx, cancel := context.WithTimeout(t.Context(), computeTimeout)
				defer cancel()
				err := c.mapCompute(ctx, testEnv(h), map[string]string{"host": "cmp1"})
				if (err != nil) != tc.fail || (len(h.Commands()) > 0) != tc.runs {
					t.Errorf("%v, commands %v", err, h.Commands())
				}
			})
		})
	}
}
