package ovn

import (
	"context"
	"encoding/json"
	"fmt"

	"nines/internal/host"
	"nines/internal/ovsdb"
	"nines/internal/service"
)

// options of NB_Global, each with its reason.
var options = map[string]string{
	// A gateway that is silent for three of these (1.5 s) is replaced: the component's default of 1 s
	// would be 3 s. On starved cores daemons were silent for up to 1.3 s.
	"bfd-min-rx": "500",
	// The least a gateway may be asked to send; the receiver's value above decides.
	"bfd-min-tx": "100",
	"bfd-mult":   "3",
	// A northd whose database server has lost power looks for another after two of these; default 5 s.
	"northd_probe_interval": "2000",
}

// optionsSet: the databases have the schema of the installed package, and the options are as above.
func (s *Service) optionsSet(ctx context.Context, env service.Env, _ map[string]string) (bool, string, error) {
	for _, d := range databases {
		why, err := s.outdated(ctx, env, d)
		if err != nil || why != "" {
			return false, why, err
		}
	}
	found, err := ovsdb.Rows(ctx, s.rpc, north.socket, north.name, "NB_Global", []string{"options"})
	if err != nil {
		return false, oneLine(err), nil
	}
	if len(found) == 0 {
		return false, "the northbound database is empty", nil
	}
	have := found[0].Pairs("options")
	for _, key := range sorted(options) {
		if have[key] != options[key] {
			return false, fmt.Sprintf("%s is %q, not %q", key, have[key], options[key]), nil
		}
	}
	return true, "", nil
}

// outdated says how the schema of a database differs from that of the installed package.
func (s *Service) outdated(ctx context.Context, env service.Env, d database) (string, error) {
	f, err := env.Host.ReadFile(d.schema)
	if err != nil {
		return "the package is not installed", nil
	}
	var want, have struct {
		Version string `json:"version"`
	}
	if err := json.Unmarshal(f.Content, &want); err != nil {
		return "", fmt.Errorf("%s: %w", d.schema, err)
	}
	raw, err := s.rpc.Call(ctx, d.socket, "get_schema", d.name)
	if err != nil {
		return oneLine(err), nil
	}
	if err := json.Unmarshal(raw, &have); err != nil {
		return "", fmt.Errorf("%s: schema of %s: %w", d.socket, d.name, err)
	}
	if have.Version != want.Version {
		return fmt.Sprintf("%s has schema %s, the package expects %s", d.name, have.Version, want.Version), nil
	}
	return "", nil
}

// setOptions sets them through the node's own member, whether or not it leads.
func (s *Service) setOptions(ctx context.Context, env service.Env, _ map[string]string) error {
	for _, d := range databases {
		if why, err := s.outdated(ctx, env, d); err != nil || why == "" {
			continue
		}
		// Refused by itself when it would lose anything.
		if _, err := env.Host.Run(ctx, host.Cmd{Args: []string{"ovsdb-client", "--timeout=60", "convert", "unix:" + d.socket, d.schema}}); err != nil {
			return fmt.Errorf("bring %s to the schema of the package: %w", d.name, err)
		}
	}
	args := []string{"ovn-nbctl", "--db=unix:" + north.socket, "--no-leader-only", "--timeout=20", "--", "init", "--", "set", "NB_Global", "."}
	for _, key := range sorted(options) {
		args = append(args, "options:"+key+"="+options[key])
	}
	if _, err := env.Host.Run(ctx, host.Cmd{Args: args}); err != nil {
		return fmt.Errorf("set OVN's options: %w", err)
	}
	return nil
}
