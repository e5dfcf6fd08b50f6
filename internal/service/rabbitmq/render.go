package rabbitmq

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strings"
	"text/template"
	"time"

	"nines/internal/model"
	"nines/internal/plan"
	"nines/internal/secret"
	"nines/internal/service"
)

//go:embed templates/*.tmpl
var templateFS embed.FS

var templates = template.Must(template.New("").Funcs(template.FuncMap{
	"inc": func(i int) int { return i + 1 },
}).ParseFS(templateFS, "templates/*.tmpl"))

// Names of the files as they appear in resource IDs.
const (
	fileDefinitions = "definitions.json"
	fileEPMD        = "epmd.conf"
	dirConfig       = "/etc/rabbitmq/"
	pathCookie      = "/var/lib/rabbitmq/.erlang.cookie"
	pathDefinitions = dirConfig + fileDefinitions
	pathDistTLS     = dirConfig + "inter_node_tls.config"
)

// The failure detector of Ra (aten). Beats every 250 ms make a silent node suspect
// after 375 ms at the earliest; a look every 250 ms finds it, and an election
// starts 0.25-1.25 s later (Ra: one poll interval and up to ten broadcast times of
// 100 ms) unless the node is heard again. So 0.6-1.9 s in all, and a machine must stall
// for more than half a second before a leader moves without need, which costs no message. It should
// stay below the 2 s after which clients give up on a confirm: the first message of a channel opened before the
// election goes to the dead leader and waits for net_ticktime; with 500 ms (1.3-2.8 s) every second
// client on a busy machine waited 5.1 s for that reason.
const (
	detectorPoll = 250 * time.Millisecond
	detectorBeat = 250 * time.Millisecond
)

// maxReplicas is how many members a quorum queue gets at most: more make each
// confirm slower and lose nothing less in practice.
const maxReplicas = 5

type view struct {
	Name, ClusterName, Address, ErlangAddress string
	Nodes                                     []model.Node
	CA, Cert, Key, Definitions, DistTLS       string
	Await                                     string // what a start waits for
	Running, Last                             string // who runs, as the broker writes it down; what of that counts for a recovery
	AMQPPort, AdminPort, DistPort, EPMDPort   int
	NetTick, GroupSize                        int
	Poll, Beat                                int64 // milliseconds
}

func newView(c *model.Cluster, n model.Node) view {
	nodes := c.Controllers()
	return view{
		Name: n.Name, ClusterName: c.Name, Address: n.Address().String(), ErlangAddress: erlangAddress(n.Address()),
		Nodes: nodes,
		CA:    model.PathCA, Cert: model.PathCert, Key: model.PathKey, Definitions: pathDefinitions, DistTLS: pathDistTLS,
		Running: runningFile(n.Name), Last: lastFile, Await: service.AwaitAcquainted,
		AMQPPort: model.PortAMQP, AdminPort: model.PortRabbitMQAdmin, DistPort: model.PortRabbitMQDist, EPMDPort: model.PortEPMD,
		// Whole seconds are all that the kernel application knows.
		NetTick: max(1, int(c.Tuning.RabbitMQ.NetTickTime.Round(time.Second)/time.Second)), GroupSize: min(len(nodes), maxReplicas),
		Poll: detectorPoll.Milliseconds(), Beat: detectorBeat.Milliseconds(),
	}
}

// erlangAddress writes an address as an Erlang tuple: {198,18,0,11}.
func erlangAddress(a netip.Addr) string {
	if a.Is4() {
		return "{" + strings.ReplaceAll(a.String(), ".", ",") + "}"
	}
	b := a.As16()
	parts := make([]string, 0, 8)
	for i := 0; i < len(b); i += 2 {
		parts = append(parts, fmt.Sprint(int(b[i])<<8|int(b[i+1])))
	}
	return "{" + strings.Join(parts, ",") + "}"
}

type namedFile struct {
	name string // last part of the path, unique in the service
	plan.File
}

// files renders all files of one member.
func (s *Service) files(c *model.Cluster, n model.Node, secrets secret.Source) ([]namedFile, error) {
	v := newView(c, n)
	var out []namedFile
	for _, f := range []struct {
		tmpl, path string
		mode       fs.FileMode
	}{
		{"rabbitmq.conf", dirConfig + "rabbitmq.conf", 0o644},
		{"advanced.config", dirConfig + "advanced.config", 0o644},
		{"rabbitmq-env.conf", dirConfig + "rabbitmq-env.conf", 0o644},
		{"inter_node_tls.config", pathDistTLS, 0o644},
		{"server.conf", "/etc/systemd/system/" + Unit + ".d/nines.conf", 0o644},
		{fileEPMD, "/etc/systemd/system/" + unitEPMD + ".d/nines.conf", 0o644},
	} {
		content, err := render(f.tmpl, v)
		if err != nil {
			return nil, err
		}
		out = append(out, namedFile{f.tmpl, plan.File{Path: f.path, Mode: f.mode, Owner: "root", Group: "root", Content: content}})
	}
	plugins := []byte("[rabbitmq_management].\n")
	out = append(out, namedFile{"enabled_plugins", plan.File{Path: dirConfig + "enabled_plugins", Mode: 0o644, Owner: "root", Group: "root", Content: plugins}})
	cookie, err := secrets.Get(SecretCookie)
	if err != nil {
		return nil, err
	}
	out = append(out, namedFile{"cookie", plan.File{Path: pathCookie, Mode: 0o400, Owner: Name, Group: Name, Content: []byte(cookie)}})
	users, err := s.accounts(c, secrets)
	if err != nil {
		return nil, err
	}
	defs, err := json.MarshalIndent(definitionsOf(users), "", "  ")
	if err != nil {
		return nil, err
	}
	// Hashes, not passwords; still nobody else's business.
	return append(out, namedFile{fileDefinitions, plan.File{Path: pathDefinitions, Mode: 0o640, Owner: "root", Group: Name, Content: append(defs, '\n')}}), nil
}

func render(name string, v view) ([]byte, error) {
	var b bytes.Buffer
	if err := templates.ExecuteTemplate(&b, name+".tmpl", v); err != nil {
		return nil, fmt.Errorf("template %s: %w", name, err)
	}
	return b.Bytes(), nil
}

// account is a user as it should be in the broker.
type account struct {
	name, vhost, hash string
	tags              []string
}

// accounts lists nines's own users and those the services want, by name.
func (s *Service) accounts(c *model.Cluster, secrets secret.Source) ([]account, error) {
	wanted := append([]service.BrokerUser{
		{Name: AdminUser, Secret: SecretAdmin, VHost: "/"},
		{Name: ProbeUser, Secret: SecretProbe, VHost: ProbeVHost},
	}, s.users(c)...)
	out := make([]account, 0, len(wanted))
	for _, u := range wanted {
		password, err := secrets.Get(u.Secret)
		if err != nil {
			return nil, fmt.Errorf("broker user %s: %w", u.Name, err)
		}
		a := account{name: u.Name, vhost: u.VHost, hash: passwordHash(u.Name, password), tags: []string{}}
		if a.vhost == "" {
			a.vhost = "/"
		}
		if a.name == AdminUser {
			a.tags = []string{"administrator"}
		}
		out = append(out, a)
	}
	slices.SortFunc(out, func(a, b account) int { return strings.Compare(a.name, b.name) })
	return out, nil
}

// passwordHash is RabbitMQ's own form of a password: base64 of four bytes of salt
// and SHA-256 over salt and password. The salt comes from name and password, so that
// every agent computes the same.
func passwordHash(name, password string) string {
	seed := sha256.Sum256([]byte(name + "\x00" + password))
	return saltedHash(seed[:4], password)
}

func saltedHash(salt []byte, password string) string {
	sum := sha256.Sum256(append(slices.Clone(salt), password...))
	return base64.StdEncoding.EncodeToString(append(slices.Clone(salt), sum[:]...))
}

// digest names a set of accounts without telling anything about them.
func digest(users []account) string {
	h := sha256.New()
	for _, u := range users {
		fmt.Fprintf(h, "%q %q %q %q\n", u.name, u.vhost, u.hash, u.tags)
	}
	return hex.EncodeToString(h.Sum(nil))[:16]
}

// definitions is the part of RabbitMQ's export format that nines uses.
type definitions struct {
	Users       []userDef       `json:"users"`
	VHosts      []vhostDef      `json:"vhosts"`
	Permissions []permissionDef `json:"permissions"`
}

type userDef struct {
	Name      string   `json:"name"`
	Hash      string   `json:"password_hash"`
	Algorithm string   `json:"hashing_algorithm"`
	Tags      []string `json:"tags"`
}

type vhostDef struct {
	Name             string `json:"name"`
	DefaultQueueType string `json:"default_queue_type"`
}

type permissionDef struct {
	User      string `json:"user"`
	VHost     string `json:"vhost"`
	Configure string `json:"configure"`
	Write     string `json:"write"`
	Read      string `json:"read"`
}

func definitionsOf(users []account) definitions {
	vhosts := []string{"/"}
	d := definitions{}
	for _, u := range users {
		vhosts = append(vhosts, u.vhost)
		d.Users = append(d.Users, userDef{u.name, u.hash, "rabbit_password_hashing_sha256", u.tags})
		d.Permissions = append(d.Permissions, permissionDef{u.name, u.vhost, ".*", ".*", ".*"})
	}
	slices.Sort(vhosts)
	for _, v := range slices.Compact(vhosts) {
		d.VHosts = append(d.VHosts, vhostDef{v, "quorum"})
	}
	return d
}
