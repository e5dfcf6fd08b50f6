package openstack

import (
	"context"
	"crypto/x509"
	"errors"

	"nines/internal/service"
)

// shown asks this node's APIs for their certificates and returns the one that ends first. Only a worker that has
// loaded its application answers.
func (s *Service) shown(ctx context.Context, env service.Env) ([]byte, error) {
	var oldest []byte
	var problems []error
	for _, w := range s.Desc.APIs {
		der, err := service.ShownAt(ctx, HostPort(env.Node.Address(), w.Port))
		if err != nil {
			problems = append(problems, err)
			continue
		}
		if oldest == nil || endsBefore(der, oldest) {
			oldest = der
		}
	}
	if oldest == nil {
		return nil, errors.Join(problems...)
	}
	return oldest, nil
}

// reload has uWSGI start anew in its place: it reads certificate and key only then.
func (s *Service) reload(ctx context.Context, env service.Env) error {
	for _, w := range s.Desc.APIs {
		if err := env.Host.ReloadUnit(ctx, w.Unit); err != nil {
			return err
		}
	}
	return nil
}

func endsBefore(a, b []byte) bool {
	x, errX := x509.ParseCertificate(a)
	y, errY := x509.ParseCertificate(b)
	return errX == nil && errY == nil && x.NotAfter.Before(y.NotAfter)
}
