package api

import (
	"context"
	"net/http"

	"nines/internal/model"
	"nines/internal/store"
)

// PathCertificate is asked by the leader, of the agent whose certificate is due.
const PathCertificate = "/v1/certificate"

// CertificateRequest brings an agent its node's renewed certificate and key.
type CertificateRequest struct {
	Node  string      `json:"node"`
	Fence store.Fence `json:"fence"`
	Cert  []byte      `json:"cert"`
	Key   []byte      `json:"key"`
}

// Certificate brings it.
func (c *Client) Certificate(ctx context.Context, n model.Node, req CertificateRequest) error {
	return c.call(ctx, http.MethodPost, NodeAddr(n), PathCertificate, req, nil)
}
