package keystone

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/go-sql-driver/mysql"
)

// catalogue is what the checks ask of Keystone's database.
type catalogue interface {
	// Revisions returns the migrations the schema is at, one for each branch.
	Revisions(ctx context.Context) ([]string, error)
	// IdentityEndpoints counts the enabled endpoints of the identity service with the region and URL.
	IdentityEndpoints(ctx context.Context, region, url string) (int, error)
	Close() error
}

// localDatabase is the node's own MariaDB, reached as root through its socket.
type localDatabase struct{ db *sql.DB }

func openLocal() (catalogue, error) {
	cfg := mysql.NewConfig()
	cfg.User, cfg.Net, cfg.Addr, cfg.DBName = "root", "unix", "/run/mysqld/mysqld.sock", Name
	cfg.Timeout, cfg.ReadTimeout, cfg.WriteTimeout = time.Second, time.Second, time.Second
	conn, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, fmt.Errorf("local database: %w", err)
	}
	return localDatabase{sql.OpenDB(conn)}, nil
}

func (d localDatabase) Close() error { return d.db.Close() }

func (d localDatabase) Revisions(ctx context.Context) ([]string, error) {
	rows, err := d.db.QueryContext(ctx, "SELECT version_num FROM alembic_version")
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

func (d localDatabase) IdentityEndpoints(ctx context.Context, region, url string) (int, error) {
	const query = `SELECT COUNT(*) FROM endpoint e JOIN service s ON s.id = e.service_id
		WHERE s.type = 'identity' AND e.enabled AND e.region_id = ? AND e.url = ?`
	var n int
	err := d.db.QueryRowContext(ctx, query, region, url).Scan(&n)
	return n, err
}

func withSQL[T any](ctx context.Context, open func() (catalogue, error), ask func(catalogue, context.Context) (T, error)) (T, error) {
	var zero T
	c, err := open()
	if err != nil {
		return zero, err
	}
	defer c.Close()
	return ask(c, ctx)
}
