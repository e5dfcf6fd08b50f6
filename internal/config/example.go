package config

import (
	"fmt"
	"reflect"
	"strings"

	"nines/internal/model"
)

const exampleHead = `# The cluster that nines deploys. 'nines schema' prints a JSON Schema for editors.
# Lines like "#key: value" show defaults: remove the # to change one.
# 'nines render -o DIR' writes every file of every node without touching any of them.
`

const exampleBody = `
name: prod

# management: agents, databases and queues talk there. external: where clients come from.
# tenant and storage may be named as well. The subnets must not overlap.
networks:
  management: {cidr: 192.0.2.0/25}
  external: {cidr: 192.0.2.128/25}

# An odd number of controllers forms the quorums: three survive the loss of any one of them.
# A controller needs 4 cores, 12 GB of memory, 120 GB of disk and 2 network interfaces, a compute 8 cores.
# bmc: the machine's management controller (iDRAC, iLO, XCC, ...), through which the cluster can take its power away
# when it must be sure that the machine does nothing any more. Its password does not belong here:
# 'nines fence password ctl1' asks for it. Without a bmc on each controller leave all of them out.
nodes:
  - name: ctl1
    roles: [controller]
    addresses: {management: 192.0.2.11, external: 192.0.2.141}
    bmc: {protocol: redfish, address: 198.51.100.11, user: nines}
  - name: ctl2
    roles: [controller]
    addresses: {management: 192.0.2.12, external: 192.0.2.142}
    bmc: {protocol: redfish, address: 198.51.100.12, user: nines}
  - name: ctl3
    roles: [controller]
    addresses: {management: 192.0.2.13, external: 192.0.2.143}
    bmc: {protocol: redfish, address: 198.51.100.13, user: nines}
  - name: cmp1
    roles: [compute]
    addresses: {management: 192.0.2.21, external: 192.0.2.151}
    bmc: {protocol: redfish, address: 198.51.100.21, user: nines}

# The address that clients use. It belongs to no node and carries its network's prefix length.
vip:
  address: 192.0.2.140/25
  network: external
`

// Example returns a commented cluster.yaml to start from. Its addresses are of the
// range kept for documentation (RFC 5737).
func Example() []byte { return compose(exampleBody, "external") }

// compose puts the optional keys with their documentation below the keys that must be there.
func compose(body, vipNetwork string) []byte {
	var b strings.Builder
	b.WriteString(exampleHead)
	b.WriteString(body)
	c := reflect.TypeFor[model.Cluster]()
	vip, _ := c.FieldByName("VIP")
	if vipNetwork == "" {
		writeDefault(&b, "  ", "network", fields["vip.network"], "management")
	}
	for _, m := range members(vip.Type, "vip") {
		switch f := fields["vip."+m.key]; {
		case f.required || m.key == "network":
		case f.fallback == "":
			writeComment(&b, "  ", m.key+": "+f.doc)
		default:
			writeDefault(&b, "  ", m.key, f, f.fallback)
		}
	}
	for _, m := range members(c, "") {
		f := fields[m.key]
		if f.required {
			continue
		}
		b.WriteByte('\n')
		if m.key == "services" {
			f.fallback = "[" + strings.Join(model.CoreServices, ", ") + "]"
		}
		if f.fallback == "" && c.Field(m.index).Type.Kind() == reflect.String {
			writeComment(&b, "", m.key+": "+f.doc) // its default follows from the rest
			continue
		}
		if t := c.Field(m.index).Type; t.Kind() == reflect.Struct {
			writeSection(&b, t, m.key, "")
		} else {
			writeDefault(&b, "", m.key, f, f.fallback)
		}
	}
	return []byte(b.String())
}

// writeSection writes a mapping whose values are all defaults.
func writeSection(b *strings.Builder, t reflect.Type, path, indent string) {
	writeComment(b, indent, fields[path].doc)
	fmt.Fprintf(b, "%s%s:\n", indent, leaf(path))
	for _, m := range members(t, path) {
		sub := path + "." + m.key
		if ft := t.Field(m.index).Type; ft.Kind() == reflect.Struct && ft != typePrefix {
			writeSection(b, ft, sub, indent+"  ")
		} else if f := fields[sub]; f.fallback != "" {
			writeDefault(b, indent+"  ", m.key, f, f.fallback)
		} else {
			writeComment(b, indent+"  ", m.key+": "+f.doc)
		}
	}
}

func writeDefault(b *strings.Builder, indent, key string, f field, value string) {
	writeComment(b, indent, f.doc)
	fmt.Fprintf(b, "%s#%s: %s\n", indent, key, value)
}

// writeComment wraps a text at 110 characters.
func writeComment(b *strings.Builder, indent, text string) {
	line := indent + "#"
	for _, w := range strings.Fields(text) {
		if len(line)+1+len(w) > 110 {
			b.WriteString(line + "\n")
			line = indent + "#"
		}
		line += " " + w
	}
	b.WriteString(line + "\n")
}
