package galera

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"syscall"
	"time"

	"nines/internal/model"
	"nines/internal/plan"
	"nines/internal/service"
)

// The failure detector's values on a running cluster.
//
// A member's suspect_timeout must stay above every other member's join_retrans and keepalive
// periods, or it declares living members dead. So old and new values must not meet,
// but both may meet values that are wide: the longer of the two timeouts with the shorter of
// the two periods. A change goes in three steps, each on all members before the next begins:
//
//  1. "widen-failure-detector": running members take the wide values;
//  2. the file is written: a member that (re)starts from here on has the new values, before that the old ones;
//  3. "set-failure-detector": running members take the new values.
//
// Whoever dies in between, only pairs meet that get on with each other. No member restarts. Each value
// is a variable of its own (wsrep_provider_evs_*): wsrep_provider_options is
// read-only in MariaDB 11.8 while its plugin wsrep_provider is active, and Debian's is.

// dial is one value of the failure detector.
type dial struct {
	option string // as in wsrep_provider_options
	want   func(model.GaleraTuning) time.Duration
	// grows: of two values the larger is the wide one.
	grows bool
	// fixed: Galera reads it at the start only. What a member does with it concerns nobody else (gcomm's
	// evs_proto.cpp and gmcast.cpp), so it changes by restarting one member after the other.
	fixed bool
}

// dials in an order that Galera accepts when they are set to wide values one by one: install_timeout must lie
// between two keepalive periods and inactive_timeout.
var dials = []dial{
	{option: "evs.suspect_timeout", grows: true, want: func(t model.GaleraTuning) time.Duration { return t.SuspectTimeout }},
	{option: "evs.inactive_timeout", grows: true, want: func(t model.GaleraTuning) time.Duration { return t.InactiveTimeout }},
	{option: "evs.keepalive_period", want: func(t model.GaleraTuning) time.Duration { return t.Keepalive }},
	{option: "evs.join_retrans_period", want: func(t model.GaleraTuning) time.Duration { return t.JoinRetrans }},
	{option: "evs.install_timeout", grows: true, want: func(t model.GaleraTuning) time.Duration { return t.InstallTimeout }},
	{option: "evs.inactive_check_period", fixed: true, want: func(t model.GaleraTuning) time.Duration { return t.InactiveCheck }},
	{option: "gmcast.peer_timeout", fixed: true, want: func(t model.GaleraTuning) time.Duration { return t.PeerTimeout }},
}

// variable is the system variable of the option; its unit is seconds.
func (d dial) variable() string {
	return "wsrep_provider_" + strings.ReplaceAll(d.option, ".", "_")
}

// wide is the value that gets on with both.
func (d dial) wide(a, b time.Duration) time.Duration {
	if d.grows {
		return max(a, b)
	}
	return min(a, b)
}

// detector holds the values a member runs with, by option.
type detector map[string]time.Duration

const detectorQuery = `SHOW GLOBAL VARIABLES LIKE 'wsrep\_provider\_%'`

// parseDetector reads rows of name and value. All values must be there.
func parseDetector(rows [][]string) (detector, error) {
	values := map[string]string{}
	for _, r := range rows {
		if len(r) == 2 {
			values[strings.ToLower(r[0])] = r[1]
		}
	}
	d := detector{}
	for _, dial := range dials {
		seconds, err := strconv.ParseFloat(values[dial.variable()], 64)
		if err != nil || !(seconds >= 0 && seconds < math.MaxInt32) {
			return nil, fmt.Errorf("the server has %q as %s, which is no number of seconds; is its plugin wsrep_provider active?",
				values[dial.variable()], dial.variable())
		}
		d[dial.option] = time.Duration(math.Round(seconds*1e6)) * time.Microsecond
	}
	return d, nil
}

// tooNarrow says which values do not get on with the wanted ones, or "".
func (d detector) tooNarrow(t model.GaleraTuning) string {
	return d.differs(t, func(l dial, have, want time.Duration) bool { return !l.fixed && have != l.wide(have, want) })
}

// notAs says which values are not the wanted ones, or "".
func (d detector) notAs(t model.GaleraTuning) string {
	return d.differs(t, func(_ dial, have, want time.Duration) bool { return have != want })
}

func (d detector) differs(t model.GaleraTuning, bad func(l dial, have, want time.Duration) bool) string {
	var out []string
	for _, l := range dials {
		if have, want := d[l.option], l.want(t); bad(l, have, want) {
			out = append(out, fmt.Sprintf("%s runs with %s, want %s", l.option, have, want))
		}
	}
	return strings.Join(out, "; ")
}

// live is how plans name the steps: "set failure detector without a restart".
func live() map[string]string { return map[string]string{"name": "without a restart"} }

// detectorResources are the two steps on a node; see above for their order.
func detectorResources(nodes []model.Node, n model.Node) []plan.Resource {
	widen := plan.Resource{ID: widenID(n.Name), Service: "galera", Node: n.Name,
		Action: &plan.Action{Name: "widen-failure-detector", Args: live(), Timeout: time.Minute}}
	set := plan.Resource{ID: plan.Make("galera", n.Name, "action", "set-failure-detector"), Service: "galera", Node: n.Name,
		Action: &plan.Action{Name: "set-failure-detector", Args: live(), Timeout: time.Minute}}
	for _, m := range nodes {
		set.After = append(set.After, fileID(m.Name, "provider"), unitID(m.Name))
	}
	return []plan.Resource{widen, set}
}

func widenID(node string) plan.ID {
	return plan.Make("galera", node, "action", "widen-failure-detector")
}

// detectorNow reads what the member on this node runs with. Without a running member there is nothing
// to change: the next one will read the file.
func (s *Service) detectorNow(ctx context.Context) (d detector, running bool, err error) {
	st, err := s.server.Status(ctx)
	switch {
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ECONNREFUSED):
		return nil, false, nil
	case err != nil:
		return nil, false, fmt.Errorf("ask the server how it does: %w", err)
	case st["wsrep_provider_name"] == "":
		return nil, false, nil // a server that is no member yet
	}
	rows, err := s.server.Rows(ctx, detectorQuery)
	if err != nil {
		return nil, false, fmt.Errorf("ask the server for its failure detector: %w", err)
	}
	d, err = parseDetector(rows)
	return d, true, err
}

func (s *Service) detectorWide(ctx context.Context, env service.Env, _ map[string]string) (bool, string, error) {
	d, running, err := s.detectorNow(ctx)
	if err != nil || !running {
		return err == nil, "", err
	}
	reason := d.tooNarrow(env.Cluster.Tuning.Galera)
	return reason == "", reason, nil
}

func (s *Service) detectorSet(ctx context.Context, env service.Env, _ map[string]string) (bool, string, error) {
	d, running, err := s.detectorNow(ctx)
	if err != nil || !running {
		return err == nil, "", err
	}
	reason := d.notAs(s.tuning(env))
	return reason == "", reason, nil
}

// widenDetector takes the wide values. It makes the member more patient and more talkative, so it needs no other member.
func (s *Service) widenDetector(ctx context.Context, env service.Env, _ map[string]string) error {
	if err := poll(ctx, func() (bool, string) { return s.calm(ctx, 0) }); err != nil {
		return fmt.Errorf("the failure detector is changed only while the member is Synced: %w", err)
	}
	d, _, err := s.detectorNow(ctx)
	if err != nil {
		return err
	}
	return s.turn(ctx, d, func(l dial) time.Duration { return l.wide(d[l.option], l.want(env.Cluster.Tuning.Galera)) })
}

// setDetector takes the new values once every member is there, Synced, and has values that get on with them.
func (s *Service) setDetector(ctx context.Context, env service.Env, _ map[string]string) error {
	t := s.tuning(env)
	if err := poll(ctx, func() (bool, string) { return s.mayNarrow(ctx, env) }); err != nil {
		return fmt.Errorf("the failure detector is set only while all members are Synced and ready for it: %w; apply again when they are", err)
	}
	d, _, err := s.detectorNow(ctx)
	if err != nil {
		return err
	}
	if err := s.turn(ctx, d, func(l dial) time.Duration { return l.want(t) }); err != nil {
		return err
	}
	for _, l := range dials {
		if l.fixed && d[l.option] != l.want(t) {
			return fmt.Errorf("%s runs with %s, want %s: the member was started with another value; restart %s on this node while the other members are Synced",
				l.option, d[l.option], l.want(t), unitName)
		}
	}
	return nil
}

// turn sets what differs, one value after the other.
func (s *Service) turn(ctx context.Context, have detector, to func(dial) time.Duration) error {
	for _, l := range dials {
		v := to(l)
		if l.fixed || have[l.option] == v {
			continue
		}
		if err := s.server.Exec(ctx, fmt.Sprintf("SET GLOBAL %s = %s", l.variable(), strconv.FormatFloat(v.Seconds(), 'f', -1, 64))); err != nil {
			return fmt.Errorf("set %s to %s: %w", l.option, v, err)
		}
	}
	return nil
}

// calm reports whether the local member is Synced in a Primary of the given size (0: any).
func (s *Service) calm(ctx context.Context, size int) (bool, string) {
	st, err := s.server.Status(ctx)
	if err != nil {
		return false, err.Error()
	}
	return st.calm(size)
}

func (st status) calm(size int) (bool, string) {
	ok := st.primary() && st["wsrep_ready"] == "ON" && st.number("wsrep_local_state") == stateSynced && (size == 0 || st.size() == size)
	return ok, fmt.Sprintf("%s, %s, %d members", st["wsrep_local_state_comment"], st["wsrep_cluster_status"], st.size())
}

// mayNarrow asks every member, this one too.
func (s *Service) mayNarrow(ctx context.Context, env service.Env) (bool, string) {
	nodes := env.Cluster.Controllers()
	if ok, reason := s.calm(ctx, len(nodes)); !ok {
		return false, reason
	}
	for _, n := range nodes {
		if n.Name == env.Node.Name {
			continue
		}
		st, d, err := s.members.Detector(ctx, env, n)
		if err != nil {
			return false, n.Name + ": " + err.Error()
		}
		if ok, reason := st.calm(len(nodes)); !ok {
			return false, n.Name + ": " + reason
		}
		if reason := d.tooNarrow(env.Cluster.Tuning.Galera); reason != "" {
			return false, n.Name + ": " + reason
		}
	}
	return true, ""
}
