package smoke

import (
	"context"
	"errors"
	"net/netip"
)

// Cloud is what the smoke test needs of a cloud, as one of its users with the role admin. Every call is one operation as a
// user does it, done once: nothing in it waits for a state, and nothing is tried again.
type Cloud interface {
	// Make asks for a thing of the spec's kind.
	Make(ctx context.Context, name string, spec Spec) (Thing, error)
	// Delete asks for it to be deleted, with what belongs to it. ErrBusy: not yet; ErrGone: it is not there.
	Delete(ctx context.Context, t Thing) error
	// List returns the user's own things of a kind.
	List(ctx context.Context, kind Kind) ([]Thing, error)
	// State says how a thing stands; ErrGone: it is not there.
	State(ctx context.Context, t Thing) (State, error)
	// External returns a network with floating addresses, if there is one.
	External(ctx context.Context) (network Thing, found bool, err error)
	// Gateway says which node what passes a router goes through now.
	Gateway(ctx context.Context, router Thing) (node string, err error)
	// Attach and Detach ask for a server to get and to give back a volume.
	Attach(ctx context.Context, server, volume Thing) error
	Detach(ctx context.Context, server, volume Thing) error
}

// What clouds say to a request.
var (
	// ErrGone: the thing is not there.
	ErrGone = errors.New("it is not there")
	// ErrBusy: the thing cannot be deleted yet, because of what is still going on with it.
	ErrBusy = errors.New("it is still in use")
	// ErrRefused: the cloud understood and said no; asking again is of no use.
	ErrRefused = errors.New("refused")
)

// Kind is a kind of thing.
type Kind string

// The kinds, in the words people read.
const (
	KindImage    Kind = "image"
	KindNetwork  Kind = "network"
	KindRouter   Kind = "router"
	KindGroup    Kind = "security group"
	KindFlavor   Kind = "flavor"
	KindKey      Kind = "key pair"
	KindVolume   Kind = "volume"
	KindSnapshot Kind = "volume snapshot"
	KindPort     Kind = "port"
	KindServer   Kind = "instance"
	KindAddress  Kind = "floating address"
)

// removal is the order in which things can be deleted: each before what it uses.
var removal = []Kind{KindAddress, KindServer, KindSnapshot, KindVolume, KindPort, KindRouter, KindNetwork, KindGroup, KindFlavor, KindKey, KindImage}

// Thing is something in the cloud.
type Thing struct {
	Kind     Kind
	ID, Name string
	// Address of a floating address, and of a port in its network.
	Address netip.Addr
	// Subnet of a network.
	Subnet string
}

// State is how a thing stands, in the cloud's own words but small letters.
type State struct {
	Word   string
	Detail string // why it failed
}

// The states that are waited for.
const (
	imageReady    = "active"
	serverReady   = "active"
	volumeReady   = "available"
	volumeUsed    = "in-use"
	snapshotReady = "available"
	gone          = "gone"
)

// Spec is what a thing is to be like.
type Spec interface{ Kind() Kind }

// ImageSpec is an image with its content. Kernel and Ramdisk are the ids of images that it is started with.
type ImageSpec struct {
	Format          string
	Content         []byte
	Kernel, Ramdisk string
}

// NetworkSpec is a network of instances, with one subnet.
type NetworkSpec struct{ CIDR netip.Prefix }

// ExternalSpec is a network of floating addresses, which are handed out from First to Last.
type ExternalSpec struct {
	Physical             string
	CIDR                 netip.Prefix
	Gateway, First, Last netip.Addr
}

// RouterSpec is a router from a network to an external one.
type RouterSpec struct{ External, Network Thing }

// GroupSpec is a security group that lets these TCP ports and ICMP in.
type GroupSpec struct {
	TCP  []int
	ICMP bool
}

// FlavorSpec is a size of instances. Their disk is as large as the image.
type FlavorSpec struct{ MemoryMB, CPUs int }

// KeySpec is a key pair of which the cloud gets the public half.
type KeySpec struct{ Public string }

// VolumeSpec is a volume.
type VolumeSpec struct{ GB int }

// SnapshotSpec is a snapshot of a volume, attached or not.
type SnapshotSpec struct{ Volume Thing }

// PortSpec is an interface for an instance.
type PortSpec struct{ Network, Group Thing }

// ServerSpec is an instance.
type ServerSpec struct{ Image, Flavor, Key, Port Thing }

// ServerImageSpec is an image made of an instance's disk.
type ServerImageSpec struct{ Server Thing }

// AddressSpec is a floating address for a port.
type AddressSpec struct{ External, Port Thing }

// Kind implements Spec; so do those below.
func (ImageSpec) Kind() Kind       { return KindImage }
func (NetworkSpec) Kind() Kind     { return KindNetwork }
func (ExternalSpec) Kind() Kind    { return KindNetwork }
func (RouterSpec) Kind() Kind      { return KindRouter }
func (GroupSpec) Kind() Kind       { return KindGroup }
func (FlavorSpec) Kind() Kind      { return KindFlavor }
func (KeySpec) Kind() Kind         { return KindKey }
func (VolumeSpec) Kind() Kind      { return KindVolume }
func (SnapshotSpec) Kind() Kind    { return KindSnapshot }
func (PortSpec) Kind() Kind        { return KindPort }
func (ServerSpec) Kind() Kind      { return KindServer }
func (ServerImageSpec) Kind() Kind { return KindImage }
func (AddressSpec) Kind() Kind     { return KindAddress }
