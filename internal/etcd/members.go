package etcd

import (
	"context"
	"sync"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/metadata"
)

// Member is one member as seen from here.
type Member struct {
	Name    string `json:"name"`
	ID      uint64 `json:"id"`
	Healthy bool   `json:"healthy"` // it answers and has a leader
	Leader  bool   `json:"leader"`
	DBSize  int64  `json:"db_size"` // bytes on disk
	// Problem says why it is not healthy.
	Problem string `json:"problem,omitempty"`
}

// Members lists the members and asks each how it is. It works without a majority
// too: the list is then what the member that was asked knows.
func (c *Client) Members(ctx context.Context) ([]Member, error) {
	list, err := call(ctx, c, "list members", func(ctx context.Context) (*clientv3.MemberListResponse, error) {
		// Without the demand for a leader that call makes.
		return c.etcd.MemberList(metadata.NewOutgoingContext(ctx, nil), clientv3.WithSerializable())
	})
	if err != nil {
		return nil, err
	}
	out := make([]Member, len(list.Members))
	var wg sync.WaitGroup
	for i, m := range list.Members {
		out[i] = Member{Name: m.Name, ID: m.ID, Problem: "has not joined yet"}
		if len(m.ClientURLs) == 0 {
			continue
		}
		wg.Go(func() { c.look(ctx, m.ClientURLs[0], &out[i]) })
	}
	wg.Wait()
	return out, nil
}

// look asks one member and fills m in.
func (c *Client) look(ctx context.Context, url string, m *Member) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout/2)
	defer cancel()
	st, err := c.etcd.Status(ctx, url)
	switch {
	case err != nil:
		m.Problem = "does not answer: " + err.Error()
		return
	case st.Leader == 0:
		m.Problem = "has no leader"
	case len(st.Errors) > 0:
		m.Problem = st.Errors[0]
	default:
		m.Healthy, m.Problem = true, ""
	}
	m.Leader = st.Leader == m.ID
	m.DBSize = st.DbSize
}
