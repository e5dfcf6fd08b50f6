package config_test

import (
	"strings"
	"testing"

	"nines/internal/config"
)

const small = `# my cluster
name: lab # short
networks:
  management: {cidr: 198.18.0.0/24}
nodes:
  # the first
  - name: ctl1 # rack 1
    roles: [controller]
    addresses: {management: 198.18.0.11}
  - name: ctl2
    roles: [controller]
    addresses: {management: 198.18.0.12}
  - name: ctl3
    roles: [controller]
    addresses: {management: 198.18.0.13}
vip: {address: 198.18.0.10/24, advert: 100ms} # moves
tuning:
checks: {}
`

func TestOverride(t *testing.T) {
	for name, c := range map[string]struct {
		sets []string
		want []string // lines of the result
	}{
		"replace a word":           {[]string{"name=prod"}, []string{"name: prod # short", "# my cluster"}},
		"replace in braces":        {[]string{"vip.advert=50ms"}, []string{"vip: {address: 198.18.0.10/24, advert: 50ms} # moves"}},
		"add in braces":            {[]string{"vip.router_id=7"}, []string{"vip: {address: 198.18.0.10/24, advert: 100ms, router_id: 7} # moves"}},
		"add a block":              {[]string{"ssh.port=2222"}, []string{"ssh:", "  port: 2222"}},
		"add below an empty key":   {[]string{"tuning.galera.gcache=1G"}, []string{"tuning: {galera: {gcache: 1G}}"}},
		"twice below an empty key": {[]string{"tuning.galera.gcache=1G", "tuning.haproxy.fall=3"}, []string{"tuning: {galera: {gcache: 1G}, haproxy: {fall: 3}}"}},
		"below two empty keys":     {[]string{"tuning=null", "tuning.galera=null", "tuning.galera.gcache=1G"}, []string{"tuning: {galera: {gcache: 1G}}"}},
		"below empty braces":       {[]string{"checks.severity=warning"}, []string{"checks: {severity: warning}"}},
		"a node by name":           {[]string{"nodes.ctl2.roles=[controller, compute]"}, []string{"    roles: [controller, compute]", "  # the first"}},
		"a node by index":          {[]string{"nodes[0].name=first"}, []string{"  - name: first # rack 1"}},
		"a map":                    {[]string{"networks.external={cidr: 198.18.1.0/24}"}, []string{"  external: {cidr: 198.18.1.0/24}"}},
		"below a new map":          {[]string{"networks.external.cidr=198.18.1.0/24"}, []string{"  external:", "    cidr: 198.18.1.0/24"}},
		"a list":                   {[]string{"ntp.upstreams=[]"}, []string{"  upstreams: []"}},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := config.Override([]byte(small), c.sets)
			if err != nil {
				t.Fatal(err)
			}
			for _, line := range c.want {
				if !strings.Contains("\n"+string(out), "\n"+line+"\n") {
					t.Errorf("no line %q in\n%s", line, out)
				}
			}
			if _, err := config.Parse("cluster.yaml", out); err != nil {
				t.Errorf("the result is not valid: %v\n%s", err, out)
			}
		})
	}
}

func TestOverrideRefuses(t *testing.T) {
	for set, want := range map[string]string{
		"vip.advert":             "KEY=VALUE",
		"vip.adver=1s":           "did you mean advert",
		"vipp.advert=1s":         "did you mean vip",
		"nodes.ctl9.name=x":      "nothing is named ctl9",
		"nodes[7].name=x":        "only 3",
		"nodes[x].name=x":        "no index",
		"=x":                     "no path",
		"name=":                  "value is missing",
		"name=a: b":              "write a mapping as {a: b}",
		"name=[a":                "no YAML value",
		"name.first=x":           "has no key first",
		"networks.managment={}":  "did you mean management",
		"packages.key_text=open": "unknown key packages.key_text",
	} {
		if _, err := config.Override([]byte(small), []string{set}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("--set %s: got %v, want an error with %q", set, err, want)
		}
	}
}
