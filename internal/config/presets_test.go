package config

import (
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"nines/internal/model"
)

const presetFile = `name: lab
networks: {management: {cidr: 198.18.0.0/24}}
nodes:
  - {name: ctl1, roles: [controller], addresses: {management: 198.18.0.11}}
  - {name: ctl2, roles: [controller], addresses: {management: 198.18.0.12}}
  - {name: ctl3, roles: [controller], addresses: {management: 198.18.0.13}}
vip: {address: 198.18.0.10/24}
`

func parsePreset(t *testing.T, tuning string) *model.Cluster {
	t.Helper()
	c, err := Parse("cluster.yaml", []byte(presetFile+tuning))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Parse refuses what breaks the bounds between values, so a preset that parses keeps to them.
func TestEveryPresetSatisfiesTheRules(t *testing.T) {
	for _, p := range model.Presets {
		t.Run(string(p), func(t *testing.T) {
			c := parsePreset(t, fmt.Sprintf("tuning: {preset: %s}\n", p))
			if c.Tuning.Preset != p {
				t.Errorf("preset %q", c.Tuning.Preset)
			}
			text, err := Marshal(c)
			if err != nil {
				t.Fatal(err)
			}
			again, err := Parse("again", text)
			if err != nil || !cmp.Equal(c.Tuning, again.Tuning) {
				t.Errorf("written and read again: %v\n%s", err, text)
			}
		})
	}
}

func TestPresetsAreKeysWithValuesThatFit(t *testing.T) {
	keys := map[string]reflect.Type{}
	keysOf(reflect.TypeFor[model.Cluster](), "", keys)
	for name, values := range presets {
		if !slices.Contains(model.Presets, name) || name == model.PresetNines {
			t.Errorf("%s: the vocabulary has no such preset, or fields has its values", name)
		}
		for key, value := range values {
			f := fields[key]
			if f.fallback == "" {
				t.Errorf("%s: %s is no key with a default", name, key)
				continue
			}
			f.fallback = value
			if err := fallback(reflect.New(keys[key]).Elem(), f); err != nil {
				t.Errorf("%s: %s: %v", name, key, err)
			}
		}
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(kolla)), slices.Sorted(maps.Keys(reference))); diff != "" {
		t.Errorf("kolla and reference do not set the same keys:\n%s", diff)
	}
}

// The guide shows the values of all presets in one table.
func TestPresetsAreInTheGuide(t *testing.T) {
	guide, err := os.ReadFile("../../docs/guide.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range slices.Sorted(maps.Keys(kolla)) {
		row := fmt.Sprintf("\n| `%s` | `%s` | `%s` | `%s` |\n", key, fields[key].fallback, kolla[key], reference[key])
		if !strings.Contains(string(guide), row) {
			t.Errorf("docs/guide.md has no row %s", row)
		}
	}
}

func TestPresetValues(t *testing.T) {
	want := parsePreset(t, "").Tuning
	if want.Preset != model.PresetNines {
		t.Errorf("without a preset: %q", want.Preset)
	}
	want.Preset = model.PresetKolla
	g := &want.Galera
	g.SuspectTimeout, g.InactiveTimeout, g.InstallTimeout = 5*time.Second, 15*time.Second, 7500*time.Millisecond
	g.Keepalive, g.InactiveCheck, g.PeerTimeout, g.JoinRetrans = time.Second, 500*time.Millisecond, 3*time.Second, time.Second
	want.RabbitMQ.NetTickTime = time.Minute
	want.HAProxy = model.HAProxyTuning{Inter: 2 * time.Second, HTTPInter: 2 * time.Second, FastInter: 2 * time.Second, Fall: 5, Rise: 2}
	want.Pacemaker.Token = 3650 * time.Millisecond
	c := parsePreset(t, "tuning: {preset: kolla}\n")
	if diff := cmp.Diff(want, c.Tuning); diff != "" {
		t.Error(diff)
	}
	if c.VIP.Advert != time.Second {
		t.Errorf("advert %s", c.VIP.Advert)
	}
}

// A preset is where defaults come from: what the file says stays.
func TestGivenValuesWinOverThePreset(t *testing.T) {
	c := parsePreset(t, "tuning: {haproxy: {fall: 3}, preset: kolla, galera: {keepalive: 800ms}}\n")
	if c.Tuning.HAProxy.Fall != 3 || c.Tuning.Galera.Keepalive != 800*time.Millisecond || c.Tuning.HAProxy.Inter != 2*time.Second {
		t.Errorf("%+v", c.Tuning)
	}
}
