package secret

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"filippo.io/age"
)

// maxBundle bounds an opened bundle, bytes: thousands of secrets fit, and a damaged
// or hostile one cannot fill the memory.
const maxBundle = 16 << 20

// ErrWrongIdentity says that a bundle was sealed for another identity.
var ErrWrongIdentity = errors.New("the bundle was sealed for another key")

// NewIdentity makes the key pair (age, X25519) that opens bundles, as text:
// AGE-SECRET-KEY-1... It is itself a secret.
func NewIdentity() (string, error) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return "", fmt.Errorf("make an age identity: %w", err)
	}
	return id.String(), nil
}

// Recipient returns the public half of an identity: age1...
func Recipient(identity string) (string, error) {
	id, err := parseIdentity(identity)
	if err != nil {
		return "", err
	}
	return id.Recipient().String(), nil
}

// Seal encrypts the values for the recipient.
func Seal(values Map, recipient string) ([]byte, error) {
	r, err := age.ParseX25519Recipient(strings.TrimSpace(recipient))
	if err != nil {
		return nil, fmt.Errorf("seal secrets: bad recipient: %w", err)
	}
	if values == nil {
		values = Map{}
	}
	text, err := json.Marshal(values)
	if err != nil {
		return nil, fmt.Errorf("seal secrets: %w", err)
	}
	var out bytes.Buffer
	w, err := age.Encrypt(&out, r)
	if err != nil {
		return nil, fmt.Errorf("seal secrets: %w", err)
	}
	if _, err := w.Write(text); err != nil {
		return nil, fmt.Errorf("seal secrets: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("seal secrets: %w", err)
	}
	return out.Bytes(), nil
}

// Open decrypts what Seal made. It returns all of it or an error, never a part.
func Open(sealed []byte, identity string) (Map, error) {
	id, err := parseIdentity(identity)
	if err != nil {
		return nil, err
	}
	r, err := age.Decrypt(bytes.NewReader(sealed), id)
	var other *age.NoIdentityMatchError
	if errors.As(err, &other) {
		return nil, fmt.Errorf("open secrets: %w", ErrWrongIdentity)
	}
	if err != nil {
		return nil, fmt.Errorf("open secrets: %w", err)
	}
	text, err := io.ReadAll(io.LimitReader(r, maxBundle+1))
	if err != nil {
		return nil, fmt.Errorf("open secrets: %w", err)
	}
	return parseBundle(text)
}

// parseBundle reads the JSON object of a bundle. Its errors name no value:
// those of encoding/json might.
func parseBundle(text []byte) (Map, error) {
	if len(text) > maxBundle {
		return nil, fmt.Errorf("open secrets: the bundle is larger than %d bytes", maxBundle)
	}
	var out Map
	if err := json.Unmarshal(text, &out); err != nil || out == nil {
		return nil, errors.New("open secrets: the bundle is not a JSON object of strings")
	}
	return out, nil
}

// parseIdentity never repeats the identity in its error.
func parseIdentity(identity string) (*age.X25519Identity, error) {
	id, err := age.ParseX25519Identity(strings.TrimSpace(identity))
	if err != nil {
		return nil, errors.New("not an age identity (AGE-SECRET-KEY-1...)")
	}
	return id, nil
}
