package galera

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"nines/internal/host"
	"nines/internal/host/hosttest"
	"nines/internal/model"
	"nines/internal/secret"
	"nines/internal/service"
	"nines/internal/service/galera/recovery"
	"nines/internal/service/servicetest"
)

const (
	someUUID  = "f8f8fc8f-e559-11f1-8745-67c4afa31da5"
	otherUUID = "11111111-e559-11f1-8745-67c4afa31da5"
)

// fakeServer is the local server: it serves with status once up is set.
type fakeServer struct {
	status status
	err    error
	rows   map[string][][]string // by a part of the query
	done   []string
}

func (f *fakeServer) Status(context.Context) (status, error) { return f.status, f.err }

func (f *fakeServer) Rows(_ context.Context, q string, _ ...any) ([][]string, error) {
	for part, rows := range f.rows {
		if strings.Contains(q, part) {
			return rows, f.err
		}
	}
	return nil, f.err
}

func (f *fakeServer) Exec(_ context.Context, st string) error {
	f.done = append(f.done, st)
	return f.err
}

type fakePeers struct {
	reach map[string]reach  // by address; others are stopped
	uuid  map[string]string // by name
	sql   map[string]bool   // by address
	// members are how the others do, by name.
	members map[string]member
	// unreadable: whoever serves clients cannot be asked.
	unreadable bool
}

type member struct {
	status   status
	detector detector
}

func (f fakePeers) Look(_ context.Context, a netip.Addr) reach {
	if r, ok := f.reach[a.String()]; ok {
		return r
	}
	return stopped
}

func (f fakePeers) AnswersSQL(_ context.Context, a netip.Addr) bool { return f.sql[a.String()] }

func (f fakePeers) ClusterUUID(_ context.Context, _ service.Env, n model.Node) (string, error) {
	if u := f.uuid[n.Name]; u != "" {
		return u, nil
	}
	if f.unreadable {
		return "", errors.New("access denied")
	}
	return "", errNonPrimary
}

func (f fakePeers) Detector(_ context.Context, _ service.Env, n model.Node) (status, detector, error) {
	if m, ok := f.members[n.Name]; ok {
		return m.status, m.detector, nil
	}
	return nil, nil, errors.New("connection refused")
}

func synced3() status {
	return status{"wsrep_provider_name": "Galera", "wsrep_cluster_status": "Primary", "wsrep_ready": "ON", "wsrep_local_state": "4",
		"wsrep_local_state_comment": "Synced", "wsrep_cluster_size": "3", "wsrep_cluster_state_uuid": someUUID, "wsrep_gcomm_uuid": someUUID}
}

// rig is one node under test. Its server answers as soon as its unit was started.
type rig struct {
	*Service
	host   *hosttest.Host
	server *fakeServer
	env    service.Env
	// marked says whether the mark was there when the unit started.
	marked bool
}

// starting is the fake host with an eye on the start.
type starting struct {
	*hosttest.Host
	rig *rig
}

func (s starting) StartUnit(ctx context.Context, name string) error {
	_, err := s.ReadFile(bootstrapMark)
	s.rig.marked = err == nil
	if err := s.Host.StartUnit(ctx, name); err != nil {
		return err
	}
	s.rig.server.err, s.rig.server.status = nil, synced3()
	return nil
}

func newRig(t *testing.T, node string, peers fakePeers) *rig {
	t.Helper()
	r := &rig{Service: testService(), host: hosttest.New(), server: &fakeServer{err: errors.New("connection refused")}}
	r.Service.server, r.Service.members = r.server, peers
	r.host.PutUnit(unitName, host.UnitState{Loaded: true, Active: "inactive"})
	r.recovered(recovery.ZeroUUID + ":-1")
	n, _ := servicetest.Cluster().Node(node)
	r.env = service.Env{Host: starting{r.host, r}, Cluster: servicetest.Cluster(), Node: n,
		Secrets: secret.Map{ProbeSecret: "probe", "keystone/database": "secret"}, Log: slog.New(slog.NewTextHandler(io.Discard, nil))}
	return r
}

func (r *rig) recovered(position string) {
	r.host.Answer("/usr/sbin/mariadbd --user=mysql", "2026-11-21  3:13:52 0 [Note] WSREP: Recovered position: "+position+"\n", 0)
}

// alive makes the server one that runs.
func (r *rig) alive(cluster, local string) {
	r.host.PutUnit(unitName, host.UnitState{Loaded: true, Active: "active"})
	r.server.err, r.server.status = nil, status{"wsrep_provider_name": "Galera", "wsrep_cluster_status": cluster, "wsrep_local_state": local,
		"wsrep_ready": "ON", "wsrep_cluster_size": "1", "wsrep_cluster_state_uuid": someUUID}
}

func (r *rig) grastate(uuid, seqno, safe string) {
	r.host.PutFile(host.File{Path: dataDir + "/grastate.dat", Mode: 0o660,
		Content: []byte("# GALERA saved state\nversion: 2.1\nuuid:    " + uuid + "\nseqno:   " + seqno + "\nsafe_to_bootstrap: " + safe + "\n")})
}

// first is what the planner passes on the first controller.
var first = map[string]string{"bootstrap": "true"}

// put is a file that is there before.
func put(path, content string) func(*rig) {
	return func(r *rig) { r.host.PutFile(host.File{Path: path, Mode: 0o600, Content: []byte(content)}) }
}

func TestStart(t *testing.T) {
	running2 := fakePeers{reach: map[string]reach{"198.18.0.12": running}, uuid: map[string]string{"ctl2": someUUID}}
	cases := map[string]struct {
		node  string
		peers fakePeers
		args  map[string]string
		given func(*rig)
		found bool
		err   error
	}{
		"a fresh cluster is founded by the first":           {node: "ctl1", args: first, found: true},
		"an empty grastate.dat is none":                     {node: "ctl1", args: first, given: put(dataDir+"/grastate.dat", ""), found: true},
		"a zero grastate.dat with an empty InnoDB is fresh": {node: "ctl1", args: first, given: func(r *rig) { r.grastate(recovery.ZeroUUID, "-1", "0") }, found: true},
		"the others never found":                            {node: "ctl2"},
		"not beside a running member":                       {node: "ctl1", args: first, peers: running2},
		"not when a machine is silent": {node: "ctl1", args: first,
			peers: fakePeers{reach: map[string]reach{"198.18.0.13": unclear}}, err: ErrWouldFound},
		"not twice": {node: "ctl1", args: first, err: ErrWouldFound, given: func(r *rig) {
			put(BootstrappedFile, someUUID)(r)
			put(FormedFile, "")(r)
		}},
		"founding broke: again": {node: "ctl1", args: first, found: true, given: func(r *rig) {
			put(BootstrappedFile, someUUID)(r)
			r.grastate(someUUID, "-1", "0")
		}},
		"founding broke while one received its first state: again": {node: "ctl1", args: first, found: true,
			peers: fakePeers{reach: map[string]reach{"198.18.0.12": running}},
			given: func(r *rig) {
				put(BootstrappedFile, founding)(r)
				r.grastate(someUUID, "-1", "0")
			}},
		"founding broke, another has the data: join": {node: "ctl1", args: first,
			peers: fakePeers{reach: map[string]reach{"198.18.0.12": running}, sql: map[string]bool{"198.18.0.12": true}},
			given: func(r *rig) {
				put(BootstrappedFile, someUUID)(r)
				r.grastate(someUUID, "-1", "0")
			}},
		"founding broke, a machine is silent: wait": {node: "ctl1", args: first, err: ErrWouldFound,
			peers: fakePeers{reach: map[string]reach{"198.18.0.12": unclear}},
			given: func(r *rig) {
				put(BootstrappedFile, someUUID)(r)
				r.grastate(someUUID, "-1", "0")
			}},
		"founding broke, but the data is another cluster's": {node: "ctl1", args: first, given: func(r *rig) {
			put(BootstrappedFile, otherUUID)(r)
			r.grastate(someUUID, "-1", "0")
		}},
		"the founder lost the first that joined: again": {node: "ctl1", args: first, found: true, given: func(r *rig) {
			put(BootstrappedFile, someUUID)(r)
			r.grastate(someUUID, "-1", "0")
			r.alive("non-Primary", "0")
		}},
		"the founder sends its state: wait": {node: "ctl1", args: first,
			peers: fakePeers{reach: map[string]reach{"198.18.0.12": running}},
			given: func(r *rig) {
				put(BootstrappedFile, someUUID)(r)
				r.grastate(someUUID, "-1", "0")
				r.alive("Primary", "2")
			}},
		"the founder is busy and does not answer: wait": {node: "ctl1", args: first, given: func(r *rig) {
			put(BootstrappedFile, someUUID)(r)
			r.grastate(someUUID, "-1", "0")
			r.alive("Primary", "4")
			r.server.err = errors.New("time-out")
		}},
		"a formed member without a Primary is left alone": {node: "ctl1", args: first, given: func(r *rig) {
			put(BootstrappedFile, someUUID)(r)
			put(FormedFile, "")(r)
			r.grastate(someUUID, "-1", "0")
			r.alive("non-Primary", "0")
		}},
		"a formed cluster is never founded again": {node: "ctl1", args: first, given: func(r *rig) {
			put(BootstrappedFile, someUUID)(r)
			put(FormedFile, "")(r)
			r.grastate(someUUID, "-1", "0")
		}},
		"not over data of a cluster":      {node: "ctl1", args: first, given: func(r *rig) { r.recovered(someUUID + ":7") }, err: ErrWouldFound},
		"a member with history joins":     {node: "ctl1", args: first, given: func(r *rig) { r.grastate(someUUID, "-1", "0") }},
		"safe_to_bootstrap is not enough": {node: "ctl1", args: first, given: func(r *rig) { r.grastate(someUUID, "12", "1") }},
		"the lone member goes on": {node: "ctl1", args: first, found: true, given: func(r *rig) {
			r.grastate(someUUID, "12", "1")
			put(loneFile, someUUID+"\n")(r)
		}},
		"it was alone, then crashed": {node: "ctl1", args: first, given: func(r *rig) {
			r.grastate(someUUID, "-1", "0")
			put(loneFile, someUUID+"\n")(r)
		}},
		"same history": {node: "ctl3", peers: running2, given: func(r *rig) { r.grastate(someUUID, "5", "0") }},
		"another history is not overwritten": {node: "ctl3", peers: running2,
			given: func(r *rig) { r.grastate(otherUUID, "5", "0") }, err: ErrOtherHistory},
		"nor when only InnoDB knows it": {node: "ctl3", peers: running2,
			given: func(r *rig) { r.recovered(otherUUID + ":5") }, err: ErrOtherHistory},
		"a non-Primary peer overwrites nothing": {node: "ctl3", peers: fakePeers{reach: map[string]reach{"198.18.0.12": running}},
			given: func(r *rig) { r.grastate(otherUUID, "5", "0") }},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, c.node, c.peers)
			if c.given != nil {
				c.given(r)
			}
			err := r.start(t.Context(), r.env, c.args)
			if !errors.Is(err, c.err) || (c.err == nil && err != nil) {
				t.Fatalf("error %v, want %v", err, c.err)
			}
			if r.marked != c.found {
				t.Errorf("founded: %v, want %v", r.marked, c.found)
			}
			if _, err := r.host.ReadFile(bootstrapMark); err == nil {
				t.Error("the mark was left behind")
			}
			st, _ := r.host.Unit(t.Context(), unitName)
			if (st.Active == "active") != (c.err == nil) {
				t.Errorf("the unit is %s", st.Active)
			}
		})
	}
}

func TestUnreadableStateIsForAPerson(t *testing.T) {
	r := newRig(t, "ctl1", fakePeers{})
	r.host.PutFile(host.File{Path: dataDir + "/grastate.dat", Content: []byte("uuid: what")})
	if err := r.start(t.Context(), r.env, first); err == nil || !strings.Contains(err.Error(), "a person must look") {
		t.Errorf("error %v", err)
	}
}

func TestFoundingIsRemembered(t *testing.T) {
	r := newRig(t, "ctl1", fakePeers{})
	if err := r.start(t.Context(), r.env, first); err != nil {
		t.Fatal(err)
	}
	f, err := r.host.ReadFile(BootstrappedFile)
	if err != nil || strings.TrimSpace(string(f.Content)) != someUUID {
		t.Errorf("%s: %q, %v", BootstrappedFile, f.Content, err)
	}
}

// A crash of the agent at any step of founding: repeated, it ends in the same state, and no mark is usable later.
func TestFoundingSurvivesCrashes(t *testing.T) {
	for step := range 6 {
		r := newRig(t, "ctl1", fakePeers{})
		r.host.CrashAfter(step, step%2 == 0)
		_ = r.start(t.Context(), r.env, first)
		r.host.Revive()
		if err := r.start(t.Context(), r.env, first); err != nil {
			t.Errorf("crash at step %d: %v", step, err)
		}
		if _, err := r.host.ReadFile(BootstrappedFile); err != nil {
			t.Errorf("crash at step %d: founding was not remembered: %v", step, err)
		}
	}
}

func TestRestartOfALoneMember(t *testing.T) {
	r := newRig(t, "ctl1", fakePeers{})
	alone := synced3()
	alone["wsrep_cluster_size"] = "1"
	r.server.err, r.server.status = nil, alone
	r.host.PutUnit(unitName, host.UnitState{Loaded: true, Active: "active"})
	r.grastate(someUUID, "12", "1") // as the server leaves it when it stops
	if err := r.start(t.Context(), r.env, map[string]string{"bootstrap": "true", "restart": "true"}); err != nil {
		t.Fatal(err)
	}
	if !r.marked {
		t.Error("it did not go on with its cluster")
	}
	if _, err := r.host.ReadFile(loneFile); err == nil {
		t.Error("the note was left behind")
	}
}

func TestSynced(t *testing.T) {
	with := func(k, v string) status { st := synced3(); st[k] = v; return st }
	cases := map[string]struct {
		status  status
		running map[string]reach
		done    bool
		sql     map[string]bool // who serves clients, by address
	}{
		"whole":                      {synced3(), nil, true, nil},
		"joining":                    {with("wsrep_local_state", "3"), nil, false, nil},
		"non-Primary":                {with("wsrep_cluster_status", "non-Primary"), nil, false, nil},
		"the missing machine is off": {with("wsrep_cluster_size", "2"), map[string]reach{"198.18.0.11": running, "198.18.0.13": unclear}, true, nil},
		"a running member is not in it": {with("wsrep_cluster_size", "2"), map[string]reach{"198.18.0.11": running, "198.18.0.13": running}, false,
			map[string]bool{"198.18.0.11": true, "198.18.0.13": true}},
		"the running member has no data yet": {with("wsrep_cluster_size", "1"), map[string]reach{"198.18.0.13": running}, true, nil},
	}
	for name, c := range cases {
		r := newRig(t, "ctl2", fakePeers{reach: c.running, sql: c.sql})
		r.server.err, r.server.status = nil, c.status
		done, reason, err := r.synced(t.Context(), r.env, nil)
		if err != nil || done != c.done {
			t.Errorf("%s: %v (%s), %v", name, done, reason, err)
		}
	}
	r := newRig(t, "ctl2", fakePeers{})
	if done, reason, err := r.synced(t.Context(), r.env, nil); done || err != nil || reason == "" {
		t.Errorf("a stopped server: %v %q %v", done, reason, err)
	}
}

// A donor that loses power before it connects leaves a joiner that listens for ever.
func TestJoinerWithoutDonorStartsAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for connected, kills := range map[string]bool{"": true, "ESTAB 0 0 198.18.0.12:4444 198.18.0.11:40000": false} {
			h := hosttest.New()
			h.PutUnit(unitName, host.UnitState{Loaded: true, Active: "activating"})
			h.Answer("ss -Htn", connected, 0)
			env := service.Env{Host: h, Log: slog.New(slog.DiscardHandler)}
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			freed, err := (&Service{}).freeJoiner(ctx, env)
			if err != nil || freed != kills {
				t.Fatalf("freed %v, error %v", freed, err)
			}
			cancel()
			killed := slices.ContainsFunc(h.Calls(), func(c string) bool { return strings.Contains(strings.ToLower(c), "signal") })
			if killed != kills {
				t.Errorf("connection %q: killed %v, want %v: %v", connected, killed, kills, h.Calls())
			}
		}
	})
}

// A server that waits for a state is ended only when it is sure that nobody will send it: it has nothing, nothing
// comes in, and no other member can be a donor.
func TestOrphansAreReleased(t *testing.T) {
	const connected = "ESTAB 0 0 198.18.0.12:4444 198.18.0.11:40000"
	founder := map[string]bool{"198.18.0.11": true}
	cases := map[string]struct {
		active, ss string
		history    bool
		peers      fakePeers
		orphan     bool
	}{
		"its donor is dead":                {active: "activating", orphan: true},
		"its donor came back non-Primary":  {active: "activating", peers: fakePeers{sql: founder}, orphan: true},
		"not started yet":                  {active: "inactive"},
		"serves":                           {active: "active"},
		"the state comes in":               {active: "activating", ss: connected},
		"has a history":                    {active: "activating", history: true},
		"a donor is there":                 {active: "activating", peers: fakePeers{sql: founder, uuid: map[string]string{"ctl1": someUUID}}},
		"a possible donor cannot be asked": {active: "activating", peers: fakePeers{sql: founder, unreadable: true}},
	}
	for name, c := range cases {
		r := newRig(t, "ctl2", c.peers)
		r.host.PutUnit(unitName, host.UnitState{Loaded: true, Active: c.active})
		r.host.Answer("ss -Htn", c.ss, 0)
		if c.history {
			r.grastate(someUUID, "-1", "0")
		}
		done, reason, err := r.notOrphaned(t.Context(), r.env, nil)
		if err != nil || done == c.orphan || (reason == "") != done {
			t.Errorf("%s: done %v (%q), %v", name, done, reason, err)
		}
		if err := r.release(t.Context(), r.env, nil); err != nil {
			t.Errorf("%s: release: %v", name, err)
		}
		if st, _ := r.host.Unit(t.Context(), unitName); (st.Active == c.active) == c.orphan {
			t.Errorf("%s: the unit was %s, is %s", name, c.active, st.Active)
		}
	}
}

// Founding again must not take up the identity that others know from the attempt before.
func TestFoundingAgainTakesTheViewAside(t *testing.T) {
	r := newRig(t, "ctl1", fakePeers{})
	put(BootstrappedFile, someUUID)(r)
	r.grastate(someUUID, "-1", "0")
	put(viewFile, "my_uuid: 0f3df18e")(r)
	if err := r.start(t.Context(), r.env, first); err != nil || !r.marked {
		t.Fatalf("founded %v, %v", r.marked, err)
	}
	if _, err := r.host.ReadFile(viewFile); err == nil {
		t.Error("the saved view is still there")
	}
	if f, err := r.host.ReadFile(evidenceDir + "/gvwstate.dat"); err != nil || content(f) != "my_uuid: 0f3df18e" {
		t.Errorf("no copy was kept: %q, %v", content(f), err)
	}
}
