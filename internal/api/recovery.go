package api

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"

	"nines/internal/heal"
	"nines/internal/model"
	"nines/internal/service"
)

// Paths of a recovery. The first two are asked by the leader, of the agents.
const (
	PathEvidence = "/v1/recovery/evidence"
	PathStep     = "/v1/recovery/step"
	PathRecovery = "/v1/recovery"
)

// EvidenceRequest asks an agent what is known of its node's member of a service.
type EvidenceRequest struct {
	Spec    *model.Cluster `json:"spec"`
	Service string         `json:"service"`
	Epoch   int64          `json:"epoch"`
}

// RecoveryRequest is a person's word: recover this service now, and from Choose's data if that is not empty.
type RecoveryRequest struct {
	Service string `json:"service"`
	Choose  string `json:"choose,omitempty"`
	Who     string `json:"who"`
}

// Recovery is what the leader knows of a service's recovery, and what it would do now.
type Recovery struct {
	Record   heal.Record                `json:"record"`
	Now      service.Move               `json:"now"`
	Evidence map[string]json.RawMessage `json:"evidence"`
	Absent   map[string]string          `json:"absent,omitempty"`
	Lineage  json.RawMessage            `json:"lineage,omitempty"`
}

// Evidence asks a node's agent.
func (c *Client) Evidence(ctx context.Context, n model.Node, req EvidenceRequest) (r json.RawMessage, err error) {
	return r, c.call(ctx, http.MethodPost, NodeAddr(n), PathEvidence, req, &r)
}

// Step has a node's agent do a step of a recovery.
func (c *Client) Step(ctx context.Context, n model.Node, req heal.StepRequest) error {
	return c.call(ctx, http.MethodPost, NodeAddr(n), PathStep, req, nil)
}

// Drain has a node's agent stop its members, or start them again.
func (c *Client) Drain(ctx context.Context, n model.Node, req DrainRequest) error {
	return c.call(ctx, http.MethodPost, NodeAddr(n), PathDrain, req, nil)
}

// Recovery asks the leader.
func (c *Client) Recovery(ctx context.Context, svc string) (r Recovery, err error) {
	return r, c.leader(ctx, http.MethodGet, PathRecovery+"?service="+url.QueryEscape(svc), nil, &r)
}

// Recover has the leader begin.
func (c *Client) Recover(ctx context.Context, req RecoveryRequest) (r heal.Record, err error) {
	return r, c.leader(ctx, http.MethodPost, PathRecovery, req, &r)
}
