package keystone

import (
	"context"
	"database/sql"

	"nines/internal/openstack"
)

// catalogue is what the checks ask of Keystone's database.
type catalogue interface {
	// IdentityEndpoints counts the enabled endpoints of the identity service with the region and URL; users have one of their own.
	IdentityEndpoints(ctx context.Context, region, url, public string) (int, error)
	Close() error
}

// localDatabase is the node's own MariaDB, reached as root through its socket.
type localDatabase struct{ db *sql.DB }

func openLocal() (catalogue, error) {
	db, err := openstack.OpenLocal(Name)
	if err != nil {
		return nil, err
	}
	return localDatabase{db}, nil
}

func (d localDatabase) Close() error { return d.db.Close() }

func (d localDatabase) IdentityEndpoints(ctx context.Context, region, url, public string) (int, error) {
	const query = `SELECT COUNT(*) FROM endpoint e JOIN service s ON s.id = e.service_id
		WHERE s.type = 'identity' AND e.enabled AND e.region_id = ? AND e.url = IF(e.interface = 'public', ?, ?)`
	var n int
	err := d.db.QueryRowContext(ctx, query, region, public, url).Scan(&n)
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
