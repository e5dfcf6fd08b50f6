package model

import (
	"fmt"
	"net/netip"
)

// Fencing says whether the cluster may take a machine's power away.
type Fencing string

// The choices. With FencingOff nothing proves that a machine that is not heard of does nothing any more.
const (
	FencingOn  Fencing = "on"
	FencingOff Fencing = "off"
)

// Fences reports whether the cluster may take a machine's power away.
func (c *Cluster) Fences() bool { return c.Fencing == FencingOn }

// BMCProtocol names how a BMC is spoken to.
type BMCProtocol string

// The protocols of BMCs.
const (
	Redfish BMCProtocol = "redfish" // HTTPS
	IPMI    BMCProtocol = "ipmi"    // IPMI 2.0 over LAN (RMCP+)
)

// BMCProtocols lists every known protocol.
var BMCProtocols = []BMCProtocol{Redfish, IPMI}

// Port is where a BMC listens unless its address says otherwise.
func (p BMCProtocol) Port() uint16 {
	if p == IPMI {
		return 623
	}
	return 443
}

// PasswordLimit is how many bytes a password has at most: IPMI 2.0 has no room for more, and 256 are more than any BMC takes.
func (p BMCProtocol) PasswordLimit() int {
	if p == IPMI {
		return 20
	}
	return 256
}

// BMC is the baseboard management controller of a machine: what switches its power when the machine itself does
// not answer. Its password is a secret, Level.PasswordSecret.
type BMC struct {
	Protocol BMCProtocol `json:"protocol"`
	// Address is IP or IP:port.
	Address string `json:"address"`
	User    string `json:"user"`
}

// Endpoint is where the BMC listens.
func (b BMC) Endpoint() (netip.AddrPort, error) {
	if a, err := netip.ParseAddr(b.Address); err == nil {
		return netip.AddrPortFrom(a, b.Protocol.Port()), nil
	}
	a, err := netip.ParseAddrPort(b.Address)
	if err == nil && a.Port() == 0 {
		err = fmt.Errorf("%s: no service has port 0", b.Address)
	}
	return a, err
}

// HasBMC reports whether the machine has a BMC that the cluster may use.
func (n Node) HasBMC() bool { return n.BMC != BMC{} }

// Level is one way to a machine's power, Pacemaker's word for it. The second is gone where the first does not lead there.
type Level struct {
	Node   string
	Number int // 1 or 2
	BMC    BMC
}

// Levels are the ways to the machine's power, in the order in which they are tried.
func (n Node) Levels() []Level {
	var out []Level
	for i, b := range []BMC{n.BMC, n.SecondBMC} {
		if b != (BMC{}) {
			out = append(out, Level{n.Name, i + 1, b})
		}
	}
	return out
}

// Key tells the level from all others: "ctl1", "ctl1/2". No node is called so.
func (l Level) Key() string {
	if l.Number < 2 {
		return l.Node
	}
	return fmt.Sprintf("%s/%d", l.Node, l.Number)
}

// String names it for people.
func (l Level) String() string {
	if l.Number < 2 {
		return "BMC of " + l.Node
	}
	return "second BMC of " + l.Node
}

// Field is the level's key of the node in cluster.yaml.
func (l Level) Field() string {
	if l.Number < 2 {
		return "bmc"
	}
	return "second_bmc"
}

// HandOver is the command by which an operator hands the password over.
func (l Level) HandOver() string {
	if l.Number < 2 {
		return "nines fence password " + l.Node
	}
	return "nines fence password " + l.Node + " --second"
}

// PasswordSecret is the name of the secret that holds the BMC's password. Its operator hands it over with
// 'nines fence password'; nines never makes one.
func (l Level) PasswordSecret() string { return "bmc/" + l.Key() + "/password" }

// CertificateSecret is the name of the secret beside it that holds the certificate the BMC must show, as PEM. It
// is no secret, but belongs to the password: whoever shows another one is not given the password. It appears when the BMC
// was first asked with the password.
func (l Level) CertificateSecret() string { return "bmc/" + l.Key() + "/certificate" }
