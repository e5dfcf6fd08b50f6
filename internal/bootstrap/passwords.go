package bootstrap

import (
	"errors"
	"io/fs"
	"maps"
	"os"

	"nines/internal/secret"
)

// filePasswords holds the passwords of BMCs that no agent has been given yet, opened by filePasswordsKey: a key of their own,
// because a cluster's identity is made by its first deployment and by nothing before.
const (
	filePasswords    = "bmc.age"
	filePasswordsKey = "bmc.identity"
)

// KeepPasswords keeps passwords of BMCs, by node, until there are agents to give them to.
func KeepPasswords(dir string, passwords map[string]string) error {
	return editPasswords(dir, func(have secret.Map) { maps.Copy(have, passwords) })
}

// ForgetPasswords removes passwords that the agents have.
func ForgetPasswords(dir string, passwords map[string]string) error {
	return editPasswords(dir, func(have secret.Map) {
		for node, password := range passwords {
			if have[node] == password { // not a newer one
				delete(have, node)
			}
		}
	})
}

// Passwords returns the passwords that were kept, by node.
func Passwords(dir string) (map[string]string, error) {
	s := &state{dir: stateIn(dir)}
	if _, err := os.Stat(s.path(filePasswords)); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	s, err := openFolder(dir)
	if err != nil {
		return nil, err
	}
	defer s.close()
	return s.passwords()
}

func editPasswords(dir string, edit func(secret.Map)) error {
	s, err := openFolder(dir)
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
		for _, name := range []string{filePasswords, filePasswordsKey} {
			if err := os.Remove(s.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return &StateError{Path: s.path(name), Text: "it cannot be removed", Next: "run nines as the owner of the folder", Err: err}
			}
		}
		return nil
	}
	identity, err := s.passwordsKey()
	if err != nil {
		return err
	}
	recipient, err := secret.Recipient(identity)
	if err != nil {
		return err
	}
	sealed, err := secret.Seal(have, recipient)
	if err != nil {
		return err
	}
	return s.keep(filePasswords, sealed)
}

// passwordsKey reads what opens the passwords, or makes it, on disk before anything is sealed with it.
func (s *state) passwordsKey() (string, error) {
	raw, err := os.ReadFile(s.path(filePasswordsKey))
	if err == nil {
		return string(raw), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", &StateError{Path: s.path(filePasswordsKey), Text: "it cannot be read", Next: "run nines as its owner", Err: err}
	}
	identity, err := secret.NewIdentity()
	if err != nil {
		return "", err
	}
	return identity, s.keep(filePasswordsKey, []byte(identity+"\n"))
}

func (s *state) passwords() (secret.Map, error) {
	sealed, err := os.ReadFile(s.path(filePasswords))
	if errors.Is(err, fs.ErrNotExist) {
		return secret.Map{}, nil
	}
	var identity []byte
	if err == nil {
		identity, err = os.ReadFile(s.path(filePasswordsKey))
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
