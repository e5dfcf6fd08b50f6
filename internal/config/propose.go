package config

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"nines/internal/model"
)

// controllers is how many controllers are proposed: the fewest that survive a failure.
const controllers = 3

// proposal is a machine with the role it gets and why.
type proposal struct {
	Machine
	role model.Role // empty: left out
	why  string
}

// Propose returns a commented cluster.yaml for the machines of an inventory: the smallest
// that are large enough become controllers, the large others computes. The source names
// the inventory in comments and errors.
func Propose(source string, machines []Machine) ([]byte, error) {
	chosen, err := assign(machines)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", source, err)
	}
	nets, err := subnets(machines)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", source, err)
	}
	network := model.Management
	if _, ok := nets[model.External]; ok && everyController(chosen, model.External) {
		network = model.External
	}
	vip, err := freeAddress(nets[network].Prefix, machines)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", source, err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\n# Proposed from %s. Look at names, subnets and the VIP before the first apply.\nname: cluster\n", oneWord(source))
	writeNetworks(&b, nets)
	writeNodes(&b, chosen)
	fmt.Fprintf(&b, "\n# The address that clients use: it must belong to no machine. This one is not in the inventory;\n"+
		"# make sure that nobody else has it.\nvip:\n  address: %s\n  network: %s\n", netip.PrefixFrom(vip, nets[network].Bits()), network)
	return compose(b.String(), string(network)), nil
}

// oneWord keeps a file name from ending the comment it stands in.
func oneWord(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, s)
}

// TooSmallError says that an inventory has too few machines for controllers.
type TooSmallError struct {
	Fit     int
	Lacking []string // "web1 has 2 cores, a controller needs 4"
}

func (e *TooSmallError) Error() string {
	return fmt.Sprintf("%d of the machines can be controllers, %d are needed:\n  %s", e.Fit, controllers, strings.Join(e.Lacking, "\n  "))
}

// Hint says what to do now.
func (e *TooSmallError) Hint() string {
	return "correct the inventory or add machines; 'nines init' without an inventory writes an example to fill in by hand"
}

// assign gives every machine its role, in the order of the inventory.
func assign(machines []Machine) ([]proposal, error) {
	order := slices.Clone(machines)
	slices.SortStableFunc(order, bySize)
	var lacking []string
	picked := map[string]string{}
	fit := 0
	for _, m := range order {
		lacks := lack(m.Hardware, model.RoleController)
		if len(lacks) > 0 {
			lacking = append(lacking, fmt.Sprintf("%s (line %d) has %s", m.Name, m.Line, strings.Join(lacks, ", ")))
			continue
		}
		if fit++; fit <= controllers {
			picked[m.Name] = "one of the smallest that are large enough for a controller"
		}
	}
	if fit < controllers {
		return nil, &TooSmallError{Fit: fit, Lacking: lacking}
	}
	out := make([]proposal, 0, len(machines))
	for _, m := range machines {
		p := proposal{Machine: m}
		lacks := lack(m.Hardware, model.RoleCompute)
		switch {
		case picked[m.Name] != "":
			p.role, p.why = model.RoleController, picked[m.Name]
		case len(lacks) == 0:
			p.role, p.why = model.RoleCompute, "large enough for a compute"
		default:
			p.why = "left out: " + strings.Join(lacks, ", ")
		}
		out = append(out, p)
	}
	return out, nil
}

// lack says what a machine has too little of for a role.
func lack(h model.Hardware, role model.Role) []string {
	need := model.Needs[role]
	var out []string
	if h.Cores < need.Cores {
		out = append(out, fmt.Sprintf("%d cores, a %s needs %d", h.Cores, role, need.Cores))
	}
	if h.MemoryBytes < need.MemoryBytes {
		out = append(out, fmt.Sprintf("%s of memory, a %s needs %s", gigabytes(h.MemoryBytes), role, gigabytes(need.MemoryBytes)))
	}
	if h.DiskBytes < need.DiskBytes {
		out = append(out, fmt.Sprintf("%s of disk, a %s needs %s", gigabytes(h.DiskBytes), role, gigabytes(need.DiskBytes)))
	}
	if h.NICs < need.NICs {
		out = append(out, fmt.Sprintf("%d NICs, a %s needs %d", h.NICs, role, need.NICs))
	}
	return out
}

func gigabytes(n uint64) string {
	return strconv.FormatFloat(math.Round(float64(n)/model.GB*10)/10, 'f', -1, 64) + " GB"
}

// subnet is a network's subnet and how it is known.
type subnet struct {
	netip.Prefix
	guessed bool
}

// subnets finds each network's subnet: as the inventory says, else the /24 or the smallest
// larger one that holds all addresses.
func subnets(machines []Machine) (map[model.NetworkName]subnet, error) {
	out := map[model.NetworkName]subnet{}
	for _, name := range model.NetworkNames {
		var s subnet
		for _, m := range machines {
			a, ok := m.Addresses[name]
			if !ok {
				continue
			}
			if !s.IsValid() {
				s = subnet{netip.PrefixFrom(a, 24).Masked(), true}
			}
			if bits := m.Bits[name]; bits > 0 && s.guessed {
				s = subnet{netip.PrefixFrom(a, bits).Masked(), false}
			}
		}
		if !s.IsValid() {
			continue
		}
		for _, m := range machines {
			a, ok := m.Addresses[name]
			for ok && !s.Contains(a) {
				if !s.guessed {
					return nil, fmt.Errorf("line %d: %s of %s is outside of %s, the subnet of %s", m.Line, a, m.Name, s.Prefix, name)
				}
				if s.Bits() <= 16 {
					return nil, fmt.Errorf("line %d: the addresses on %s lie too far apart to guess the subnet: write them with their prefix length, like %s/20", m.Line, name, a)
				}
				s.Prefix = netip.PrefixFrom(s.Addr(), s.Bits()-1).Masked()
			}
		}
		out[name] = s
	}
	return out, nil
}

func everyController(chosen []proposal, network model.NetworkName) bool {
	return !slices.ContainsFunc(chosen, func(p proposal) bool {
		_, ok := p.Addresses[network]
		return p.role == model.RoleController && !ok
	})
}

// freeAddress returns the first address of the subnet, from the tenth on, that no machine
// has: the lowest ones are mostly gateways.
func freeAddress(s netip.Prefix, machines []Machine) (netip.Addr, error) {
	used := map[netip.Addr]bool{s.Addr(): true, broadcast(s): true}
	for _, m := range machines {
		for _, a := range m.Addresses {
			used[a] = true
		}
	}
	a, skip := s.Addr(), 10
	if s.Bits() > 27 {
		skip = 1
	}
	for i := 0; s.Contains(a); i, a = i+1, a.Next() {
		if i >= skip && !used[a] {
			return a, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("%s has no address left for the VIP", s)
}

func writeNetworks(b *strings.Builder, nets map[model.NetworkName]subnet) {
	b.WriteString("\nnetworks:\n")
	for _, name := range model.NetworkNames {
		s, ok := nets[name]
		if !ok {
			continue
		}
		if s.guessed {
			fmt.Fprintf(b, "  # Guessed from the addresses: correct it if the netmask is another.\n")
		}
		fmt.Fprintf(b, "  %s: {cidr: %s}\n", name, s.Prefix)
	}
}

func writeNodes(b *strings.Builder, chosen []proposal) {
	b.WriteString("\n# A controller needs 4 cores, 12 GB of memory, 120 GB of disk and 2 network interfaces; a compute 8 cores.\nnodes:\n")
	for _, p := range chosen {
		mark := ""
		if p.role == "" {
			mark = "#"
		}
		fmt.Fprintf(b, "  # %s: %d cores, %s of memory, %s of disk, %d NICs: %s\n", p.Name, p.Cores, gigabytes(p.MemoryBytes), gigabytes(p.DiskBytes), p.NICs, p.why)
		role := string(p.role)
		if role == "" {
			role = string(model.RoleCompute)
		}
		var addresses []string
		for _, name := range model.NetworkNames {
			if a, ok := p.Addresses[name]; ok {
				addresses = append(addresses, fmt.Sprintf("%s: %s", name, a))
			}
		}
		fmt.Fprintf(b, "  %s- name: %s\n  %s  roles: [%s]\n  %s  addresses: {%s}\n", mark, p.Name, mark, role, mark, strings.Join(addresses, ", "))
	}
}
