package service

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"time"

	"nines/internal/health"
	"nines/internal/host"
	"nines/internal/model"
	"nines/internal/plan"
)

// ActionCertificate has a running daemon take up the renewed certificate of its node. Daemons that
// read the file at each handshake (agents with etcd, RabbitMQ) need none.
const ActionCertificate = "load-certificate-into"

// CertificateResources is one ActionCertificate for each node, one node after the other. The units
// of the service wait for all of them (CertificatesLoaded): never are two members at work on themselves, and a
// daemon with an expired certificate gets a new one before it is asked whether it serves.
func CertificateResources(name string, nodes []model.Node) []plan.Resource {
	var out []plan.Resource
	for i, n := range nodes {
		r := plan.Resource{ID: certificateID(name, n.Name), Service: name, Node: n.Name,
			Action: &plan.Action{Name: ActionCertificate, Args: map[string]string{"name": name}, Timeout: time.Minute}}
		if i > 0 {
			r.After = []plan.ID{out[i-1].ID}
		}
		out = append(out, r)
	}
	return out
}

// CertificatesLoaded is the last of CertificateResources.
func CertificatesLoaded(name string, nodes []model.Node) plan.ID {
	return certificateID(name, nodes[len(nodes)-1].Name)
}

func certificateID(name, node string) plan.ID {
	return plan.Make(name, node, "action", certificateName)
}

const certificateName = "certificate"

// CertificateSuffix ends the ID of each of CertificateResources.
const CertificateSuffix = "/action:" + certificateName

// Certificate is the ActionCertificate of a daemon. shown asks the running daemon for its certificate
// (DER); load has it read the files again. A daemon that shows none is not
// running, and will read the file when it starts.
func Certificate(shown func(context.Context, Env) ([]byte, error), load func(context.Context, Env) error) Action {
	return Action{
		Check: func(ctx context.Context, env Env, _ map[string]string) (bool, string, error) {
			want, err := nodeCertificate(env.Host)
			if err != nil {
				return false, "", err
			}
			if now := time.Now(); now.Before(want.NotBefore) || now.After(want.NotAfter) {
				return true, "", nil // whatever it uses is no worse; status says that the node's has expired
			}
			have, err := shown(ctx, env)
			if err != nil || bytes.Equal(have, want.Raw) {
				return true, "", nil
			}
			return false, outdated(have, want), nil
		},
		Run: func(ctx context.Context, env Env, _ map[string]string) error {
			want, err := nodeCertificate(env.Host)
			if err != nil {
				return err
			}
			if err := load(ctx, env); err != nil {
				return err
			}
			return awaitCertificate(ctx, env, shown, want)
		},
	}
}

// certificatePause lies between two looks at a daemon that reads its files.
const certificatePause = 100 * time.Millisecond

// awaitCertificate returns when the daemon shows the wanted certificate: it serves again then.
func awaitCertificate(ctx context.Context, env Env, shown func(context.Context, Env) ([]byte, error), want *x509.Certificate) error {
	tick := time.NewTicker(certificatePause)
	defer tick.Stop()
	for {
		have, err := shown(ctx, env)
		if err == nil && bytes.Equal(have, want.Raw) {
			return nil
		}
		if err == nil {
			err = errors.New(outdated(have, want))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("it was told to read %s again: %w", model.PathCert, err)
		case <-tick.C:
		}
	}
}

func outdated(have []byte, want *x509.Certificate) string {
	c, err := x509.ParseCertificate(have)
	if err != nil {
		return "uses a certificate that cannot be read"
	}
	return fmt.Sprintf("uses the certificate that ends %s, not the node's present one that ends %s", health.Day(c.NotAfter), health.Day(want.NotAfter))
}

func nodeCertificate(h host.Host) (*x509.Certificate, error) {
	f, err := h.ReadFile(model.PathCert)
	if err != nil {
		return nil, fmt.Errorf("the node's certificate: %w", err)
	}
	block, _ := pem.Decode(f.Content)
	if block == nil {
		return nil, fmt.Errorf("%s holds no certificate: run 'nines apply' with the agent of this node stopped", model.PathCert)
	}
	return x509.ParseCertificate(block.Bytes)
}

// handshakeTimeout bounds the look at a certificate on the own node: a frozen daemon shows none.
const handshakeTimeout = time.Second

// ShownAt asks the TLS server at address for its certificate. It proves nothing about the
// server and sends it nothing: the certificate is compared with that of the node.
func ShownAt(ctx context.Context, address string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	var der []byte
	d := tls.Dialer{NetDialer: &net.Dialer{}, Config: ShowCertificate(&der)}
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return der, conn.Close()
}

// ShowCertificate returns a configuration that accepts any server and keeps its certificate.
func ShowCertificate(der *[]byte) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: true, // an expired certificate is to be seen; nothing is said to the server
		VerifyConnection: func(s tls.ConnectionState) error {
			*der = s.PeerCertificates[0].Raw
			return nil
		},
	}
}
