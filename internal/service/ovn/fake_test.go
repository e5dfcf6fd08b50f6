package ovn

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"nines/internal/host/hosttest"
	"nines/internal/service"
	"nines/internal/service/servicetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// daemons answer at sockets in place of the real ones: "SOCKET METHOD FIRST-PARAMETER" is a key; for
// a database the parameter is the table.
type daemons map[string]string

func (d daemons) call(_ context.Context, socket, method string, params ...any) (json.RawMessage, error) {
	key := strings.TrimSpace(socket + " " + method)
	if len(params) > 0 {
		what := params[0]
		if op, ok := params[len(params)-1].(map[string]any); ok {
			what = op["table"]
		}
		key += fmt.Sprint(" ", what)
	}
	answer, ok := d[key]
	if !ok {
		return nil, fmt.Errorf("%s %w: %w", socket, errSilent, syscall.ECONNREFUSED)
	}
	return json.RawMessage(answer), nil
}

// quoted is a text as a control answers it.
func quoted(text string) string {
	b, err := json.Marshal(text)
	if err != nil {
		panic(err) // a text: cannot happen
	}
	return string(b)
}

// table is the answer of a database to a select.
func table(rows string) string { return `[{"rows":[` + rows + `]}]` }

func env(node string) (service.Env, *hosttest.Host) {
	h, c := hosttest.New(), servicetest.Cluster()
	n, _ := c.Node(node)
	return service.Env{Host: h, Cluster: c, Node: n, Log: slog.New(slog.NewTextHandler(io.Discard, nil))}, h
}

const clusterID = "7c6a2fcd-0e5e-4d86-a2a4-5b1e4f9b0f11"

// status is the answer of cluster/status of a member of three.
func status(role, leader string) string {
	return `1b37
Name: OVN_Northbound
Cluster ID: 7c6a (` + clusterID + `)
Server ID: 1b37 (1b37a4a8-0a4d-4b7e-8b1e-3f3f64d36e0b)
Address: ssl:198.18.0.11:6643
Status: cluster member
Role: ` + role + `
Term: 3
Leader: ` + leader + `
Vote: self

Last Election started 40216 ms ago, reason: leadership_transfer
Election timer: 1000
Log: [2, 14]
Entries not yet committed: 0
Entries not yet applied: 0
Connections: ->5c2c <-5c2c ->89aa <-89aa
Disconnections: 0
Servers:
    5c2c (5c2c at ssl:198.18.0.12:6643) next_index=14 match_index=13 last msg 127 ms ago
    1b37 (1b37 at ssl:198.18.0.11:6643) (self) next_index=12 match_index=13
    89aa (89aa at ssl:198.18.0.13:6643) next_index=14 match_index=13 last msg 127 ms ago
`
}

const joining = `9d21
Name: OVN_Northbound
Cluster ID: not yet known
Server ID: 9d21 (9d21a4a8-0a4d-4b7e-8b1e-3f3f64d36e0b)
Address: ssl:198.18.0.12:6643
Status: joining cluster
Remotes for joining: ssl:198.18.0.11:6643 ssl:198.18.0.13:6643
Role: follower
Term: 0
Leader: unknown
Vote: unknown
`
