package galera

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/go-sql-driver/mysql"

	"nines/internal/model"
	"nines/internal/service"
)

// localServer is what this package asks of the server on its own node.
type localServer interface {
	// Status returns the wsrep_* status variables.
	Status(ctx context.Context) (status, error)
	// Rows runs a query and returns its rows as text, NULL as "".
	Rows(ctx context.Context, query string, args ...any) ([][]string, error)
	// Exec runs a statement.
	Exec(ctx context.Context, statement string) error
}

// socket is the server behind the local socket, as root by unix_socket
// authentication: no password. It keeps few connections open for the life of the process.
type socket struct{ db *sql.DB }

func openLocal() localServer {
	cfg := mysql.NewConfig()
	cfg.Net, cfg.Addr, cfg.User = "unix", socketPath, "root"
	// A frozen server accepts connections and says nothing.
	cfg.Timeout, cfg.ReadTimeout, cfg.WriteTimeout = time.Second, 30*time.Second, 5*time.Second
	cfg.InterpolateParams = true
	cfg.Logger = quiet{}
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		panic("galera: " + err.Error()) // constant configuration: cannot happen
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(4)
	db.SetMaxIdleConns(1)
	return socket{db: db}
}

// quiet drops the driver's own log lines: every failure is returned as an error too.
type quiet struct{}

func (quiet) Print(...any) {}

func (s socket) Status(ctx context.Context) (status, error) { return readStatus(ctx, s.db) }

func readStatus(ctx context.Context, db *sql.DB) (status, error) {
	rows, err := query(ctx, db, "SHOW GLOBAL STATUS LIKE 'wsrep\\_%'")
	if err != nil {
		return nil, err
	}
	st := make(status, len(rows))
	for _, r := range rows {
		if len(r) == 2 {
			st[strings.ToLower(r[0])] = r[1]
		}
	}
	return st, nil
}

func (s socket) Rows(ctx context.Context, q string, args ...any) ([][]string, error) {
	return query(ctx, s.db, q, args...)
}

func query(ctx context.Context, db *sql.DB, q string, args ...any) ([][]string, error) {
	rows, err := db.QueryContext(ctx, q, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return nil, err
	}
	var out [][]string
	for rows.Next() {
		values := make([]sql.NullString, len(columns))
		targets := make([]any, len(columns))
		for i := range values {
			targets[i] = &values[i]
		}
		if err := rows.Scan(targets...); err != nil {
			return nil, err
		}
		row := make([]string, len(columns))
		for i, v := range values {
			row[i] = v.String
		}
		out = append(out, row)
	}
	return out, rows.Err()
}

func (s socket) Exec(ctx context.Context, statement string) error {
	_, err := s.db.ExecContext(ctx, statement)
	return err
}

// status holds the wsrep_* status variables by lower-case name.
type status map[string]string

func (st status) number(name string) int {
	n, err := strconv.Atoi(st[name])
	if err != nil {
		return -1
	}
	return n
}

func (st status) primary() bool { return st["wsrep_cluster_status"] == "Primary" }

// left reports whether the server has left its cluster and does not go back, as after a state transfer that failed ("node restart required" in
// its log): Galera runs, and its connection to the group is closed.
func (st status) left() bool {
	_, connected := st["wsrep_gcomm_uuid"]
	return st["wsrep_provider_name"] == "Galera" && !st.primary() && !connected
}

func (st status) size() int { return st.number("wsrep_cluster_size") }

// The values of wsrep_local_state that matter here.
const (
	stateDonor  = 2
	stateSynced = 4
)

// serves reports whether the member may be given work. A donor may: mariabackup does not
// block it.
func (st status) serves() bool {
	state := st.number("wsrep_local_state")
	return st.primary() && st["wsrep_ready"] == "ON" && (state == stateSynced || state == stateDonor)
}

// reach says what a look at another member's group port told.
type reach int

const (
	unclear reach = iota // no answer: machine off, network cut, packet filter
	stopped              // the machine refused: nothing listens
	running              // something listens
)

// peers reaches the other members.
type peers interface {
	// Look tells whether a server runs there.
	Look(ctx context.Context, a netip.Addr) reach
	// AnswersSQL tells whether a server serves clients there, well or not: one that
	// still receives its first state does not.
	AnswersSQL(ctx context.Context, a netip.Addr) bool
	// ClusterUUID asks a running member which cluster it belongs to; errNonPrimary if it says that it has none.
	ClusterUUID(ctx context.Context, env service.Env, n model.Node) (string, error)
	// Detector asks a running member how it does and what its failure detector is set to.
	Detector(ctx context.Context, env service.Env, n model.Node) (status, detector, error)
}

// errNonPrimary: the member answers, and has no Primary.
var errNonPrimary = errors.New("the member is not in a Primary")

type network struct{}

// Look opens and closes a connection to the group port. The SQL port would count as a broken client.
func (network) Look(ctx context.Context, a netip.Addr) reach { return knock(ctx, a, model.PortGalera) }

func (network) AnswersSQL(ctx context.Context, a netip.Addr) bool {
	return knock(ctx, a, model.PortMariaDB) != stopped
}

func knock(ctx context.Context, a netip.Addr, port int) reach {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", hostPort(a, port))
	switch {
	case err == nil:
		conn.Close()
		return running
	case errors.Is(err, syscall.ECONNREFUSED):
		return stopped
	}
	return unclear
}

func (network) ClusterUUID(ctx context.Context, env service.Env, n model.Node) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	db, err := openMember(env, n)
	if err != nil {
		return "", err
	}
	defer db.Close()
	st, err := readStatus(ctx, db)
	if err != nil {
		return "", err
	}
	if uuid := st["wsrep_cluster_state_uuid"]; uuid != "" && st.primary() {
		return strings.ToLower(uuid), nil
	}
	return "", fmt.Errorf("%w: it is %s", errNonPrimary, st["wsrep_cluster_status"])
}

func (network) Detector(ctx context.Context, env service.Env, n model.Node) (status, detector, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	db, err := openMember(env, n)
	if err != nil {
		return nil, nil, err
	}
	defer db.Close()
	st, err := readStatus(ctx, db)
	if err != nil {
		return nil, nil, err
	}
	rows, err := query(ctx, db, detectorQuery)
	if err != nil {
		return nil, nil, err
	}
	d, err := parseDetector(rows)
	return st, d, err
}

// openMember prepares a connection to another member as the probe's user; the caller closes it.
func openMember(env service.Env, n model.Node) (*sql.DB, error) {
	password, err := env.Secrets.Get(ProbeSecret)
	if err != nil {
		return nil, err
	}
	ca, err := env.Host.ReadFile(model.PathCA)
	if err != nil {
		return nil, fmt.Errorf("read the cluster's CA: %w", err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca.Content)
	cfg := mysql.NewConfig()
	cfg.Net, cfg.Addr = "tcp", hostPort(n.Address(), model.PortMariaDB)
	cfg.User, cfg.Passwd = ProbeDatabase, password
	cfg.TLS = &tls.Config{RootCAs: pool, ServerName: n.Address().String(), MinVersion: tls.VersionTLS12}
	cfg.Timeout, cfg.ReadTimeout = 5*time.Second, 5*time.Second
	cfg.Logger = quiet{}
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, err
	}
	return sql.OpenDB(connector), nil
}
