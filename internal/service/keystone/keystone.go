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
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"sync"
	"time"

	"nines/internal/model"
	"nines/internal/openstack"
	"nines/internal/plan"
	"nines/internal/secret"
	"nines/internal/service"
)

// Name of the service.
const Name = "keystone"

// Region is the one region of the catalogue.
const Region = openstack.Region

// Unit is the systemd unit that runs Keystone.
const Unit = "keystone.service"

// The secrets of the service.
const (
	SecretDatabase   = "keystone/database"
	SecretAdmin      = openstack.SecretAdmin
	SecretFernet     = "keystone/fernet"
	SecretCredential = "keystone/credential"
)

const (
	confPath      = "/etc/keystone/keystone.conf"
	uwsgiPath     = "/etc/keystone/nines-uwsgi.ini"
	fernetDir     = "/etc/keystone/fernet-keys"
	credentialDir = "/etc/keystone/credential-keys"

	// expiredWindow is [token] allow_expired_window of the template.
	expiredWindow = 48 * time.Hour
)

//go:embed templates
var templateFiles embed.FS

var templates = openstack.Templates(templateFiles)

// Service is Keystone. Use New.
type Service struct {
	client  *openstack.Client
	openSQL func() (catalogue, error)
	now     func() time.Time
	clocks  clocks

	mu     sync.Mutex
	proven string    // identity of the token proof, see tokenProof
	listed time.Time // when hash was computed
	hash   string
}

// New returns the service. It does no I/O.
func New() *Service {
	return &Service{client: &openstack.Client{}, openSQL: openLocal, now: time.Now}
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
func (*Service) Listeners(c *model.Cluster) []service.Listener {
	return []service.Listener{{
		Name: Name, Port: model.PortKeystone, BackendPort: model.PortKeystone,
		Health: Name, HTTP: true, Public: true, BackendTLS: true,
		// A connection that no thread takes up waits for its handshake, is given up after half a second and tried again: on busy machines all threads did
		// handshakes that nobody waited for any more (one in seven requests failed while a Keystone started again). What waits in HAProxy costs nothing.
		MaxConn: c.Tuning.Keystone.Processes * c.Tuning.Keystone.Threads,
		// A login leaves nothing behind: its token is computed, not stored.
		Repeatable: []string{"/v3/auth/tokens"},
	}}
}

// Databases implements service.DatabaseUser.
func (*Service) Databases(*model.Cluster) []service.Database {
	return []service.Database{{Name: Name, Secret: SecretDatabase}}
}

// Faults implements service.Faulty.
func (*Service) Faults(*model.Cluster) []service.Fault { return openstack.Faults(Unit) }

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
		rs = append(rs, service.CertificateResources(Name, controllers)...)
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
		Ready:  &plan.Action{Name: actionServes},
	}
	for _, f := range files {
		fid := id(n.Name, "file", f.Path)
		rs = append(rs, plan.Resource{ID: fid, File: &f, After: []plan.ID{packages}})
		unit.RestartOn = append(unit.RestartOn, fid)
	}
	// Keystone reads its keys at each use: a change needs no restart.
	after := []plan.ID{service.CertificatesLoaded(Name, c.Controllers())}
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
	// Files and keys, but not the unit: it may start, which takes seconds, while the schema is made.
	migrated := schema.Resource(Name, controllers[0], id(first, "file", confPath), id(first, "action", "fernet-keys"), id(first, "action", "credential-keys"))
	admin := id(first, "action", actionBootstrap)
	path := []string{service.CapSQL, service.CapProxy, service.CapVIP}
	answer := []plan.ID{admin}
	for _, n := range controllers {
		answer = append(answer, id(n.Name, "unit", Unit))
	}
	return []plan.Resource{
		migrated,
		{ID: admin, Service: Name, Node: first, After: []plan.ID{migrated.ID}, Needs: path,
			Action: &plan.Action{Name: actionBootstrap, Args: map[string]string{"region": Region, "url": openstack.IdentityURL(c), "public": PublicURL(c) + "/v3"}}},
		{ID: id(first, "action", actionToken), Service: Name, Node: first, After: answer, Needs: path,
			Provides: []string{service.CapIdentity},
			Action:   &plan.Action{Name: actionToken, Args: map[string]string{"url": openstack.IdentityURL(c)}}},
	}
}

// PublicURL is where users find Keystone, without a path.
func PublicURL(c *model.Cluster) string { return openstack.PublicURL(c, model.PortKeystone) }

func nodeFiles(c *model.Cluster, n model.Node, s secret.Source) ([]plan.File, error) {
	conf, err := renderConf(c, s)
	if err != nil {
		return nil, err
	}
	threads, processes := workers(c)
	common, err := openstack.WSGI{
		Name: Name, Unit: Unit, Description: "OpenStack Keystone API", Manual: "keystone-manage(1)",
		User: Name, Home: "/var/lib/keystone", Script: "/usr/bin/keystone-wsgi-public", Imports: []string{"keystone.server.wsgi"}, Ini: uwsgiPath,
		Port: model.PortKeystone, Processes: processes, Threads: threads, First: true,
		Options: []string{"# By itself uWSGI does not say what time it is. The controllers' health checks compare it.",
			"response-route-run = addheader:Date: ${httptime[0]}"},
	}.Files(c, n, "")
	if err != nil {
		return nil, err
	}
	return append([]plan.File{{Path: confPath, Mode: 0o640, Owner: "root", Group: "keystone", Content: conf}}, common...), nil
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
	return openstack.Render(templates, "keystone.conf.tmpl", map[string]any{
		"Links":         openstack.Links(c, model.PortKeystone),
		"Database":      openstack.NewDatabase(c, Name, password, threads),
		"Cache":         openstack.NewCache(c, threads),
		"TokenLifetime": int(t.TokenLifetime.Seconds()),
		"ExpiredWindow": int(expiredWindow.Seconds()),
		"MaxKeys":       maxKeys(t.TokenLifetime, t.FernetRotation),
		"FernetDir":     fernetDir,
		"CredentialDir": credentialDir,
	})
}
