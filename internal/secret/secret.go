// Package secret makes, keeps and hides secrets: random passwords and keys,
// the cluster's certificate authority, encryption at rest with age, and
// redaction. A secret never goes into a log, an argument list, a plan or a
// world-readable file.
package secret

import "fmt"

// Kind says how a secret is made.
type Kind string

// The kinds of secrets.
const (
	Password  Kind = "password"   // 32 letters and digits
	FernetKey Kind = "fernet-key" // 32 random bytes, URL-safe base64
	Cookie    Kind = "cookie"     // 32 capital letters (Erlang)
	// FernetRing is a key ring that its service rotates: {"keys":{"0":FernetKey,"1":FernetKey}}.
	FernetRing Kind = "fernet-ring"
)

// Spec declares a secret that a service uses. The leader makes those that do
// not exist yet; they never change by themselves.
type Spec struct {
	Name string // "galera/root", "keystone/database"
	Kind Kind
}

// Source hands out secrets by name.
type Source interface {
	Get(name string) (string, error)
}

// Redacted is the Source for reviews: it puts a mark in the place of each secret.
type Redacted struct{}

// Get returns "<secret:name>".
func (Redacted) Get(name string) (string, error) { return "<secret:" + name + ">", nil }

// Map is a Source over known values.
type Map map[string]string

// Get returns the value, or an error that names the secret (never its value).
func (m Map) Get(name string) (string, error) {
	v, ok := m[name]
	if !ok {
		return "", fmt.Errorf("secret %q does not exist", name)
	}
	return v, nil
}
