package openstack

import (
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"nines/internal/model"
	"nines/internal/service"
)

// Database is what the template "database" needs.
type Database struct {
	URL  string // of SQLAlchemy, with the password
	Pool int    // connections of a process
}

// readTimeout bounds the wait for an answer to a statement, where no other time is given.
const readTimeout = 10 * time.Second

// NewDatabase describes the database of that name, whose user has the same name, for processes
// with that many threads.
func NewDatabase(c *model.Cluster, name, password string, threads int) Database {
	return Database{URL: databaseURL(c.VIP.Address.Addr(), name, password, readTimeout), Pool: pool(threads)}
}

func databaseURL(server netip.Addr, name, password string, read time.Duration) string {
	q := fmt.Sprintf("charset=utf8mb4&connect_timeout=3&read_timeout=%d&write_timeout=10&ssl_ca=%s&ssl_check_hostname=true", int(read.Seconds()), model.PathCA)
	u := url.URL{Scheme: "mysql+pymysql", User: url.UserPassword(name, password),
		Host: HostPort(server, model.PortMariaDB), Path: "/" + name, RawQuery: q}
	return literal(u.String())
}

// OwnMember is the environment in which a tool of a service uses the database's member on its own node, in place of the one
// behind the VIP: what takes minutes must not be cut off when the VIP, or the writer, moves. Statements may take as long
// as a migration may: what changes a large table takes longer than any request. sections
// maps the sections of the configuration that name a database to those databases.
func OwnMember(env service.Env, password string, sections map[string]string) []string {
	own := env.Node.Address()
	// What has no such section reads this.
	out := []string{"NINES_DATABASE_HOST=" + own.String()}
	for _, section := range slices.Sorted(maps.Keys(sections)) {
		out = append(out, "OS_"+strings.ToUpper(section)+"__CONNECTION="+databaseURL(own, sections[section], password, schemaTimeout))
	}
	return out
}

// Cache is what the template "cache" needs.
type Cache struct {
	Servers string // all memcached, ADDRESS:PORT with commas between them
	Pool    int    // connections of a process to each
}

// NewCache describes the cache for processes with that many threads.
func NewCache(c *model.Cluster, threads int) Cache {
	return Cache{Servers: model.JoinAddresses(c.Controllers(), strconv.Itoa(model.PortMemcached), ","), Pool: pool(threads)}
}

// Login is a service's user in Keystone. It is what the templates "login" (a section of a client),
// "service_user" and "keystone_authtoken" need.
type Login struct {
	URL      string // of Keystone
	User     string
	Password string
	Project  string
	Region   string
	CA       string
	Cache
}

// NewLogin describes the login of a user of the services' project.
func NewLogin(c *model.Cluster, user, password string, threads int) Login {
	return Login{URL: IdentityURL(c), User: user, Password: literal(password), Project: Project,
		Region: Region, CA: model.PathCA, Cache: NewCache(c, threads)}
}

// Messaging is what the template "oslo_messaging_rabbit" needs.
type Messaging struct {
	// Transport is the value of transport_url: every member of the broker, with the password.
	Transport string
	CA        string
}

// NewMessaging describes the broker for a user with its password. Its members are named by their
// addresses, which are in their certificates: no name needs to be looked up to reconnect.
func NewMessaging(c *model.Cluster, user, password string) Messaging {
	var hosts []string
	for _, n := range c.Controllers() {
		hosts = append(hosts, url.UserPassword(user, password).String()+"@"+HostPort(n.Address(), model.PortAMQP))
	}
	return Messaging{Transport: literal("rabbit://" + strings.Join(hosts, ",") + "/"), CA: model.PathCA}
}
