package drill

import (
	"context"
	"crypto/tls"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/go-sql-driver/mysql"
)

// rows writes numbered rows through the VIP, over long-lived connections and over new ones.
type rows struct {
	conf  rowsConfig
	kept  *sql.DB // long-lived connections
	fresh *sql.DB // one connection for each write
	open  func(address string) (driver.Connector, error)
}

type rowsConfig struct {
	address, password, run string
	tls                    *tls.Config
}

const (
	createLedger = `CREATE TABLE IF NOT EXISTS ledger (run VARCHAR(100) NOT NULL, n BIGINT NOT NULL, PRIMARY KEY (run, n)) ENGINE=InnoDB`
	writeTimeout = 2 * time.Second
)

func (c rowsConfig) connector(address string) (driver.Connector, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	m := mysql.NewConfig()
	m.User, m.Passwd, m.DBName, m.Net, m.Addr = probeUser, c.password, probeDatabase, "tcp", address
	m.TLS = c.tls.Clone()
	m.TLS.ServerName = host
	m.Timeout, m.ReadTimeout, m.WriteTimeout = writeTimeout, writeTimeout, writeTimeout
	m.InterpolateParams = true // one round trip, and nothing prepared that a new connection lacks
	m.Logger = &mysql.NopLogger{}
	return mysql.NewConnector(m)
}

func openRows(ctx context.Context, conf rowsConfig) (*rows, error) {
	r := &rows{conf: conf, open: conf.connector}
	conn, err := r.open(conf.address)
	if err != nil {
		return nil, fmt.Errorf("database probe: %w", err)
	}
	r.kept, r.fresh = sql.OpenDB(conn), sql.OpenDB(conn)
	r.kept.SetMaxIdleConns(4)
	r.kept.SetMaxOpenConns(60) // a stall must not use up the server's connections
	r.fresh.SetMaxIdleConns(-1)
	r.fresh.SetMaxOpenConns(30)
	if _, err := r.kept.ExecContext(ctx, createLedger); err != nil {
		r.shut()
		return nil, fmt.Errorf("prepare the database probe at %s: %w", conf.address, err)
	}
	return r, nil
}

// probes returns both probes. Their rows have even and odd numbers.
func (r *rows) probes(l *Ledger) []Probe {
	send := func(db *sql.DB, odd int) func(context.Context, int) error {
		return func(ctx context.Context, n int) error { return r.write(ctx, db, 2*n+odd, l) }
	}
	return []Probe{
		{Name: ProbeWrite, Every: time.Second / 20, Timeout: writeTimeout, Late: time.Second / 2, Send: send(r.kept, 0)},
		{Name: ProbeConnect, Every: time.Second / 5, Timeout: writeTimeout, Late: time.Second / 2, Send: send(r.fresh, 1)},
	}
}

func (r *rows) write(ctx context.Context, db *sql.DB, n int, l *Ledger) error {
	_, err := db.ExecContext(ctx, "INSERT INTO ledger (run, n) VALUES (?, ?)", r.conf.run, n)
	if err != nil {
		return plain(err)
	}
	l.Ack(KindRow, n)
	return nil
}

// writer asks through the VIP which node answers.
func (r *rows) writer(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	var name string
	// Over a new connection: a long-lived one may still lead to a former writer.
	err := r.fresh.QueryRowContext(ctx, "SELECT COALESCE(NULLIF(@@wsrep_node_name, ''), @@hostname)").Scan(&name)
	return name, err
}

// on returns the rows of this run that one member has, once it has applied all that the cluster committed.
func (r *rows) on(ctx context.Context, address string) (map[int]int, error) {
	connector, err := r.open(address)
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(connector)
	defer db.Close()
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if _, err := conn.ExecContext(ctx, "SET SESSION wsrep_sync_wait = 1"); err != nil {
		return nil, err
	}
	rs, err := conn.QueryContext(ctx, "SELECT n FROM ledger WHERE run = ?", r.conf.run)
	if err != nil {
		return nil, err
	}
	defer rs.Close()
	have := map[int]int{}
	for rs.Next() {
		var n int
		if err := rs.Scan(&n); err != nil {
			return nil, err
		}
		have[n]++
	}
	return have, rs.Err()
}

func (r *rows) shut() error { return errors.Join(r.kept.Close(), r.fresh.Close()) }

// close removes the rows of this run.
func (r *rows) close(ctx context.Context) error {
	_, err := r.fresh.ExecContext(ctx, "DELETE FROM ledger WHERE run = ?", r.conf.run)
	return errors.Join(err, r.shut())
}
