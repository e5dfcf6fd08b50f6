package service

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"nines/internal/host"
)

// keptEpochs is how many recoveries' evidence stays on a node.
const keptEpochs = 5

// Epochs are the epochs of a service's recoveries as a node remembers them: what was found in each, and in which it last went first.
type Epochs struct {
	Folder string // of the evidence
	File   string // holds the last epoch in which this node went first; written, durably, before it does
}

// Dir is where the evidence of an epoch is kept.
func (e Epochs) Dir(epoch int64) string {
	return filepath.Join(e.Folder, fmt.Sprintf("epoch-%06d", epoch))
}

// Last is the last epoch in which this node went first; 0: none.
func (e Epochs) Last(h host.Host) int64 {
	f, err := h.ReadFile(e.File)
	if err != nil {
		return 0
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(f.Content)), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// Once notes, durably, that this node goes first in the epoch, and refuses the second time.
func (e Epochs) Once(ctx context.Context, env Env, epoch int64) error {
	if last := e.Last(env.Host); last >= epoch {
		return fmt.Errorf("this node has gone first in epoch %d already", last)
	}
	f := host.File{Path: e.File, Mode: 0o600, Owner: "root", Group: "root", Content: []byte(strconv.FormatInt(epoch, 10) + "\n")}
	if err := env.Host.WriteFile(ctx, f, nil); err != nil {
		return fmt.Errorf("note the epoch: %w", err)
	}
	return nil
}

// Prune removes the evidence of old recoveries.
func (e Epochs) Prune(ctx context.Context, env Env) {
	out, err := env.Host.Run(ctx, host.Cmd{Args: []string{"find", e.Folder, "-maxdepth", "1", "-name", "epoch-*"}})
	if err != nil {
		return
	}
	dirs := strings.Fields(string(out.Stdout))
	slices.Sort(dirs)
	if old := len(dirs) - keptEpochs; old > 0 {
		if _, err := env.Host.Run(ctx, host.Cmd{Args: append([]string{"rm", "-r"}, dirs[:old]...)}); err != nil {
			env.Log.Warn("old evidence stays", "dirs", dirs[:old], "err", err)
		}
	}
}
