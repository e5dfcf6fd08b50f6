package fence

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/bougou/go-ipmi"
)

// ipmiSession is an IPMI 2.0 session over LAN (RMCP+).
type ipmiSession struct{ client *ipmi.Client }

// ipmiPacketLimit is how long one answer may take; UDP loses some, so that each is asked for again.
const ipmiPacketLimit = 2 * time.Second

func openIPMI(ctx context.Context, d Device) (session, error) {
	endpoint, err := d.BMC.Endpoint()
	if err != nil {
		return nil, err
	}
	client, err := ipmi.NewClient(endpoint.Addr().String(), int(endpoint.Port()), d.BMC.User, d.Password)
	if err != nil {
		return nil, err
	}
	// Operator: the least that may switch power.
	client.WithTimeout(ipmiPacketLimit).WithRetry(2, 100*time.Millisecond).WithMaxPrivilegeLevel(ipmi.PrivilegeLevelOperator)
	if err := loginIPMI(ctx, client); err != nil {
		return nil, err
	}
	return ipmiSession{client}, nil
}

// loginIPMI opens a session in its single steps. The library's Connect first asks what the BMC can, in packets of IPMI 2.0, which one may
// ignore as long as there is no session (OpenIPMI's does); and it tries a wrong password with each cipher suite, after which a BMC may lock the account.
func loginIPMI(ctx context.Context, client *ipmi.Client) error {
	var err error
	for _, suite := range ipmiSuites {
		client.WithCipherSuiteID(suite)
		if _, err = client.OpenSession(ctx); err == nil || unanswered(err) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("open a session: %w", err)
	}
	if _, err = client.RAKPMessage1(ctx); err != nil {
		return refusal(fmt.Errorf("RAKP message 1: %w", err))
	}
	if _, err = client.RAKPMessage3(ctx); err != nil {
		return refusal(fmt.Errorf("RAKP message 3: %w", err))
	}
	if _, err = client.SetSessionPrivilegeLevel(ctx, ipmi.PrivilegeLevelOperator); err != nil {
		return refusal(fmt.Errorf("become an operator: %w", err))
	}
	return nil
}

// ipmiSuites are the cipher suites, the better one first: 17 has SHA-256; 3, with SHA-1, is what every BMC of IPMI 2.0 must have.
var ipmiSuites = []ipmi.CipherSuiteID{ipmi.CipherSuiteID17, ipmi.CipherSuiteID3}

func (s ipmiSession) power(ctx context.Context) (Power, error) {
	status, err := s.client.GetChassisStatus(ctx)
	if err != nil {
		return "", err
	}
	if status.PowerIsOn {
		return On, nil
	}
	return Off, nil
}

func (s ipmiSession) set(ctx context.Context, want Power) error {
	control := ipmi.ChassisControlPowerUp
	if want == Off {
		control = ipmi.ChassisControlPowerDown
	}
	if _, err := s.client.ChassisControl(ctx, control); err != nil {
		return fmt.Errorf("switch the power %s: %w", want, err)
	}
	return nil
}

func (s ipmiSession) close() {
	ctx, cancel := context.WithTimeout(context.Background(), ipmiPacketLimit)
	defer cancel()
	_ = s.client.Close(ctx) // the BMC ends a session that is silent
}

// refusedError is the word of a BMC that answered: user, password or privilege are not what it wants.
type refusedError struct{ err error }

func (e *refusedError) Error() string { return e.err.Error() }
func (e *refusedError) Unwrap() error { return e.err }

// refusal is the error of a step that proves who we are.
func refusal(err error) error {
	if unanswered(err) {
		return err
	}
	return &refusedError{err}
}

// unanswered reports whether the BMC said nothing.
func unanswered(err error) bool {
	var network net.Error
	return errors.As(err, &network) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// refusedIPMI reports whether the BMC answered and does not let us in.
func refusedIPMI(err error) bool {
	var refused *refusedError
	return errors.As(err, &refused)
}
