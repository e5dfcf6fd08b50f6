// Package plan turns what is wanted and what was observed into a Plan: the
// operations that lead from one to the other, in an order that never breaks a
// quorum. It is pure: no I/O, no clock, no randomness. The same input gives
// the same plan.
//
// A Resource is a declared thing on one node. An Op is one step that brings
// one Resource into its desired state. A Plan never holds a secret: file
// contents stay with the Resources, which each agent computes for itself; an
// Op carries only the hash both must agree on.
package plan

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"time"
)

// ID names a resource, unique in the cluster: "service/node/kind:name".
type ID string

// Resource is a declared thing on one node. Exactly one of Packages, File,
// Unit and Action is set.
type Resource struct {
	ID      ID     `json:"id"`
	Service string `json:"service"`
	Node    string `json:"node"`

	Packages *Packages `json:"packages,omitempty"`
	File     *File     `json:"file,omitempty"`
	Unit     *Unit     `json:"unit,omitempty"`
	Action   *Action   `json:"action,omitempty"`

	// After lists resources, of any node, that must be in their desired state before this one is touched.
	After []ID `json:"after,omitempty"`
	// Provides names capabilities ("sql", "amqp", "vip") that hold once all resources providing them are in place.
	Provides []string `json:"provides,omitempty"`
	// Needs names capabilities this resource waits for.
	Needs []string `json:"needs,omitempty"`
}

// Packages wants packages installed. Services are kept from starting while
// they are installed: a Unit starts them when they are configured.
type Packages struct {
	Names []string `json:"names"`
}

// File wants a regular file with this content.
type File struct {
	Path    string      `json:"path"`
	Mode    fs.FileMode `json:"mode"` // permission bits only
	Owner   string      `json:"owner"`
	Group   string      `json:"group"`
	Content []byte      `json:"-"` // may hold secrets: never printed, never in a Plan
	// Validate is a command the component itself offers to check the file. {} stands for the
	// path of the candidate. The file is installed only if it exits 0.
	Validate []string `json:"validate,omitempty"`
	// Fixed, if not empty, is what of the content a running daemon cannot take up: the units
	// that name the file in RestartOn are restarted only for a change of it. The
	// rest is brought into the running daemon by an Action, whose Check asks the daemon.
	Fixed []byte `json:"-"`
}

// Unit wants a systemd unit enabled and running with its current files.
type Unit struct {
	Name    string `json:"name"`
	Enabled bool   `json:"enabled"`
	Running bool   `json:"running"`
	// RestartOn lists the resources (files, packages) of the same node whose change needs a restart.
	RestartOn []ID `json:"restart_on,omitempty"`
	// ReloadOn lists those for which a reload is enough.
	ReloadOn []ID `json:"reload_on,omitempty"`
	// Member makes the unit a member of a quorum: its restarts are serialised.
	Member *Member `json:"member,omitempty"`
	// Start is the Action that starts the unit in place of a plain systemctl
	// start, where starting needs knowledge (bootstrap or join). It must also
	// serve for a restart: Args["restart"] is "true" then. A unit that runs and is not ready gets it too: what
	// an interruption left may never become ready by itself.
	Start *Action `json:"start,omitempty"`
	// Ready is the Action whose Check says that the unit serves, not merely runs. The
	// next member is touched only then.
	Ready *Action `json:"ready,omitempty"`
}

// Member says which quorum a unit belongs to.
type Member struct {
	Quorum string `json:"quorum"` // "galera", "rabbitmq", "haproxy"
	Size   int    `json:"size"`   // members in all
	Needed int    `json:"needed"` // members that must stay for it to serve
}

// Action is a step only its service knows: create a database, join a cluster.
// The service implements Check ("already done?") and Run.
type Action struct {
	Name string            `json:"name"`
	Args map[string]string `json:"args,omitempty"`
	// Timeout bounds Run, or the wait for Check where it is a Ready. Zero means DefaultTimeout.
	Timeout time.Duration `json:"timeout,omitempty"`
}

// DefaultTimeout bounds an action that names no time of its own. On a slow machine a whole cloud's first apply has dozens of Python programs load
// at the same time: what takes seconds elsewhere was seen to take five minutes and more.
const DefaultTimeout = 10 * time.Minute

// Kind says which of the four a resource is: "packages", "file", "unit" or "action".
func (r Resource) Kind() string {
	switch {
	case r.Packages != nil:
		return "packages"
	case r.File != nil:
		return "file"
	case r.Unit != nil:
		return "unit"
	case r.Action != nil:
		return "action"
	}
	return ""
}

// Make builds the ID of a resource.
func Make(service, node, kind, name string) ID {
	return ID(fmt.Sprintf("%s/%s/%s:%s", service, node, kind, name))
}

// Hash is what an agent compares: equal hash, nothing to do. For a unit it
// covers the hashes of the resources it must be restarted for (RestartOn and ReloadOn), looked up
// in all.
func (r Resource) Hash(all map[ID]Resource) string {
	h := sha256.New()
	put := func(v any) {
		b, err := json.Marshal(v)
		if err != nil {
			panic(fmt.Sprintf("plan: hash of %s: %v", r.ID, err)) // plain structs: cannot happen
		}
		h.Write(b)
		h.Write([]byte{0})
	}
	switch {
	case r.Packages != nil:
		put(r.Packages)
	case r.File != nil:
		return FileHash(*r.File)
	case r.Action != nil:
		put([]any{r.Service, r.Action.Name, r.Action.Args})
	case r.Unit != nil:
		put([]any{r.Unit.Name, r.Unit.Enabled, r.Unit.Running})
		put(r.Fingerprint(all))
	}
	return hex.EncodeToString(h.Sum(nil))[:16]
}

// Fingerprint is the hash of everything a running unit was started with. An agent
// records it after a (re)start.
type Fingerprint struct {
	Restart string `json:"restart"`
	Reload  string `json:"reload"`
}

// Fingerprint computes what the unit should run with.
func (r Resource) Fingerprint(all map[ID]Resource) Fingerprint {
	sum := func(ids []ID) string {
		h := sha256.New()
		for _, id := range ids {
			fmt.Fprintf(h, "%s=%s\n", id, all[id].InputHash(all))
		}
		return hex.EncodeToString(h.Sum(nil))[:16]
	}
	return Fingerprint{Restart: sum(r.Unit.RestartOn), Reload: sum(r.Unit.ReloadOn)}
}

// InputHash is the hash of what a unit reads of the resource when it starts: all of it, but
// of a file with a Fixed part only that.
func (r Resource) InputHash(all map[ID]Resource) string {
	if r.File != nil && len(r.File.Fixed) > 0 {
		fixed := *r.File
		fixed.Content = fixed.Fixed
		return FileHash(fixed)
	}
	return r.Hash(all)
}

// FileHash is the hash of a file as it is or should be: content, mode, owner, group.
func FileHash(f File) string {
	h := sha256.New()
	fmt.Fprintf(h, "%o %s:%s\n", f.Mode.Perm(), f.Owner, f.Group)
	h.Write(f.Content)
	return hex.EncodeToString(h.Sum(nil))[:16]
}

// Index maps resources by ID.
func Index(rs []Resource) map[ID]Resource {
	m := make(map[ID]Resource, len(rs))
	for _, r := range rs {
		m[r.ID] = r
	}
	return m
}
