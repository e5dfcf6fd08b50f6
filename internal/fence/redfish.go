package fence

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"

	"github.com/stmcginnis/gofish"
	"github.com/stmcginnis/gofish/schemas"
)

// errOtherCertificate says that the BMC shows another certificate than the one that was kept.
var errOtherCertificate = errors.New("it shows another certificate")

// shown is the certificate that a BMC has shown.
type shown struct{ leaf *x509.Certificate }

// redfishSession is the one system behind a BMC.
type redfishSession struct {
	client *gofish.APIClient
	uri    string
}

// openRedfish lets each request carry user and password. A session of Redfish's own would be one of the few
// that a BMC has room for, and stay there when we die.
func openRedfish(ctx context.Context, d Device, seen *shown) (session, error) {
	endpoint, err := d.BMC.Endpoint()
	if err != nil {
		return nil, err
	}
	conf, err := pinned(d.Certificate, seen)
	if err != nil {
		return nil, err
	}
	client, err := gofish.ConnectContext(ctx, gofish.ClientConfig{
		Endpoint: "https://" + endpoint.String(), Username: d.BMC.User, Password: d.Password, BasicAuth: true,
		ReuseConnections: true, NoModifyTransport: true,
		HTTPClient: &http.Client{
			Transport: &http.Transport{TLSClientConfig: conf, DialContext: (&net.Dialer{Timeout: dialLimit}).DialContext, TLSHandshakeTimeout: testLimit},
			// A BMC that points elsewhere would have the password sent there.
			CheckRedirect: func(r *http.Request, _ []*http.Request) error {
				return fmt.Errorf("it sends us on to %s", r.URL.Redacted())
			},
		},
	})
	if err != nil {
		return nil, err
	}
	s := &redfishSession{client: client}
	systems, err := client.Service.Systems()
	switch {
	case err != nil:
		s.close()
		return nil, err
	case len(systems) != 1:
		s.close()
		return nil, fmt.Errorf("it manages %d systems; nines can use a BMC of one machine only", len(systems))
	}
	s.uri = systems[0].ODataID
	return s, nil
}

// pinned accepts the certificate that was kept and no other; without one it accepts any, once, and notes it. BMCs
// sign their certificates themselves, with names that nobody can check: what can be checked is that it is the same.
func pinned(kept string, seen *shown) (*tls.Config, error) {
	var want *x509.Certificate
	if kept != "" {
		var err error
		if want, err = parseCertificate(kept); err != nil {
			return nil, err
		}
	}
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: true, // VerifyConnection compares the certificate itself
		VerifyConnection: func(c tls.ConnectionState) error {
			leaf := c.PeerCertificates[0]
			if seen.leaf == nil {
				seen.leaf = leaf
			}
			if want == nil {
				want = leaf // the later connections of this look must meet the same
			}
			if !leaf.Equal(want) {
				return fmt.Errorf("%w than before: its SHA-256 is %s, %s was kept", errOtherCertificate, Fingerprint(leaf.Raw), Fingerprint(want.Raw))
			}
			return nil
		},
	}, nil
}

func (s *redfishSession) system(ctx context.Context) (*schemas.ComputerSystem, error) {
	return schemas.GetComputerSystem(s.client.WithContext(ctx), s.uri)
}

func (s *redfishSession) power(ctx context.Context) (Power, error) {
	system, err := s.system(ctx)
	if err != nil {
		return "", err
	}
	switch system.PowerState {
	case schemas.OffPowerState:
		return Off, nil
	case schemas.OnPowerState, schemas.PoweringOffPowerState, schemas.PoweringOnPowerState, schemas.PausedPowerState:
		return On, nil // what is not off may still do something
	}
	return "", fmt.Errorf("it does not say whether the power is on (PowerState %q)", system.PowerState)
}

func (s *redfishSession) set(ctx context.Context, want Power) error {
	system, err := s.system(ctx)
	if err != nil {
		return err
	}
	kinds := []schemas.ResetType{schemas.OnResetType, schemas.ForceOnResetType}
	if want == Off {
		kinds = []schemas.ResetType{schemas.ForceOffResetType}
	}
	offered, err := system.GetSupportedResetTypes()
	if err != nil {
		return err
	}
	for _, kind := range kinds {
		if len(offered) == 0 || slices.Contains(offered, kind) {
			_, err := system.Reset(kind)
			return err
		}
	}
	return fmt.Errorf("it cannot switch the power %s: it offers %v", want, offered)
}

func (s *redfishSession) close() { s.client.HTTPClient.CloseIdleConnections() }

// refusedRedfish reports whether the BMC has refused user or password, or what they may do.
func refusedRedfish(err error) bool {
	var many *schemas.CollectionError
	if errors.As(err, &many) {
		for _, one := range many.Failures {
			if refusedRedfish(one) {
				return true
			}
		}
	}
	var e *schemas.Error
	return errors.As(err, &e) && (e.HTTPReturnedStatusCode == http.StatusUnauthorized || e.HTTPReturnedStatusCode == http.StatusForbidden)
}
