package bootstrap

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"time"

	"nines/internal/secret"
)

// filePasswords holds the passwords of BMCs that no agent has been given yet, sealed as secrets.age is.
const filePasswords = "bmc.age"

// KeepPasswords keeps passwords of BMCs, by node, until there are agents to give them to. It makes the
// identity of a new cluster if there is none yet.
func KeepPasswords(dir, cluster string, passwords map[string]string) error {
	return editPasswords(dir, cluster, func(have secret.Map) { maps.Copy(have, passwords) })
}

// ForgetPasswords removes passwords that the agents have.
func ForgetPasswords(dir, cluster string, passwords map[string]string) error {
	return editPasswords(dir, cluster, func(have secret.Map) {
		for node, password := range passwords {
			if have[node] == password { // not a newer one
				delete(have, node)
			}
		}
	})
}

// Passwords returns the passwords that were kept, by node.
func Passwords(dir, cluster string) (map[string]string, error) {
	s := &state{dir: stateIn(dir)}
	if _, err := os.Stat(s.path(filePasswords)); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	s, err := openState(dir, cluster, time.Now())
	if err != nil {
		return nil, err
	}
	defer s.close()
	return s.passwords()
}

func editPasswords(dir, cluster string, edit func(secret.Map)) error {
	s, err := openState(dir, cluster, time.Now())
	if err != nil {
		return err
	}
	defer s.close()
	have, err := s.passwords()
	if err != nil {
		return err
	}
	edit(have)
	if len(have) == 0 {
		if err := os.Remove(s.path(filePasswords)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return &StateError{Path: s.path(filePasswords), Text: "it cannot be removed", Next: "run nines as the owner of the folder", Err: err}
		}
		return nil
	}
	identity, err := os.ReadFile(s.path(fileIdentity))
	if err != nil {
		return &StateError{Path: s.path(fileIdentity), Text: "it cannot be read", Next: "run nines as its owner", Err: err}
	}
	recipient, err := secret.Recipient(string(identity))
	if err != nil {
		return err
	}
	sealed, err := secret.Seal(have, recipient)
	if err != nil {
		return err
	}
	return s.keep(filePasswords, sealed)
}

func (s *state) passwords() (secret.Map, error) {
	sealed, err := os.ReadFile(s.path(filePasswords))
	if errors.Is(err, fs.ErrNotExist) {
		return secret.Map{}, nil
	}
	var identity []byte
	if err == nil {
		identity, err = os.ReadFile(s.path(fileIdentity))
	}
	var m secret.Map
	if err == nil {
		m, err = secret.Open(sealed, string(identity))
	}
	if err != nil {
		return nil, &StateError{Path: s.path(filePasswords), Text: "the passwords of BMCs cannot be read", Next: "remove it and hand them over again with 'nines fence password'", Err: err}
	}
	return m, nil
}
