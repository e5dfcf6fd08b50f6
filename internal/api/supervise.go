package api

import (
	"context"
	"net/http"

	"nines/internal/model"
	"nines/internal/store"
)

// PathRestart is asked by the leader, of the agent of the unit's node.
const PathRestart = "/v1/restart"

// RestartRequest asks an agent to restart a frozen unit of its node.
type RestartRequest struct {
	Node  string      `json:"node"`
	Unit  string      `json:"unit"`
	Fence store.Fence `json:"fence"`
	// Try is the number of the restart in the leader's record.
	Try int `json:"try"`
}

// Restart asks a node's agent. It returns when the restart has begun.
func (c *Client) Restart(ctx context.Context, n model.Node, req RestartRequest) error {
	return c.call(ctx, http.MethodPost, NodeAddr(n), PathRestart, req, nil)
}
