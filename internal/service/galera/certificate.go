package galera

import (
	"context"
	"database/sql"
	"time"

	"github.com/go-sql-driver/mysql"

	"nines/internal/service"
)

// loadCertificate has the server read certificate and key again. Clients stay connected. The
// provider's group connections are told too: what listens on its port shows the new one at once, and connections
// between members go on. LOCAL: the other members' files are their own matter.
func (s *Service) loadCertificate(ctx context.Context, _ service.Env) error {
	return s.server.Exec(ctx, "FLUSH LOCAL SSL")
}

// shown asks for the server's certificate by a connection of its own: that a kept
// one was opened with says nothing about the present. The local socket speaks TLS too, to whoever wants it.
func shown(ctx context.Context, _ service.Env) ([]byte, error) {
	var der []byte
	cfg := mysql.NewConfig()
	cfg.Net, cfg.Addr, cfg.User = "unix", socketPath, "root"
	cfg.TLS = service.ShowCertificate(&der)
	cfg.Timeout, cfg.ReadTimeout, cfg.WriteTimeout = time.Second, time.Second, time.Second
	cfg.Logger = quiet{}
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(connector)
	defer db.Close()
	return der, db.PingContext(ctx)
}
