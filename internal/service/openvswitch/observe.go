package openvswitch

import (
	"context"
	"fmt"
	"sync"

	"nines/internal/health"
	"nines/internal/model"
	"nines/internal/ovsdb"
	"nines/internal/service"
)

// Observe implements service.Observer. Both daemons are asked at the same time: each may hang until its time is up, and the
// observation must say which.
func (s *Service) Observe(ctx context.Context, env service.Env) service.Observation {
	var dead, mute error
	var bridges []ovsdb.Row
	var wg sync.WaitGroup
	wg.Go(func() { _, dead = ovsdb.Control(ctx, s.rpc, env.Host, ovsdb.SwitchPID, "version") })
	wg.Go(func() {
		bridges, mute = ovsdb.Rows(ctx, s.rpc, ovsdb.SwitchSocket, ovsdb.SwitchSchema, "Bridge", []string{"name"})
	})
	wg.Wait()
	switch {
	case dead != nil:
		return down(env.Node, "the switch "+ovsdb.Word(dead), UnitSwitch)
	case mute != nil:
		return down(env.Node, "the switch's database "+ovsdb.Word(mute), UnitDatabase)
	}
	return service.Observation{Serving: true, Reason: fmt.Sprintf("forwards, %d bridges", len(bridges))}
}

func down(n model.Node, text, unit string) service.Observation {
	severity := health.Warning
	if n.Has(model.RoleCompute) {
		severity = health.Critical // its instances have nobody else
	}
	return service.Observation{Reason: text, Conditions: []health.Condition{{Code: "switch-down", Severity: severity, Text: text,
		Hint: "journalctl -u " + unit + " on the node; 'nines apply' starts what is stopped"}}}
}

// forwards: the daemon that forwards answers, and the tunnel address is where packets can reach it.
func (s *Service) forwards(ctx context.Context, env service.Env, _ map[string]string) (bool, string, error) {
	if _, err := ovsdb.Control(ctx, s.rpc, env.Host, ovsdb.SwitchPID, "version"); err != nil {
		return false, ovsdb.Word(err), nil
	}
	why, err := s.tunnelEnd(ctx, env)
	return why == "" && err == nil, why, err
}

// tunnelEnd says what is wrong with the tunnel address.
func (s *Service) tunnelEnd(ctx context.Context, env service.Env) (string, error) {
	device := tunnelInterface(env.Cluster, env.Node)
	path, err := datapath(ctx, env)
	if err != nil {
		return "", err
	}
	if path == datapathUser {
		device = bridgeTunnel
	}
	if device == "" {
		return "", nil // somebody else's matter
	}
	have, err := addresses(ctx, env.Host, device)
	if err != nil {
		return fmt.Sprintf("no interface %s", device), nil
	}
	for _, a := range have {
		if a == env.Node.TunnelAddress().String() {
			return "", nil
		}
	}
	return fmt.Sprintf("%s lacks the tunnel address %s", device, env.Node.TunnelAddress()), nil
}
