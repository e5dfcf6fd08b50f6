package main

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/template"

	"nines/internal/model"
	"nines/internal/plan"
)

//go:embed playbook.yaml.tmpl ansible.cfg.tmpl
var templates embed.FS

// hostVars is what the playbook wants on one node.
type hostVars struct {
	Packages []string   `json:"packages"`
	Files    []fileVars `json:"files"`
	Units    []unitVars `json:"units"`
}

type fileVars struct {
	Path  string `json:"path"`
	Owner string `json:"owner"`
	Group string `json:"group"`
	Mode  string `json:"mode"` // octal
}

type unitVars struct {
	Name    string `json:"name"`
	Enabled bool   `json:"enabled"`
	State   string `json:"state"`
}

// ansibleVars says the resources in Ansible's words, by node. Actions have no counterpart.
// Packages of one node become one list: Ansible asks for them at once.
func ansibleVars(rs []plan.Resource) map[string]*hostVars {
	hosts := map[string]*hostVars{}
	for _, r := range rs {
		h := hosts[r.Node]
		if h == nil {
			h = &hostVars{Packages: []string{}, Files: []fileVars{}, Units: []unitVars{}} // never null: Ansible loops over them
			hosts[r.Node] = h
		}
		switch {
		case r.Packages != nil:
			h.Packages = append(h.Packages, r.Packages.Names...)
		case r.File != nil:
			h.Files = append(h.Files, fileVars{r.File.Path, r.File.Owner, r.File.Group, fmt.Sprintf("%04o", r.File.Mode.Perm())})
		case r.Unit != nil:
			if !r.Unit.Running && !r.Unit.Enabled {
				continue // its package may be missing, as it should, and Ansible fails where there is no such unit
			}
			state := "stopped"
			if r.Unit.Running {
				state = "started"
			}
			h.Units = append(h.Units, unitVars{r.Unit.Name, r.Unit.Enabled, state})
		}
	}
	for _, h := range hosts {
		slices.Sort(h.Packages)
		h.Packages = slices.Compact(h.Packages)
	}
	return hosts
}

// project says how Ansible gets to the nodes.
type project struct {
	Dir        string // where all its files are
	KnownHosts string
	Identity   string
	User       string
	Port       int
	Nodes      []model.Node
	Forks      int
}

// The playbooks of the two measurements, as files of the project.
const (
	gathering = "gathering.yaml" // gathers facts first, as Ansible does unless told otherwise
	bare      = "bare.yaml"      // gathers none
)

// files returns the text files of the project, by path relative to Dir.
func (p project) files(rs []plan.Resource) (map[string][]byte, error) {
	out := map[string][]byte{"inventory": p.inventory()}
	for name, facts := range map[string]bool{gathering: true, bare: false} {
		text, err := expand("playbook.yaml.tmpl", map[string]any{"Facts": facts})
		if err != nil {
			return nil, err
		}
		out[name] = text
	}
	var err error
	if out["ansible.cfg"], err = expand("ansible.cfg.tmpl", p); err != nil {
		return nil, err
	}
	for node, vars := range ansibleVars(rs) {
		text, err := json.MarshalIndent(vars, "", "  ")
		if err != nil {
			return nil, err
		}
		out["host_vars/"+node+".json"] = append(text, '\n')
	}
	return out, nil
}

// inventory names the nodes. The interpreter is given so that Ansible need not look for one.
func (p project) inventory() []byte {
	var out bytes.Buffer
	for _, n := range p.Nodes {
		fmt.Fprintf(&out, "%s ansible_host=%s ansible_port=%d ansible_user=%s ansible_ssh_private_key_file=%s ansible_python_interpreter=/usr/bin/python3\n",
			n.Name, n.Address(), p.Port, p.User, p.Identity)
	}
	return out.Bytes()
}

// expand executes a template whose own marks are [[ ]], as {{ }} are Ansible's.
func expand(name string, values any) ([]byte, error) {
	t, err := template.New(name).Delims("[[", "]]").ParseFS(templates, name)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = t.Execute(&out, values)
	return out.Bytes(), err
}

// recap is the last line Ansible prints of a host.
type recap struct{ OK, Changed, Unreachable, Failed int }

var recapLine = regexp.MustCompile(`(?m)^(\S+)\s+: ok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)\b`)

// parseRecap reads the play recap, by host, from what ansible-playbook printed.
func parseRecap(text string) (map[string]recap, error) {
	_, text, ok := strings.Cut(text, "PLAY RECAP ")
	if !ok {
		return nil, errors.New("ansible-playbook printed no play recap")
	}
	hosts := map[string]recap{}
	for _, m := range recapLine.FindAllStringSubmatch(text, -1) {
		var n [4]int
		for i := range n {
			var err error
			if n[i], err = strconv.Atoi(m[2+i]); err != nil {
				return nil, fmt.Errorf("play recap of %s: %w", m[1], err)
			}
		}
		hosts[m[1]] = recap{n[0], n[1], n[2], n[3]}
	}
	return hosts, nil
}

// unchanged says, as an error, why a run of Ansible was not a no-op on all nodes.
func unchanged(hosts map[string]recap, nodes []model.Node) error {
	for _, n := range nodes {
		if _, ok := hosts[n.Name]; !ok {
			return fmt.Errorf("the play recap does not name %s", n.Name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(hosts)) {
		if r := hosts[name]; r.OK == 0 || r.Changed+r.Unreachable+r.Failed > 0 {
			return fmt.Errorf("the run was not a no-op on %s: ok=%d changed=%d unreachable=%d failed=%d", name, r.OK, r.Changed, r.Unreachable, r.Failed)
		}
	}
	return nil
}
