package ssh

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

// knownHosts checks the key of one machine.
type knownHosts struct {
	conf    Config
	file    ssh.HostKeyCallback
	names   []string // as which the machine may be known, host:port
	pinned  []knownhosts.KnownKey
	refused error // why check said no, for those who get only the library's wrapped error
}

func readKnownHosts(conf Config) (*knownHosts, error) {
	file, err := knownhosts.New(conf.KnownHosts)
	if err != nil {
		return nil, &KnownHostsError{Path: conf.KnownHosts, Err: err}
	}
	_, port, err := net.SplitHostPort(conf.Addr)
	if err != nil {
		return nil, fmt.Errorf("address %q: %w", conf.Addr, err)
	}
	k := &knownHosts{conf: conf, file: file, names: []string{conf.Addr}}
	if conf.Name != "" {
		k.names = append(k.names, net.JoinHostPort(conf.Name, port))
	}
	return k, k.pin()
}

// pin finds the keys that the file has for the machine, by asking for one that nobody
// has. The first name that is known counts.
func (k *knownHosts) pin() error {
	pub, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return fmt.Errorf("probe key: %w", err)
	}
	probe, err := ssh.NewPublicKey(pub)
	if err != nil {
		return fmt.Errorf("probe key: %w", err)
	}
	for _, name := range k.names {
		var e *knownhosts.KeyError
		if errors.As(k.file(name, noAddr{}, probe), &e) && len(e.Want) > 0 {
			k.names, k.pinned = []string{name}, e.Want
			return nil
		}
	}
	return nil
}

// noAddr stands for the remote address where names decide.
type noAddr struct{}

func (noAddr) Network() string { return "tcp" }
func (noAddr) String() string  { return "0.0.0.0:0" }

// check implements ssh.HostKeyCallback.
func (k *knownHosts) check(_ string, remote net.Addr, key ssh.PublicKey) error {
	err := k.file(k.names[0], remote, key)
	if err == nil {
		return nil
	}
	var e *knownhosts.KeyError
	switch {
	case errors.As(err, &e) && len(e.Want) == 0:
		err = &HostKeyUnknownError{Addr: k.conf.Addr, Fingerprint: ssh.FingerprintSHA256(key), KeyType: key.Type(),
			File: k.conf.KnownHosts, Line: knownhosts.Line([]string{k.conf.Addr}, key)}
	case errors.As(err, &e):
		err = k.changed(ssh.FingerprintSHA256(key), key.Type())
	default: // revoked, or the file is unusable for this host
		err = &KnownHostsError{Path: k.conf.KnownHosts, Err: err}
	}
	k.refused = err
	return err
}

func (k *knownHosts) changed(fingerprint, keyType string) error {
	e := &HostKeyChangedError{Addr: k.conf.Addr, Fingerprint: fingerprint, KeyType: keyType}
	for _, w := range k.pinned {
		e.Known = append(e.Known, KnownKey{File: w.Filename, Line: w.Line, Fingerprint: ssh.FingerprintSHA256(w.Key), KeyType: w.Key.Type()})
	}
	return e
}

// algorithms returns the kinds of keys to ask the machine for: those it is known by, else
// a machine with several keys would show another one and look changed. nil: any.
func (k *knownHosts) algorithms() []string {
	var out []string
	for _, w := range k.pinned {
		algos := []string{w.Key.Type()}
		if w.Key.Type() == ssh.KeyAlgoRSA {
			algos = []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}
		}
		for _, a := range algos {
			if !slices.Contains(out, a) {
				out = append(out, a)
			}
		}
	}
	return out
}

func isHostKeyAlgo(algos []string) bool {
	return slices.ContainsFunc(algos, func(a string) bool {
		return strings.HasPrefix(a, "ssh-") || strings.HasPrefix(a, "ecdsa-") || strings.HasPrefix(a, "rsa-sha2-")
	})
}
