package openstack

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"nines/internal/host"
)

// memoryTables is a database of names.
type memoryTables struct{ names []string }

func (m *memoryTables) tables(context.Context, string) ([]string, error) {
	return slices.Clone(m.names), nil
}

func (m *memoryTables) exec(_ context.Context, _ string, statements ...string) error {
	for _, q := range statements {
		words := strings.Fields(q)
		name := strings.Trim(words[min(len(words)-1, 4)], "`")
		switch words[0] {
		case "CREATE":
			m.names = append(m.names, words[2])
		case "DROP":
			m.names = slices.DeleteFunc(m.names, func(n string) bool { return n == name })
		}
	}
	return nil
}

// The first migration may be interrupted anywhere; what has been stored since is never dropped.
func TestInterruptedFirstMigration(t *testing.T) {
	for name, tc := range map[string]struct {
		tables  []string
		current bool // the revisions are those of the package
		fails   bool // the tool
		want    []string
	}{
		"empty":                     {nil, false, false, []string{"made"}},
		"empty, interrupted":        {nil, false, true, []string{foundingMark, "half"}},
		"interrupted before":        {[]string{foundingMark, "half"}, false, false, []string{"made"}},
		"interrupted right at once": {[]string{foundingMark}, false, false, []string{"made"}},
		"interrupted at the end":    {[]string{foundingMark, "made"}, true, false, []string{"made"}},
		"an upgrade":                {[]string{"data"}, false, false, []string{"data", "made"}},
		"an upgrade, interrupted":   {[]string{"data"}, false, true, []string{"data", "half"}},
	} {
		t.Run(name, func(t *testing.T) {
			env, h := testEnv()
			store := &memoryTables{names: slices.Clone(tc.tables)}
			h.Answer("grep", oneBranch, 0)
			h.Handle("x-manage", func(c host.Cmd) (host.Output, error) {
				own := env.Node.Address().String()
				if len(c.Env) != 2 || c.Env[0] != "NINES_DATABASE_HOST="+own || !strings.HasPrefix(c.Env[1], "OS_DATABASE__CONNECTION=mysql+pymysql://x:dbpassword@"+own+":") || !strings.Contains(c.Env[1], "read_timeout=600") {
					t.Errorf("environment %q", c.Env)
				}
				if tc.fails {
					store.names = append(store.names, "half")
					return host.Output{}, &host.ExitError{Args: c.Args, Code: 1}
				}
				store.names = append(store.names, "made")
				return host.Output{}, nil
			})
			s := Schema{Database: "x", Sections: map[string]string{"database": "x"}, Scripts: "/usr/lib/x/versions", Command: []string{"x-manage"}, store: store,
				revisions: func(context.Context, string) ([]string, error) {
					if tc.current || slices.Contains(store.names, "made") {
						return []string{"b"}, nil
					}
					return nil, nil
				}}
			action, args := SchemaAction([]Schema{s}, "x/database"), map[string]string{"database": "x"}
			if done, _, err := action.Check(t.Context(), env, args); done || err != nil {
				t.Errorf("done before: %v, %v", done, err)
			}
			err := action.Run(t.Context(), env, args)
			var exit *host.ExitError
			if errors.As(err, &exit) != tc.fails || !slices.Equal(store.names, tc.want) {
				t.Errorf("%v, %v, want %v", err, store.names, tc.want)
			}
			if done, _, err := action.Check(t.Context(), env, args); done == tc.fails || err != nil {
				t.Errorf("done after: %v, %v", done, err)
			}
		})
	}
}
