package openstack

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"nines/internal/host/hosttest"
	"nines/internal/secret"
	"nines/internal/service"
	"nines/internal/service/servicetest"
)

func testEnv() (service.Env, *hosttest.Host) {
	h, c := hosttest.New(), servicetest.Cluster()
	return service.Env{Host: h, Cluster: c, Node: c.Nodes[0], Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Secrets: secret.Map{SecretAdmin: "adminpassword", "x/user": "userpassword", "x/database": "dbpassword"}}, h
}

const (
	oneBranch = "revision = 'b'\ndown_revision = 'a'\ndepends_on = None\nrevision = 'a'\ndown_revision = None\n"
	// Two branches; the second's last revision builds on the first's.
	twoBranches = `revision = "contract2"
down_revision = "contract1"
depends_on = "expand2"
revision: str = 'expand2'
down_revision: Union[str, None] = 'expand1'
revision = 'expand1'
revision = 'contract1'
down_revision = None
depends_on = ('expand1',)
`
)

func TestHeads(t *testing.T) {
	for name, tc := range map[string]struct {
		lines string
		want  []string
	}{
		"one branch":            {oneBranch, []string{"b"}},
		"implied by another":    {twoBranches, []string{"contract2"}},
		"independent":           {"revision = 'x'\nrevision = 'y'\n", []string{"x", "y"}},
		"merged":                {"revision = 'm'\ndown_revision = ('x', 'y')\nrevision = 'x'\nrevision = 'y'\n", []string{"m"}},
		"other words":           {oneBranch + "revision_of_something = 'z'\n# revision = 'q'\n", []string{"b"}},
		"none":                  {"", nil},
		"a circle has no start": {"revision = 'a'\ndown_revision = 'b'\nrevision = 'b'\ndown_revision = 'a'\n", nil},
	} {
		got, err := heads(tc.lines)
		if !slices.Equal(got, tc.want) || (err == nil) != (tc.want != nil) {
			t.Errorf("%s: %v, %v, want %v", name, got, err, tc.want)
		}
	}
}

func FuzzHeads(f *testing.F) {
	f.Add(oneBranch)
	f.Add(twoBranches)
	f.Fuzz(func(t *testing.T, lines string) {
		got, err := heads(lines)
		if (err == nil) != (len(got) > 0) || err != nil && !errors.Is(err, ErrMigrations) {
			t.Errorf("%v, %v", got, err)
		}
		for _, r := range got {
			if !strings.Contains(lines, r) {
				t.Errorf("%q is not in the scripts", r)
			}
		}
	})
}

func TestSchema(t *testing.T) {
	for name, tc := range map[string]struct {
		scripts string
		exit    int
		have    []string
		err     error
		done    bool
	}{
		"current":       {oneBranch, 0, []string{"b"}, nil, true},
		"older":         {oneBranch, 0, []string{"a"}, nil, false},
		"new":           {oneBranch, 0, nil, nil, false},
		"down":          {oneBranch, 0, nil, errors.New("connect: no such file"), false},
		"not installed": {"", 2, []string{"b"}, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			env, h := testEnv()
			h.Answer("grep", tc.scripts, tc.exit)
			h.Answer("x-manage db sync", "", 0)
			s := Schema{Database: "x", Scripts: "/usr/lib/x/versions", Command: []string{"x-manage", "db", "sync"},
				store: &memoryTables{}, Sections: map[string]string{"database": "x"}, revisions: func(context.Context, string) ([]string, error) { return tc.have, tc.err }}
			done, reason, err := SchemaAction([]Schema{s}, "x/database").Check(t.Context(), env, map[string]string{"database": "x"})
			if err != nil || done != tc.done || done == (reason != "") {
				t.Errorf("done %v (%s), %v", done, reason, err)
			}
			if err := SchemaAction([]Schema{s}, "x/database").Run(t.Context(), env, map[string]string{"database": "x"}); err != nil {
				t.Error(err)
			}
		})
	}
}
