package nova

import (
	"context"
	"time"

	"nines/internal/model"
	"nines/internal/openstack"
	"nines/internal/service"
)

// The proxy of the consoles: it serves noVNC's pages and passes a WebSocket on to an instance.
const (
	consolePart = "nova-novncproxy"
	consoleUnit = consolePart + ".service"
	consolePage = "/vnc_lite.html"
)

// consoleIdle is how long a console may be silent: nobody wants it closed while he reads.
const consoleIdle = time.Hour

// Listeners implements service.Published.
func (s *Service) Listeners(c *model.Cluster) []service.Listener {
	return append(s.Service.Listeners(c), service.Listener{Name: "nova-console", Port: model.PortNovaConsole, BackendPort: model.PortNovaConsole,
		Health: Name + "/" + consolePart, HTTP: true, Public: true, BackendTLS: true, IdleTimeout: consoleIdle, Probe: consolePage})
}

// Parts implements service.Composite.
func (s *Service) Parts() map[string]service.Part {
	parts := s.Service.Parts()
	parts[consolePart] = service.Part{Unit: consoleUnit, Observer: console{s.Service}}
	return parts
}

// console observes the proxy by one of its pages.
type console struct{ *openstack.Service }

// Interval implements service.Observer. The proxy makes a process of its own for each connection, which costs it 30 ms.
func (console) Interval() time.Duration { return 5 * time.Second }

// Observe implements service.Observer.
func (c console) Observe(ctx context.Context, env service.Env) service.Observation {
	return c.Ask(ctx, env, consoleUnit, model.PortNovaConsole, consolePage)
}
