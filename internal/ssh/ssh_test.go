package ssh

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
	"golang.org/x/crypto/ssh/knownhosts"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server is an SSH server in this process that runs commands in a real shell.
type server struct {
	addr   string
	hosts  []ssh.Signer
	path   string // PATH of the commands
	listen net.Listener
	wg     sync.WaitGroup

	mu    sync.Mutex
	conns []net.Conn
}

func newKey(t testing.TB) (ssh.Signer, ed25519.PrivateKey) {
	t.Helper()
	_, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(priv)
	if err != nil {
		t.Fatal(err)
	}
	return s, priv
}

// start serves whoever has the key allowed, showing the host keys.
func start(t *testing.T, allowed ssh.PublicKey, hosts ...ssh.Signer) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{addr: l.Addr().String(), hosts: hosts, path: os.Getenv("PATH"), listen: l}
	conf := &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		if allowed == nil || !bytes.Equal(key.Marshal(), allowed.Marshal()) {
			return nil, errors.New("who are you?")
		}
		return nil, nil
	}}
	for _, h := range hosts {
		conf.AddHostKey(h)
	}
	s.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conns = append(s.conns, c)
			s.mu.Unlock()
			s.wg.Go(func() { s.serve(c, conf) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		s.drop()
		s.wg.Wait()
	})
	return s
}

// drop cuts every connection.
func (s *server) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		c.Close()
	}
}

func (s *server) serve(raw net.Conn, conf *ssh.ServerConfig) {
	conn, chans, reqs, err := ssh.NewServerConn(raw, conf)
	if err != nil {
		raw.Close()
		return
	}
	s.wg.Go(func() { ssh.DiscardRequests(reqs) })
	for ch := range chans {
		c, reqs, err := ch.Accept()
		if err != nil {
			break
		}
		s.wg.Go(func() { s.session(c, reqs) })
	}
	conn.Close()
}

func (s *server) session(c ssh.Channel, reqs <-chan *ssh.Request) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for r := range reqs {
		if r.Type != "exec" {
			continue
		}
		var exe struct{ Command string }
		if err := ssh.Unmarshal(r.Payload, &exe); err != nil {
			return
		}
		_ = r.Reply(true, nil)
		s.wg.Go(func() { s.exec(ctx, c, exe.Command) })
	}
}

func (s *server) exec(ctx context.Context, c ssh.Channel, command string) {
	defer c.Close()
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", command)
	cmd.Env = []string{"PATH=" + s.path}
	cmd.Stdout, cmd.Stderr = c, c.Stderr()
	cmd.WaitDelay = time.Second
	in, err := cmd.StdinPipe()
	if err != nil {
		return
	}
	s.wg.Go(func() {
		_, _ = io.Copy(in, c)
		in.Close()
	})
	_ = cmd.Run()
	if ctx.Err() == nil {
		code := uint32(cmd.ProcessState.ExitCode())
		_, _ = c.SendRequest("exit-status", false, ssh.Marshal(struct{ Code uint32 }{code}))
	}
}

// setup is a server, a user it lets in, and a known_hosts file with the given keys for it.
func setup(t *testing.T, known ...ssh.PublicKey) (*server, Config) {
	t.Helper()
	t.Setenv("SSH_AUTH_SOCK", "")
	host, _ := newKey(t)
	user, priv := newKey(t)
	s := start(t, user.PublicKey(), host)
	if known == nil {
		known = []ssh.PublicKey{host.PublicKey()}
	}
	dir := t.TempDir()
	conf := Config{Addr: s.addr, Name: "ctl1", User: "root", Identity: writeKey(t, dir, priv, ""), KnownHosts: filepath.Join(dir, "known_hosts"), Timeout: 5 * time.Second}
	writeHosts(t, conf.KnownHosts, s.addr, known...)
	return s, conf
}

func ecdsaKey(t *testing.T) ssh.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func writeKey(t *testing.T, dir string, key ed25519.PrivateKey, passphrase string) string {
	t.Helper()
	block, err := ssh.MarshalPrivateKey(key, "")
	if passphrase != "" {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(key, "", []byte(passphrase))
	}
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "id_ed25519")
	if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func writeHosts(t *testing.T, path, name string, keys ...ssh.PublicKey) {
	t.Helper()
	text := "# known hosts\n"
	for _, k := range keys {
		text += knownhosts.Line([]string{name}, k) + "\n"
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func dial(t *testing.T, conf Config) *Client {
	t.Helper()
	c, err := Dial(t.Context(), conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func refused[E error](t *testing.T, conf Config, hint ...string) E {
	t.Helper()
	c, err := Dial(t.Context(), conf)
	if err == nil {
		c.Close()
		t.Fatal("connected")
	}
	var e E
	if !errors.As(err, &e) {
		t.Fatalf("%T: %v", err, err)
	}
	h, ok := any(e).(interface{ Hint() string })
	if !ok {
		t.Fatalf("%T has no hint", e)
	}
	for _, part := range hint {
		if !strings.Contains(err.Error()+"\n"+h.Hint(), part) {
			t.Errorf("%q does not say %q", err.Error()+"\n"+h.Hint(), part)
		}
	}
	return e
}

func TestRun(t *testing.T) {
	_, conf := setup(t)
	c := dial(t, conf)
	out, err := c.Run(t.Context(), `echo "it's $((1+1))"; cat; echo oops >&2`, strings.NewReader("from stdin\n"))
	if err != nil {
		t.Fatal(err)
	}
	if string(out.Stdout) != "it's 2\nfrom stdin\n" || string(out.Stderr) != "oops\n" {
		t.Fatalf("%q, %q", out.Stdout, out.Stderr)
	}
	_, err = c.Run(t.Context(), "echo 'no space left' >&2; exit 7", nil)
	var exit *ExitError
	if !errors.As(err, &exit) || exit.Code != 7 || err.Error() != "exit status 7: no space left" {
		t.Fatalf("got %v", err)
	}
}

func TestQuoteMakesOneWord(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		word := rapid.StringMatching(`[a-z'"\\$ ;&|*\n`+"`"+`]{0,12}`).Draw(t, "word")
		out, err := exec.Command("/bin/sh", "-c", "printf %s "+quote(word)).Output()
		if err != nil || string(out) != word {
			t.Fatalf("%q became %q, %v", word, out, err)
		}
	})
}

func TestHostKeyUnknown(t *testing.T) {
	s, conf := setup(t)
	writeHosts(t, conf.KnownHosts, "elsewhere")
	fingerprint := ssh.FingerprintSHA256(s.hosts[0].PublicKey())
	e := refused[*HostKeyUnknownError](t, conf, fingerprint, conf.KnownHosts, "ssh_host_ed25519_key.pub", "console")
	if before, _ := os.ReadFile(conf.KnownHosts); strings.Contains(string(before), "ssh-ed25519") {
		t.Error("the file of known hosts was changed")
	}
	// The line that it proposes is the right one.
	if err := os.WriteFile(conf.KnownHosts, []byte(e.Line+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	dial(t, conf)
}

func TestHostKeyChanged(t *testing.T) {
	old, _ := newKey(t)
	s, conf := setup(t, old.PublicKey())
	e := refused[*HostKeyChangedError](t, conf, "HAS CHANGED", ssh.FingerprintSHA256(s.hosts[0].PublicKey()),
		ssh.FingerprintSHA256(old.PublicKey()), conf.KnownHosts+":2", "line 2 of "+conf.KnownHosts)
	if len(e.Known) != 1 || e.Known[0].Line != 2 {
		t.Errorf("%+v", e.Known)
	}
}

func TestHostKeyOfAnotherKindIsChangedToo(t *testing.T) {
	s, conf := setup(t)
	rsaOnly := "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQC1Wx0DPCYGyvmPPXVGZlC7fDzdlE/ow5dJrwUEDhG0aN5Ybdpi5HJLd3G4fNCs7UUkIrEXZKTLpNaZCOdmxM5HHqrCvcFcpcSK4ZEMdvTTZR5PXhJHd/Z7DvgJ7cCVTbDnTGKGYPTq5LJnXl8zLZgwj8JuEPqEqUFzQVHWzeVPbQ=="
	host, port, err := net.SplitHostPort(s.addr)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(conf.KnownHosts, []byte("["+host+"]:"+port+" "+rsaOnly+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	refused[*HostKeyChangedError](t, conf, "no key of that kind")
}

func TestHostWithSeveralKeysIsAskedForTheKnownOne(t *testing.T) {
	t.Setenv("SSH_AUTH_SOCK", "")
	_, conf := setup(t)
	ed, _ := newKey(t)
	other := ecdsaKey(t)
	user, priv := newKey(t)
	s := start(t, user.PublicKey(), ed, other)
	conf.Addr, conf.Identity = s.addr, writeKey(t, t.TempDir(), priv, "")
	for _, known := range []ssh.Signer{ed, other} {
		writeHosts(t, conf.KnownHosts, s.addr, known.PublicKey())
		dial(t, conf)
	}
}

func TestHostKnownByName(t *testing.T) {
	s, conf := setup(t)
	_, port, err := net.SplitHostPort(s.addr)
	if err != nil {
		t.Fatal(err)
	}
	writeHosts(t, conf.KnownHosts, "ctl1:"+port, s.hosts[0].PublicKey())
	dial(t, conf)
	// What the address says goes before what the name says.
	wrong, _ := newKey(t)
	text := knownhosts.Line([]string{s.addr}, wrong.PublicKey()) + "\n" + knownhosts.Line([]string{"ctl1:" + port}, s.hosts[0].PublicKey()) + "\n"
	if err := os.WriteFile(conf.KnownHosts, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	refused[*HostKeyChangedError](t, conf)
}

func TestKnownHostsFile(t *testing.T) {
	_, conf := setup(t)
	if err := os.WriteFile(conf.KnownHosts, []byte("\n[127.0.0.1]:1 ssh-ed25519 garbage\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	refused[*KnownHostsError](t, conf, conf.KnownHosts+":2", "correct the line")
	if err := os.Remove(conf.KnownHosts); err != nil {
		t.Fatal(err)
	}
	refused[*KnownHostsError](t, conf, "no file of known hosts", conf.KnownHosts, "ssh_host_ed25519_key.pub")
}

func TestAuthRefused(t *testing.T) {
	_, conf := setup(t)
	_, stranger := newKey(t)
	conf.Identity = writeKey(t, t.TempDir(), stranger, "")
	refused[*AuthError](t, conf, "refuses user root", conf.Identity, "authorized_keys")
}

func TestIdentity(t *testing.T) {
	_, conf := setup(t)
	_, priv := newKey(t)
	conf.Identity = writeKey(t, t.TempDir(), priv, "open sesame")
	if e := refused[*IdentityError](t, conf, "encrypted", "ssh-agent", "ssh-add "+conf.Identity); !e.Encrypted {
		t.Error("not said to be encrypted")
	}
	conf.Identity = filepath.Join(t.TempDir(), "none")
	refused[*IdentityError](t, conf, "ssh-keygen -t ed25519 -f "+conf.Identity)
	if err := os.WriteFile(conf.Identity, []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	refused[*IdentityError](t, conf, "cannot be used")
}

func TestAgentHasTheKeyOfAnEncryptedFile(t *testing.T) {
	_, conf := setup(t)
	plain, err := os.ReadFile(conf.Identity)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.ParseRawPrivateKey(plain)
	if err != nil {
		t.Fatal(err)
	}
	ring := agent.NewKeyring()
	if err := ring.Add(agent.AddedKey{PrivateKey: key}); err != nil {
		t.Fatal(err)
	}
	sock := filepath.Join(t.TempDir(), "agent")
	l, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				_ = agent.ServeAgent(ring, c)
				c.Close()
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
	})
	t.Setenv("SSH_AUTH_SOCK", sock)
	conf.Identity = writeKey(t, t.TempDir(), *key.(*ed25519.PrivateKey), "open sesame")
	dial(t, conf)
}

func TestUnreachable(t *testing.T) {
	_, conf := setup(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() // accepts in the kernel and never says a word: a frozen machine
	conf.Addr, conf.Timeout = l.Addr().String(), 100*time.Millisecond
	writeHosts(t, conf.KnownHosts, conf.Addr)
	if e := refused[*UnreachableError](t, conf, conf.Addr); !errors.Is(e, context.DeadlineExceeded) {
		t.Errorf("cause is %v", e.Err)
	}
	l.Close()
	refused[*UnreachableError](t, conf, "is the machine up")
}

func TestConnectionThatBreaksOff(t *testing.T) {
	s, conf := setup(t)
	c := dial(t, conf)
	started := make(chan struct{})
	go func() {
		<-started
		s.drop()
	}()
	_, err := c.Run(t.Context(), "cat", readerFunc(func(p []byte) (int, error) {
		select {
		case <-started:
			return 0, io.EOF
		default:
			close(started)
			return copy(p, "x"), nil
		}
	}))
	var lost *LostError
	// The command may have ended just before the cut.
	if err != nil && !errors.As(err, &lost) {
		t.Fatalf("%T: %v", err, err)
	}
	_ = c.conn.Wait()
	if _, err := c.Run(t.Context(), "true", nil); !errors.As(err, &lost) {
		t.Fatalf("afterwards: %T: %v", err, err)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestCancelledCommandReturns(t *testing.T) {
	_, conf := setup(t)
	c := dial(t, conf)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Run(ctx, "exec sleep 60", nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
	if out, err := c.Run(t.Context(), "echo still here", nil); err != nil || string(out.Stdout) != "still here\n" {
		t.Fatalf("the connection is gone: %v", err)
	}
}

func TestUpload(t *testing.T) {
	_, conf := setup(t)
	c := dial(t, conf)
	dir := t.TempDir()
	path := filepath.Join(dir, "a b")
	big := bytes.Repeat([]byte("nines"), 1<<18)
	sum := sha256.Sum256(big)
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	if _, err := w.Write(big); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	check := func(want []byte) {
		t.Helper()
		got, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%d bytes arrived, want %d, %v", len(got), len(want), err)
		}
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) != 1 {
			t.Fatalf("something is left behind: %v, %v", entries, err)
		}
	}
	if err := c.Upload(t.Context(), File{Path: path, Mode: 0o640}, bytes.NewReader(big)); err != nil {
		t.Fatal(err)
	}
	check(big)
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o640 {
		t.Fatalf("mode %v, %v", fi.Mode(), err)
	}
	if err := c.Upload(t.Context(), File{Path: path, Mode: 0o600, Decompress: "gzip -dc", SHA256: hex.EncodeToString(sum[:])}, &packed); err != nil {
		t.Fatal(err)
	}
	check(big)

	t.Run("another content is refused and the old file stays", func(t *testing.T) {
		err := c.Upload(t.Context(), File{Path: path, Mode: 0o600, SHA256: strings.Repeat("0", 64)}, strings.NewReader("x"))
		if !errors.Is(err, ErrCorrupt) {
			t.Fatalf("got %v", err)
		}
	})
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, big) {
		t.Fatal("the old file is gone")
	}
	t.Run("a folder that is missing is told", func(t *testing.T) {
		err := c.Upload(t.Context(), File{Path: filepath.Join(dir, "none", "x"), Mode: 0o600}, iotest.DataErrReader(strings.NewReader("x")))
		var exit *ExitError
		if !errors.As(err, &exit) {
			t.Fatalf("got %v", err)
		}
	})
}

func TestBecomeRoot(t *testing.T) {
	for name, tc := range map[string]struct {
		id, sudo string // scripts; empty sudo: not installed
		missing  bool
		fails    bool
	}{
		"root":                      {id: "echo 0"},
		"sudo":                      {id: "echo 1000", sudo: `shift; [ "$1" = -- ] && shift; SUDO=yes exec "$@"`},
		"sudo that asks a password": {id: "echo 1000", sudo: "echo 'sudo: a password is required' >&2; exit 1", fails: true},
		"neither root nor sudo":     {id: "echo 1000", missing: true, fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			s, conf := setup(t)
			bin := t.TempDir()
			for _, tool := range []struct{ name, script string }{{"id", tc.id}, {"sudo", tc.sudo}} {
				if tool.script == "" {
					continue
				}
				if err := os.WriteFile(filepath.Join(bin, tool.name), []byte("#!/bin/sh\n"+tool.script+"\n"), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			for _, tool := range []string{"sh", "true"} {
				path, err := exec.LookPath(tool)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.Symlink(path, filepath.Join(bin, tool)); err != nil {
					t.Fatal(err)
				}
			}
			s.path = bin
			c := dial(t, conf)
			err := c.BecomeRoot(t.Context())
			var e *NotRootError
			if errors.As(err, &e) != tc.fails || (tc.fails && (e.Missing != tc.missing || e.Hint() == "")) {
				t.Fatalf("got %v", err)
			}
			if !tc.fails && tc.sudo != "" {
				out, err := c.Run(t.Context(), `echo "$SUDO"`, nil)
				if err != nil || string(out.Stdout) != "yes\n" {
					t.Fatalf("%q, %v", out.Stdout, err)
				}
			}
		})
	}
}
