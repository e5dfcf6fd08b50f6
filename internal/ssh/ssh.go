// Package ssh runs commands on machines and copies files to them before they have
// an agent: a thin client over golang.org/x/crypto/ssh.
//
// Invariants: a host whose key is not in known_hosts is refused, and nothing is ever
// added to that file; no secret goes into a command line (commands get theirs on standard input);
// every call honours its context. It must never ask a person anything, and must never
// know what the commands are for.
package ssh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/crypto/ssh"
)

// Timings of a connection.
const (
	defaultTimeout = 10 * time.Second // to connect, shake hands and authenticate
	keepaliveEvery = 5 * time.Second
	keepaliveWait  = 10 * time.Second // no answer for so long: the connection is dead
)

// Config says how to reach a machine.
type Config struct {
	// Addr is host:port to dial.
	Addr string
	// Name is the machine's name; a key that known_hosts has for it is accepted as well.
	Name string
	User string
	// Identity is the path of a private key. Keys of a running ssh-agent are offered too.
	Identity string
	// KnownHosts is the path of the file with the keys of known hosts.
	KnownHosts string
	// Timeout bounds connecting, handshake and authentication; zero: 10 s.
	Timeout time.Duration
}

// Client is a connection to one machine, safe for concurrent use.
type Client struct {
	conf Config
	conn *ssh.Client
	rtt  time.Duration
	sudo bool
	done chan struct{}
}

// Dial connects and authenticates. Its errors are *UnreachableError, *AuthError,
// *HostKeyUnknownError, *HostKeyChangedError, *KnownHostsError or *IdentityError.
func Dial(ctx context.Context, conf Config) (*Client, error) {
	hosts, err := readKnownHosts(conf)
	if err != nil {
		return nil, err
	}
	auth, closeAgent, err := authMethods(ctx, conf)
	if err != nil {
		return nil, err
	}
	defer closeAgent()

	if conf.Timeout == 0 {
		conf.Timeout = defaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, conf.Timeout)
	defer cancel()
	start := time.Now()
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", conf.Addr)
	if err != nil {
		return nil, &UnreachableError{Addr: conf.Addr, Err: err}
	}
	c := &Client{conf: conf, rtt: time.Since(start), done: make(chan struct{})}

	stop := context.AfterFunc(ctx, func() { raw.Close() })
	conn, chans, reqs, err := ssh.NewClientConn(raw, conf.Addr, &ssh.ClientConfig{
		User:              conf.User,
		Auth:              auth,
		HostKeyCallback:   hosts.check,
		HostKeyAlgorithms: hosts.algorithms(),
	})
	if !stop() && err == nil {
		conn.Close()
		err = ctx.Err()
	}
	if err != nil {
		return nil, dialError(ctx, conf, hosts, err)
	}
	c.conn = ssh.NewClient(conn, chans, reqs)
	go c.keepalive()
	return c, nil
}

// dialError finds out what a failed handshake means.
func dialError(ctx context.Context, conf Config, hosts *knownHosts, err error) error {
	if hosts.refused != nil {
		return hosts.refused
	}
	var algo *ssh.AlgorithmNegotiationError
	if errors.As(err, &algo) && len(hosts.pinned) > 0 && isHostKeyAlgo(algo.SupportedAlgorithms) {
		// The host has no key of the kinds that we know it by.
		return hosts.changed("", "")
	}
	if isAuthFailure(err) {
		return &AuthError{Addr: conf.Addr, User: conf.User, Identity: conf.Identity, Err: err}
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return &UnreachableError{Addr: conf.Addr, Err: err}
}

// RTT is how long the TCP connection took to establish: about one round trip.
func (c *Client) RTT() time.Duration { return c.rtt }

// Close ends the connection and all commands on it.
func (c *Client) Close() error {
	err := c.conn.Close()
	<-c.done // the keepalive ends with the connection
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// keepalive ends the connection when the machine stops answering: a machine that
// lost its power says nothing, and TCP alone would wait for many minutes.
func (c *Client) keepalive() {
	defer close(c.done)
	closed := make(chan struct{})
	go func() {
		_ = c.conn.Wait() // why it ended is told to those who wait for a command
		close(closed)
	}()
	tick := time.NewTicker(keepaliveEvery)
	defer tick.Stop()
	for {
		select {
		case <-closed:
			return
		case <-tick.C:
		}
		dead := time.AfterFunc(keepaliveWait, func() { c.conn.Close() })
		_, _, err := c.conn.SendRequest("keepalive@openssh.com", true, nil)
		dead.Stop()
		if err != nil {
			c.conn.Close()
			<-closed
			return
		}
	}
}

// BecomeRoot makes later commands run as root: nothing to do for root itself, sudo
// without a password for others. *NotRootError when neither works.
func (c *Client) BecomeRoot(ctx context.Context) error {
	out, err := c.Run(ctx, "id -u", nil)
	if err != nil {
		return fmt.Errorf("ask for the user's id: %w", err)
	}
	if string(out.Stdout) == "0\n" {
		return nil
	}
	_, err = c.Run(ctx, "sudo -n true", nil)
	var exit *ExitError
	if errors.As(err, &exit) {
		return &NotRootError{Addr: c.conf.Addr, User: c.conf.User, Missing: exit.Code == 127, Err: err}
	}
	if err != nil {
		return err
	}
	c.sudo = true
	return nil
}
