package config_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"nines/internal/config"
	"nines/internal/model"
)

const machines = `# rack 1
IP;Host;vCPU;RAM;Disk;NICs;external;serial
10.1.0.11/20;big-1.example.org;8;32G;1.2T;eno1 eno2;10.9.0.11;x1
10.1.0.12;big-2;16;64G;1.2T;2;10.9.0.12;x2
10.1.0.13;small-1;2;8G;300G;2;;x3
10.1.0.14;mid-1;4;16384 MB;600;2;10.9.0.14;x4
10.1.0.15;mid-2;4;16;600;4;10.9.0.15;x5
10.1.0.16;mid-3;4;16;600GB;2;10.9.0.16;x6
10.1.0.17;mid-4;6;16;600GB;2;10.9.0.17;x7
`

func TestProposeRoles(t *testing.T) {
	ms, err := config.ReadInventory("machines.csv", []byte(machines))
	if err != nil {
		t.Fatal(err)
	}
	text, err := config.Propose("machines.csv", ms)
	if err != nil {
		t.Fatal(err)
	}
	c, err := config.Parse("cluster.yaml", text)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	got := map[string]model.Role{}
	for _, n := range c.Nodes {
		got[n.Name] = n.Roles[0]
	}
	want := map[string]model.Role{"big-1": model.RoleCompute, "big-2": model.RoleCompute,
		"mid-1": model.RoleController, "mid-2": model.RoleController, "mid-3": model.RoleController}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("roles %v, want %v", got, want)
	}
	if c.VIP.Network != model.External || c.VIP.Address.String() != "10.9.0.10/24" {
		t.Errorf("vip %+v", c.VIP)
	}
	if s := c.Networks[model.Management].CIDR.String(); s != "10.1.0.0/20" {
		t.Errorf("management %s", s)
	}
	for _, why := range []string{
		"# mid-1: 4 cores, 16.4 GB of memory, 600 GB of disk, 2 NICs: one of the smallest that are large enough for a controller",
		"# mid-4: 6 cores, 16 GB of memory, 600 GB of disk, 2 NICs: left out: 6 cores, a compute needs 8",
		"#- name: small-1", "# big-1: 8 cores, 32 GB of memory, 1200 GB of disk, 2 NICs: large enough for a compute",
		"# Guessed from the addresses"} {
		if !strings.Contains(string(text), why) {
			t.Errorf("no %q in\n%s", why, text)
		}
	}
}

func TestInventoryProblems(t *testing.T) {
	for text, want := range map[string][]string{
		"":                       {"1:1: the inventory holds no machine"},
		"address,hostname,cores": {"1:1: the header has no column memory", "no column disk", "no column nics"},
		"10.0.0.1,a,four,16X,-3,none of 2\n10.0.0.1,A.b,4,16,300,2\n":           {"1:12: cores", `memory: "16X"`, `disk: "-3"`, "2:1: the address 10.0.0.1 is used twice", "2:10: two machines are named a"},
		"10.0.0.1,under_score,4,16,300,2\nfe80::1,b,4,16,300,2\n10.0.0.3,c,4\n": {`hostname: "under_score"`, `2:1: "fe80::1" is not an IPv4`, "3:1: this row has no memory"},
		"10.0.0.1,a,4,16384,300,2\n":                                            {"memory: 16384 without a unit"},
		"10.0.0.1,\"a,4,16,300,2\n":                                             {"not valid CSV"},
	} {
		_, err := config.ReadInventory("i.csv", []byte(text))
		var bad *config.Errors
		if !errors.As(err, &bad) {
			t.Errorf("%q: got %v", text, err)
			continue
		}
		for _, w := range want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%q: no %q in\n%v", text, w, err)
			}
		}
	}
}

func TestProposeNeedsThreeControllers(t *testing.T) {
	ms, err := config.ReadInventory("i.csv", []byte("10.0.0.1,a,4,16,300,2\n10.0.0.2,b,2,16,300,1\n10.0.0.3,c,4,16,300,2\n"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = config.Propose("i.csv", ms)
	var small *config.TooSmallError
	if !errors.As(err, &small) || small.Fit != 2 || !strings.Contains(err.Error(), "b (line 2) has 2 cores, a controller needs 4, 1 NICs, a controller needs 2") {
		t.Errorf("got %v", err)
	}
}

// Whatever the machines, a proposal is valid, its controllers are three and no machine
// that was left out or made a compute would have been a smaller controller.
func TestProposalsAreValid(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var b strings.Builder
		n := rapid.IntRange(3, 12).Draw(t, "machines")
		for i := range n {
			fmt.Fprintf(&b, "10.0.%d.%d,n%d,%d,%dG,%dG,2\n", rapid.IntRange(0, 3).Draw(t, "third"), 20+i, i,
				rapid.SampledFrom([]int{2, 4, 6, 8, 16}).Draw(t, "cores"), rapid.SampledFrom([]int{8, 12, 16, 64}).Draw(t, "memory"), rapid.SampledFrom([]int{100, 120, 600}).Draw(t, "disk"))
		}
		ms, err := config.ReadInventory("i.csv", []byte(b.String()))
		if err != nil {
			t.Fatalf("%v", err)
		}
		text, err := config.Propose("i.csv", ms)
		var small *config.TooSmallError
		if errors.As(err, &small) {
			return
		}
		if err != nil {
			t.Fatalf("%v", err)
		}
		c, err := config.Parse("cluster.yaml", text)
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		if len(c.Controllers()) != 3 {
			t.Fatalf("%d controllers", len(c.Controllers()))
		}
		for _, ctl := range c.Controllers() {
			for _, m := range ms {
				node, _ := c.Node(m.Name)
				fits := m.Cores >= 4 && m.MemoryBytes >= 12*model.GB && m.DiskBytes >= 120*model.GB
				if fits && !node.Has(model.RoleController) && m.Cores < coresOf(ms, ctl.Name) {
					t.Fatalf("%s has fewer cores than the controller %s\n%s", m.Name, ctl.Name, text)
				}
			}
		}
	})
}

func coresOf(ms []config.Machine, name string) int {
	for _, m := range ms {
		if m.Name == name {
			return m.Cores
		}
	}
	return 0
}
