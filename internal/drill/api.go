package drill

import (
	"context"
	"time"

	"nines/internal/model"
	"nines/internal/service"
)

// API is an HTTP listener on the VIP with a path that answers to anybody.
type API struct {
	Name    string // of its probe too
	Port    int
	Path    string
	Service string // that publishes it
	Public  bool   // users ask it
}

// APIs lists what the cluster's services publish that way.
func APIs(c *model.Cluster, services []service.Service) []API {
	var out []API
	for _, s := range services {
		p, ok := s.(service.Published)
		if !ok || !c.Runs(s.Name()) {
			continue
		}
		for _, l := range p.Listeners(c) {
			if l.HTTP && l.Probe != "" {
				out = append(out, API{Name: l.Name, Port: l.Port, Path: l.Probe, Service: s.Name(), Public: l.Public})
			}
		}
	}
	return out
}

// limit holds a probe of an API to what is promised of Keystone: the way to it is the same.
func (a API) limit() Limit { return Limit{Probe: a.Name, Outage: limitAPI.Outage} }

// limitAPIs adds the limits of the APIs to a drill. What is done to the service of an API on a machine without the VIP
// must go unnoticed when it dies, and end with its health check when it freezes.
func limitAPIs(d Drill, svc string, apis []API) Drill {
	for _, a := range apis {
		l := a.limit()
		switch {
		case a.Service != svc:
		case d.Fault.Heal != 0:
			l = frozen(a.Name)
		default:
			l = unnoticed(a.Name)
		}
		d.Limits = withLimit(d.Limits, l)
	}
	return d
}

// openAPIs makes a probe of each API. Each request has its own connection: HAProxy may choose another server each time.
// The service that is hurt is asked often, the others as often as their limit needs: with twelve of them asked five times a second a drill
// kept four fifths of a lab's two processors busy before its fault, and a machine that returned then had everybody wait for it.
func (w *Network) openAPIs(context.Context) ([]Probe, error) {
	var out []Probe
	for _, a := range w.APIs {
		every := time.Second / 2
		if a.Service == w.Hurt {
			every = time.Second / 10
		}
		at := w.vip(a.Port)
		if a.Public {
			at = w.public(a.Port)
		}
		client := httpClient(w.tls, false)
		w.closes = append(w.closes, client.CloseIdleConnections)
		out = append(out, Probe{Name: a.Name, Every: every, Timeout: 3 * time.Second, Late: 500 * time.Millisecond,
			Send: getProbe(client, "https://"+at+a.Path)})
	}
	return out, nil
}
