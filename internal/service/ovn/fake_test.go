package ovn

import (
	"io"
	"log/slog"
	"testing"

	"go.uber.org/goleak"

	"nines/internal/host/hosttest"
	"nines/internal/ovsdb/ovsdbtest"
	"nines/internal/service"
	"nines/internal/service/servicetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type daemons = ovsdbtest.Daemons

var quoted, table = ovsdbtest.Quoted, ovsdbtest.Table

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
