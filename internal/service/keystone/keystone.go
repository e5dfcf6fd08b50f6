// Package keystone is everything nines knows of OpenStack's identity service:
// its configuration under uWSGI, its database schema and first user, its Fernet
// keys and their rotation, its observation and its faults.
//
// Invariants: the key repositories of all controllers are equal except while one
// rotation is being handed out, and never differ by more than one rotation;
// Keystone listens on the node's management address only, with TLS. The package
// must never start the database or the broker, and never write a key anywhere
// but into a key repository.
package keystone

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"sync"
	"text/template"
	"time"

	"nines/internal/model"
	"nines/internal/plan"
	"nines/internal/secret"
	"nines/internal/service"
)

// Name of the service.
const Name = "keystone"

// Region is the one region of the catalogue.
const Region = "RegionOne"

// Unit is the systemd unit that runs Keystone.
const Unit = "keystone.service"

// The secrets of the service.
const (
	SecretDatabase   = "keystone/database"
	SecretAdmin      = "keystone/admin"
	SecretFernet     = "keystone/fernet"
	SecretCredential = "keystone/credential"
)

const (
	confPath      = "/etc/keystone/keystone.conf"
	uwsgiPath     = "/etc/keystone/nines-uwsgi.ini"
	unitPath      = "/etc/systemd/system/keystone.service"
	fernetDir     = "/etc/keystone/fernet-keys"
	credentialDir = "/etc/keystone/credential-keys"

	// expiredWindow is [token] allow_expired_window of the template.
	expiredWindow = 48 * time.Hour
)

//go:embed templates
var templateFiles embed.FS

var templates = template.Must(template.ParseFS(templateFiles, "templates/*.tmpl"))

// Service is Keystone. Use New.
type Service struct {
	dial    dialFunc
	openSQL func() (catalogue, error)
	now     func() time.Time

	mu     sync.Mutex
	client *http.Client
	ca     string    // the authority client trusts
	proven string    // identity of the token proof, see tokenProof
	listed time.Time // when hash was computed
	hash   string
}

// New returns the service. It does no I/O.
func New() *Service {
	d := &net.Dialer{Timeout: time.Second}
	return &Service{dial: d.DialContext, openSQL: openLocal, now: time.Now}
}

var _ interface {
	service.Service
	service.SecretUser
	service.Actor
	service.Observer
	service.ClusterJudge
	service.Published
	service.DatabaseUser
	service.Faulty
	service.Rotator
} = (*Service)(nil)

// Name implements service.Service.
func (*Service) Name() string { return Name }

// Secrets implements service.SecretUser.
func (*Service) Secrets(*model.Cluster) []secret.Spec {
	return []secret.Spec{
		{Name: SecretDatabase, Kind: secret.Password},
		{Name: SecretAdmin, Kind: secret.Password},
		{Name: SecretFernet, Kind: secret.FernetRing},
		{Name: SecretCredential, Kind: secret.FernetRing},
	}
}

// Listeners implements service.Published.
func (*Service) Listeners(*model.Cluster) []service.Listener {
	return []service.Listener{{
		Name: Name, Port: model.PortKeystone, BackendPort: model.PortKeystone,
		Health: Name, HTTP: true, BackendTLS: true,
	}}
}

// Databases implements service.DatabaseUser.
func (*Service) Databases(*model.Cluster) []service.Database {
	return []service.Database{{Name: Name, Secret: SecretDatabase}}
}

// Faults implements service.Faulty.
func (*Service) Faults() []service.Fault {
	const sigkill, sigstop, sigcont = 9, 19, 18
	return []service.Fault{
		{Name: "kill", Unit: Unit, Signal: sigkill},
		{Name: "freeze", Unit: Unit, Signal: sigstop, Heal: sigcont},
	}
}

// Resources implements service.Service.
func (*Service) Resources(c *model.Cluster, s secret.Source) ([]plan.Resource, error) {
	var rs []plan.Resource
	controllers := c.Controllers()
	for _, n := range controllers {
		add, err := nodeResources(c, n, s)
		if err != nil {
			return nil, fmt.Errorf("keystone on %s: %w", n.Name, err)
		}
		rs = append(rs, add...)
	}
	if len(controllers) > 0 {
		rs = append(rs, clusterResources(c, controllers)...)
	}
	return rs, nil
}

func id(node, kind, name string) plan.ID { return plan.Make(Name, node, kind, name) }

func nodeResources(c *model.Cluster, n model.Node, s secret.Source) ([]plan.Resource, error) {
	files, err := nodeFiles(c, n, s)
	if err != nil {
		return nil, err
	}
	packages := id(n.Name, "packages", Name)
	rs := []plan.Resource{{
		ID: packages, Packages: &plan.Packages{Names: c.Facts().Packages[Name]},
		Needs: []string{service.CapPackages},
	}}
	unit := plan.Unit{
		Name: Unit, Enabled: true, Running: true, RestartOn: []plan.ID{packages},
		// One at a time: with all of them away at once every login fails.
		Member: &plan.Member{Quorum: Name, Size: len(c.Controllers()), Needed: 1},
		// Loading the application takes seconds of CPU, on all nodes at once after a power cut.
		Ready: &plan.Action{Name: actionServes, Timeout: 2 * time.Minute},
	}
	for _, f := range files {
		fid := id(n.Name, "file", f.Path)
		rs = append(rs, plan.Resource{ID: fid, File: &f, After: []plan.ID{packages}})
		unit.RestartOn = append(unit.RestartOn, fid)
	}
	// Keystone reads its keys at each use: a change needs no restart.
	var after []plan.ID
	for _, repo := range []struct{ name, dir, secret string }{
		{"fernet-keys", fernetDir, SecretFernet},
		{"credential-keys", credentialDir, SecretCredential},
	} {
		text, err := s.Get(repo.secret)
		if err != nil {
			return nil, err
		}
		kid := id(n.Name, "action", repo.name)
		rs = append(rs, plan.Resource{ID: kid, After: []plan.ID{packages}, Action: &plan.Action{
			Name: actionKeys, Args: map[string]string{"name": repo.name, "dir": repo.dir, "secret": repo.secret, "ring": ringMark(text)},
		}})
		after = append(after, kid)
	}
	rs = append(rs, plan.Resource{ID: id(n.Name, "unit", Unit), Unit: &unit, After: after})
	for i := range rs {
		rs[i].Service, rs[i].Node = Name, n.Name
	}
	return rs, nil
}

// ringMark makes the hash of an op depend on the ring, so that two agents with different
// rings refuse each other's ops. A text that is no ring (a redacted secret) is marked too.
func ringMark(text string) string {
	if r, err := ParseRing(text); err == nil {
		return r.Hash()
	}
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])[:16]
}

// clusterResources are the steps done once for the whole cluster, on the first controller.
func clusterResources(c *model.Cluster, controllers []model.Node) []plan.Resource {
	first := controllers[0].Name
	files := []plan.ID{id(first, "file", confPath), id(first, "action", "fernet-keys"), id(first, "action", "credential-keys")}
	schema, admin := id(first, "action", actionSchema), id(first, "action", actionBootstrap)
	// Files and keys, but not the unit: it may start, which takes seconds, while the schema is made.
	path := []string{service.CapSQL, service.CapProxy, service.CapVIP}
	answer := []plan.ID{admin}
	for _, n := range controllers {
		answer = append(answer, id(n.Name, "unit", Unit))
	}
	return []plan.Resource{
		{ID: schema, Service: Name, Node: first, After: files, Needs: path,
			Action: &plan.Action{Name: actionSchema, Timeout: 5 * time.Minute}},
		{ID: admin, Service: Name, Node: first, After: []plan.ID{schema}, Needs: path,
			Action: &plan.Action{Name: actionBootstrap, Args: map[string]string{"region": Region, "url": PublicURL(c) + "/v3"}}},
		{ID: id(first, "action", actionToken), Service: Name, Node: first, After: answer, Needs: path,
			Provides: []string{service.CapIdentity},
			Action:   &plan.Action{Name: actionToken, Args: map[string]string{"url": PublicURL(c) + "/v3"}}},
	}
}

// PublicURL is where clients find Keystone, without a path.
func PublicURL(c *model.Cluster) string {
	return "https://" + hostPort(c.VIP.Address.Addr(), model.PortKeystone)
}

func hostPort(a netip.Addr, port int) string {
	return net.JoinHostPort(a.String(), strconv.Itoa(port))
}

func nodeFiles(c *model.Cluster, n model.Node, s secret.Source) ([]plan.File, error) {
	conf, err := renderConf(c, s)
	if err != nil {
		return nil, err
	}
	threads, processes := workers(c)
	ini, err := render("uwsgi.ini.tmpl", map[string]any{
		"Bind": hostPort(n.Address(), model.PortKeystone), "Cert": model.PathCert, "Key": model.PathKey,
		"Processes": processes, "Threads": threads,
	})
	if err != nil {
		return nil, err
	}
	unit, err := render("keystone.service.tmpl", map[string]any{"Ini": uwsgiPath})
	if err != nil {
		return nil, err
	}
	return []plan.File{
		{Path: confPath, Mode: 0o640, Owner: "root", Group: "keystone", Content: conf},
		{Path: uwsgiPath, Mode: 0o644, Owner: "root", Group: "root", Content: ini},
		{Path: unitPath, Mode: 0o644, Owner: "root", Group: "root", Content: unit},
	}, nil
}

// workers returns threads and processes: never fewer than two processes, or a
// hanging request keeps the health check waiting.
func workers(c *model.Cluster) (threads, processes int) {
	return max(c.Tuning.Keystone.Threads, 1), max(c.Tuning.Keystone.Processes, 2)
}

func renderConf(c *model.Cluster, s secret.Source) ([]byte, error) {
	password, err := s.Get(SecretDatabase)
	if err != nil {
		return nil, err
	}
	threads, _ := workers(c)
	t := c.Tuning.Keystone
	return render("keystone.conf.tmpl", map[string]any{
		"PublicURL":     PublicURL(c),
		"Database":      databaseURL(c, password),
		"Pool":          max(threads, 5),
		"Memcached":     model.JoinAddresses(c.Controllers(), strconv.Itoa(model.PortMemcached), ","),
		"TokenLifetime": int(t.TokenLifetime.Seconds()),
		"ExpiredWindow": int(expiredWindow.Seconds()),
		"MaxKeys":       maxKeys(t.TokenLifetime, t.FernetRotation),
		"FernetDir":     fernetDir,
		"CredentialDir": credentialDir,
	})
}

// databaseURL is the SQLAlchemy URL. oslo.config reads $ as a reference, so it is doubled.
func databaseURL(c *model.Cluster, password string) string {
	q := "charset=utf8mb4&connect_timeout=3&read_timeout=10&write_timeout=10&ssl_ca=" + model.PathCA + "&ssl_check_hostname=true"
	u := url.URL{Scheme: "mysql+pymysql", User: url.UserPassword(Name, password),
		Host: hostPort(c.VIP.Address.Addr(), model.PortMariaDB), Path: "/" + Name, RawQuery: q}
	return string(bytes.ReplaceAll([]byte(u.String()), []byte("$"), []byte("$$")))
}

func render(name string, values map[string]any) ([]byte, error) {
	var b bytes.Buffer
	if err := templates.ExecuteTemplate(&b, name, values); err != nil {
		return nil, fmt.Errorf("render %s: %w", name, err)
	}
	return b.Bytes(), nil
}
