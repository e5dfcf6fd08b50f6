package openstack

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"nines/internal/host"
	"nines/internal/model"
	"nines/internal/plan"
	"nines/internal/service"
)

// ActionSchema brings a database to the schema of the installed package.
const ActionSchema = "database-schema"

// schemaTimeout bounds a migration: seconds for a new database, longer for a large one.
const schemaTimeout = 10 * time.Minute

// Schema is a database that a tool of the service migrates, mostly Alembic.
type Schema struct {
	Database string
	// Scripts is the folder of the package's migrations. Their heads are what the package wants.
	Scripts string
	// Done, where Alembic is not used, is a query that returns a row when nothing is left to migrate.
	Done string
	// Command migrates. It runs as root, because only the units' processes are in the group
	// that may pass /etc/nines; it can be repeated.
	Command []string

	// Sections are the sections of the service's configuration that name a database which the command uses, and
	// those databases; see OwnMember.
	Sections map[string]string

	revisions func(ctx context.Context, database string) ([]string, error) // tests replace it
	store     tableStore                                                   // likewise
}

func schemaID(name string, n model.Node, database string) plan.ID {
	return plan.Make(name, n.Name, "action", ActionSchema+"-"+database)
}

// Resource is the step, done once for the cluster on a node.
func (s Schema) Resource(name string, n model.Node, after ...plan.ID) plan.Resource {
	return plan.Resource{ID: schemaID(name, n, s.Database), Service: name, Node: n.Name, After: after,
		// Never on half a Galera: every member serves.
		Needs:  []string{service.CapSQL},
		Action: &plan.Action{Name: ActionSchema, Args: map[string]string{"database": s.Database}, Timeout: schemaTimeout}}
}

// SchemaAction checks and migrates one of the schemas, which the args name. secretName is that of the databases' password.
func SchemaAction(all []Schema, secretName string) service.Action {
	find := func(args map[string]string) (Schema, error) {
		for _, s := range all {
			if s.Database == args["database"] {
				return s, nil
			}
		}
		return Schema{}, fmt.Errorf("no schema of a database %q", args["database"])
	}
	return service.Action{
		Check: func(ctx context.Context, env service.Env, args map[string]string) (bool, string, error) {
			s, err := find(args)
			if err != nil {
				return false, "", err
			}
			if done, reason, err := s.check(ctx, env); err != nil || !done {
				return false, reason, err
			}
			return s.founded(ctx)
		},
		Run: func(ctx context.Context, env service.Env, args map[string]string) error {
			s, err := find(args)
			if err != nil {
				return err
			}
			password, err := env.Secrets.Get(secretName)
			if err != nil {
				return err
			}
			return s.run(ctx, env, OwnMember(env, password, s.Sections))
		},
	}
}

// check compares the revisions in the database with those of the installed package, without starting
// Python: the tools themselves take seconds to tell.
func (s Schema) check(ctx context.Context, env service.Env) (bool, string, error) {
	if s.Done != "" {
		return s.checkDone(ctx)
	}
	out, err := env.Host.Run(ctx, host.Cmd{Args: []string{"grep", "-rhE", "--include=*.py", `^(revision|down_revision|depends_on)\b`, s.Scripts}})
	var exit *host.ExitError
	if errors.As(err, &exit) {
		return false, "no migrations in " + s.Scripts + ": the package is not installed", nil
	}
	if err != nil {
		return false, "", fmt.Errorf("read the migrations of %s: %w", s.Database, err)
	}
	want, err := heads(string(out.Stdout))
	if err != nil {
		return false, "", fmt.Errorf("migrations in %s: %w", s.Scripts, err)
	}
	read := s.revisions
	if read == nil {
		read = localRevisions
	}
	have, err := read(ctx, s.Database)
	if err != nil {
		return false, "schema unknown: " + oneLine(err), nil
	}
	for _, revision := range want {
		if !slices.Contains(have, revision) {
			return false, fmt.Sprintf("schema is at %v, the package expects %v", have, want), nil
		}
	}
	return true, "", nil
}

func (s Schema) checkDone(ctx context.Context) (bool, string, error) {
	db, err := OpenLocal(s.Database)
	if err != nil {
		return false, "", err
	}
	defer db.Close()
	rows, err := column(ctx, db, s.Done)
	if err != nil {
		return false, "schema unknown: " + oneLine(err), nil
	}
	return len(rows) > 0, "a migration is missing", nil
}

func (s Schema) run(ctx context.Context, env service.Env, own []string) error {
	if done, _, err := s.check(ctx, env); err == nil && done {
		return s.settle(ctx) // interrupted when all was done
	}
	if err := s.found(ctx); err != nil {
		return err
	}
	if _, err := env.Host.Run(ctx, host.Cmd{Args: s.Command, Env: own}); err != nil {
		return fmt.Errorf("%s (look at its output; does MariaDB on %s serve?): %w", strings.Join(s.Command, " "), env.Node.Name, err)
	}
	return s.settle(ctx)
}

// ErrMigrations says that lines of migrations could not be understood.
var ErrMigrations = errors.New("no chain of Alembic migrations")

var (
	migrationLine = regexp.MustCompile(`^(revision|down_revision|depends_on)(?:\s*:[^=]*)?\s*=\s*(.*)$`)
	quoted        = regexp.MustCompile(`'([^']*)'|"([^"]*)"`)
)

// heads reads the assignments of revision, down_revision and depends_on in all scripts of a folder
// and returns the revisions that no other builds on. Alembic's version table holds these alone: a revision
// that another depends on is implied.
func heads(lines string) ([]string, error) {
	revisions, below := map[string]bool{}, map[string]bool{}
	for line := range strings.Lines(lines) {
		m := migrationLine.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil {
			continue
		}
		for _, q := range quoted.FindAllStringSubmatch(m[2], -1) {
			if m[1] == "revision" {
				revisions[q[1]+q[2]] = true
			} else {
				below[q[1]+q[2]] = true
			}
		}
	}
	var out []string
	for r := range revisions {
		if !below[r] {
			out = append(out, r)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%w: %d revisions, none is the last", ErrMigrations, len(revisions))
	}
	slices.Sort(out)
	return out, nil
}
