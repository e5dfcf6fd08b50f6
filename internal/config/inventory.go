package config

import (
	"cmp"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"nines/internal/model"
)

// Machine is one row of an inventory.
type Machine struct {
	Line      int // in the file
	Name      string
	Addresses map[model.NetworkName]netip.Addr
	Bits      map[model.NetworkName]int // prefix length where the inventory has one
	model.Hardware
}

// columns are the words that may stand in the header, in lower case and without
// punctuation, and the order of the columns when there is no header.
var columns = []struct {
	name  string
	words []string
}{
	{"address", []string{"address", "ip", "ipaddress", "addr", "ipv4", "management", "mgmt"}},
	{"hostname", []string{"hostname", "host", "name", "node", "server", "fqdn"}},
	{"cores", []string{"cores", "core", "cpu", "cpus", "vcpu", "vcpus"}},
	{"memory", []string{"memory", "mem", "ram", "memorygb", "ramgb", "memgb"}},
	{"disk", []string{"disk", "disks", "storagegb", "hdd", "ssd", "diskgb"}},
	{"nics", []string{"nics", "nic", "interfaces", "ports", "networks"}},
	{"external", []string{"external", "public"}},
	{"tenant", []string{"tenant", "overlay"}},
	{"storage", []string{"storage"}},
}

// needed is how many of columns every inventory has: address to nics.
const needed = 6

// ReadInventory reads machines from CSV: address, hostname, cores, memory, disk, NICs.
// A header may name the columns in any order, and addresses on external, tenant and
// storage as well. Sizes carry a unit (12G, 16384 MB, 1.2T); a bare number counts GB.
// NICs are a number or the interfaces' names. All problems are reported in an *Errors.
func ReadInventory(name string, text []byte) ([]Machine, error) {
	d := &decoder{name: name, text: text}
	if len(text) > maxSize {
		d.report(position{1, 1}, "the inventory is larger than 4 MiB", "one row a machine")
		return nil, d.errors()
	}
	r := csv.NewReader(strings.NewReader(strings.TrimPrefix(string(text), "\ufeff")))
	r.Comma, r.Comment, r.FieldsPerRecord, r.TrimLeadingSpace = separator(string(text)), '#', -1, true
	inv := &inventory{decoder: d, names: map[string]int{}, addresses: map[netip.Addr]int{}}
	for {
		row, err := r.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			at := position{1, 1}
			var pe *csv.ParseError
			if errors.As(err, &pe) {
				at = position{pe.Line, pe.Column}
			}
			d.report(at, fmt.Sprintf("not valid CSV: %v", errors.Unwrap(err)), "")
			break
		}
		inv.row(row, func(i int) position { line, column := r.FieldPos(i); return position{line, column} })
	}
	if len(inv.machines) == 0 && !d.failed() {
		d.report(position{1, 1}, "the inventory holds no machine", "rows like: 192.0.2.11,ctl1,4,16G,300G,2")
	}
	if d.failed() {
		return nil, d.errors()
	}
	return inv.machines, nil
}

// inventory reads rows.
type inventory struct {
	*decoder
	order     []string // column names by position; nil before the first row
	machines  []Machine
	names     map[string]int // first line of a name
	addresses map[netip.Addr]int
}

// separator is the one that occurs most in the first line that is no comment.
func separator(text string) rune {
	for line := range strings.Lines(text) {
		if trimmed := strings.TrimSpace(line); trimmed == "" || trimmed[0] == '#' {
			continue
		}
		best, most := ',', strings.Count(line, ",")
		for _, c := range []rune{';', '\t'} {
			if n := strings.Count(line, string(c)); n > most {
				best, most = c, n
			}
		}
		return best
	}
	return ','
}

func (v *inventory) row(cells []string, at func(int) position) {
	if v.order == nil {
		if v.header(cells, at) {
			return
		}
	}
	if strings.TrimSpace(strings.Join(cells, "")) == "" {
		return
	}
	m := Machine{Line: at(0).line, Addresses: map[model.NetworkName]netip.Addr{}, Bits: map[model.NetworkName]int{}}
	before := len(v.problems)
	for i, column := range v.order {
		if i >= len(cells) {
			if slices.Contains([]string{"address", "hostname", "cores", "memory", "disk", "nics"}, column) {
				v.report(at(0), fmt.Sprintf("this row has no %s", column), "the columns are "+strings.Join(v.order, ", "))
			}
			continue
		}
		v.cell(&m, column, strings.TrimSpace(cells[i]), at(i))
	}
	if len(v.problems) == before {
		v.machines = append(v.machines, m)
	}
}

// header takes the first row as the header unless it holds an address.
func (v *inventory) header(cells []string, at func(int) position) bool {
	for _, c := range cells {
		if _, _, ok := address(strings.TrimSpace(c)); ok {
			for _, col := range columns[:needed] {
				v.order = append(v.order, col.name)
			}
			return false
		}
	}
	for _, c := range cells {
		v.order = append(v.order, columnOf(c))
	}
	for _, col := range columns[:needed] {
		if !slices.Contains(v.order, col.name) {
			v.report(at(0), fmt.Sprintf("the header has no column %s", col.name), "one of "+strings.Join(col.words, ", "))
		}
	}
	return true
}

// columnOf returns which column a header's word names; "" for one nines does not use.
func columnOf(word string) string {
	plain := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return -1
	}, strings.ToLower(word))
	for _, col := range columns {
		if slices.Contains(col.words, plain) {
			return col.name
		}
	}
	return ""
}

func (v *inventory) cell(m *Machine, column, text string, at position) {
	switch column {
	case "address":
		v.address(m, model.Management, text, at)
	case "external", "tenant", "storage":
		if text != "" && text != "-" {
			v.address(m, model.NetworkName(column), text, at)
		}
	case "hostname":
		v.hostname(m, text, at)
	case "cores":
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > 4096 {
			v.report(at, fmt.Sprintf("cores: %q is no number of cores", text), "a whole number, like 8")
		}
		m.Cores = n
	case "memory":
		m.MemoryBytes = v.size("memory", text, at, 4_000)
	case "disk":
		m.DiskBytes = v.size("disk", text, at, 100_000)
	case "nics":
		m.NICs = v.nics(text, at)
	}
}

func (v *inventory) address(m *Machine, network model.NetworkName, text string, at position) {
	a, bits, ok := address(text)
	if !ok {
		v.report(at, fmt.Sprintf("%q is not an IPv4 address", text), "like 192.0.2.11 or 192.0.2.11/24")
		return
	}
	if first, twice := v.addresses[a]; twice {
		v.report(at, fmt.Sprintf("the address %s is used twice", a), fmt.Sprintf("another address; the first stands in line %d", first))
	}
	v.addresses[a] = at.line
	m.Addresses[network] = a
	if bits > 0 {
		m.Bits[network] = bits
	}
}

// address reads an IPv4 address with or without a prefix length (bits is 0 then).
func address(text string) (a netip.Addr, bits int, ok bool) {
	if p, err := netip.ParsePrefix(text); err == nil {
		return p.Addr(), p.Bits(), p.Addr().Is4() && p.Bits() >= 8 && p.Bits() <= 30
	}
	a, err := netip.ParseAddr(text)
	return a, 0, err == nil && a.Is4()
}

func (v *inventory) hostname(m *Machine, text string, at position) {
	short, _, _ := strings.Cut(strings.ToLower(text), ".")
	f := fields["nodes[].name"]
	if !matches(f.pattern, short) || short == "localhost" {
		v.report(at, fmt.Sprintf("hostname: %q is not a host name nines can use", text), f.means)
		return
	}
	if first, twice := v.names[short]; twice {
		v.report(at, fmt.Sprintf("two machines are named %s", short), fmt.Sprintf("another name; the first stands in line %d", first))
	}
	v.names[short] = at.line
	m.Name = short
}

// units in decimal bytes: machines are sold in GB, and the rules count in them. The
// difference to GiB is in the machine's favour.
var units = map[string]float64{
	"": 1e9, "m": 1e6, "mb": 1e6, "g": 1e9, "gb": 1e9, "t": 1e12, "tb": 1e12,
	"mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40,
}

// size reads a size in bytes. A bare number counts GB, up to most: above it megabytes may be meant.
func (v *inventory) size(what, text string, at position, most float64) uint64 {
	end := strings.IndexFunc(text, func(r rune) bool { return (r < '0' || r > '9') && r != '.' })
	if end < 0 {
		end = len(text)
	}
	n, err := strconv.ParseFloat(text[:end], 64)
	unit := strings.ToLower(strings.TrimSpace(text[end:]))
	factor, known := units[unit]
	bytes := n * factor
	switch {
	case err != nil || !known || n <= 0 || math.IsInf(n, 0) || bytes > 1e18:
		v.report(at, fmt.Sprintf("%s: %q is no size", what, text), "a number with a unit, like 16G, 16384 MB or 1.2T")
		return 0
	case unit == "" && n > most:
		v.report(at, fmt.Sprintf("%s: %s without a unit would be %s GB", what, text, text), text+"M, if megabytes are meant")
		return 0
	}
	return uint64(bytes)
}

// nics reads a number of interfaces or counts their names.
func (v *inventory) nics(text string, at position) int {
	if n, err := strconv.Atoi(text); err == nil && n >= 1 && n <= 256 {
		return n
	}
	names := strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(" /|+;,", r) })
	if len(names) == 0 || names[0][0] >= '0' && names[0][0] <= '9' || names[0][0] == '-' {
		v.report(at, fmt.Sprintf("NICs: %q is neither a number nor names", text), "2, or eno1 eno2")
		return 0
	}
	return len(names)
}

// bySize orders machines from small to large; equal ones keep the order of the inventory.
func bySize(a, b Machine) int {
	return cmp.Or(cmp.Compare(a.Cores, b.Cores), cmp.Compare(a.MemoryBytes, b.MemoryBytes), cmp.Compare(a.DiskBytes, b.DiskBytes))
}
