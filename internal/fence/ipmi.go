package fence

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
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
	if err := client.Connect(ctx); err != nil {
		return nil, err
	}
	return ipmiSession{client}, nil
}

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

// refusedIPMI reports whether the handshake (RAKP) failed although the BMC answered: that is where user and password
// are proved. The library's errors carry no more than their text.
func refusedIPMI(err error) bool {
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return false
	}
	text := strings.ToLower(err.Error())
	return strings.Contains(text, "rakp") && !strings.Contains(text, "timeout") && !strings.Contains(text, "deadline")
}
