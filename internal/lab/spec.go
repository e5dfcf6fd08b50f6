package lab

import (
	"embed"
	"fmt"
	"slices"
	"strings"
	"text/template"
)

// profile says which machines a lab has.
type profile struct {
	nodes []nodeSpec
	// memory is what one machine needs of the host's, in bytes: its services
	// under load, as measured.
	memory uint64
	// diskUse is what one machine writes in a day of drills, in bytes.
	diskUse uint64
}

// profiles holds every profile by name.
var profiles = map[string]profile{
	"core": {
		nodes: []nodeSpec{
			{Name: "ctl1", Management: "198.18.0.11", External: "198.18.1.11"},
			{Name: "ctl2", Management: "198.18.0.12", External: "198.18.1.12"},
			{Name: "ctl3", Management: "198.18.0.13", External: "198.18.1.13"},
		},
		memory:  700 << 20,
		diskUse: 1 << 30,
	},
}

// DefaultProfile is the profile of a lab that names none.
const DefaultProfile = "core"

// Profiles returns the names of all profiles.
func Profiles() []string {
	names := make([]string, 0, len(profiles))
	for name := range profiles {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func findProfile(name string) (profile, error) {
	p, ok := profiles[name]
	if !ok {
		return profile{}, fmt.Errorf("no profile %q; there are: %s", name, strings.Join(Profiles(), ", "))
	}
	return p, nil
}

// vipAddress is the lab's virtual IP, on the management network.
const vipAddress = "198.18.0.10"

//go:embed cluster.yaml.tmpl
var clusterTemplates embed.FS

// clusterYAML writes the cluster.yaml of the lab, without overrides.
func (l *Lab) clusterYAML(suite string) ([]byte, error) {
	t, err := template.ParseFS(clusterTemplates, "cluster.yaml.tmpl")
	if err != nil {
		return nil, err
	}
	var out strings.Builder
	err = t.Execute(&out, map[string]any{
		"Name":       l.Name(),
		"Nodes":      l.state.Nodes,
		"Management": managementNetwork.prefix,
		"External":   externalNetwork.prefix,
		"VIP":        fmt.Sprintf("%s/%d", vipAddress, managementNetwork.prefix.Bits()),
		"Source":     "http://" + repositoryAddress(),
		"Suite":      suite,
		"Key":        keyName,
		"Identity":   "ssh/" + identityName,
		"KnownHosts": "ssh/" + knownHostsName,
	})
	return []byte(out.String()), err
}

// repositoryAddress is where the lab's package repository is served, in the lab.
func repositoryAddress() string { return managementNetwork.operator().String() + ":8080" }
