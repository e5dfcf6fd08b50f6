package lab

import (
	"embed"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/template"

	"nines/internal/config"
	"nines/internal/model"
)

// profile says which machines a lab has.
type profile struct {
	nodes []nodeSpec
	// services are what its cluster runs: the image has their packages.
	services []string
	// images: all machines have directories of the host in common, for the images of Glance and the volumes of Cinder.
	images bool
	// memory is what one machine of a role needs of the host's, in bytes: its services
	// under load, as measured.
	memory map[model.Role]uint64
	// diskUse is what one machine writes in a day of drills, in bytes.
	diskUse uint64
}

// profiles holds every profile by name.
var profiles = map[string]profile{
	"core": {
		nodes:    controllers,
		services: model.CoreServices,
		memory:   map[model.Role]uint64{model.RoleController: 700 << 20},
		diskUse:  1 << 30,
	},
	"cloud": {
		nodes:    cloudNodes,
		services: slices.Concat(model.CoreServices, model.CloudServices),
		images:   true,
		memory:   map[model.Role]uint64{model.RoleController: 3 << 30, model.RoleCompute: 1 << 30},
		diskUse:  2 << 30,
	},
}

// agentsMemory is what Neutron's agents need of a controller beyond what OVN needs, in bytes, as measured.
const agentsMemory = 1 << 30

// forCluster returns the profile with the memory that the cluster of this cluster.yaml needs.
func (p profile) forCluster(document []byte) profile {
	c, err := config.Parse("cluster.yaml", document)
	if err != nil || !c.Runs("neutron") || !c.Neutron.Agents() {
		return p // what is wrong with it, its deployment says
	}
	p.memory = maps.Clone(p.memory)
	p.memory[model.RoleController] += agentsMemory
	return p
}

// controllers are the machines that form the quorums.
var controllers = []nodeSpec{
	{Name: "ctl1", Management: "198.18.0.11", BMC: "198.18.0.111", External: "198.18.1.11"},
	{Name: "ctl2", Management: "198.18.0.12", BMC: "198.18.0.112", External: "198.18.1.12"},
	{Name: "ctl3", Management: "198.18.0.13", BMC: "198.18.0.113", External: "198.18.1.13"},
}

// cloudNodes are the controllers, which are gateways to the external network too, and the machines that run instances.
var cloudNodes = []nodeSpec{
	{Name: "ctl1", Management: "198.18.0.11", BMC: "198.18.0.111", External: "198.18.1.11", Tenant: "198.18.2.11"},
	{Name: "ctl2", Management: "198.18.0.12", BMC: "198.18.0.112", External: "198.18.1.12", Tenant: "198.18.2.12"},
	{Name: "ctl3", Management: "198.18.0.13", BMC: "198.18.0.113", External: "198.18.1.13", Tenant: "198.18.2.13"},
	{Name: "cmp1", Management: "198.18.0.21", BMC: "198.18.0.121", External: "198.18.1.21", Tenant: "198.18.2.21", Role: model.RoleCompute},
	{Name: "cmp2", Management: "198.18.0.22", BMC: "198.18.0.122", External: "198.18.1.22", Tenant: "198.18.2.22", Role: model.RoleCompute},
}

// DefaultProfile is the profile of a lab that names none.
const DefaultProfile = "cloud"

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
	p, err := findProfile(l.state.Profile)
	if err != nil {
		return nil, err
	}
	t, err := template.ParseFS(clusterTemplates, "cluster.yaml.tmpl")
	if err != nil {
		return nil, err
	}
	var out strings.Builder
	err = t.Execute(&out, map[string]any{
		"Name":       l.Name(),
		"Nodes":      l.state.Nodes,
		"Services":   beyondCore(p.services),
		"Management": managementNetwork.prefix,
		"External":   externalNetwork.prefix,
		"Tenant":     tenantPrefix(l.state.Nodes),

		"TunnelNIC":   tenantNetwork.nic,
		"ProviderNIC": providerNetwork.nic,

		"VIP":        fmt.Sprintf("%s/%d", vipAddress, managementNetwork.prefix.Bits()),
		"Source":     "http://" + repositoryAddress(),
		"Suite":      suite,
		"Key":        keyName,
		"Identity":   "ssh/" + identityName,
		"KnownHosts": "ssh/" + knownHostsName,
		"BMCUser":    bmcUser,
	})
	return []byte(out.String()), err
}

// tenantPrefix is the network for tunnels where the machines have one, else empty.
func tenantPrefix(nodes []nodeSpec) string {
	if nodes[0].Tenant == "" {
		return ""
	}
	return tenantNetwork.prefix.String()
}

// beyondCore returns the services to name in cluster.yaml: none where they are the default. What is below Neutron is
// left to its backend.
func beyondCore(services []string) string {
	services = slices.DeleteFunc(slices.Clone(services), func(s string) bool { return slices.Contains(model.BelowNeutron, s) })
	if slices.Equal(services, model.CoreServices) {
		return ""
	}
	return strings.Join(services, ", ")
}

// repositoryAddress is where the lab's package repository is served, in the lab.
func repositoryAddress() string { return managementNetwork.operator().String() + ":8080" }
