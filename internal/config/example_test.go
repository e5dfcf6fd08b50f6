package config_test

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"nines/internal/config"
	"nines/internal/model"
)

import "net/netip"

var exact = cmp.Options{cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})}

func TestExampleLoads(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cluster.yaml")
	if err := os.WriteFile(path, config.Example(), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(path)
	if err != nil {
		t.Fatalf("%v\n%s", err, config.Example())
	}
	if got := len(c.Controllers()); got != 3 {
		t.Errorf("%d controllers, want 3", got)
	}
	if !cmp.Equal(c.Services, model.CoreServices) {
		t.Errorf("services %v", c.Services)
	}
}

var commented = regexp.MustCompile(`(?m)^( *)#([a-z_]+: )`)

func TestExampleShowsTheDefaults(t *testing.T) {
	want, err := config.Parse("cluster.yaml", config.Example())
	if err != nil {
		t.Fatal(err)
	}
	open := commented.ReplaceAll(config.Example(), []byte("$1$2"))
	got, err := config.Parse("cluster.yaml", open)
	if err != nil {
		t.Fatalf("with the defaults written out: %v\n%s", err, open)
	}
	if diff := cmp.Diff(want, got, exact); diff != "" {
		t.Errorf("written out, the defaults differ:\n%s", diff)
	}
}
