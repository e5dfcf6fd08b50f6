package openstack

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A first migration that is interrupted leaves tables and no word of how far it came (MariaDB cannot take DDL back), and no tool can
// go on from there. So an empty database is marked before its first migration, and the mark is taken away after it.
// Where it stands, nobody has stored anything yet: the daemons wait for the migration. The tables are
// dropped and it begins anew. A database without the mark is never emptied.

// foundingMark is the table that marks a database whose first migration has not ended.
const foundingMark = "nines_first_migration"

// foundingTimeout bounds a statement: each waits for all members of the database.
const foundingTimeout = 30 * time.Second

// tableStore is what founding does to a database. Tests replace it.
type tableStore interface {
	tables(ctx context.Context, database string) ([]string, error)
	exec(ctx context.Context, database string, statements ...string) error
}

// founded: no first migration is under way or was interrupted.
func (s Schema) founded(ctx context.Context) (bool, string, error) {
	names, err := s.place().tables(ctx, s.Database)
	if err != nil {
		return false, "schema unknown: " + oneLine(err), nil
	}
	if slices.Contains(names, foundingMark) {
		return false, "the first migration was interrupted", nil
	}
	return true, "", nil
}

// found marks an empty database; one that an interrupted first migration left is emptied.
func (s Schema) found(ctx context.Context) error {
	names, err := s.place().tables(ctx, s.Database)
	if err != nil {
		return fmt.Errorf("tables of %s: %w", s.Database, err)
	}
	marked := slices.Contains(names, foundingMark)
	switch {
	case len(names) == 0:
		err = s.place().exec(ctx, s.Database, "CREATE TABLE "+foundingMark+" (id INT PRIMARY KEY)")
	case marked && len(names) > 1:
		// In one session, the mark last: interrupted here, it goes on the next time.
		statements := []string{"SET SESSION foreign_key_checks = 0"}
		for _, t := range names {
			if t != foundingMark {
				statements = append(statements, "DROP TABLE IF EXISTS "+identifier(t))
			}
		}
		err = s.place().exec(ctx, s.Database, statements...)
	}
	if err != nil {
		return fmt.Errorf("prepare the first migration of %s: %w", s.Database, err)
	}
	return nil
}

// settle takes the mark away.
func (s Schema) settle(ctx context.Context) error {
	if err := s.place().exec(ctx, s.Database, "DROP TABLE IF EXISTS "+foundingMark); err != nil {
		return fmt.Errorf("end the first migration of %s: %w", s.Database, err)
	}
	return nil
}

func (s Schema) place() tableStore {
	if s.store == nil {
		return localTables{}
	}
	return s.store
}

func identifier(name string) string { return "`" + strings.ReplaceAll(name, "`", "``") + "`" }

// localTables are those of the node's own MariaDB.
type localTables struct{}

func (localTables) tables(ctx context.Context, database string) ([]string, error) {
	db, err := openLocal(database, foundingTimeout)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	return column(ctx, db, "SELECT table_name FROM information_schema.tables WHERE table_schema = ? ORDER BY table_name", database)
}

func (localTables) exec(ctx context.Context, database string, statements ...string) error {
	db, err := openLocal(database, foundingTimeout)
	if err != nil {
		return err
	}
	defer db.Close()
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	for _, q := range statements {
		if _, err := conn.ExecContext(ctx, q); err != nil {
			return fmt.Errorf("%s: %w", q, err)
		}
	}
	return nil
}
