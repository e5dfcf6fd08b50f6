package secret

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
)

// Lengths of generated secrets, characters. 32 letters and digits are 190 bits,
// 32 capital letters 150: neither can be guessed, and both fit every component's limit.
const (
	passwordLength = 32
	cookieLength   = 32
)

const (
	capitals = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	// Letters and digits alone need no quoting in any configuration file, URL or SQL.
	alphanumeric = capitals + "abcdefghijklmnopqrstuvwxyz0123456789"
)

// Generate makes a new value of the kind that s asks for.
func Generate(s Spec) (string, error) {
	switch s.Kind {
	case Password:
		return randomText(alphanumeric, passwordLength), nil
	case Cookie:
		return randomText(capitals, cookieLength), nil
	case FernetKey:
		var b [32]byte
		rand.Read(b[:]) // never fails: it ends the program instead
		return base64.URLEncoding.EncodeToString(b[:]), nil
	case FernetRing:
		return newFernetRing(), nil
	}
	return "", fmt.Errorf("secret %q: unknown kind %q", s.Name, s.Kind)
}

// randomText draws n characters of the alphabet, each equally likely: bytes that
// would favour the first characters are drawn again.
func randomText(alphabet string, n int) string {
	limit := byte(256 / len(alphabet) * len(alphabet))
	out := make([]byte, 0, n)
	var buf [64]byte
	for {
		rand.Read(buf[:])
		for _, b := range buf {
			if b >= limit {
				continue
			}
			out = append(out, alphabet[int(b)%len(alphabet)])
			if len(out) == n {
				return string(out)
			}
		}
	}
}

// Complete returns the secrets with those of specs that are missing made anew, and
// whether there were any. It never changes an existing value, nor have itself.
func Complete(have Map, specs []Spec) (out Map, changed bool, err error) {
	out = make(Map, len(have)+len(specs))
	for k, v := range have {
		out[k] = v
	}
	for _, s := range specs {
		if s.Name == "" {
			return nil, false, fmt.Errorf("a secret of kind %q has no name", s.Kind)
		}
		if _, ok := out[s.Name]; ok {
			continue
		}
		v, err := Generate(s)
		if err != nil {
			return nil, false, err
		}
		out[s.Name], changed = v, true
	}
	return out, changed, nil
}
