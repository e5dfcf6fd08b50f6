package lab

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/ssh"
)

// Files of the lab's SSH access, below its ssh directory.
const (
	identityName   = "id_ed25519"
	knownHostsName = "known_hosts"
)

func (l *Lab) sshDir() string { return filepath.Join(l.Dir(), "ssh") }

// ensureKeys makes the operator's key pair and every machine's host key, and
// writes known_hosts from the latter: no key is ever trusted on first use.
// Keys that are there stay.
func (l *Lab) ensureKeys() error {
	if err := os.MkdirAll(l.sshDir(), 0o700); err != nil {
		return err
	}
	if _, err := ensureKey(filepath.Join(l.sshDir(), identityName), "lab "+l.Name()); err != nil {
		return err
	}
	var known strings.Builder
	for _, n := range l.state.Nodes {
		public, err := ensureKey(l.hostKey(n.Name), n.Name)
		if err != nil {
			return err
		}
		fields := strings.Fields(public)
		fmt.Fprintf(&known, "%s,%s,%s %s %s\n", n.Management, n.External, n.Name, fields[0], fields[1])
	}
	return writeFileAtomic(filepath.Join(l.sshDir(), knownHostsName), []byte(known.String()), 0o600)
}

// hostKey is the file of the machine's host key.
func (l *Lab) hostKey(node string) string { return filepath.Join(l.sshDir(), "host_"+node) }

// ensureKey makes an Ed25519 key pair at path and path.pub, unless it is
// there, and returns the public line.
func ensureKey(path, comment string) (string, error) {
	public, err := os.ReadFile(path + ".pub")
	if err == nil {
		return string(public), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	publicKey, privateKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return "", fmt.Errorf("SSH key: %w", err)
	}
	block, err := ssh.MarshalPrivateKey(privateKey, comment)
	if err != nil {
		return "", fmt.Errorf("SSH key: %w", err)
	}
	sshPublic, err := ssh.NewPublicKey(publicKey)
	if err != nil {
		return "", fmt.Errorf("SSH key: %w", err)
	}
	line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(sshPublic))) + " " + comment + "\n"
	// The public half last: it says that both are complete.
	if err := writeFileAtomic(path, pem.EncodeToMemory(block), 0o600); err != nil {
		return "", err
	}
	return line, writeFileAtomic(path+".pub", []byte(line), 0o644)
}
