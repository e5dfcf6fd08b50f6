package galera

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"text/template"
	"time"

	"nines/internal/model"
	"nines/internal/plan"
	"nines/internal/secret"
	"nines/internal/service"
)

//go:embed templates/*.tmpl
var templateFiles embed.FS

var templates = template.Must(template.ParseFS(templateFiles, "templates/*.tmpl"))

// The files of a member.
const (
	configPath   = "/etc/mysql/mariadb.conf.d/90-nines.cnf"
	providerPath = "/etc/mysql/mariadb.conf.d/91-nines-provider.cnf"
	dropInPath   = "/etc/systemd/system/mariadb.service.d/50-nines.conf"
)

// maxConnections is room for three controllers' API workers with their pools; a
// connection that is not used costs little.
const maxConnections = 1024

// view is what the templates see.
type view struct {
	ClusterName, Node, Address, Members, ReceiveAddress string
	Donors, SSTUser, BufferPool, ProviderOptions        string
	CA, Cert, Key, TLSGroup                             string
	BootstrapMark, BootstrapEnv, ViewFile, StateFile    string
	TransferDir, DataDir, Lost                          string
	RunDir, StartedMark, AsideFile, Await               string
	Bootstrapped, Formed                                string
	ConfigPath                                          string
	Port, MaxConnections, Size                          int
}

// Resources declares the members: packages, files, units that start one after the other,
// then accounts and databases, which are made on the first controller and replicate.
func (s *Service) Resources(c *model.Cluster, _ secret.Source) ([]plan.Resource, error) {
	if err := checkTuning(c.Tuning.Galera); err != nil {
		return nil, err
	}
	nodes := c.Controllers()
	if len(nodes) == 0 {
		return nil, errors.New("galera: the cluster has no controller")
	}
	var out []plan.Resource
	for i, n := range nodes {
		files, err := files(c, n)
		if err != nil {
			return nil, err
		}
		out = append(out, packages(c, n))
		out = append(out, files...)
		out = append(out, sockets(n)...)
		out = append(out, unit(nodes, i))
		out = append(out, detectorResources(nodes, n)...)
		if i == 0 {
			out = append(out, accounts(n))
		} else {
			out = append(out, release(n))
		}
	}
	out = append(out, s.databaseResources(c, nodes)...)
	return append(out, service.CertificateResources("galera", nodes)...), nil
}

func packages(c *model.Cluster, n model.Node) plan.Resource {
	return plan.Resource{
		ID: plan.Make("galera", n.Name, "packages", "mariadb"), Service: "galera", Node: n.Name,
		Packages: &plan.Packages{Names: c.Facts().Packages["galera"]},
		Needs:    []string{service.CapPackages},
	}
}

// files come after the packages: their installation runs the server once to make the
// data directory, and it must not do that as a member.
func files(c *model.Cluster, n model.Node) ([]plan.Resource, error) {
	// The server itself says whether it knows each option.
	validate := []string{"/usr/sbin/mariadbd", "--defaults-file={}", "--user=mysql", "--verbose", "--help"}
	list := []struct {
		name, template, path string
		validate             []string
	}{
		{"config", "90-nines.cnf.tmpl", configPath, validate},
		{"provider", "91-nines-provider.cnf.tmpl", providerPath, validate},
		{"unit-settings", "mariadb.service.conf.tmpl", dropInPath, nil},
		{"socket-settings", "mariadb.socket.conf.tmpl", "/etc/systemd/system/mariadb.socket.d/50-nines.conf", nil},
		{"extra-socket-settings", "mariadb.socket.conf.tmpl", "/etc/systemd/system/mariadb-extra.socket.d/50-nines.conf", nil},
	}
	v := viewOf(c, n)
	var out []plan.Resource
	for _, f := range list {
		var b bytes.Buffer
		if err := templates.ExecuteTemplate(&b, f.template, v); err != nil {
			return nil, fmt.Errorf("galera: %s of %s: %w", f.path, n.Name, err)
		}
		r := plan.Resource{
			ID: fileID(n.Name, f.name), Service: "galera", Node: n.Name,
			File:  &plan.File{Path: f.path, Mode: 0o644, Owner: "root", Group: "root", Content: b.Bytes(), Validate: f.validate},
			After: []plan.ID{plan.Make("galera", n.Name, "packages", "mariadb")},
		}
		if f.name == "provider" {
			r.File.Fixed = []byte(providerOptions(c.Tuning.Galera, n.Address(), true))
			for _, m := range c.Controllers() {
				r.After = append(r.After, widenID(m.Name))
			}
		}
		out = append(out, r)
	}
	return out, nil
}

// socketUnits come with the package and are not to be used; the reason stands in mariadb.socket.conf.tmpl.
var socketUnits = []string{"mariadb.socket", "mariadb-extra.socket"}

func sockets(n model.Node) []plan.Resource {
	var out []plan.Resource
	for _, name := range socketUnits {
		out = append(out, plan.Resource{
			ID: plan.Make("galera", n.Name, "unit", name), Service: "galera", Node: n.Name,
			Unit:  &plan.Unit{Name: name},
			After: []plan.ID{fileID(n.Name, "socket-settings"), fileID(n.Name, "extra-socket-settings"), fileID(n.Name, "config")},
		})
	}
	return out
}

func fileID(node, name string) plan.ID { return plan.Make("galera", node, "file", name) }
func unitID(node string) plan.ID       { return plan.Make("galera", node, "unit", unitName) }
func accountsID(node string) plan.ID   { return plan.Make("galera", node, "action", "accounts") }

// unit starts member i. A member starts only when the one before it is Synced: it must
// find a Primary, and two state transfers at once would take both donors' time.
func unit(nodes []model.Node, i int) plan.Resource {
	n := nodes[i]
	args := map[string]string{}
	after := []plan.ID{service.CertificatesLoaded("galera", nodes)}
	for _, name := range socketUnits {
		after = append(after, plan.Make("galera", n.Name, "unit", name))
	}
	if i == 0 {
		args["bootstrap"] = "true"
		for _, other := range nodes[1:] {
			after = append(after, releaseID(other.Name))
		}
	} else {
		// The accounts come first: a joiner's donor uses one of them.
		after = append(after, unitID(nodes[i-1].Name), accountsID(nodes[0].Name))
	}
	return plan.Resource{
		ID: unitID(n.Name), Service: "galera", Node: n.Name,
		Unit: &plan.Unit{
			Name: unitName, Enabled: true, Running: true,
			RestartOn: []plan.ID{fileID(n.Name, "config"), fileID(n.Name, "provider"), fileID(n.Name, "unit-settings")},
			Member:    &plan.Member{Quorum: "galera", Size: len(nodes), Needed: model.Quorum(len(nodes))},
			Start:     &plan.Action{Name: "start", Args: args, Timeout: 15 * time.Minute},
			Ready:     &plan.Action{Name: "synced", Timeout: 10 * time.Minute},
		},
		After:    after,
		Needs:    []string{service.CapBase},
		Provides: []string{service.CapSQL},
	}
}

func releaseID(node string) plan.ID { return plan.Make("galera", node, "action", "release") }

// release comes before the first member starts: see notOrphaned.
func release(n model.Node) plan.Resource {
	return plan.Resource{
		ID: releaseID(n.Name), Service: "galera", Node: n.Name,
		Action: &plan.Action{Name: "release"},
		After:  []plan.ID{plan.Make("galera", n.Name, "packages", "mariadb")},
	}
}

func accounts(n model.Node) plan.Resource {
	return plan.Resource{
		ID: accountsID(n.Name), Service: "galera", Node: n.Name,
		Action:   &plan.Action{Name: "accounts"},
		After:    []plan.ID{unitID(n.Name)},
		Provides: []string{service.CapSQL},
	}
}

func (s *Service) databaseResources(c *model.Cluster, nodes []model.Node) []plan.Resource {
	first := nodes[0].Name
	formed := plan.Resource{ID: plan.Make("galera", first, "action", "formed"), Service: "galera", Node: first,
		Action: &plan.Action{Name: "formed"}, Provides: []string{service.CapSQL}}
	for _, n := range nodes {
		formed.After = append(formed.After, unitID(n.Name))
	}
	after := []plan.ID{formed.ID}
	out := []plan.Resource{formed}
	for _, d := range s.allDatabases(c) {
		out = append(out, plan.Resource{
			ID: plan.Make("galera", first, "action", "database-"+d.Name), Service: "galera", Node: first,
			Action:   &plan.Action{Name: "database", Args: map[string]string{"name": d.Name, "secret": d.Secret}},
			After:    after,
			Provides: []string{service.CapSQL},
		})
	}
	return out
}

func viewOf(c *model.Cluster, n model.Node) view {
	nodes := c.Controllers()
	var members []string
	for _, m := range nodes {
		members = append(members, hostPort(m.Address(), model.PortGalera))
	}
	return view{
		ClusterName: c.Name, Node: n.Name, Address: n.Address().String(), Members: strings.Join(members, ","),
		ReceiveAddress: hostPort(n.Address(), model.PortGaleraSST),
		Donors:         donors(nodes, n.Name), SSTUser: sstUser,
		BufferPool: c.Tuning.Galera.BufferPool, ProviderOptions: providerOptions(c.Tuning.Galera, n.Address(), false),
		CA: model.PathCA, Cert: model.PathCert, Key: model.PathKey, TLSGroup: model.GroupTLS,
		BootstrapMark: bootstrapMark, BootstrapEnv: bootstrapEnv,
		ViewFile: viewFile, StateFile: grastateFile, TransferDir: transferDir, DataDir: dataDir, Lost: lostPattern, ConfigPath: configPath,
		RunDir: model.PathRun, StartedMark: startedMark, AsideFile: asideFile, Await: service.AwaitAcquainted,
		Bootstrapped: BootstrappedFile, Formed: FormedFile,
		Port: model.PortMariaDB, MaxConnections: maxConnections, Size: len(nodes),
	}
}

// donors lists who should send state to node, best first: the last controllers, because the
// first one is the writer unless it failed. The trailing comma allows any other.
func donors(nodes []model.Node, node string) string {
	var names []string
	for _, n := range nodes[1:] {
		if n.Name != node {
			names = append(names, n.Name)
		}
	}
	slices.Reverse(names)
	return strings.Join(append(names, ""), ",")
}

func hostPort(a netip.Addr, port int) string {
	return netip.AddrPortFrom(a, uint16(port)).String()
}

// providerOptions renders wsrep_provider_options: "key=value; key=value". fixed leaves out what a running
// member can be told.
func providerOptions(t model.GaleraTuning, a netip.Addr, fixed bool) string {
	live := map[string]bool{}
	for _, d := range dials {
		live[d.option] = !d.fixed
	}
	options := [][2]string{
		{"gmcast.listen_addr", "ssl://" + hostPort(a, model.PortGalera)},
		{"base_host", a.String()},
		{"ist.recv_addr", "ssl://" + hostPort(a, model.PortGaleraIST)},
		{"ist.recv_bind", "ssl://" + hostPort(a, model.PortGaleraIST)},
		{"socket.ssl", "yes"},
		{"socket.ssl_ca", model.PathCA},
		{"socket.ssl_cert", model.PathCert},
		{"socket.ssl_key", model.PathKey},
		{"evs.suspect_timeout", iso8601(t.SuspectTimeout)},
		{"evs.inactive_timeout", iso8601(t.InactiveTimeout)},
		{"evs.install_timeout", iso8601(t.InstallTimeout)},
		{"evs.keepalive_period", iso8601(t.Keepalive)},
		{"evs.inactive_check_period", iso8601(t.InactiveCheck)},
		{"evs.join_retrans_period", iso8601(t.JoinRetrans)},
		{"gmcast.peer_timeout", iso8601(t.PeerTimeout)},
		{"gcache.size", t.GCache},
		{"gcache.recover", "yes"},
		{"pc.recovery", "true"},
	}
	parts := make([]string, 0, len(options))
	for _, o := range options {
		if fixed && live[o[0]] {
			continue
		}
		parts = append(parts, o[0]+"="+o[1])
	}
	return strings.Join(parts, "; ")
}

// iso8601 writes a duration as Galera reads it: "PT0.3S".
func iso8601(d time.Duration) string {
	return "PT" + strconv.FormatFloat(d.Seconds(), 'f', -1, 64) + "S"
}

// checkTuning refuses values with which the server would not start, or
// with which survivors were seen to turn non-Primary when a member died.
func checkTuning(t model.GaleraTuning) error {
	for name, d := range map[string]time.Duration{
		"suspect_timeout": t.SuspectTimeout, "inactive_timeout": t.InactiveTimeout, "install_timeout": t.InstallTimeout,
		"keepalive": t.Keepalive, "inactive_check": t.InactiveCheck, "peer_timeout": t.PeerTimeout, "join_retrans": t.JoinRetrans,
	} {
		if d <= 0 {
			return fmt.Errorf("tuning.galera.%s must be greater than zero", name)
		}
	}
	switch {
	case t.GCache == "" || t.BufferPool == "":
		return errors.New("tuning.galera.gcache and buffer_pool must be set, for example 128M")
	case t.JoinRetrans >= t.SuspectTimeout:
		return fmt.Errorf("tuning.galera: join_retrans %v must be below suspect_timeout %v: survivors would suspect each other and stop serving", t.JoinRetrans, t.SuspectTimeout)
	case t.Keepalive*3 >= t.SuspectTimeout:
		return fmt.Errorf("tuning.galera: keepalive %v must be below a third of suspect_timeout %v", t.Keepalive, t.SuspectTimeout)
	case t.InstallTimeout > t.InactiveTimeout:
		return fmt.Errorf("tuning.galera: install_timeout %v must not be above inactive_timeout %v", t.InstallTimeout, t.InactiveTimeout)
	}
	return nil
}
