package rabbitmq

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"nines/internal/host"
	"nines/internal/host/hosttest"
	"nines/internal/model"
	"nines/internal/service"
	"nines/internal/service/rabbitmq/recovery"
	"nines/internal/service/servicetest"
)

const someCluster = "rabbitmq-cluster-id-AbCdEfGhIjKlMnOpQrStUv"

// member is ctl1 with what a broker saved; b answers for it if it is not nil.
type member struct {
	*Service
	host *hosttest.Host
	env  service.Env
}

func newMember(t *testing.T, b *broker, active string) member {
	t.Helper()
	h := hosttest.New()
	h.PutUnit(Unit, host.UnitState{Loaded: true, Active: active})
	h.Answer("grep", someCluster+"\n"+someCluster+"\n", 0)
	h.Answer("pgrep", "", 1)
	for _, cmd := range []string{"systemctl", "install", "tar", "sync", "mv", "ln", "rabbitmqctl"} {
		h.Answer(cmd, "", 0)
	}
	h.Answer("test -e", "", 1)
	h.Answer("find", "", 0)
	dir := dataDir("ctl1")
	for name, text := range map[string]string{
		dir + "/schema.DAT":                "x",
		dir + "/cluster_nodes.config":      "{['rabbit@ctl1',rabbit@ctl2,'rabbit@ctl3'],['rabbit@ctl1','rabbit@ctl2','rabbit@ctl3']}.\n",
		dir + "/nodes_running_at_shutdown": "['rabbit@ctl1',rabbit@ctl3].\n",
		dir + "-feature_flags":             "[quorum_queue,stream_queue].\n",
	} {
		h.PutFile(host.File{Path: name, Mode: 0o640, Content: []byte(text)})
	}
	if b == nil {
		b = &broker{}
	}
	s, env := against(t, b, h, "adminpw")
	return member{s, h, env}
}

func (m member) look(t *testing.T) recovery.Evidence {
	t.Helper()
	raw, err := m.Evidence(t.Context(), m.env, 0)
	if err != nil {
		t.Fatal(err)
	}
	var e recovery.Evidence
	if err := json.Unmarshal(raw, &e); err != nil {
		t.Fatal(err)
	}
	return e
}

func (m member) step(t *testing.T, epoch int64, name string, args map[string]string) error {
	return m.Step(t.Context(), m.env, epoch, service.HealStep{Node: "ctl1", Name: name, Args: args}, func(context.Context) error { return nil })
}

func (m member) ran(prefix string) bool {
	return slices.ContainsFunc(m.host.Calls(), func(c string) bool { return strings.HasPrefix(c, prefix) })
}

func TestEvidence(t *testing.T) {
	tests := []struct {
		name   string
		broker *broker
		active string
		want   recovery.Broker
		more   func(recovery.Evidence) bool
	}{
		{"it serves, and has lost another that runs, and that did not start anew", &broker{peers: allPeers, queues: `[{"name":"q","type":"quorum","members":["rabbit@ctl1","rabbit@ctl3"]}]`}, "active", recovery.Serving,
			func(e recovery.Evidence) bool {
				return slices.Equal(e.Running, []string{"ctl1", "ctl3"}) && e.Held == 1 && e.Cluster == someCluster
			}},
		{"it serves without another", &broker{peers: `[{"name":"rabbit@ctl1","running":true},{"name":"rabbit@ctl2","running":false},{"name":"rabbit@ctl3","running":true}]`,
			queues: `[{"name":"q","type":"quorum","members":["rabbit@ctl1","rabbit@ctl2","rabbit@ctl3"]},{"name":"r","type":"quorum","members":["rabbit@ctl2"]},{"name":"s","type":"classic"}]`},
			"active", recovery.Serving, func(e recovery.Evidence) bool { return e.Held == 1 && len(e.Members) == 3 }},
		{"it paused", nil, "active", recovery.Silent, nil},
		{"it waits for its peers", nil, "activating", recovery.Starting, nil},
		{"it is stopped", nil, "inactive", recovery.Stopped, func(e recovery.Evidence) bool {
			return slices.Equal(e.Last, []string{"ctl1", "ctl3"}) && len(e.Members) == 3 && e.Cluster == someCluster && e.SavedError == "" && !e.Khepri
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := newMember(t, tt.broker, tt.active).look(t)
			if e.Broker != tt.want || e.Empty || tt.more != nil && !tt.more(e) {
				t.Errorf("%+v", e)
			}
		})
	}
	m := newMember(t, &broker{peers: allPeers}, "active")
	for _, text := range []string{"[rabbit@ctl3,rabbit@ctl2,rabbit@ctl1].\n", ""} { // whole, or nothing written down
		m.host.PutFile(host.File{Path: runningFile("ctl1"), Mode: 0o640, Content: []byte(text)})
		if e := m.look(t); len(e.Running) != 3 {
			t.Errorf("with %q: %+v", text, e)
		}
	}
	m = newMember(t, nil, "inactive")
	m.host.Answer("pgrep", "4711\n", 0)
	if e := m.look(t); e.Broker != recovery.Silent {
		t.Errorf("a broker that nobody knows is %s", e.Broker)
	}
	if err := m.host.RemoveFile(dataDir("ctl1") + "/schema.DAT"); err != nil {
		t.Fatal(err)
	}
	if e := m.look(t); !e.Empty {
		t.Errorf("%+v", e)
	}
	m.env.Node = model.Node{Name: "cmp1"}
	if _, err := m.Evidence(t.Context(), m.env, 0); err == nil {
		t.Error("a node without a member has evidence")
	}
}

func TestTwoClustersInOneDirectory(t *testing.T) {
	m := newMember(t, nil, "inactive")
	m.host.Answer("grep", someCluster+"\n"+strings.ToLower(someCluster)+"\n", 1)
	if e := m.look(t); e.Cluster != "" || !strings.Contains(e.SavedError, "more than one") {
		t.Errorf("%+v", e)
	}
}

func TestEvidenceSaysForHowLong(t *testing.T) {
	s := testService()
	synctest.Test(t, func(t *testing.T) {
		s.remember("ctl1", true, []string{"ctl1", "ctl2"})
		time.Sleep(time.Minute)
		if h := s.remember("ctl1", true, []string{"ctl1"}); time.Since(h.since) != time.Minute || time.Since(h.runningSince) != 0 {
			t.Errorf("%+v", h)
		}
		time.Sleep(time.Second)
		if h := s.remember("ctl1", false, nil); time.Since(h.since) != 0 {
			t.Errorf("%+v", h)
		}
	})
}

func TestForceOnceInAnEpochAfterACopy(t *testing.T) {
	b := &broker{}
	m := newMember(t, b, "inactive")
	m.host.Handle("systemctl --no-block start", func(host.Cmd) (host.Output, error) {
		if _, err := m.host.ReadFile(forceMark); err != nil {
			t.Error("the start is not marked")
		}
		if !m.ran("run tar --create") || !m.ran("run ln --symbolic --force --no-dereference "+forceMark+" "+dataDir("ctl1")+"/force_load") {
			t.Errorf("before a start by force: %q", m.host.Calls())
		}
		if epochs.Last(m.host) != 4 {
			t.Error("the epoch is not noted before the start")
		}
		b.peers = allPeers // it serves
		return host.Output{}, nil
	})
	if err := m.step(t, 4, recovery.StepForce, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := m.host.ReadFile(forceMark); err == nil {
		t.Error("the permission outlives the start")
	}
	if e := m.look(t); e.Forced != 4 {
		t.Errorf("%+v", e)
	}
	b.peers = ""
	m.host.PutUnit(Unit, host.UnitState{Loaded: true, Active: "failed"})
	if err := m.step(t, 4, recovery.StepForce, nil); err == nil || !strings.Contains(err.Error(), "already") {
		t.Errorf("forced twice in one epoch: %v", err)
	}
}

func TestNobodyIsForcedOrHaltedBesideABroker(t *testing.T) {
	m := newMember(t, &broker{peers: allPeers}, "active")
	for _, step := range []string{recovery.StepForce, recovery.StepHalt} {
		if err := m.step(t, 4, step, nil); err == nil || m.ran("stop") || m.ran("signal") {
			t.Errorf("%s: %v, %q", step, err, m.host.Calls())
		}
	}
	m = newMember(t, nil, "activating")
	if err := m.step(t, 4, recovery.StepForce, nil); err == nil {
		t.Error("forced a broker that is starting")
	}
	m = newMember(t, nil, "inactive")
	m.host.Answer("tar", "no space left", 2)
	if err := m.step(t, 4, recovery.StepForce, nil); err == nil || m.ran("run systemctl") {
		t.Errorf("forced without a copy: %v", err)
	}
}

func TestNobodyIsForcedWhileTheOneThatIsGoneAnswers(t *testing.T) {
	m := newMember(t, nil, "inactive")
	m.answers = func(_ context.Context, n model.Node) bool { return n.Name == "ctl3" }
	if err := m.step(t, 4, recovery.StepForce, map[string]string{recovery.ArgGone: "ctl2,ctl3"}); err == nil || epochs.Last(m.host) != 0 || m.ran("run systemctl") {
		t.Errorf("%v, %q", err, m.host.Calls())
	}
}

func TestHaltEndsAWaiterAndKeepsACopy(t *testing.T) {
	m := newMember(t, nil, "activating")
	if err := m.step(t, 4, recovery.StepHalt, nil); err != nil {
		t.Fatal(err)
	}
	if !m.ran("signal "+Unit) || !m.ran("stop "+Unit) || !m.ran("run tar --create --file "+evidenceDir+"/epoch-000004/mnesia.tar.part") {
		t.Errorf("%q", m.host.Calls())
	}
	if m = newMember(t, nil, "active"); m.step(t, 4, recovery.StepHalt, nil) != nil || m.ran("signal") {
		t.Errorf("a paused broker is asked first: %q", m.host.Calls())
	}
}

func TestRestart(t *testing.T) {
	m := newMember(t, nil, "active")
	if err := m.step(t, 2, recovery.StepRestart, nil); err != nil || !m.ran("signal "+Unit) || !m.ran("run systemctl --no-block start") {
		t.Errorf("a broker that hangs: %v, %q", err, m.host.Calls())
	}
	m = newMember(t, nil, "activating")
	if err := m.step(t, 2, recovery.StepRestart, nil); err != nil || m.ran("signal") {
		t.Errorf("it starts by now: %v, %q", err, m.host.Calls())
	}
	if err := m.step(t, 2, recovery.StepRestart, map[string]string{recovery.ArgWaiting: "true"}); err != nil || !m.ran("signal "+Unit) || !m.ran("run systemctl --no-block start") {
		t.Errorf("it waits for its peers: %v, %q", err, m.host.Calls())
	}
	m = newMember(t, &broker{peers: allPeers}, "active")
	if err := m.step(t, 2, recovery.StepRestart, map[string]string{recovery.ArgWaiting: "true"}); err != nil || m.ran("signal") || m.ran("run systemctl") {
		t.Errorf("it serves by now: %v, %q", err, m.host.Calls())
	}
	if err := m.step(t, 2, recovery.StepRestart, nil); err != nil || m.ran("signal") || m.ran("run systemctl") {
		t.Errorf("it serves again: %v, %q", err, m.host.Calls())
	}
	if err := m.step(t, 2, recovery.StepRestart, map[string]string{recovery.ArgServing: "true"}); err != nil || m.ran("signal") || !m.ran("run systemctl --no-block restart") {
		t.Errorf("the smaller side of a split: %v, %q", err, m.host.Calls())
	}
}

func TestForgetsOnlyWhoIsNoRunningMember(t *testing.T) {
	gone := map[string]string{recovery.ArgMember: "ctl3"}
	two := `[{"name":"rabbit@ctl1","running":true},{"name":"rabbit@ctl2","running":true}`
	for _, tt := range []struct {
		peers     string
		err, does bool
	}{{two + `,{"name":"rabbit@ctl3","running":false}]`, false, true}, {allPeers, true, false}, {two + `]`, false, false}} {
		m := newMember(t, &broker{peers: tt.peers}, "active")
		if err := m.step(t, 2, recovery.StepForget, gone); (err != nil) != tt.err || m.ran("run rabbitmqctl --quiet --node rabbit@ctl1 forget_cluster_node rabbit@ctl3") != tt.does {
			t.Errorf("%s: %v, %q", tt.peers, err, m.host.Calls())
		}
	}
}

func TestAStepAsksAfterItHasSaidThatItIsAtWork(t *testing.T) {
	m := newMember(t, nil, "activating")
	stale := errors.New("stale")
	err := m.Step(t.Context(), m.env, 4, service.HealStep{Node: "ctl1", Name: recovery.StepHalt}, func(context.Context) error {
		if e := m.look(t); e.Busy == "" {
			t.Error("the evidence does not say that a step is under way")
		}
		if err := m.step(t, 4, recovery.StepHalt, nil); err == nil {
			t.Error("two steps at once")
		}
		return stale
	})
	if !errors.Is(err, stale) || m.ran("stop") {
		t.Errorf("a stale step was done: %v", err)
	}
}

func TestWatch(t *testing.T) {
	s, c := testService(), servicetest.Cluster()
	now := time.Unix(1000, 0)
	seen := map[string]service.Observation{}
	for _, n := range []string{"ctl1", "ctl2", "ctl3"} {
		seen[n] = service.Observation{Serving: true, Facts: map[string]string{FactRunning: "ctl1,ctl2,ctl3", FactCluster: someCluster}}
	}
	if l, well := s.Watch(c, map[string]service.Observation{"ctl1": seen["ctl1"]}, nil, now); l != nil || !well {
		t.Errorf("a cluster that never was whole: %s, %t", l, well)
	}
	first, well := s.Watch(c, seen, nil, now)
	l := parseLineage(first)
	if !well || l == nil || l.Cluster != someCluster || len(l.Running) != 3 {
		t.Fatalf("%s, %t", first, well)
	}
	if again, well := s.Watch(c, seen, first, now.Add(time.Hour)); again != nil || !well {
		t.Error("written although nothing changed")
	}
	delete(seen, "ctl3")
	if l, well := s.Watch(c, seen, first, now); l != nil || well {
		t.Errorf("who has gone is not known yet: %s, %t", l, well)
	}
	for _, n := range []string{"ctl1", "ctl2"} {
		seen[n].Facts[FactRunning] = "ctl1,ctl2"
	}
	if next, well := s.Watch(c, seen, first, now); well || parseLineage(next) == nil || len(parseLineage(next).Running) != 2 {
		t.Errorf("a member left: %s, %t", next, well)
	}
	seen["ctl3"] = service.Observation{Serving: true, Facts: map[string]string{FactRunning: "ctl3", FactCluster: someCluster}}
	if l, well := s.Watch(c, seen, first, now); l != nil || well {
		t.Errorf("a split is written down as if it were well: %s, %t", l, well)
	}
}

func TestReplicasMissing(t *testing.T) {
	b := &broker{peers: allPeers, queues: `[{"name":"q","vhost":"/","type":"quorum","members":["rabbit@ctl2","rabbit@ctl3"]},
		{"name":"r","vhost":"/","type":"quorum","members":["rabbit@ctl1","rabbit@ctl2","rabbit@ctl3"]},{"name":"c","vhost":"/","type":"classic"}]`}
	m := newMember(t, b, "active")
	api, err := m.api(m.env)
	if err != nil {
		t.Fatal(err)
	}
	looks := func(n int) (out string) {
		for range n {
			m.replicas.look(t.Context(), m.env, api)
		}
		m.replicas.at = time.Now()
		for _, c := range m.replicas.note(t.Context(), m.env, api, true) {
			out += c.Code + " " + c.Text
		}
		return out
	}
	if got := looks(2); got != "" {
		t.Errorf("told at once: %q", got)
	}
	if got := looks(1); !strings.Contains(got, "rabbitmq-replicas-missing 1 quorum queues") || !strings.Contains(got, "q in /") {
		t.Errorf("%q", got)
	}
	b.queues = `[]`
	if got := looks(1); got != "" {
		t.Errorf("%q", got)
	}
}

func FuzzParseNodes(f *testing.F) {
	f.Add("{['rabbit@ctl1',rabbit@ctl2],[rabbit@ctl1]}.\n")
	f.Add("['rabbit@ctl-1'].")
	f.Fuzz(func(t *testing.T, text string) {
		for _, n := range parseNodes(text) {
			if n == "" || !strings.Contains(text, "rabbit@"+n) {
				t.Errorf("%q: %q", text, n)
			}
		}
	})
}

func ExampleService_Next() {
	s := testService()
	c := servicetest.Cluster()
	ev := map[string]json.RawMessage{
		"ctl1": []byte(`{"broker":"starting","members":["ctl1","ctl2","ctl3"],"last":["ctl1","ctl2","ctl3"],"cluster":"` + someCluster + `"}`),
		"ctl2": []byte(`{"broker":"starting","members":["ctl1","ctl2","ctl3"],"last":["ctl2","ctl3"],"cluster":"` + someCluster + `"}`),
	}
	m := s.Next(c, service.Outage{Evidence: ev})
	fmt.Println(m.Diagnosis, m.Act)
	fmt.Println(m.Hint)
	// Output:
	// last-missing wait
	// bring ctl3 up; if it is gone for good: see 'nines recover rabbitmq --explain', then '--choose NODE'
}
