package secret

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"slices"
	"time"

	"nines/internal/model"
)

// Lifetimes of certificates. Those of nodes and operators are renewed long before
// their end (model.Validity); the CA outlives the hardware.
const (
	caTTL      = 10 * 365 * 24 * time.Hour
	DefaultTTL = 365 * 24 * time.Hour
	// backdate makes a new certificate valid on a machine whose clock is behind.
	backdate = 5 * time.Minute
)

// Role says what a certificate's owner may do: it stands in the subject's O.
type Role string

// The roles of certificates.
const (
	RoleNode     Role = "node"     // server and client
	RoleOperator Role = "operator" // client
)

// Pair is a certificate and its private key, both PEM; Key is a secret.
type Pair struct {
	Cert []byte
	Key  []byte
}

// Request says what a node's certificate is for.
type Request struct {
	Name string // the subject's CN
	DNS  []string
	IPs  []netip.Addr
	TTL  time.Duration // zero: DefaultTTL
}

// NodeRequest is the certificate that a node must have.
func NodeRequest(c *model.Cluster, n model.Node) Request {
	r := Request{Name: n.Name, DNS: []string{n.Name, "localhost"}, IPs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}, TTL: c.Certificates.Lifetime}
	for _, name := range model.NetworkNames {
		if a, ok := n.Addresses[name]; ok && !slices.Contains(r.IPs, a) {
			r.IPs = append(r.IPs, a)
		}
	}
	for _, v := range c.VIP.Addresses() {
		if a := v.Prefix.Addr(); a.IsValid() && !slices.Contains(r.IPs, a) {
			r.IPs = append(r.IPs, a)
		}
	}
	return r
}

// CA is a cluster's certificate authority.
type CA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pair Pair
	now  func() time.Time
}

// NewCA makes the authority of the cluster of that name, ECDSA P-256, valid for 10 years.
func NewCA(name string) (*CA, error) {
	if name == "" {
		return nil, errors.New("certificate authority: no name")
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	now := time.Now()
	tmpl := &x509.Certificate{
		Subject:               pkix.Name{Organization: []string{"nines"}, CommonName: name + " CA"},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(caTTL),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true, // it signs leaves only
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	pair, err := sign(tmpl, tmpl, key, key)
	if err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	return ParseCA(pair)
}

// ParseCA reads what Pair returned.
func ParseCA(pair Pair) (*CA, error) {
	both, err := tls.X509KeyPair(pair.Cert, pair.Key)
	if err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	key, ok := both.PrivateKey.(*ecdsa.PrivateKey)
	if !ok || !both.Leaf.IsCA {
		return nil, errors.New("certificate authority: the certificate is no authority's")
	}
	return &CA{cert: both.Leaf, key: key, pair: pair, now: time.Now}, nil
}

// Pair returns the authority's certificate and key. The key is the cluster's
// most valuable secret: who has it can be any node.
func (ca *CA) Pair() Pair { return ca.pair }

// IssueNode makes a node's key and certificate, for server and client use.
func (ca *CA) IssueNode(r Request) (Pair, error) {
	tmpl := ca.leaf(RoleNode, r.Name, r.TTL)
	tmpl.DNSNames = r.DNS
	for _, a := range r.IPs {
		if !a.IsValid() {
			return Pair{}, fmt.Errorf("certificate of node %q: an address is missing", r.Name)
		}
		tmpl.IPAddresses = append(tmpl.IPAddresses, net.IP(a.Unmap().AsSlice()))
	}
	tmpl.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	return ca.issue(tmpl)
}

// IssueOperator makes an operator's key and certificate, for client use only.
func (ca *CA) IssueOperator(name string, ttl time.Duration) (Pair, error) {
	tmpl := ca.leaf(RoleOperator, name, ttl)
	tmpl.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	return ca.issue(tmpl)
}

func (ca *CA) leaf(role Role, name string, ttl time.Duration) *x509.Certificate {
	if ttl == 0 {
		ttl = DefaultTTL
	}
	now := ca.now()
	return &x509.Certificate{
		Subject:               pkix.Name{Organization: []string{string(role)}, CommonName: name},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(ttl),
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
	}
}

func (ca *CA) issue(tmpl *x509.Certificate) (Pair, error) {
	name := tmpl.Subject.CommonName
	if name == "" {
		return Pair{}, errors.New("certificate: no name")
	}
	if tmpl.NotAfter.After(ca.cert.NotAfter) {
		tmpl.NotAfter = ca.cert.NotAfter
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, fmt.Errorf("certificate of %q: %w", name, err)
	}
	pair, err := sign(tmpl, ca.cert, key, ca.key)
	if err != nil {
		return Pair{}, fmt.Errorf("certificate of %q: %w", name, err)
	}
	return pair, nil
}

func sign(tmpl, parent *x509.Certificate, key, signer *ecdsa.PrivateKey) (Pair, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return Pair{}, err
	}
	tmpl.SerialNumber = serial.Add(serial, big.NewInt(1)) // RFC 5280: positive
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, key.Public(), signer)
	if err != nil {
		return Pair{}, err
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return Pair{}, err
	}
	return Pair{
		Cert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		Key:  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}),
	}, nil
}

// PeerRole reads role and name from a certificate that TLS has verified. An
// unknown role is "".
func PeerRole(c *x509.Certificate) (Role, string) {
	if c == nil || len(c.Subject.Organization) != 1 {
		return "", ""
	}
	switch r := Role(c.Subject.Organization[0]); r {
	case RoleNode, RoleOperator:
		return r, c.Subject.CommonName
	}
	return "", ""
}

// Validity returns the span of the first certificate in the PEM text.
func Validity(certPEM []byte) (model.Validity, error) {
	c, err := parseCert(certPEM)
	if err != nil {
		return model.Validity{}, err
	}
	return validity(c), nil
}

func validity(c *x509.Certificate) model.Validity {
	return model.Validity{NotBefore: c.NotBefore, NotAfter: c.NotAfter}
}

// Validity returns the authority's own span.
func (ca *CA) Validity() model.Validity { return validity(ca.cert) }

func parseCert(certPEM []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(certPEM)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("not a PEM certificate")
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	return c, nil
}

// Stale says why a node's certificate and key must be issued anew, or "" when they
// are good at now and their renewal is not due.
func (ca *CA) Stale(have Pair, want Request, now time.Time) string {
	if len(have.Cert) == 0 || len(have.Key) == 0 {
		return "missing"
	}
	leaf, reason := ca.staleLeaf(have, RoleNode, want.Name, now)
	if reason != "" {
		return reason
	}
	if !sameSet(leaf.DNSNames, want.DNS) || !sameSet(addresses(leaf), want.IPs) {
		return "names or addresses have changed"
	}
	return ""
}

// StaleOperator is Stale for an operator's certificate, whatever the operator's name.
func (ca *CA) StaleOperator(have Pair, now time.Time) string {
	if len(have.Cert) == 0 || len(have.Key) == 0 {
		return "missing"
	}
	_, reason := ca.staleLeaf(have, RoleOperator, "", now)
	return reason
}

// staleLeaf judges what node and operator have in common. An empty name stands for any.
func (ca *CA) staleLeaf(have Pair, role Role, name string, now time.Time) (*x509.Certificate, string) {
	both, err := tls.X509KeyPair(have.Cert, have.Key)
	if err != nil {
		return nil, "damaged"
	}
	leaf := both.Leaf
	if leaf.CheckSignatureFrom(ca.cert) != nil {
		return nil, "issued by another authority"
	}
	if r, n := PeerRole(leaf); r != role || (name != "" && n != name) {
		return nil, "issued for another name"
	}
	if now.Before(leaf.NotBefore) {
		return nil, "not valid yet"
	}
	if v := validity(leaf); v.Renewable(ca.Validity(), now) {
		if v.Expired(now) {
			return nil, "expired"
		}
		return nil, "expires soon"
	}
	return leaf, ""
}

// CheckRenewal says whether a pair may take the place of a node's: of the same authority and name, and good for longer than it.
func CheckRenewal(authority, have []byte, pair Pair, name string, now time.Time) error {
	ca, err := parseCert(authority)
	if err != nil {
		return fmt.Errorf("the authority: %w", err)
	}
	both, err := tls.X509KeyPair(pair.Cert, pair.Key)
	if err != nil {
		return fmt.Errorf("the new certificate and its key: %w", err)
	}
	leaf := both.Leaf
	if err := leaf.CheckSignatureFrom(ca); err != nil {
		return fmt.Errorf("the new certificate: %w", err)
	}
	if r, n := PeerRole(leaf); r != RoleNode || n != name {
		return fmt.Errorf("the new certificate is that of %s %q", r, n)
	}
	if now.Before(leaf.NotBefore) || !now.Before(leaf.NotAfter) {
		return errors.New("the new certificate is not valid now: compare the clocks")
	}
	if old, err := parseCert(have); err == nil && !leaf.NotAfter.After(old.NotAfter) {
		return errors.New("the new certificate does not last longer than the present one")
	}
	return nil
}

func addresses(c *x509.Certificate) []netip.Addr {
	var out []netip.Addr
	for _, ip := range c.IPAddresses {
		if a, ok := netip.AddrFromSlice(ip); ok {
			out = append(out, a.Unmap())
		}
	}
	return out
}

func sameSet[T comparable](a, b []T) bool {
	in := func(x, y []T) bool {
		return !slices.ContainsFunc(x, func(v T) bool { return !slices.Contains(y, v) })
	}
	return in(a, b) && in(b, a)
}
