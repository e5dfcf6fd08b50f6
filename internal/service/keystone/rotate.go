package keystone

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"time"

	"nines/internal/model"
	"nines/internal/secret"
	"nines/internal/service"
)

// waitForNodes is how soon to look again when a rotation is due but a node does not have the present ring.
const waitForNodes = time.Minute

// Rotate implements service.Rotator for the token keys. Credential keys are not
// rotated: that needs every stored credential to be encrypted anew.
func (*Service) Rotate(c *model.Cluster, have secret.Source, seen map[string]service.Observation, now time.Time) (map[string]string, time.Time, error) {
	text, err := have.Get(SecretFernet)
	if err != nil {
		return nil, time.Time{}, err
	}
	ring, err := ParseRing(text)
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("secret %s: %w", SecretFernet, err)
	}
	period := c.Tuning.Keystone.FernetRotation
	if period <= 0 { // switched off
		return nil, time.Time{}, nil
	}
	if ring.Rotated.IsZero() { // new ring: its time starts now, its keys stay
		ring.Rotated = now
		return map[string]string{SecretFernet: ring.encode()}, now.Add(period), nil
	}
	if due := ring.Rotated.Add(period); now.Before(due) {
		return nil, due, nil
	}
	for _, n := range c.Controllers() {
		if seen[n.Name].Facts[FactFernet] != ring.Hash() {
			return nil, now.Add(waitForNodes), nil
		}
	}
	next := ring.Rotate(newKey(), maxKeys(c.Tuning.Keystone.TokenLifetime, period), now)
	return map[string]string{SecretFernet: next.encode()}, now.Add(period), nil
}

// newKey returns a Fernet key: 32 random bytes, URL-safe base64.
func newKey() string {
	var b [32]byte
	rand.Read(b[:]) // never fails: it ends the program instead
	return base64.URLEncoding.EncodeToString(b[:])
}
