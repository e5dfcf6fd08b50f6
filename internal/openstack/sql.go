package openstack

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/go-sql-driver/mysql"
)

// OpenLocal opens a database of the node's own MariaDB, as root through its socket. Checks read there: it takes
// milliseconds, where the tools of OpenStack take seconds to start.
func OpenLocal(database string) (*sql.DB, error) { return openLocal(database, time.Second) }

func openLocal(database string, timeout time.Duration) (*sql.DB, error) {
	cfg := mysql.NewConfig()
	cfg.User, cfg.Net, cfg.Addr, cfg.DBName = "root", "unix", "/run/mysqld/mysqld.sock", database
	cfg.Timeout, cfg.ReadTimeout, cfg.WriteTimeout = time.Second, timeout, timeout
	conn, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, fmt.Errorf("local database: %w", err)
	}
	return sql.OpenDB(conn), nil
}

// Revisions returns the migrations a database is at, one for each branch.
func Revisions(ctx context.Context, db *sql.DB) ([]string, error) {
	return column(ctx, db, "SELECT version_num FROM alembic_version")
}

func column(ctx context.Context, db *sql.DB, query string, args ...any) ([]string, error) {
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []string
	for rows.Next() {
		var v string
		if err := rows.Scan(&v); err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, rows.Err()
}

// localRevisions is Revisions of a database on this node.
func localRevisions(ctx context.Context, database string) ([]string, error) {
	db, err := OpenLocal(database)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	return Revisions(ctx, db)
}

// registered is what the catalogue says of a service.
type registered struct {
	endpoints []string // "INTERFACE URL" of those of the region that are enabled, sorted
	roles     []string // of the user in the services' project
}

// localCatalogue reads Keystone's tables on this node.
func localCatalogue(ctx context.Context, w Registration) (registered, error) {
	db, err := OpenLocal(identityDatabase)
	if err != nil {
		return registered{}, err
	}
	defer db.Close()
	var r registered
	if r.endpoints, err = column(ctx, db, `SELECT CONCAT(e.interface, ' ', e.url) AS address FROM endpoint e JOIN service s ON s.id = e.service_id
		WHERE s.type = ? AND s.enabled AND e.enabled AND e.region_id = ? ORDER BY address`, w.Type, Region); err != nil {
		return registered{}, err
	}
	r.roles, err = column(ctx, db, `SELECT r.name FROM assignment a JOIN role r ON r.id = a.role_id
		JOIN local_user u ON u.user_id = a.actor_id JOIN project p ON p.id = a.target_id
		WHERE a.type = 'UserProject' AND u.name = ? AND u.domain_id = 'default' AND p.name = ? AND p.domain_id = 'default'
		ORDER BY r.name`, w.User, Project)
	return r, err
}
