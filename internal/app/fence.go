package app

import (
	"context"
	"fmt"
	"path/filepath"

	"nines/internal/api"
	"nines/internal/bootstrap"
	"nines/internal/fence"
)

// KeepPassword keeps the password of a node's BMC, sealed, until there are agents to give it to.
func (s *Session) KeepPassword(node, password string) error {
	return bootstrap.KeepPasswords(filepath.Dir(s.File), map[string]string{node: password})
}

// HandOverPasswords gives the agents the passwords of BMCs that were kept for them. What is wrong with a BMC does not
// stop it: status tells.
func (s *Session) HandOverPasswords(ctx context.Context) error {
	dir := filepath.Dir(s.File)
	kept, err := bootstrap.Passwords(dir)
	if err != nil || len(kept) == 0 {
		return err
	}
	given := map[string]string{}
	for _, n := range s.Cluster.Nodes {
		password, ok := kept[n.Name]
		if !ok || !n.HasBMC() {
			continue
		}
		r, err := s.Client.FencePassword(ctx, api.FencePassword{Node: n.Name, BMC: n.BMC, Password: password})
		if err != nil {
			return fmt.Errorf("hand over the password of the BMC of %s: %w", n.Name, err)
		}
		if r.Trouble != "" {
			s.log.Warn("BMC", "node", n.Name, "trouble", r.Text, "hint", fence.Hint(r.Trouble, n.Name))
		}
		given[n.Name] = password
	}
	return bootstrap.ForgetPasswords(dir, given)
}
