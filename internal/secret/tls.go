package secret

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"
)

// ServerTLS is mutual TLS 1.3 for a listener: the paths are those of the authority,
// the own certificate and its key (PEM). A renewed certificate is taken from disk at the next handshake.
func ServerTLS(ca, cert, key string) (*tls.Config, error) {
	pool, files, err := load(ca, cert, key)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion:     tls.VersionTLS13,
		ClientAuth:     tls.RequireAndVerifyClientCert,
		ClientCAs:      pool,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return files.pair() },
	}, nil
}

// ClientTLS is ServerTLS for the one that dials.
func ClientTLS(ca, cert, key string) (*tls.Config, error) {
	pool, files, err := load(ca, cert, key)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion:           tls.VersionTLS13,
		RootCAs:              pool,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return files.pair() },
	}, nil
}

func load(ca, cert, key string) (*x509.CertPool, *keyFiles, error) {
	text, err := os.ReadFile(ca)
	if err != nil {
		return nil, nil, fmt.Errorf("certificate authority: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, nil, fmt.Errorf("certificate authority %s: no certificate in it", ca)
	}
	files := &keyFiles{cert: cert, key: key}
	if _, err := files.pair(); err != nil {
		return nil, nil, err
	}
	return pool, files, nil
}

// keyFiles hands out the key pair that stands on disk. While the two files do not
// belong together (a renewal between its two writes) the last good pair is used.
type keyFiles struct {
	cert, key string

	mu    sync.Mutex
	last  *tls.Certificate
	stamp [2]stamp
}

// stamp tells one version of a file from the next. A file that was replaced by rename
// has another inode even when its time and size are the same.
type stamp struct {
	mtime time.Time
	size  int64
	inode uint64
}

func (f *keyFiles) pair() (*tls.Certificate, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := [2]stamp{stampOf(f.cert), stampOf(f.key)}
	if f.last != nil && now == f.stamp {
		return f.last, nil
	}
	pair, err := tls.LoadX509KeyPair(f.cert, f.key)
	if err != nil {
		if f.last != nil {
			return f.last, nil
		}
		return nil, fmt.Errorf("certificate %s with key %s: %w", f.cert, f.key, err)
	}
	f.last, f.stamp = &pair, now
	return f.last, nil
}

// stampOf returns the zero stamp for a file that cannot be seen.
func stampOf(path string) stamp {
	fi, err := os.Stat(path)
	if err != nil {
		return stamp{}
	}
	st := stamp{mtime: fi.ModTime(), size: fi.Size()}
	if sys, ok := fi.Sys().(*syscall.Stat_t); ok {
		st.inode = sys.Ino
	}
	return st
}
