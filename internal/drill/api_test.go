package drill

import (
	"slices"
	"testing"
	"time"

	"nines/internal/model"
	"nines/internal/service"
)

// published is a service with an API of its own.
type published struct{ faulty }

func (p published) Listeners(*model.Cluster) []service.Listener {
	return []service.Listener{{Name: p.Name(), Port: 9999, HTTP: true, Public: true, Probe: "/healthcheck"}, {Name: p.Name() + "-tcp", Port: 9998},
		{Name: p.Name() + "-more", Port: 9997, HTTP: true, Probe: "/"}}
}

// many is a service with two daemons.
type many struct{ faulty }

func (m many) Faults(*model.Cluster) []service.Fault {
	return []service.Fault{{Name: "kill", Unit: "many-a.service", Signal: 9}, {Name: "kill", Unit: "many-b.service", Signal: 9}}
}

func TestAPIsHaveProbesAndLimits(t *testing.T) {
	c := testCluster()
	c.Services = append(c.Services, "placement", "many")
	services := []service.Service{faulty("keystone"), published{"placement"}, published{"absent"}, many{"many"}}
	if got, want := APIs(c, services), []API{{"placement", 9999, "/healthcheck", "placement", true}, {"placement-more", 9997, "/", "placement", false}}; !slices.Equal(got, want) {
		t.Errorf("APIs %v, want %v", got, want)
	}
	limits := map[string]Limit{}
	for _, d := range Catalogue(c, services) {
		if d.Site != nil {
			continue // without machines nobody is promised an answer
		}
		if d.Network != nil && d.Network.Claim {
			continue // nor to those who believe an impostor
		}
		for _, api := range []string{"placement", "placement-more"} {
			i := slices.IndexFunc(d.Limits, func(l Limit) bool { return l.Probe == api })
			if i < 0 {
				t.Errorf("%s holds %s to nothing", d.Name, api)
				continue
			}
			want := d.Limits[i]
			want.Probe = "placement"
			if have, again := limits[d.Name]; again && have != want {
				t.Errorf("%s holds the APIs of one service to %+v and %+v", d.Name, have, want)
			}
			limits[d.Name] = want
		}
	}
	for drill, want := range map[string]Limit{
		"kill-placement":       {Probe: "placement", NoFailures: true},
		"freeze-placement":     {Probe: "placement", Outage: 3 * time.Second, QuietAfter: 3 * time.Second},
		"kill-keystone":        {Probe: "placement", Outage: limitAPI.Outage},
		"vip-holder-power-off": {Probe: "placement", Outage: limitAPI.Outage},
		"kill-many-a":          {Probe: "placement", Outage: limitAPI.Outage},
		"kill-many-b":          {Probe: "placement", Outage: limitAPI.Outage},
	} {
		if limits[drill] != want {
			t.Errorf("%s: %+v, want %+v", drill, limits[drill], want)
		}
	}
}
