package galera

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strings"
	"time"

	"nines/internal/model"
	"nines/internal/service"
)

// account is a database user as it should be.
type account struct {
	user, host string
	// hash of the password as MariaDB keeps it; empty: unix_socket for the operating system's user mysql.
	hash string
	// grants as SHOW GRANTS prints them, without "TO ..." and what follows.
	grants []string
}

// sstAccount may read everything that mariabackup copies, and nothing else.
func sstAccount() account {
	return account{user: sstUser, host: "localhost",
		grants: []string{"GRANT RELOAD, PROCESS, LOCK TABLES, BINLOG MONITOR ON *.*"}}
}

// userAccount is the owner of a schema. It comes from the management network only: all
// connections do, HAProxy's too.
func userAccount(c *model.Cluster, name, password string) account {
	return account{user: name, host: clientHost(c), hash: nativeHash(password),
		grants: []string{"GRANT USAGE ON *.*", fmt.Sprintf("GRANT ALL PRIVILEGES ON `%s`.*", name)}}
}

// clientHost is the host part of accounts: the management network as MariaDB writes it, "198.18.0.0/255.255.255.0".
// It knows netmasks for IPv4 only.
func clientHost(c *model.Cluster) string {
	p := c.Networks[model.Management].CIDR.Masked()
	if !p.Addr().Is4() {
		return "%"
	}
	mask := net.CIDRMask(p.Bits(), 32)
	m, _ := netip.AddrFromSlice(mask)
	return p.Addr().String() + "/" + m.String()
}

// nativeHash is what mysql_native_password keeps: "*" and SHA1(SHA1(password)). Passwords
// are 32 random characters and travel over TLS, so the age of the scheme does no harm,
// and every client library knows it.
func nativeHash(password string) string {
	once := sha1.Sum([]byte(password))
	twice := sha1.Sum(once[:])
	return "*" + strings.ToUpper(hex.EncodeToString(twice[:]))
}

// authentication is the clause that follows the user's name.
func (a account) authentication() string {
	if a.hash == "" {
		return "IDENTIFIED VIA unix_socket AS 'mysql'"
	}
	return "IDENTIFIED VIA mysql_native_password USING '" + a.hash + "' REQUIRE SSL"
}

func (a account) quoted() string { return "'" + a.user + "'@'" + a.host + "'" }

// statements make the account what it should be, whatever it was.
func (a account) statements() []string {
	out := []string{
		"CREATE USER IF NOT EXISTS " + a.quoted() + " " + a.authentication(),
		"ALTER USER " + a.quoted() + " " + a.authentication(),
	}
	for _, g := range a.grants {
		out = append(out, g+" TO "+a.quoted())
	}
	return out
}

var grantee = regexp.MustCompile(" TO [`'].*$")

// differs says how the account is not as it should be, or "".
func (a account) differs(ctx context.Context, server localServer) (string, error) {
	rows, err := server.Rows(ctx, "SELECT JSON_VALUE(Priv, '$.plugin'), JSON_VALUE(Priv, '$.authentication_string'), JSON_VALUE(Priv, '$.ssl_type') FROM mysql.global_priv WHERE User = ? AND Host = ?", a.user, a.host)
	if err != nil {
		return "", err
	}
	if len(rows) != 1 || len(rows[0]) != 3 {
		return "user " + a.user + " does not exist", nil
	}
	plugin, secret, ssl := rows[0][0], rows[0][1], rows[0][2]
	switch {
	case a.hash == "" && (plugin != "unix_socket" || secret != "mysql"):
		return "user " + a.user + " does not log in by the socket", nil
	case a.hash != "" && (plugin != "mysql_native_password" || secret != a.hash):
		return "user " + a.user + " has another password", nil
	case a.hash != "" && (ssl == "" || ssl == "0"):
		return "user " + a.user + " may connect without TLS", nil
	}
	have, err := server.Rows(ctx, "SHOW GRANTS FOR "+a.quoted())
	if err != nil {
		return "", err
	}
	held := map[string]bool{}
	for _, r := range have {
		held[grantee.ReplaceAllString(r[0], "")] = true
	}
	for _, g := range a.grants {
		if !held[g] {
			return "user " + a.user + " lacks privileges", nil
		}
	}
	return "", nil
}

func (a account) create(ctx context.Context, server localServer) error {
	for _, st := range a.statements() {
		if err := server.Exec(ctx, st); err != nil {
			return fmt.Errorf("user %s: %w", a.user, err)
		}
	}
	return nil
}

// accountsThere and createAccounts care for the users that members need of each other: the sender of
// state transfers, and the probe, whom a joiner asks which cluster runs.
func (s *Service) accountsThere(ctx context.Context, env service.Env, _ map[string]string) (bool, string, error) {
	wanted, err := memberAccounts(env)
	if err != nil {
		return false, "", err
	}
	return s.allThere(ctx, wanted)
}

func (s *Service) createAccounts(ctx context.Context, env service.Env, _ map[string]string) error {
	wanted, err := memberAccounts(env)
	if err != nil {
		return err
	}
	for _, a := range wanted {
		if err := a.create(ctx, s.server); err != nil {
			return err
		}
	}
	return nil
}

func memberAccounts(env service.Env) ([]account, error) {
	password, err := env.Secrets.Get(ProbeSecret)
	if err != nil {
		return nil, err
	}
	return []account{sstAccount(), userAccount(env.Cluster, ProbeDatabase, password)}, nil
}

// allThere checks accounts. A server that does not answer is "not done".
func (s *Service) allThere(ctx context.Context, wanted []account) (bool, string, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	for _, a := range wanted {
		reason, err := a.differs(ctx, s.server)
		if err != nil {
			return false, "the server does not answer: " + err.Error(), nil
		}
		if reason != "" {
			return false, reason, nil
		}
	}
	return true, "", nil
}

// schemaName is what a schema may be called; it stands unquoted in statements.
var schemaName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,31}$`)

// wantedDatabase reads the arguments of "database": name and secret (the name of the secret).
func wantedDatabase(env service.Env, args map[string]string) (string, account, error) {
	name := args["name"]
	if !schemaName.MatchString(name) {
		return "", account{}, fmt.Errorf("galera: %q is no name for a schema", name)
	}
	password, err := env.Secrets.Get(args["secret"])
	if err != nil {
		return "", account{}, err
	}
	if password == "" {
		return "", account{}, errors.New("galera: the secret " + args["secret"] + " is empty")
	}
	return name, userAccount(env.Cluster, name, password), nil
}

func (s *Service) databaseThere(ctx context.Context, env service.Env, args map[string]string) (bool, string, error) {
	name, owner, err := wantedDatabase(env, args)
	if err != nil {
		return false, "", err
	}
	short, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	rows, err := s.server.Rows(short, "SELECT SCHEMA_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = ?", name)
	if err != nil {
		return false, "the server does not answer: " + err.Error(), nil
	}
	if len(rows) == 0 {
		return false, "schema " + name + " does not exist", nil
	}
	return s.allThere(ctx, []account{owner})
}

func (s *Service) createDatabase(ctx context.Context, env service.Env, args map[string]string) error {
	name, owner, err := wantedDatabase(env, args)
	if err != nil {
		return err
	}
	if err := s.server.Exec(ctx, "CREATE DATABASE IF NOT EXISTS `"+name+"`"); err != nil {
		return fmt.Errorf("schema %s: %w", name, err)
	}
	return owner.create(ctx, s.server)
}
