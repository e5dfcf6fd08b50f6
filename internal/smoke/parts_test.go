package smoke

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"

	"nines/internal/model"
)

func TestExternalAddresses(t *testing.T) {
	spec, err := externalSpec(testCluster(t))
	if err != nil || spec.First.String() != "198.18.1.239" || spec.Last.String() != "198.18.1.254" || spec.Gateway.String() != "198.18.1.1" || spec.Physical != "external" {
		t.Errorf("%+v, %v", spec, err)
	}
	a := netip.MustParseAddr
	for name, tc := range map[string]struct {
		cidr  string
		taken []netip.Addr
		want  string
	}{
		"in the middle":      {"192.0.2.0/28", []netip.Addr{a("192.0.2.1"), a("192.0.2.2"), a("192.0.2.13")}, "192.0.2.3-192.0.2.12"},
		"nodes at the end":   {"192.0.2.0/24", []netip.Addr{a("192.0.2.1"), a("192.0.2.250"), a("192.0.2.254")}, "192.0.2.234-192.0.2.249"},
		"others' addresses":  {"192.0.2.0/29", []netip.Addr{a("192.0.2.1"), a("203.0.113.9")}, "192.0.2.2-192.0.2.6"},
		"one is left":        {"192.0.2.0/30", []netip.Addr{a("192.0.2.1")}, "192.0.2.2-192.0.2.2"},
		"none is left":       {"192.0.2.0/30", []netip.Addr{a("192.0.2.1"), a("192.0.2.2")}, ""},
		"not on the borders": {"10.1.0.0/16", nil, "10.1.255.239-10.1.255.254"},
	} {
		first, last, ok := freePool(netip.MustParsePrefix(tc.cidr), tc.taken)
		got := ""
		if ok {
			got = fmt.Sprintf("%s-%s", first, last)
		}
		if got != tc.want {
			t.Errorf("%s: %s, want %s", name, got, tc.want)
		}
	}
}

func TestNoWayOut(t *testing.T) {
	for name, spoil := range map[string]func(*model.Cluster){
		"no interface": func(c *model.Cluster) { c.Neutron.ProviderInterface = "" },
		"no network":   func(c *model.Cluster) { delete(c.Networks, model.External) },
	} {
		c := testCluster(t)
		spoil(c)
		_, err := externalSpec(c)
		var hint interface{ Hint() string }
		if !errors.As(err, &hint) || !strings.Contains(hint.Hint(), "neutron.provider_interface") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPrivateNetworkIsNobodys(t *testing.T) {
	c := testCluster(t)
	c.Networks[model.Storage] = model.Network{CIDR: netip.MustParsePrefix("192.168.0.0/16")}
	if got := privateCIDR(c).String(); got != "10.233.233.0/24" {
		t.Error(got)
	}
}

func TestNames(t *testing.T) {
	id := NewID()
	for _, n := range []names{{id: id}, {id: id, kept: true}} {
		got, what, ok := parseName(n.of("r3-volume"))
		if !ok || got != n || what != "r3-volume" {
			t.Errorf("%s: %+v, %q, %t", n.of("r3-volume"), got, what, ok)
		}
		if len(n.of("instance")) > 63 {
			t.Errorf("%s is no host name", n.of("instance"))
		}
	}
	if NewID() == id {
		t.Error("two runs have the same name")
	}
}

func TestRunsAtWork(t *testing.T) {
	runs := Runs{Dir: t.TempDir() + "/runs"}
	if runs.Alive(testID) {
		t.Error("a run that never was is alive")
	}
	end, err := runs.Begin(testID)
	if err != nil || !runs.Alive(testID) || runs.Alive("00000000bb") {
		t.Errorf("%v", err)
	}
	if _, err := runs.Begin(testID); err == nil {
		t.Error("a run begins twice")
	}
	end()
	if runs.Alive(testID) {
		t.Error("a run that ended is alive")
	}
}

func TestAnswer(t *testing.T) {
	server, address, key := "nines-smoke-0000000000-instance", netip.MustParseAddr("192.168.233.7"), "ssh-ed25519 AAAA nines-smoke"
	text := "hostname: x\naddress: 192.168.233.7\nmetadata: " + server + ".novalocal\nkey: " + key + "\ndisks: vda vdb\nuptime: 3.1\n"
	a, err := parseAnswer(text)
	if err != nil || a.lacks(server, address, key) != "" || len(a.Disks) != 2 || a.Hostname != "x" {
		t.Errorf("%+v, %v", a, err)
	}
	for change, want := range map[string]string{
		"192.168.233.7":       "DHCP",
		server + ".novalocal": "no metadata yet",
		".novalocal":          "", // a cloud without a domain
		key:                   "public key",
	} {
		a, err := parseAnswer(strings.Replace(text, change, "", 1))
		if got := a.lacks(server, address, key); err != nil || !strings.Contains(got, want) || (want == "") != (got == "") {
			t.Errorf("without %q: %q, %v", change, got, err)
		}
	}
	if a, _ := parseAnswer(strings.Replace(text, server, server+"2", 1)); a.lacks(server, address, key) == "" {
		t.Error("another instance's answer is taken")
	}
	if _, err := parseAnswer("<html>hello</html>"); err == nil {
		t.Error("a stranger's answer is taken")
	}
}

func TestMeaning(t *testing.T) {
	for code, want := range map[int]error{404: ErrGone, 400: ErrRefused, 403: ErrRefused, 409: ErrRefused} {
		err := meaning(fmt.Errorf("x: %w", gophercloud.ErrUnexpectedResponseCode{Actual: code}))
		if !errors.Is(err, want) {
			t.Errorf("%d: %v", code, err)
		}
	}
	for _, code := range []int{401, 429, 500, 503} {
		err := meaning(gophercloud.ErrUnexpectedResponseCode{Actual: code})
		if errors.Is(err, ErrGone) || errors.Is(err, ErrRefused) {
			t.Errorf("%d is final: %v", code, err)
		}
	}
	if err := meaning(context.DeadlineExceeded); !errors.Is(err, context.DeadlineExceeded) || meaning(nil) != nil {
		t.Error(err)
	}
}

func TestServerWord(t *testing.T) {
	for want, s := range map[string]servers.Server{
		"ACTIVE":                  {Status: "ACTIVE"},
		"ACTIVE, image_uploading": {Status: "ACTIVE", TaskState: "image_uploading"},
		"ERROR":                   {Status: "ERROR", TaskState: "spawning"},
	} {
		if got := serverWord(&s); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
