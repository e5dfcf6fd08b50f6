package agent

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/coreos/go-systemd/v22/activation"

	"nines/internal/model"
)

func agentAddr(a netip.Addr) string { return netip.AddrPortFrom(a, model.PortAgent).String() }

// listen opens the health port and the API and serves both. The health port comes
// from systemd, which keeps it open while the agent restarts.
func (a *Agent) listen() (stop func(), err error) {
	health, err := a.healthListener()
	if err != nil {
		return nil, fmt.Errorf("health port: %w", err)
	}
	control, err := net.Listen("tcp", agentAddr(a.Config.Address))
	if err != nil {
		health.Close()
		return nil, fmt.Errorf("API port: %w", err)
	}
	servers := []*http.Server{a.serve(health, healthTLS(a.Server), a.healthHandler()), a.serve(control, a.Server, a.handler())}
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		for _, s := range servers {
			if err := s.Shutdown(ctx); err != nil {
				s.Close()
			}
		}
	}, nil
}

func (a *Agent) healthListener() (net.Listener, error) {
	named, err := activation.ListenersWithNames()
	if err != nil {
		return nil, err
	}
	if ls := named["health"]; len(ls) > 0 {
		return ls[0], nil
	}
	return net.Listen("tcp", netip.AddrPortFrom(a.Config.Address, model.PortHealth).String())
}

// healthTLS is the cheapest handshake there is: each check is a connection of its own, several a
// second, and what they say is no secret that must outlive quantum computers: without the hybrid key exchange
// a handshake takes a fifth less. Who asks and who answers is proven as everywhere.
func healthTLS(c *tls.Config) *tls.Config {
	c = c.Clone()
	c.CurvePreferences = []tls.CurveID{tls.X25519}
	return c
}

func (a *Agent) serve(l net.Listener, c *tls.Config, h http.Handler) *http.Server {
	s := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 2 * time.Minute, ErrorLog: nil}
	go func() {
		if err := s.Serve(tls.NewListener(l, c)); !errors.Is(err, http.ErrServerClosed) {
			a.Log.Error("listener ended", "addr", l.Addr(), "err", err)
			a.exit(fmt.Errorf("listener %s: %w", l.Addr(), err))
		}
	}()
	return s
}

// healthPatience is how long a health check waits for the first observation after a
// start; HAProxy's own time-out is longer.
const healthPatience = 1500 * time.Millisecond

// healthHandler answers GET /health/SERVICE and /health/SERVICE/PART: 200 when this node's instance may be
// given work, else 503, each with the reason.
func (a *Agent) healthHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/health/{service...}", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), healthPatience)
		defer cancel()
		obs, ok := a.watch.get(ctx, r.PathValue("service"))
		status := http.StatusOK
		switch {
		case !ok:
			status, obs.Reason = http.StatusNotFound, "no such service"
		case !obs.Serving:
			status = http.StatusServiceUnavailable
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(map[string]any{"serving": obs.Serving, "reason": obs.Reason}) // the asker is gone: nobody left to tell
	})
	return mux
}
