package ssh

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"golang.org/x/crypto/ssh"
)

// maxOutput bounds what is kept of a command's output, bytes for each stream.
const maxOutput = 8 << 20

// Output is what a command printed.
type Output struct {
	Stdout []byte
	Stderr []byte
}

// Run runs a shell command (sh, whatever the user's login shell) and feeds it stdin,
// which may be nil. A non-zero exit is an *ExitError, a broken connection a *LostError; Output is
// valid then too. When ctx ends, the command is killed and ctx's error returned.
func (c *Client) Run(ctx context.Context, cmd string, stdin io.Reader) (Output, error) {
	if err := ctx.Err(); err != nil {
		return Output{}, err
	}
	s, err := c.conn.NewSession()
	if err != nil {
		return Output{}, &LostError{Addr: c.conf.Addr, Err: err}
	}
	defer s.Close()
	var stdout, stderr capped
	s.Stdin, s.Stdout, s.Stderr = stdin, &stdout, &stderr
	stop := context.AfterFunc(ctx, func() {
		_ = s.Signal(ssh.SIGKILL) // old servers ignore it; closing ends the wait in any case
		s.Close()
	})
	defer stop()
	err = s.Run(c.shell(cmd))
	return Output{Stdout: stdout.Bytes(), Stderr: stderr.Bytes()}, c.runError(ctx, err, stderr.String())
}

func (c *Client) runError(ctx context.Context, err error, stderr string) error {
	var exit *ssh.ExitError
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(err, &exit):
		code := exit.ExitStatus()
		if exit.Signal() != "" {
			code = -1
		}
		return &ExitError{Code: code, Stderr: lastLines(stderr, 5)}
	}
	return &LostError{Addr: c.conf.Addr, Err: err}
}

func (c *Client) shell(cmd string) string {
	if c.sudo {
		return "sudo -n -- sh -c " + quote(cmd)
	}
	return "exec sh -c " + quote(cmd)
}

// quote makes one word of s for any Bourne-like shell.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// capped keeps the first maxOutput bytes and drops the rest.
type capped struct{ bytes.Buffer }

func (b *capped) Write(p []byte) (int, error) {
	b.Buffer.Write(p[:min(len(p), maxOutput-b.Len())])
	return len(p), nil
}

// File says where an upload goes.
type File struct {
	Path string
	Mode fs.FileMode
	// Decompress is a command that turns what is sent into the file ("gzip -dc"); empty: none.
	Decompress string
	// SHA256 is what the file must have on arrival, hex. Empty: that of what is
	// sent (only without Decompress).
	SHA256 string
}

// ErrCorrupt says that another content arrived than was sent.
var ErrCorrupt = errors.New("another content arrived than was sent")

// Upload replaces a file with what it reads from content: it arrives in full and is
// compared and on disk before it takes the place of the old one, which is still there after any error.
func (c *Client) Upload(ctx context.Context, f File, content io.Reader) error {
	sum := sha256.New()
	decompress := f.Decompress
	if decompress == "" {
		decompress = "cat"
	} else if f.SHA256 == "" {
		return fmt.Errorf("upload %s: a compressed upload needs the hash of the file", f.Path)
	}
	tmp := f.Path + ".nines-new"
	// An unfinished file would keep a full disk full.
	receive := fmt.Sprintf("umask 077; %s >%s && sha256sum <%s || { rm -f %s; exit 1; }", decompress, quote(tmp), quote(tmp), quote(tmp))
	out, err := c.Run(ctx, receive, io.TeeReader(content, sum))
	if err != nil {
		return fmt.Errorf("upload %s: %w", f.Path, err)
	}
	want := f.SHA256
	if want == "" {
		want = hex.EncodeToString(sum.Sum(nil))
	}
	if got, _, _ := strings.Cut(string(out.Stdout), " "); got != want {
		return fmt.Errorf("upload %s: %w", f.Path, ErrCorrupt)
	}
	_, err = c.Run(ctx, fmt.Sprintf("chmod %04o %s && sync %s && mv -f %s %s", f.Mode.Perm(), quote(tmp), quote(tmp), quote(tmp), quote(f.Path)), nil)
	if err != nil {
		return fmt.Errorf("upload %s: %w", f.Path, err)
	}
	return nil
}
