package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"nines/internal/fence"
	"nines/internal/model"
)

// Paths about BMCs.
const (
	PathFence         = "/v1/fence"          // POST, answered by the leader: switch a machine's power; GET: the latest order
	PathFenceTest     = "/v1/fence/test"     // POST, answered by the leader: test BMCs
	PathFencePassword = "/v1/fence/password" // PUT, answered by the leader: the password of a BMC
	PathBMC           = "/v1/bmc"            // POST, nodes: test a BMC from this node
	PathBMCOrder      = "/v1/bmc/order"      // POST, nodes: carry out the open order
)

// FenceRequest asks for a machine's power to be switched.
type FenceRequest struct {
	// ID makes the order one, however often the request is sent.
	ID     string       `json:"id"`
	Node   string       `json:"node"`
	Action fence.Action `json:"action"`
	Who    string       `json:"who"`
}

// FenceTestRequest asks for BMCs to be tested; no Nodes: all that there are.
type FenceTestRequest struct {
	Nodes []string `json:"nodes,omitempty"`
}

// FenceTest is what tests of BMCs showed, from one node.
type FenceTest struct {
	From    string         `json:"from"`
	Error   string         `json:"error,omitempty"` // why From could not test
	Results []fence.Result `json:"results,omitempty"`
}

// FencePassword hands over the password of a node's BMC. The BMC comes with it: before the first apply, nobody else
// knows it.
type FencePassword struct {
	Node     string    `json:"node"`
	BMC      model.BMC `json:"bmc"`
	Second   bool      `json:"second,omitempty"` // it is the node's second one
	Password string    `json:"password"`
	// NewCertificate forgets the certificate that the BMC had to show.
	NewCertificate bool `json:"new_certificate,omitempty"`
}

// OrderRequest asks an agent to carry out the open order of that ID.
type OrderRequest struct {
	ID string `json:"id"`
}

// Fence asks the leader to switch a machine's power; the order is carried out after this returned.
func (c *Client) Fence(ctx context.Context, req FenceRequest) (o fence.Order, err error) {
	return o, c.leader(ctx, http.MethodPost, PathFence, req, &o)
}

// orderAnswer bounds one agent's answer about an order: the one that is asked first may just have lost its power, and
// a connection to it says nothing for minutes.
const orderAnswer = 2 * time.Second

// FenceOrder asks for the latest order.
func (c *Client) FenceOrder(ctx context.Context) (o fence.Order, err error) {
	var errs []error
	for _, addr := range c.addrs {
		each, cancel := context.WithTimeout(ctx, orderAnswer)
		err := c.call(each, http.MethodGet, addr, PathFence, nil, &o)
		cancel()
		if err == nil || ctx.Err() != nil {
			return o, err
		}
		errs = append(errs, fmt.Errorf("agent %s: %w", addr, err))
	}
	return o, &NobodyError{Err: errors.Join(errs...)}
}

// FenceTest has all controllers test BMCs.
func (c *Client) FenceTest(ctx context.Context, req FenceTestRequest) (r []FenceTest, err error) {
	return r, c.leader(ctx, http.MethodPost, PathFenceTest, req, &r)
}

// FencePassword hands over a BMC's password and returns what a test with it showed.
func (c *Client) FencePassword(ctx context.Context, req FencePassword) (r fence.Result, err error) {
	return r, c.leader(ctx, http.MethodPut, PathFencePassword, req, &r)
}

// TestBMCs has a node's agent test BMCs.
func (c *Client) TestBMCs(ctx context.Context, n model.Node, req FenceTestRequest) (r FenceTest, err error) {
	return r, c.call(ctx, http.MethodPost, NodeAddr(n), PathBMC, req, &r)
}

// CarryOut has a node's agent carry out the open order.
func (c *Client) CarryOut(ctx context.Context, n model.Node, req OrderRequest) error {
	return c.call(ctx, http.MethodPost, NodeAddr(n), PathBMCOrder, req, nil)
}
