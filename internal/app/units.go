package app

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"

	"nines/internal/bootstrap"
	"nines/internal/host"
	"nines/internal/model"
)

// ownUnits brings the agent's own units to what this executable wants: an upgrade hands over the executable
// alone. They count from a start on, so systemd is asked for another one; restarting says that it will come.
func ownUnits(ctx context.Context, conf model.AgentConfig, h host.Host, log *slog.Logger) (restarting bool, err error) {
	units, err := bootstrap.Units(conf)
	if err != nil {
		return false, err
	}
	var changed []string
	for _, u := range units {
		have, err := h.ReadFile(u.Path)
		switch {
		case err == nil && bytes.Equal(have.Content, u.Content):
			continue
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return false, err
		}
		if err := h.WriteFile(ctx, host.File{Path: u.Path, Mode: 0o644, Owner: "root", Group: "root", Content: u.Content}, nil); err != nil {
			return false, err
		}
		log.Info("the agent's own unit was another one", "unit", u.Name)
		changed = append(changed, u.Name)
	}
	if len(changed) == 0 {
		return false, nil
	}
	if err := h.ReloadUnitFiles(ctx); err != nil {
		return false, err
	}
	// systemd starts no socket while its service runs: restarted in one go, it stops both first.
	restart := []string{"systemctl", "--no-block", "restart", bootstrap.UnitAgent}
	for _, name := range changed {
		if name != bootstrap.UnitAgent {
			restart = append(restart, name)
		}
	}
	// Its stop of this process may come before the command has returned.
	if _, err := h.Run(context.WithoutCancel(ctx), host.Cmd{Args: restart}); err != nil {
		return false, fmt.Errorf("restart with the new units: %w", err)
	}
	return true, nil
}
