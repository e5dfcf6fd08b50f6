package galera

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"nines/internal/health"
	"nines/internal/model"
	"nines/internal/service"
	"nines/internal/service/galera/recovery"
)

// Interval is short: it adds to the time that HAProxy needs to see a dead writer.
func (*Service) Interval() time.Duration { return 300 * time.Millisecond }

// shownFacts are the status variables that status and the drills' gate show or compare.
var shownFacts = []string{
	"wsrep_cluster_state_uuid", "wsrep_cluster_size", "wsrep_cluster_conf_id", "wsrep_cluster_status",
	"wsrep_local_state", "wsrep_local_state_comment", "wsrep_last_committed", "wsrep_ready",
	"wsrep_local_recv_queue", "wsrep_local_cached_downto",
}

// factApart is the view that was set aside at the member's start: others that go on meanwhile go on without what it has.
const factApart = "view_aside"

// Observe reads the member's status over the local socket.
func (s *Service) Observe(ctx context.Context, env service.Env) service.Observation {
	st, err := s.server.Status(ctx)
	if err != nil {
		return s.down(env, err)
	}
	s.flushed.note(ctx, env, st)
	o := observation(st)
	if still := s.progress.note(st, time.Now()); still > standstill {
		stalled(&o, st, still)
	}
	if share := s.pauses.note(st, time.Now()); share > tooSlow {
		o.Conditions = append(o.Conditions, health.Condition{Code: "galera-flow-control", Severity: health.Warning,
			Text: fmt.Sprintf("replication was paused for %.0f%% of the last %.0f s: a member is too slow", share*100, pauseWindow.Seconds()),
			Hint: "look for a slow disk or a busy processor on the member with the longest wsrep_local_recv_queue"})
	}
	return o
}

// pauseWindow is the time over which pauses are counted, and tooSlow the share of it that a member may ask the others to pause for.
const (
	pauseWindow = 30 * time.Second
	tooSlow     = 0.1
)

// pauses remembers how long the member saw replication paused. Galera's own wsrep_flow_control_paused is a share of the time since
// the server's start: after a member has joined it tells of the joining for minutes.
type pauses struct {
	mu   sync.Mutex
	seen []pause // of the window, the oldest first
}

type pause struct {
	at    time.Time
	total int // nanoseconds since the server's start
}

// note returns the share of the window in which replication was paused; 0 until the window is full.
func (p *pauses) note(st status, now time.Time) float64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	total := st.number("wsrep_flow_control_paused_ns")
	if n := len(p.seen); n > 0 && total < p.seen[n-1].total {
		p.seen = nil // the server is another one
	}
	p.seen = append(p.seen, pause{now, total})
	for len(p.seen) > 1 && now.Sub(p.seen[1].at) >= pauseWindow {
		p.seen = p.seen[1:]
	}
	if length := now.Sub(p.seen[0].at); length >= pauseWindow {
		return float64(total-p.seen[0].total) / float64(length)
	}
	return 0
}

// standstill is how long a member may have write sets to apply and apply none. The
// largest transaction of OpenStack takes far less.
const standstill = 15 * time.Second

// progress remembers since when a member has not committed anything.
type progress struct {
	mu        sync.Mutex
	committed string
	since     time.Time
}

// note returns for how long write sets have been waiting while none was committed.
func (p *progress) note(st status, now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	committed := st["wsrep_last_committed"]
	if committed != p.committed || st.number("wsrep_local_recv_queue") <= 0 || st.number("wsrep_local_state") != stateSynced {
		p.committed, p.since = committed, now
	}
	return now.Sub(p.since)
}

// stalled takes a member out that calls itself Synced and applies nothing: it serves old
// data, and as a donor or by flow control it would hold up the others.
func stalled(o *service.Observation, st status, still time.Duration) {
	o.Serving = false
	o.Reason = fmt.Sprintf("stands still: %s write sets wait, none was applied for %s", st["wsrep_local_recv_queue"], still.Round(time.Second))
	o.Conditions = append(o.Conditions, health.Condition{Code: "galera-stalled", Severity: health.Critical, Text: o.Reason,
		Hint: "restart this member: 'systemctl restart mariadb' on the node, while the other members are Synced"})
}

// down describes a member that does not answer. What its data directory says is the last that is known of it.
func (s *Service) down(env service.Env, err error) service.Observation {
	o := service.Observation{Reason: "MariaDB does not answer: " + short(err)}
	if g, found, err := readGrastate(env.Host); err == nil && found {
		o.Facts = map[string]string{"grastate_uuid": g.UUID, "grastate_seqno": strconv.FormatInt(g.Seqno, 10)}
	}
	if v, aside, err := lastView(env.Host); err == nil && aside {
		if o.Facts == nil {
			o.Facts = map[string]string{}
		}
		o.Facts[factApart] = v.ID
		o.Reason = "the member went down in a Primary that was no majority: it does not start by itself"
		o.Conditions = []health.Condition{{Code: "galera-apart", Severity: health.Critical, Text: o.Reason + ", because the others may not have what it has",
			Hint: "if no member serves: 'nines recover galera --explain'; if others do, see 'galera-apart' in docs/operations.md: its data is kept until you decide"}}
		return o
	}
	o.Conditions = []health.Condition{{Code: "galera-down", Follows: "galera", Severity: health.Warning, Text: o.Reason,
		Hint: "look at 'journalctl -u mariadb' on the node; 'nines apply' starts it"}}
	return o
}

func short(err error) string {
	text, _, _ := strings.Cut(err.Error(), "\n")
	return text
}

// observation turns a status into words.
func observation(st status) service.Observation {
	o := service.Observation{Serving: st.serves(), Facts: map[string]string{}}
	for _, k := range shownFacts {
		if v, ok := st[k]; ok {
			o.Facts[k] = v
		}
	}
	o.Reason = fmt.Sprintf("%s, %s, %d members", st["wsrep_local_state_comment"], st["wsrep_cluster_status"], st.size())
	switch {
	case st.left():
		o.Stuck = "it has left the cluster and does not go back, as after a state transfer that failed"
		o.Reason = "left the cluster: it refuses all queries"
		o.Conditions = append(o.Conditions, health.Condition{Code: "galera-left", Severity: health.Warning, Text: o.Stuck,
			Hint: "wait: it is restarted as soon as all other members serve; 'journalctl -u mariadb' on the node says why it left"})
	case !st.primary():
		o.Reason = "not in a Primary component: it refuses all queries"
		o.Conditions = append(o.Conditions, health.Condition{Code: "galera-non-primary", Severity: health.Critical, Text: o.Reason,
			Hint: "it comes back by itself when a majority of the members can talk to each other; check the management network; do not restart it"})
	case !o.Serving:
		o.Conditions = append(o.Conditions, health.Condition{Code: "galera-not-synced", Severity: health.Warning, Text: "the member is " + st["wsrep_local_state_comment"],
			Hint: "it is being brought up to date by another member; wait"})
	case st.number("wsrep_local_state") == stateDonor:
		o.Conditions = append(o.Conditions, health.Condition{Code: "galera-donor", Severity: health.Notice, Text: "the member sends its state to another one", Hint: "wait"})
	}
	return o
}

// Judge compares the members: one history, one view, all there.
func (*Service) Judge(c *model.Cluster, seen map[string]service.Observation) []health.Condition {
	var out []health.Condition
	total := len(c.Controllers())
	serving, histories := 0, map[string][]string{}
	for _, n := range c.Controllers() {
		o, ok := seen[n.Name]
		if !ok {
			out = append(out, health.Condition{Code: "galera-unknown", Severity: health.Warning, Service: "galera", Node: n.Name,
				Text: "the member's state is not known: its agent does not answer", Hint: "bring the node back"})
			continue
		}
		uuid := o.Facts["wsrep_cluster_state_uuid"]
		if !o.Serving {
			uuid = o.Facts["grastate_uuid"]
		} else {
			serving++
			out = append(out, sizeCondition(n.Name, o, total)...)
		}
		if uuid != "" && uuid != recovery.ZeroUUID {
			histories[uuid] = append(histories[uuid], n.Name)
		}
	}
	if len(histories) > 1 {
		out = append(out, splitCondition(histories))
	}
	if serving < total {
		out = append(out, missingCondition(serving, total))
	}
	return out
}

// sizeCondition: a serving member that sees fewer members than there should be.
func sizeCondition(node string, o service.Observation, total int) []health.Condition {
	size, err := strconv.Atoi(o.Facts["wsrep_cluster_size"])
	if err != nil || size == total {
		return nil
	}
	return []health.Condition{{Code: "galera-size", Severity: health.Warning, Service: "galera", Node: node,
		Text: fmt.Sprintf("the member sees a cluster of %d, %d are configured", size, total),
		Hint: "bring the missing members back; a larger number means a member that cluster.yaml does not know"}}
}

func splitCondition(histories map[string][]string) health.Condition {
	var parts []string
	for _, uuid := range slices.Sorted(maps.Keys(histories)) {
		parts = append(parts, strings.Join(histories[uuid], ", ")+": "+uuid)
	}
	return health.Condition{Code: "galera-split-history", Severity: health.Critical, Service: "galera",
		Text: "the members' data belongs to different clusters (" + strings.Join(parts, "; ") + ")",
		Hint: "decide which history is the right one; move the data directory of the others away before they join"}
}

func missingCondition(serving, total int) health.Condition {
	c := health.Condition{Code: "galera-degraded", Severity: health.Warning, Service: "galera",
		Text: fmt.Sprintf("%d of %d members serve, %d are needed", serving, total, model.Quorum(total)),
		Hint: "bring the missing members back before anything else fails"}
	if serving == 0 {
		c.Code, c.Severity = "galera-no-service", health.Critical
	}
	return c
}
