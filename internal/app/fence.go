package app

import (
	"context"
	"fmt"
	"path/filepath"

	"nines/internal/api"
	"nines/internal/bootstrap"
	"nines/internal/fence"
	"nines/internal/model"
)

// KeepPassword keeps the password of a BMC, sealed, until there are agents to give it to.
func (s *Session) KeepPassword(l model.Level, password string) error {
	return bootstrap.KeepPasswords(filepath.Dir(s.File), map[string]string{l.Key(): password})
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
		for _, l := range n.Levels() {
			password, ok := kept[l.Key()]
			if !ok {
				continue
			}
			r, err := s.Client.FencePassword(ctx, api.FencePassword{Node: l.Node, BMC: l.BMC, Second: l.Number > 1, Password: password})
			if err != nil {
				return fmt.Errorf("hand over the password of the %s: %w", l, err)
			}
			if r.Trouble != "" {
				s.log.Warn("BMC", "node", l.Node, "level", l.Number, "trouble", r.Text, "hint", fence.Hint(r.Trouble, l))
			}
			given[l.Key()] = password
		}
	}
	return bootstrap.ForgetPasswords(dir, given)
}
