package cinder

import (
	"crypto/md5"
	"encoding/hex"
	"path"
	"strings"

	"nines/internal/model"
	"nines/internal/openstack"
	"nines/internal/plan"
	"nines/internal/secret"
	"nines/internal/service"
)

// locksFolder is where the processes of all controllers lock, below the directory.
const locksFolder = "locks"

// store is where volumes are: files in a directory that controllers and computes share.
var store = openstack.SharedDirectory{Service: Name, Content: "volume", Option: "volumes.directory", User: user,
	Folders: []string{locksFolder}, Path: func(c *model.Cluster) string { return c.Volumes.Directory }}

// The driver is the one for NFS: the only one for files that needs nothing but a mounted file system. It and Nova's counterpart
// look for the file system of a share at BASE/MD5(SHARE), and mount nothing where something is mounted. So the share is only a name, which
// volumes remember: the directory may move. nines binds the directory to that place.
const (
	share      = "directory:/volumes"
	sharesPath = "/etc/cinder/nines_shares"
)

// mountPath is where the daemons look for the share.
func mountPath() string {
	sum := md5.Sum([]byte(share)) // a name, no protection
	return path.Join(model.PathVolumes, hex.EncodeToString(sum[:]))
}

// mountUnit is the name of the mount unit: systemd wants it made of the path, which has no character that it would escape.
func mountUnit() string {
	return strings.ReplaceAll(strings.TrimPrefix(mountPath(), "/"), "/", "-") + ".mount"
}

// seenMark is the store's mark as the daemons see it.
func seenMark() string { return path.Join(mountPath(), store.Mark()) }

// keeperUnit runs on computes. Nova unmounts what its last volume was on, and could not mount it again; what is in use
// cannot be unmounted (Nova writes that into its log and goes on).
const keeperUnit = "nines-volumes.service"

// storeResources make the volumes visible on controllers and computes; ready are those that the units of controllers wait for.
func storeResources(c *model.Cluster, secrets secret.Source) (out []plan.Resource, ready []plan.ID, err error) {
	var nodes []model.Node
	for _, n := range c.Nodes {
		if n.Has(model.RoleController) || n.Has(model.RoleCompute) {
			nodes = append(nodes, n)
		}
	}
	if out, err = store.Resources(c, nodes, secrets); err != nil {
		return nil, nil, err
	}
	for _, n := range nodes {
		mount, err := unit(c, n, mountUnit(), store.ID(n))
		if err != nil {
			return nil, nil, err
		}
		out = append(out, mount...)
		if n.Has(model.RoleController) {
			ready = append(ready, mount[1].ID)
		}
		if !n.Has(model.RoleCompute) {
			continue
		}
		keeper, err := unit(c, n, keeperUnit, mount[1].ID)
		if err != nil {
			return nil, nil, err
		}
		out = append(out, keeper...)
	}
	return out, ready, nil
}

// unit is a unit file and its unit. The template is named after the kind of unit.
func unit(c *model.Cluster, n model.Node, name string, after plan.ID) ([]plan.Resource, error) {
	content, err := openstack.Render(templates, "volumes"+path.Ext(name)+".tmpl", struct{ Directory, Mark, Path, Mount, Seen string }{
		c.Volumes.Directory, path.Join(c.Volumes.Directory, store.Mark()), mountPath(), mountUnit(), seenMark()})
	if err != nil {
		return nil, err
	}
	at := "/etc/systemd/system/" + name
	file := plan.Resource{ID: plan.Make(Name, n.Name, "file", at), Service: Name, Node: n.Name, After: []plan.ID{after},
		File: &plan.File{Path: at, Mode: 0o644, Owner: "root", Group: "root", Content: content}}
	return []plan.Resource{file, {ID: plan.Make(Name, n.Name, "unit", name), Service: Name, Node: n.Name, Needs: []string{service.CapBase},
		Unit: &plan.Unit{Name: name, Enabled: true, Running: true, RestartOn: []plan.ID{file.ID}}}}, nil
}

// backend is the section of the configuration that describes the store: volumes remember it.
const backend = "directory"
