package secret

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
)

// newFernetRing returns a new key ring: key 0 staged, key 1 primary, both random.
func newFernetRing() string {
	keys := map[string]string{}
	for _, index := range []string{"0", "1"} {
		var b [32]byte
		rand.Read(b[:]) // never fails: it ends the program instead
		keys[index] = base64.URLEncoding.EncodeToString(b[:])
	}
	text, err := json.Marshal(map[string]any{"keys": keys})
	if err != nil {
		panic(fmt.Sprintf("secret: encode ring: %v", err)) // strings only: cannot happen
	}
	return string(text)
}
