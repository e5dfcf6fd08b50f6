package ovn

import (
	"bytes"
	"context"
	"crypto/x509"
	"net"
	"strconv"

	"nines/internal/service"
)

// shown asks the node's databases for their certificates, and returns the one that is not like the other's, if any:
// both read the same file.
func shown(ctx context.Context, env service.Env) ([]byte, error) {
	var first []byte
	for _, d := range databases {
		der, err := service.ShownAt(ctx, net.JoinHostPort(env.Node.Address().String(), strconv.Itoa(d.port)))
		if err != nil {
			return nil, err
		}
		if first == nil {
			first = der
			continue
		}
		if !bytes.Equal(first, der) {
			return older(first, der), nil
		}
	}
	return first, nil
}

// reload has nothing to do: the daemons look at the files whenever something wakes them, and shown does.
func reload(context.Context, service.Env) error { return nil }

// older returns the certificate that ends first.
func older(a, b []byte) []byte {
	x, errX := x509.ParseCertificate(a)
	y, errY := x509.ParseCertificate(b)
	if errX == nil && errY == nil && y.NotAfter.Before(x.NotAfter) {
		return b
	}
	return a
}
