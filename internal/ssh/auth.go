package ssh

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// authMethods returns the keys to offer: that of the identity file first, then those
// of the ssh-agent. close ends the talk with the agent, once authentication is over.
func authMethods(ctx context.Context, conf Config) (methods []ssh.AuthMethod, closeAgent func(), err error) {
	own, ownErr := readIdentity(conf.Identity)
	others, closeAgent := agentSigners(ctx)
	var signers []ssh.Signer
	if ownErr == nil {
		signers = append(signers, own)
	}
	signers = append(signers, others...)
	if len(signers) == 0 {
		closeAgent()
		return nil, nil, ownErr
	}
	return []ssh.AuthMethod{ssh.PublicKeys(signers...)}, closeAgent, nil
}

func readIdentity(path string) (ssh.Signer, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, &IdentityError{Path: path, Err: err}
	}
	key, err := ssh.ParsePrivateKey(text)
	var locked *ssh.PassphraseMissingError
	if errors.As(err, &locked) {
		return nil, &IdentityError{Path: path, Encrypted: true, Err: err}
	}
	if err != nil {
		return nil, &IdentityError{Path: path, Err: err}
	}
	return key, nil
}

// agentSigners returns the keys of the ssh-agent that SSH_AUTH_SOCK names, none when there is none.
func agentSigners(ctx context.Context) ([]ssh.Signer, func()) {
	none := func() {}
	path := os.Getenv("SSH_AUTH_SOCK")
	if path == "" {
		return nil, none
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	if err != nil {
		return nil, none
	}
	signers, err := agent.NewClient(conn).Signers()
	if err != nil || len(signers) == 0 {
		conn.Close()
		return nil, none
	}
	return signers, func() { conn.Close() }
}

// isAuthFailure tells a refusal from other ends of a handshake: the library has no type for it.
func isAuthFailure(err error) bool {
	text := err.Error()
	return strings.Contains(text, "unable to authenticate") || strings.Contains(text, "too many authentication failures") ||
		strings.Contains(text, "Too many authentication failures")
}
