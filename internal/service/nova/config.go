package nova

import (
	"nines/internal/model"
	"nines/internal/openstack"
	"nines/internal/plan"
	"nines/internal/secret"
)

// connections of a process to each database: conductor and scheduler answer many questions at once, and each may
// hold one. MariaDB's limit is far above that of all processes together.
const connections = 20

// nodeConfig is what nova.conf of a node is made of.
type nodeConfig struct {
	openstack.Config
	Node           model.Node
	Controller     bool // with what belongs to the APIs
	Compute        bool // with what belongs to instances
	Cert, Key      string
	ConsoleURL     string
	ConsolePort    int
	MetadataSecret string
	Virtualization string
	VolumeMounts   string
}

// files are those that all processes of a node read.
func (s *Service) files(c *model.Cluster, n model.Node, secrets secret.Source) ([]plan.File, error) {
	values, err := s.Config(c, secrets)
	if err != nil {
		return nil, err
	}
	metadata, err := secrets.Get(SecretMetadata)
	if err != nil {
		return nil, err
	}
	conf, err := openstack.Render(templates, "nova.conf.tmpl", nodeConfig{Config: values, Node: n,
		Controller: n.Has(model.RoleController), Compute: n.Has(model.RoleCompute),
		Cert: model.PathCert, Key: model.PathKey, ConsoleURL: openstack.PublicURL(c, model.PortNovaConsole), ConsolePort: model.PortNovaConsole,
		MetadataSecret: metadata, Virtualization: virtPath, VolumeMounts: model.PathVolumes})
	if err != nil {
		return nil, err
	}
	out := []plan.File{s.ConfigFile(confPath, conf)}
	if n.Has(model.RoleController) {
		database, err := s.databases(c, secrets)
		if err != nil {
			return nil, err
		}
		out = append(out, s.ConfigFile(databasePath, database))
	}
	if n.Has(model.RoleCompute) {
		for _, f := range [][2]string{{virtualizationPath, "virtualization.sh"}, {computePath, "nova-compute.py"}} {
			program, err := templateFiles.ReadFile("templates/" + f[1])
			if err != nil {
				return nil, err
			}
			out = append(out, plan.File{Path: f[0], Mode: 0o755, Owner: "root", Group: "root", Content: program})
		}
	}
	return out, nil
}

// databases is the file with the ways to the databases.
func (s *Service) databases(c *model.Cluster, secrets secret.Source) ([]byte, error) {
	var both struct{ API, Cell openstack.Database }
	for name, d := range map[string]*openstack.Database{databaseAPI: &both.API, databaseCell1: &both.Cell} {
		var err error
		if *d, err = s.Database(c, secrets, name); err != nil {
			return nil, err
		}
		d.Pool = connections
	}
	return openstack.Render(templates, "database.conf.tmpl", both)
}
