package agent

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"nines/internal/etcd"
	"nines/internal/host"
	"nines/internal/model"
)

// The guard file is looked at by the VIP's engine: its content says whether this
// node may hold the VIP, its age whether the agent still lives.
const (
	// guardEvery is for the quorum; what a service says counts at once.
	guardEvery   = 500 * time.Millisecond
	guardRefresh = time.Second
	// guardGrace is how long a starting agent may leave the file of before: shorter than
	// the time after which the engine takes a stale file for a no (10 s).
	guardGrace = 8 * time.Second
)

// joined reports whether the member has joined the others since this process started.
func joined(m *etcd.Server) bool {
	select {
	case <-m.Ready():
		return true
	default:
		return false
	}
}

// guardVIP keeps model.PathVIPFile true. Before etcd has come up it says nothing: after
// an agent's restart the file of before counts until it is stale.
func (a *Agent) guardVIP(ctx context.Context) {
	tick := time.NewTicker(guardEvery)
	defer tick.Stop()
	var last string
	var written time.Time
	news := a.watch.news()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-news:
		case <-a.aside.changed:
		}
		news = a.watch.news() // before it looks
		if c := a.spec.Load(); c != nil && !guarded(ctx, a.Host, c, model.PathVIPFile) {
			continue
		}
		member := a.member.Load()
		if a.Guard == nil || member == nil || (!joined(member) && time.Since(a.started) < guardGrace) {
			continue
		}
		quorum, why := member.HasQuorum()
		aside := a.aside.forbids()
		content, reason := a.Guard(quorum && aside == "", a.watch.all())
		switch {
		case aside != "":
			reason = aside
		case !quorum:
			reason += ": " + why
		}
		if content == last && time.Since(written) < guardRefresh {
			continue
		}
		if content != last {
			a.Log.Info("VIP guard", "content", content, "reason", reason)
		}
		if err := os.MkdirAll(filepath.Dir(model.PathVIPFile), 0o755); err != nil {
			a.Log.Warn("VIP guard", "err", err)
		}
		// Written in place: the engine watches this very file.
		if err := os.WriteFile(model.PathVIPFile, []byte(content+"\n"), 0o644); err != nil {
			a.Log.Warn("VIP guard", "err", err)
			continue
		}
		last, written = content, time.Now()
	}
}

// guarded reports whether anybody looks at the guard file: another engine has a quorum of its own. Until an apply has stopped it, keepalived
// goes on with the VIP, and would let go of it when the file is stale.
func guarded(ctx context.Context, h host.Host, c *model.Cluster, path string) bool {
	if c.VIP.Engine == model.EngineKeepalived {
		return true
	}
	if _, err := os.Stat(path); err != nil {
		return false
	}
	units := model.EngineKeepalived.Units()
	u, err := h.Unit(ctx, units[len(units)-1])
	if err != nil || u.Active == "active" {
		return true
	}
	_ = os.Remove(path) // left behind it says nothing to anybody
	return false
}
