package app

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nines/internal/config"
	"nines/internal/model"
)

// rendered is what each preset puts into the files of a controller. The other two do not differ: the guide and
// kolla-ansible leave the same defaults of the components as they are.
var rendered = map[model.Preset]string{
	model.PresetNines: `evs.suspect_timeout=PT1.5S
evs.inactive_timeout=PT15S
evs.install_timeout=PT15S
evs.keepalive_period=PT0.3S
evs.inactive_check_period=PT0.3S
evs.join_retrans_period=PT0.3S
gmcast.peer_timeout=PT3S
net_ticktime = 15
default-server inter 1s fastinter 250ms downinter 1s fall 4 rise 2
default-server fall 6
advert_int 0.1`,
	model.PresetKolla:     others,
	model.PresetReference: others,
}

const others = `evs.suspect_timeout=PT5S
evs.inactive_timeout=PT15S
evs.install_timeout=PT7.5S
evs.keepalive_period=PT1S
evs.inactive_check_period=PT0.5S
evs.join_retrans_period=PT1S
gmcast.peer_timeout=PT3S
net_ticktime = 60
default-server inter 2s fastinter 2s downinter 2s fall 5 rise 2
default-server fall 7
advert_int 1`

// decided finds in a file what a preset decides.
var decided = regexp.MustCompile(`(?m)^[^#\n]*?(advert_int \S+|default-server inter .*rise \d+|default-server fall \d+|net_ticktime = \d+)`)

// detector finds the values of Galera's failure detector, which stand on one line.
var detector = regexp.MustCompile(`(?:evs\.\w+|gmcast\.peer_timeout) ?= ?[A-Z0-9.]+`)

func TestPresetsRender(t *testing.T) {
	for _, p := range model.Presets {
		t.Run(string(p), func(t *testing.T) {
			text, err := config.Override(config.Example(), []string{"tuning.preset=" + string(p)})
			if err != nil {
				t.Fatal(err)
			}
			c, err := config.Parse("cluster.yaml", text)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(rendered[p], strings.Join(decidedIn(t, c), "\n")); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
		})
	}
}

// decidedIn is what a preset decides in the files of one controller, each once.
func decidedIn(t *testing.T, c *model.Cluster) []string {
	t.Helper()
	var out []string
	for _, r := range resourcesOf(t, c) {
		if r.File == nil || r.Node != "ctl1" {
			continue
		}
		var found []string
		for _, m := range decided.FindAllSubmatch(r.File.Content, -1) {
			found = append(found, string(m[1]))
		}
		found = append(found, detector.FindAllString(string(r.File.Content), -1)...)
		for _, f := range found {
			if !slices.Contains(out, f) {
				out = append(out, f)
			}
		}
	}
	return out
}
