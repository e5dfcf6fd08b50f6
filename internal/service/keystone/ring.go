package keystone

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Ring is a Fernet key repository. Its keys are numbered: 0 is staged (already
// on every node, next to become primary), the highest is primary (encrypts), the
// others are secondary (still decrypt).
type Ring struct {
	Keys map[int]string `json:"keys"`
	// Rotated is when the ring was last rotated; zero until it is first looked at.
	Rotated time.Time `json:"rotated,omitzero"`
}

// ErrRing says that a text is not a usable key ring. It never contains a key.
var ErrRing = errors.New("not a fernet key ring")

// ParseRing reads the secret value of a ring: {"keys":{"0":KEY,"1":KEY},"rotated":TIME}.
func ParseRing(text string) (Ring, error) {
	var r Ring
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		return Ring{}, fmt.Errorf("%w: no valid JSON", ErrRing) // the JSON error could quote a key
	}
	if _, ok := r.Keys[0]; !ok || len(r.Keys) < 2 {
		return Ring{}, fmt.Errorf("%w: it needs a staged key 0 and a primary key", ErrRing)
	}
	for i, key := range r.Keys {
		raw, err := base64.URLEncoding.DecodeString(key)
		if i < 0 || err != nil || len(raw) != 32 {
			return Ring{}, fmt.Errorf("%w: key %d is not 32 bytes in URL-safe base64", ErrRing, i)
		}
	}
	return r, nil
}

// encode is the secret value of the ring. It holds the keys: never log it.
func (r Ring) encode() string {
	b, err := json.Marshal(r)
	if err != nil {
		panic(fmt.Sprintf("keystone: encode ring: %v", err)) // a map of strings and a time: cannot happen
	}
	return string(b)
}

// Indexes returns the numbers of the keys, ascending.
func (r Ring) Indexes() []int { return slices.Sorted(maps.Keys(r.Keys)) }

// Primary is the number of the key that encrypts.
func (r Ring) Primary() int { return slices.Max(r.Indexes()) }

// Hash is equal on two nodes exactly when their keys are. It gives nothing of the keys away.
func (r Ring) Hash() string {
	var b strings.Builder
	for _, i := range r.Indexes() {
		fmt.Fprintf(&b, "%d=%s\n", i, strings.TrimSpace(r.Keys[i]))
	}
	sum := sha256.Sum256([]byte(b.String()))
	return hex.EncodeToString(sum[:])[:16]
}

// Rotate returns the next ring: the staged key becomes primary, newKey is staged, and the
// oldest secondaries go until at most keep keys are left.
//
// Nodes may take over the next ring one after the other and at any moment as long as
// all have the present one: a token made with the new primary can be read
// everywhere, because that key was the staged one. Hence the one rule for
// callers: rotate only when every node has the present ring.
func (r Ring) Rotate(newKey string, keep int, now time.Time) Ring {
	keys := maps.Clone(r.Keys)
	keys[r.Primary()+1] = keys[0]
	keys[0] = newKey
	next := Ring{Keys: keys, Rotated: now}
	for _, i := range next.Indexes() {
		if len(keys) <= max(keep, 3) {
			break
		}
		if i != 0 && i != next.Primary() {
			delete(keys, i)
		}
	}
	return next
}

// maxKeys is how many keys it takes to read every token that is still good.
func maxKeys(lifetime, period time.Duration) int {
	if period <= 0 {
		return 3
	}
	good := lifetime + expiredWindow
	return int((good+period-1)/period) + 2
}

// fileStep is one change of a key repository.
type fileStep struct {
	index  int
	key    string
	remove bool
}

// steps lists the changes that lead from the keys in a directory to the ring, in an order in which
// a reader at any moment in between can decrypt all it could before and what
// the other nodes encrypt: the new primary, then the other keys with the staged
// one last, then the removals.
func (r Ring) steps(have map[int]string) []fileStep {
	var out []fileStep
	for _, i := range slices.Backward(r.Indexes()) {
		if old, ok := have[i]; !ok || old != r.Keys[i] {
			out = append(out, fileStep{index: i, key: r.Keys[i]})
		}
	}
	for _, i := range slices.Sorted(maps.Keys(have)) {
		if _, ok := r.Keys[i]; !ok {
			out = append(out, fileStep{index: i, remove: true})
		}
	}
	return out
}

// index reads the name of a key file; others in the directory are ignored, as keystone does.
func index(name string) (int, bool) {
	i, err := strconv.Atoi(name)
	return i, err == nil && i >= 0 && strconv.Itoa(i) == name
}
