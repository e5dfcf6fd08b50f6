// Package openstack is what the services of OpenStack have in common: the options of
// the oslo libraries, WSGI applications under uWSGI, schemas, the catalogue of Keystone, and how
// to ask an API whether it serves. Each service takes the parts it needs.
//
// Invariants: every value in a template has its reason next to it; APIs listen on
// the node's management address alone, with TLS; what is done once for the cluster can be
// repeated. The package must never name one of the services but Keystone, which all need.
package openstack

import (
	"bytes"
	"embed"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"text/template"

	"nines/internal/model"
	"nines/internal/plan"
)

// Region is the one region of the catalogue.
const Region = "RegionOne"

// Project holds the users of the services.
const Project = "service"

// The secret and the database of Keystone that registration needs.
const (
	SecretAdmin      = "keystone/admin" // password of the user admin
	identityDatabase = "keystone"
)

//go:embed templates
var templateFiles embed.FS

var templates = template.Must(template.ParseFS(templateFiles, "templates/*.tmpl"))

// Templates returns the templates of a service (templates/*.tmpl of its files), which may use those
// of oslo.tmpl.
func Templates(own fs.FS) *template.Template {
	return template.Must(template.Must(templates.Clone()).ParseFS(own, "templates/*.tmpl"))
}

// Render executes one of the templates.
func Render(t *template.Template, name string, values any) ([]byte, error) {
	var b bytes.Buffer
	if err := t.ExecuteTemplate(&b, name, values); err != nil {
		return nil, fmt.Errorf("render %s: %w", name, err)
	}
	return b.Bytes(), nil
}

// HostPort joins an address and a port.
func HostPort(a netip.Addr, port int) string {
	return net.JoinHostPort(a.String(), strconv.Itoa(port))
}

// URL is where the cluster's own programs find what listens on a port of the VIP, without a path.
func URL(c *model.Cluster, port int) string { return "https://" + HostPort(c.VIP.Address.Addr(), port) }

// PublicURL is where users find it: the same where the VIP has one address.
func PublicURL(c *model.Cluster, port int) string {
	return "https://" + HostPort(c.VIP.ForUsers(), port)
}

// Links is what links in answers begin with; empty, where the VIP has two addresses: with what the request came by.
func Links(c *model.Cluster, port int) string {
	if len(c.VIP.Addresses()) > 1 {
		return ""
	}
	return URL(c, port)
}

// IdentityURL is where the cluster's own programs find Keystone.
func IdentityURL(c *model.Cluster) string { return URL(c, model.PortKeystone) + "/v3" }

// pool is how many connections a process keeps: as many as it has threads, but at
// least as many as the clients' libraries do by themselves.
func pool(threads int) int { return max(threads, 5) }

// literal doubles the dollar sign, which oslo.config reads as a reference.
func literal(text string) string { return strings.ReplaceAll(text, "$", "$$") }

func oneLine(err error) string {
	text, _, _ := strings.Cut(err.Error(), "\n")
	return text
}

// ownedBy marks resources as those of a service on a node.
func ownedBy(service, node string, rs []plan.Resource) {
	for i := range rs {
		rs[i].Service, rs[i].Node = service, node
	}
}
