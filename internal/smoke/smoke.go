// Package smoke proves a cloud by use: through the public endpoints it makes an image, a network with a way out, a volume and an
// instance, reaches the instance from outside, attaches the volume, takes snapshots, and deletes all of it again. A loop of a few
// such operations shows what users feel while machines fail.
//
// Invariants: whatever a run makes bears the run's name from the first request on, so it is found again even when the answer to that
// request was lost; it is deleted at the end, also after a failure or an interrupt. Nothing is tried twice inside a step, only
// looked at again, so a failure is counted and not hidden. It must never change or delete anything that does not bear
// the name of a run, nor what a run that is still at work has made.
package smoke

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"nines/internal/model"
	"nines/internal/progress"
	"nines/internal/smoke/guest"
)

// Runner does one run, on one cloud.
type Runner struct {
	// ID names the run; see NewID.
	ID      string
	Cluster *model.Cluster
	Cloud   Cloud
	Guest   guest.Image
	// Visit asks the guest at an address what it found.
	Visit func(ctx context.Context, at netip.Addr) (Answer, error)
	// Alive reports whether the run of that name is still at work.
	Alive func(id string) bool
	Emit  progress.Emit
	Log   *slog.Logger

	steps *recorder
}

// Report is what a run did.
type Report struct {
	Steps  []Step `json:"steps"`
	OK     bool   `json:"ok"`
	TookMS int64  `json:"took_ms"`
	// Kept is what was left there on request.
	Kept *Kept `json:"kept,omitempty"`
}

// Kept says how to reach what a run left there.
type Kept struct {
	Run     string `json:"run"`
	Address string `json:"address,omitempty"` // of the instance, from outside
	URL     string `json:"url,omitempty"`
	// Name is what the names of all that was left begin with.
	Name string `json:"name"`
}

// Limits of steps and of what ends a run.
const (
	limitRequest = time.Minute // what is done at once, or is a few requests; HAProxy ends one after as long
	limitUpload  = 2 * time.Minute
	limitVolume  = time.Minute
	limitBoot    = 3 * time.Minute // on a compute without hardware support, the first time
	limitImage   = 2 * time.Minute
	limitRemove  = time.Minute
	limitCleanup = 5 * time.Minute
)

// Run proves the cloud once. keep leaves everything there, whatever came of it.
func (r *Runner) Run(ctx context.Context, keep bool) Report {
	began := time.Now()
	r.begin()
	t := &things{names: names{id: r.ID, kept: keep}}
	r.removeLeftovers(ctx)
	err := r.make(ctx, t)
	var kept *Kept
	if keep {
		kept = t.keep()
	} else {
		r.cleanUp(ctx)
	}
	report := Report{Steps: r.steps.all(), TookMS: time.Since(began).Milliseconds(), Kept: kept}
	report.OK = err == nil && !r.steps.failed()
	return report
}

// Lent is an instance that a run has made for somebody else to use.
type Lent struct {
	runner *Runner
	things *things
}

// Lend makes an instance that is reached from outside. It is the caller's until Remove.
func (r *Runner) Lend(ctx context.Context) (*Lent, error) {
	r.begin()
	l := &Lent{runner: r, things: &things{names: names{id: r.ID}}}
	r.removeLeftovers(ctx)
	if err := r.do(ctx, l.things, append(r.base(), r.instance()...)); err != nil {
		r.cleanUp(ctx)
		return nil, err
	}
	return l, nil
}

// Address is where the instance answers from outside.
func (l *Lent) Address() netip.AddrPort {
	return netip.AddrPortFrom(l.things.address.Address, guestPort)
}

// Gateway says which node what is sent there goes through now.
func (l *Lent) Gateway(ctx context.Context) (node string, err error) {
	return l.runner.Cloud.Gateway(ctx, l.things.router)
}

// Remove deletes the instance with all that was made for it.
func (l *Lent) Remove(ctx context.Context) error {
	l.runner.cleanUp(ctx)
	if l.runner.steps.failed() {
		return errors.New("not all of the instance could be deleted: 'nines smoke --clean' tries again")
	}
	return nil
}

// Clean removes what all runs have left there that are not at work, also what was kept.
func (r *Runner) Clean(ctx context.Context) Report {
	began := time.Now()
	r.begin()
	_ = r.sweep(ctx, func(n names, _ string) bool { return !r.Alive(n.id) }) // a failure is in the steps
	return Report{Steps: r.steps.all(), OK: !r.steps.failed(), TookMS: time.Since(began).Milliseconds()}
}

func (r *Runner) begin() {
	if r.Alive == nil {
		r.Alive = func(string) bool { return false }
	}
	if r.Emit == nil {
		r.Emit = progress.Discard
	}
	if r.Log == nil {
		r.Log = slog.New(slog.DiscardHandler)
	}
	r.steps = &recorder{emit: r.Emit, log: r.Log}
}

// things is what a run has made, as far as later steps need it.
type things struct {
	names names

	kernel, ramdisk, root      Thing
	external, network, router  Thing
	group, flavor, key, volume Thing
	port, server, address      Thing
	publicKey                  string
}

func (t *things) keep() *Kept {
	k := &Kept{Run: t.names.id, Name: t.names.of("")}
	if t.address.Address.IsValid() {
		k.Address, k.URL = t.address.Address.String(), "http://"+t.address.Address.String()+"/"
	}
	return k
}

// stage is one step of making things.
type stage struct {
	name  string
	limit time.Duration
	do    func(ctx context.Context, t *things) (detail string, err error)
}

// make does all steps up to the first that fails.
func (r *Runner) make(ctx context.Context, t *things) error {
	return r.do(ctx, t, slices.Concat(r.base(), r.instance(), r.proof()))
}

func (r *Runner) do(ctx context.Context, t *things, stages []stage) error {
	for _, s := range stages {
		err := r.steps.do(ctx, s.name, s.limit, func(ctx context.Context) (string, error) { return s.do(ctx, t) })
		if err != nil {
			return err
		}
	}
	return nil
}

// base is what instances need before they can be made.
func (r *Runner) base() []stage {
	return []stage{
		{"upload images", limitUpload, r.uploadImages},
		{"external network", limitRequest, r.externalNetwork},
		{"make network", limitRequest, r.makeNetwork},
		{"make router", limitRequest, func(ctx context.Context, t *things) (detail string, err error) {
			t.router, err = r.Cloud.Make(ctx, t.names.of("router"), RouterSpec{External: t.external, Network: t.network})
			return "", err
		}},
		{"make security group", limitRequest, func(ctx context.Context, t *things) (detail string, err error) {
			t.group, err = r.Cloud.Make(ctx, t.names.of("group"), GroupSpec{TCP: []int{22, guestPort}, ICMP: true})
			return "", err
		}},
		{"make flavor", limitRequest, func(ctx context.Context, t *things) (detail string, err error) {
			t.flavor, err = r.Cloud.Make(ctx, t.names.of("flavor"), FlavorSpec{MemoryMB: guest.Memory, CPUs: 1})
			return fmt.Sprintf("%d MB", guest.Memory), err
		}},
		{"make key pair", limitRequest, func(ctx context.Context, t *things) (detail string, err error) {
			if t.publicKey, err = newPublicKey(); err == nil {
				t.key, err = r.Cloud.Make(ctx, t.names.of("key"), KeySpec{Public: t.publicKey})
			}
			return "", err
		}},
	}
}

// instance makes an instance that is reached from outside.
func (r *Runner) instance() []stage {
	return []stage{
		{"make port", limitRequest, func(ctx context.Context, t *things) (detail string, err error) {
			t.port, err = r.Cloud.Make(ctx, t.names.of("port"), PortSpec{Network: t.network, Group: t.group})
			return t.port.Address.String(), err
		}},
		{"boot instance", limitBoot, r.bootInstance},
		{"give it a floating address", limitRequest, r.giveAddress},
		{"reach the instance", limitBoot, r.reachInstance},
	}
}

// proof uses the instance.
func (r *Runner) proof() []stage {
	return []stage{
		{"make volume", limitVolume, r.makeVolume},
		{"attach volume", limitVolume, r.attachVolume},
		{"see the disk in the instance", limitRequest, r.seeDisk(true)},
		{"snapshot of the volume", limitVolume, r.snapshotVolume},
		{"image of the instance", limitImage, func(ctx context.Context, t *things) (string, error) {
			shot, err := r.Cloud.Make(ctx, t.names.of("instance-image"), ServerImageSpec{Server: t.server})
			if err != nil {
				return "", err
			}
			if err := r.await(ctx, shot, imageReady); err != nil {
				return "", err
			}
			return "", r.await(ctx, t.server, serverReady) // it is free again a moment later
		}},
		{"detach volume", limitVolume, func(ctx context.Context, t *things) (string, error) {
			if err := r.Cloud.Detach(ctx, t.server, t.volume); err != nil {
				return "", err
			}
			return "", r.await(ctx, t.volume, volumeReady)
		}},
		{"see it gone in the instance", limitRequest, r.seeDisk(false)},
	}
}

func (r *Runner) uploadImages(ctx context.Context, t *things) (string, error) {
	kernel, err := os.ReadFile(r.Guest.Kernel)
	if err != nil {
		return "", fmt.Errorf("the guest's kernel: %w", err)
	}
	ramdisk, err := os.ReadFile(r.Guest.Ramdisk)
	if err != nil {
		return "", fmt.Errorf("the guest's ramdisk: %w", err)
	}
	upload := func(to *Thing, what string, spec ImageSpec) {
		if err == nil {
			*to, err = r.Cloud.Make(ctx, t.names.of(what), spec)
		}
		if err == nil {
			err = r.await(ctx, *to, imageReady)
		}
	}
	upload(&t.kernel, "kernel", ImageSpec{Format: "aki", Content: kernel})
	upload(&t.ramdisk, "ramdisk", ImageSpec{Format: "ari", Content: ramdisk})
	// The guest lives in its ramdisk; its disk only has to be there.
	upload(&t.root, "image", ImageSpec{Format: "raw", Content: make([]byte, 1<<20), Kernel: t.kernel.ID, Ramdisk: t.ramdisk.ID})
	return fmt.Sprintf("%d kB", (len(kernel)+len(ramdisk))>>10), err
}

func (r *Runner) externalNetwork(ctx context.Context, t *things) (string, error) {
	external, found, err := r.Cloud.External(ctx)
	if err != nil {
		return "", err
	}
	if found {
		t.external = external
		return "uses " + external.Name, nil
	}
	spec, err := externalSpec(r.Cluster)
	if err != nil {
		return "", err
	}
	t.external, err = r.Cloud.Make(ctx, t.names.of("external"), spec)
	return fmt.Sprintf("made, with %s to %s", spec.First, spec.Last), err
}

func (r *Runner) makeNetwork(ctx context.Context, t *things) (detail string, err error) {
	cidr := privateCIDR(r.Cluster)
	t.network, err = r.Cloud.Make(ctx, t.names.of("network"), NetworkSpec{CIDR: cidr})
	return cidr.String(), err
}

func (r *Runner) makeVolume(ctx context.Context, t *things) (detail string, err error) {
	t.volume, err = r.Cloud.Make(ctx, t.names.of("volume"), VolumeSpec{GB: 1})
	if err != nil {
		return "", err
	}
	return "1 GB", r.await(ctx, t.volume, volumeReady)
}

func (r *Runner) bootInstance(ctx context.Context, t *things) (detail string, err error) {
	t.server, err = r.Cloud.Make(ctx, t.names.of("instance"), t.serverSpec(t.port))
	if err != nil {
		return "", err
	}
	return "", r.await(ctx, t.server, serverReady)
}

func (t *things) serverSpec(port Thing) ServerSpec {
	return ServerSpec{Image: t.root, Flavor: t.flavor, Key: t.key, Port: port}
}

func (r *Runner) giveAddress(ctx context.Context, t *things) (detail string, err error) {
	t.address, err = r.Cloud.Make(ctx, t.names.of("address"), AddressSpec{External: t.external, Port: t.port})
	return t.address.Address.String(), err
}

func (r *Runner) reachInstance(ctx context.Context, t *things) (string, error) {
	a, err := r.awaitAnswer(ctx, t.address.Address, func(a Answer) string {
		return a.lacks(t.server.Name, t.port.Address, t.publicKey)
	})
	return fmt.Sprintf("it knows its address %s, its name and its key", a.Address), err
}

func (r *Runner) attachVolume(ctx context.Context, t *things) (string, error) {
	if err := r.Cloud.Attach(ctx, t.server, t.volume); err != nil {
		return "", err
	}
	return "", r.await(ctx, t.volume, volumeUsed)
}

// seeDisk waits until the guest has, or no longer has, a second disk.
func (r *Runner) seeDisk(there bool) func(ctx context.Context, t *things) (string, error) {
	return func(ctx context.Context, t *things) (string, error) {
		a, err := r.awaitAnswer(ctx, t.address.Address, func(a Answer) string {
			if there != (len(a.Disks) > 1) {
				return fmt.Sprintf("its disks are %v", a.Disks)
			}
			return ""
		})
		return fmt.Sprint(a.Disks), err
	}
}

func (r *Runner) snapshotVolume(ctx context.Context, t *things) (string, error) {
	shot, err := r.Cloud.Make(ctx, t.names.of("snapshot"), SnapshotSpec{Volume: t.volume})
	if err != nil {
		return "", err
	}
	return "", r.await(ctx, shot, snapshotReady)
}

// needed are the services of the cluster that the smoke test uses.
var needed = []string{"keystone", "glance", "placement", "nova", "neutron", "cinder"}

// NoCloudError says that a cluster runs too little of OpenStack to be used.
type NoCloudError struct{ Missing []string }

func (e *NoCloudError) Error() string {
	return "the cluster does not run " + strings.Join(e.Missing, ", ")
}

// Hint says what to do now.
func (e *NoCloudError) Hint() string {
	return "name them under 'services' in cluster.yaml and run 'nines apply'; in a lab, 'nines lab up' without --profile core"
}

// Possible returns a *NoCloudError for a cluster that cannot be proved this way.
func Possible(c *model.Cluster) error {
	var missing []string
	for _, name := range needed {
		if !c.Runs(name) {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return &NoCloudError{missing}
	}
	return nil
}
