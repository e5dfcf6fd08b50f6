package smoke

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack/blockstorage/v3/snapshots"
	"github.com/gophercloud/gophercloud/v2/openstack/blockstorage/v3/volumes"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/flavors"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/keypairs"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/volumeattach"
	"github.com/gophercloud/gophercloud/v2/openstack/image/v2/imagedata"
	"github.com/gophercloud/gophercloud/v2/openstack/image/v2/images"
)

// description stands where people look who find something of the smoke test.
const description = "made by 'nines smoke', which removes it"

func (o *openStack) makeImage(ctx context.Context, name string, s ImageSpec) (string, error) {
	private := images.ImageVisibilityPrivate
	opts := images.CreateOpts{Name: name, Visibility: &private, DiskFormat: s.Format, ContainerFormat: s.Format}
	if s.Format == "raw" {
		opts.ContainerFormat = "bare"
	}
	if s.Kernel != "" {
		opts.Properties = map[string]string{"kernel_id": s.Kernel, "ramdisk_id": s.Ramdisk}
	}
	made, err := images.Create(ctx, o.images, opts).Extract()
	if err != nil {
		return "", err
	}
	// A reader of bytes, so that the request says how long it is.
	return made.ID, imagedata.Upload(ctx, o.images, made.ID, bytes.NewReader(s.Content)).ExtractErr()
}

func (o *openStack) makeFlavor(ctx context.Context, name string, s FlavorSpec) (string, error) {
	disk, public := 0, false
	made, err := flavors.Create(ctx, o.compute, flavors.CreateOpts{Name: name, RAM: s.MemoryMB, VCPUs: s.CPUs, Disk: &disk, IsPublic: &public}).Extract()
	return id(made, err, func(f *flavors.Flavor) string { return f.ID })
}

func (o *openStack) makeKey(ctx context.Context, name string, s KeySpec) (string, error) {
	made, err := keypairs.Create(ctx, o.compute, keypairs.CreateOpts{Name: name, PublicKey: s.Public}).Extract()
	return id(made, err, func(k *keypairs.KeyPair) string { return k.Name })
}

func (o *openStack) makeServer(ctx context.Context, name string, s ServerSpec) (string, error) {
	made, err := servers.Create(ctx, o.compute, keypairs.CreateOptsExt{
		CreateOptsBuilder: servers.CreateOpts{Name: name, ImageRef: s.Image.ID, FlavorRef: s.Flavor.ID, Networks: []servers.Network{{Port: s.Port.ID}}},
		KeyName:           s.Key.ID,
	}, nil).Extract()
	return id(made, err, func(v *servers.Server) string { return v.ID })
}

func (o *openStack) makeServerImage(ctx context.Context, name string, s ServerImageSpec) (string, error) {
	return servers.CreateImage(ctx, o.compute, s.Server.ID, servers.CreateImageOpts{Name: name}).ExtractImageID()
}

func (o *openStack) makeVolume(ctx context.Context, name string, s VolumeSpec) (string, error) {
	made, err := volumes.Create(ctx, o.volumes, volumes.CreateOpts{Name: name, Description: description, Size: s.GB}, nil).Extract()
	return id(made, err, func(v *volumes.Volume) string { return v.ID })
}

func (o *openStack) makeSnapshot(ctx context.Context, name string, s SnapshotSpec) (string, error) {
	// Force: also while it is attached.
	made, err := snapshots.Create(ctx, o.volumes, snapshots.CreateOpts{Name: name, Description: description, VolumeID: s.Volume.ID, Force: true}).Extract()
	return id(made, err, func(v *snapshots.Snapshot) string { return v.ID })
}

// Attach implements Cloud.
func (o *openStack) Attach(ctx context.Context, server, volume Thing) error {
	_, err := volumeattach.Create(ctx, o.compute, server.ID, volumeattach.CreateOpts{VolumeID: volume.ID}).Extract()
	return meaning(err)
}

// Detach implements Cloud.
func (o *openStack) Detach(ctx context.Context, server, volume Thing) error {
	return meaning(volumeattach.Delete(ctx, o.compute, server.ID, volume.ID).ExtractErr())
}

// remove deletes whatever it is.
func (o *openStack) remove(ctx context.Context, t Thing) error {
	switch t.Kind {
	case KindImage:
		return images.Delete(ctx, o.images, t.ID).ExtractErr()
	case KindFlavor:
		return flavors.Delete(ctx, o.compute, t.ID).ExtractErr()
	case KindKey:
		return keypairs.Delete(ctx, o.compute, t.ID, nil).ExtractErr()
	case KindServer:
		return servers.Delete(ctx, o.compute, t.ID).ExtractErr()
	case KindVolume:
		return volumes.Delete(ctx, o.volumes, t.ID, nil).ExtractErr()
	case KindSnapshot:
		return snapshots.Delete(ctx, o.volumes, t.ID).ExtractErr()
	}
	return o.removeNetwork(ctx, t)
}

// List implements Cloud.
func (o *openStack) List(ctx context.Context, kind Kind) ([]Thing, error) {
	switch kind {
	case KindImage:
		return named(ctx, images.List(o.images, images.ListOpts{Owner: o.project}), images.ExtractImages,
			func(v images.Image) Thing { return Thing{Kind: kind, ID: v.ID, Name: v.Name} })
	case KindFlavor:
		return named(ctx, flavors.ListDetail(o.compute, flavors.ListOpts{AccessType: flavors.AllAccess}), flavors.ExtractFlavors,
			func(v flavors.Flavor) Thing { return Thing{Kind: kind, ID: v.ID, Name: v.Name} })
	case KindKey:
		return named(ctx, keypairs.List(o.compute, nil), keypairs.ExtractKeyPairs,
			func(v keypairs.KeyPair) Thing { return Thing{Kind: kind, ID: v.Name, Name: v.Name} })
	case KindServer:
		return named(ctx, servers.List(o.compute, nil), servers.ExtractServers,
			func(v servers.Server) Thing { return Thing{Kind: kind, ID: v.ID, Name: v.Name} })
	case KindVolume:
		return named(ctx, volumes.List(o.volumes, nil), volumes.ExtractVolumes,
			func(v volumes.Volume) Thing { return Thing{Kind: kind, ID: v.ID, Name: v.Name} })
	case KindSnapshot:
		return named(ctx, snapshots.List(o.volumes, nil), snapshots.ExtractSnapshots,
			func(v snapshots.Snapshot) Thing { return Thing{Kind: kind, ID: v.ID, Name: v.Name} })
	}
	return o.listNetwork(ctx, kind)
}

// State implements Cloud.
func (o *openStack) State(ctx context.Context, t Thing) (State, error) {
	word, detail, err := o.state(ctx, t)
	return State{Word: strings.ToLower(word), Detail: detail}, meaning(err)
}

func (o *openStack) state(ctx context.Context, t Thing) (word, detail string, err error) {
	switch t.Kind {
	case KindImage:
		v, err := images.Get(ctx, o.images, t.ID).Extract()
		if err != nil {
			return "", "", err
		}
		return string(v.Status), "", nil
	case KindServer:
		v, err := servers.Get(ctx, o.compute, t.ID).Extract()
		if err != nil {
			return "", "", err
		}
		return serverWord(v), v.Fault.Message, nil
	case KindVolume:
		v, err := volumes.Get(ctx, o.volumes, t.ID).Extract()
		if err != nil {
			return "", "", err
		}
		return v.Status, "", nil
	case KindSnapshot:
		v, err := snapshots.Get(ctx, o.volumes, t.ID).Extract()
		if err != nil {
			return "", "", err
		}
		return v.Status, "", nil
	}
	// The others have no state of their own: they are there or not.
	return "there", "", o.there(ctx, t)
}

// serverWord is the state of an instance with what is being done to it: most requests are refused meanwhile.
func serverWord(v *servers.Server) string {
	if v.TaskState != "" && v.Status != "ERROR" {
		return v.Status + ", " + v.TaskState
	}
	return v.Status
}

// there fails when a thing without states is not there.
func (o *openStack) there(ctx context.Context, t Thing) error {
	switch t.Kind {
	case KindFlavor:
		return flavors.Get(ctx, o.compute, t.ID).Err
	case KindKey:
		return keypairs.Get(ctx, o.compute, t.ID, nil).Err
	}
	path, ok := networkPaths[t.Kind]
	if !ok {
		return fmt.Errorf("unknown kind %s", t.Kind)
	}
	var found any
	_, err := o.network.Get(ctx, o.network.ServiceURL(path, t.ID), &found, &gophercloud.RequestOpts{})
	return err
}
