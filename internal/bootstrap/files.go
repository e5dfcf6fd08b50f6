package bootstrap

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/netip"
	"text/template"
	"time"

	"nines/internal/model"
	"nines/internal/secret"
)

// The units of the agent.
const (
	UnitAgent  = "nines-agent.service"
	unitSocket = "nines-health.socket"
	unitDir    = "/etc/systemd/system/"
)

// file is a file that a node must have.
type file struct {
	path    string
	mode    fs.FileMode
	owner   string // user:group
	content []byte
}

const root = "root:root"

//go:embed templates
var templateFiles embed.FS

var templates = template.Must(template.New("").Option("missingkey=error").ParseFS(templateFiles, "templates/*.tmpl"))

// Unit is a systemd unit of the agent, as it must stand on a node.
type Unit struct {
	Name, Path string
	Content    []byte
}

// Units renders the agent's units for the node of conf.
func Units(conf model.AgentConfig) ([]Unit, error) {
	values := map[string]string{
		"Cluster": conf.ClusterName, "Binary": model.PathBinary, "Config": model.PathAgentConfig,
		"Health": netip.AddrPortFrom(conf.Address, model.PortHealth).String(),
	}
	var out []Unit
	for _, name := range []string{unitSocket, UnitAgent} {
		var text bytes.Buffer
		if err := templates.ExecuteTemplate(&text, name+".tmpl", values); err != nil {
			return nil, fmt.Errorf("unit %s: %w", name, err)
		}
		out = append(out, Unit{Name: name, Path: unitDir + name, Content: text.Bytes()})
	}
	return out, nil
}

// files returns all files of a node. Its certificate is the one it has, while that is good.
// The order is that of their renames: a key comes before its certificate, agent.json
// last, for it says that the node is this cluster's.
func (r *run) files(m *machine) ([]file, error) {
	pair := secret.Pair{Cert: m.facts.files[model.PathCert].content, Key: m.facts.files[model.PathKey].content}
	want := secret.NodeRequest(r.Cluster, m.node)
	if reason := r.state.ca.Stale(pair, want, time.Now()); reason != "" {
		var err error
		if pair, err = r.state.ca.IssueNode(want); err != nil {
			return nil, err
		}
		m.renewed = reason
		r.Log.Info("node certificate issued", "node", m.node.Name, "why", reason)
	}
	agent := model.AgentConfigFor(r.Cluster, m.node, r.state.id)
	conf, err := json.MarshalIndent(agent, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("%s: %w", model.PathAgentConfig, err)
	}
	units, err := Units(agent)
	if err != nil {
		return nil, err
	}
	var out []file
	for _, u := range units {
		out = append(out, file{path: u.Path, mode: 0o644, owner: root, content: u.Content})
	}
	if r.Cluster.Certificates.RenewedBy == model.RenewedByLeader && m.node.Has(model.RoleController) {
		out = append(out, file{path: model.PathAuthorityKey, mode: 0o600, owner: root, content: r.state.ca.Pair().Key})
	}
	return append(out,
		file{path: model.PathCA, mode: 0o644, owner: root, content: r.state.ca.Pair().Cert},
		// Daemons that run as other users read the key through the group.
		file{path: model.PathKey, mode: 0o640, owner: "root:" + model.GroupTLS, content: pair.Key},
		file{path: model.PathCert, mode: 0o644, owner: root, content: pair.Cert},
		file{path: model.PathClusterKey, mode: 0o600, owner: root, content: trimmed(r.state.clusterKey)},
		file{path: model.PathAgentConfig, mode: 0o600, owner: root, content: append(conf, '\n')},
	), nil
}

// missing returns the files that are not on the machine as they must be.
func missing(want []file, f facts) []file {
	var out []file
	for _, w := range want {
		have, ok := f.files[w.path]
		if !ok || have.mode != w.mode || have.owner != w.owner || !bytes.Equal(have.content, w.content) {
			out = append(out, w)
		}
	}
	return out
}
