package lab

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"nines/internal/model"
)

// bmcUser is the account on the machines' BMCs.
const bmcUser = "nines"

// bmcPort is where a BMC of the lab listens: that of Redfish.
const bmcPort = "443"

// BMCMode is how a machine's BMC behaves.
type BMCMode string

// The modes of a BMC: it is well, or has one of the faults that BMCs have.
const (
	BMCOK          BMCMode = "ok"
	BMCDead        BMCMode = "dead"        // its address answers nothing
	BMCUnplugged   BMCMode = "unplugged"   // nor does that of the machine's second one
	BMCSlow        BMCMode = "slow"        // each answer takes bmcDelay
	BMCPassword    BMCMode = "password"    // it refuses the password
	BMCCertificate BMCMode = "certificate" // it shows another certificate than ever before
)

// BMCModes lists every mode.
var BMCModes = []BMCMode{BMCOK, BMCDead, BMCUnplugged, BMCSlow, BMCPassword, BMCCertificate}

// bmcDelay is how long each answer of a slow BMC takes.
const bmcDelay = 3 * time.Second

// SetBMC gives the BMCs of the machines a mode, until it is given another.
func (l *Lab) SetBMC(ctx context.Context, mode BMCMode, nodes ...string) error {
	if !slices.Contains(BMCModes, mode) {
		return fmt.Errorf("a BMC cannot be %q", mode)
	}
	return l.eachNode(ctx, nodes, func(_ context.Context, n nodeSpec) error {
		if n.BMC == "" {
			return fmt.Errorf("%s has no BMC: the lab is older than they are; take it down and bring it up anew", n.Name)
		}
		if err := writeFileAtomic(l.bmcModeFile(n.Name), []byte(mode), 0o600); err != nil {
			return err
		}
		return l.withNetlink(func(h *netlink.Handle) error { return plugBMCs(h, n, mode) })
	})
}

// bmcMode is the mode of a machine's BMC. The supervisor, which is the BMC, reads it each time it is asked.
func (l *Lab) bmcMode(node string) BMCMode {
	raw, err := os.ReadFile(l.bmcModeFile(node))
	if mode := BMCMode(raw); err == nil && slices.Contains(BMCModes, mode) {
		return mode
	}
	return BMCOK
}

func (l *Lab) bmcModeFile(node string) string { return filepath.Join(l.runDir(), node+".bmc") }

// plugBMCs has those of the machine's BMCs answer that do in this mode.
func plugBMCs(h *netlink.Handle, n nodeSpec, mode BMCMode) error {
	return errors.Join(plugBMC(h, n.BMC, mode != BMCDead && mode != BMCUnplugged), plugBMC(h, n.secondBMC(), mode != BMCUnplugged))
}

// plugBMC gives the address of a BMC to the management bridge, or takes it away: then nothing answers
// there, as if the BMC hung.
func plugBMC(h *netlink.Handle, bmc string, in bool) error {
	bridge, err := h.LinkByName(managementNetwork.bridge)
	if err != nil {
		return fmt.Errorf("BMC %s: %w", bmc, err)
	}
	address := &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(netip.MustParseAddr(bmc), 32))}
	if in {
		err = h.AddrReplace(bridge, address)
	} else if err = h.AddrDel(bridge, address); errors.Is(err, unix.EADDRNOTAVAIL) {
		err = nil
	}
	if err != nil {
		return fmt.Errorf("BMC %s: %w", bmc, err)
	}
	return nil
}

// secondOffset lies between the addresses of a machine's two BMCs.
const secondOffset = 40

// secondBMC is the address of another way to the machine's power. It lets in whom the first one does and has no faults but BMCUnplugged. A cluster
// that is to use it names it: nodes[].second_bmc.
func (n nodeSpec) secondBMC() string {
	a := netip.MustParseAddr(n.BMC).As4()
	a[3] += secondOffset
	return netip.AddrFrom4(a).String()
}

// levels are the machine's BMCs.
func (n nodeSpec) levels() []model.Level {
	bmc := func(address string) model.BMC {
		return model.BMC{Protocol: model.Redfish, Address: address, User: bmcUser}
	}
	return model.Node{Name: n.Name, BMC: bmc(n.BMC), SecondBMC: bmc(n.secondBMC())}.Levels()
}

// BMCPasswords returns the password of each machine's BMCs, by model.Level.Key.
func (l *Lab) BMCPasswords() (map[string]string, error) {
	out := map[string]string{}
	for _, n := range l.state.Nodes {
		if n.BMC == "" {
			continue
		}
		raw, err := os.ReadFile(l.bmcFile(n.Name, "password"))
		if err != nil {
			return nil, fmt.Errorf("BMC of %s: %w", n.Name, err)
		}
		for _, l := range n.levels() {
			out[l.Key()] = strings.TrimSpace(string(raw))
		}
	}
	return out, nil
}

func (l *Lab) bmcFile(node, name string) string { return filepath.Join(l.Dir(), "bmc", node, name) }

// ensureBMCs makes each BMC's password and certificate, signed by itself as most are when they leave the factory.
// Those that are there stay.
func (l *Lab) ensureBMCs() error {
	for _, n := range l.state.Nodes {
		if n.BMC == "" {
			continue
		}
		if _, err := os.Stat(l.bmcFile(n.Name, "password")); err == nil {
			continue
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		cert, key, err := bmcCertificate(n)
		if err != nil {
			return fmt.Errorf("BMC of %s: %w", n.Name, err)
		}
		if err := os.MkdirAll(filepath.Dir(l.bmcFile(n.Name, "key.pem")), 0o700); err != nil {
			return err
		}
		// The password last: it says that all is there.
		for _, f := range []struct {
			name    string
			content []byte
		}{{"key.pem", key}, {"cert.pem", cert}, {"password", []byte(rand.Text() + "\n")}} {
			if err := writeFileAtomic(l.bmcFile(n.Name, f.name), f.content, 0o600); err != nil {
				return err
			}
		}
	}
	return nil
}

// bmcCertificate makes a certificate that the BMC has signed itself.
func bmcCertificate(n nodeSpec) (cert, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: n.Name + "-bmc"},
		IPAddresses: []net.IP{net.ParseIP(n.BMC), net.ParseIP(n.secondBMC())},
		NotBefore:   time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(10, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true, IsCA: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return nil, nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), nil
}

// bmcTLS is what a BMC of the machine shows: its own certificate, or in BMCCertificate one that it never showed before.
func (l *Lab) bmcTLS(n nodeSpec, mode func() BMCMode) (*tls.Config, error) {
	own, err := tls.LoadX509KeyPair(l.bmcFile(n.Name, "cert.pem"), l.bmcFile(n.Name, "key.pem"))
	if err != nil {
		return nil, err
	}
	cert, key, err := bmcCertificate(n)
	if err != nil {
		return nil, err
	}
	other, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, err
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		if mode() == BMCCertificate {
			return &other, nil
		}
		return &own, nil
	}}, nil
}

// bmcPower is what a BMC can do to its machine.
type bmcPower struct {
	lab  *Lab
	node string
}

// on reports whether anything of the machine still runs: what has just been killed may not be gone yet.
func (p bmcPower) on() (bool, error) {
	pids, err := cgroupProcesses(p.lab.Name(), p.node)
	return len(pids) > 0, err
}

// reset is Redfish's ComputerSystem.Reset. Power that goes off takes along what was not flushed, as on a real machine.
func (p bmcPower) reset(ctx context.Context, kind resetType) error {
	off, on := p.lab.PowerCut, p.lab.PowerOn
	switch kind {
	case resetOn:
		return on(ctx, p.node)
	case resetForceOff:
		return off(ctx, p.node)
	case resetShutdown:
		return p.lab.PowerStop(ctx, p.node)
	case resetRestart:
		off = p.lab.PowerStop
	}
	if err := off(ctx, p.node); err != nil {
		return err
	}
	return on(ctx, p.node)
}
