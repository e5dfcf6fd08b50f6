package galera

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"nines/internal/host"
	"nines/internal/model"
	"nines/internal/service"
	"nines/internal/service/galera/recovery"
	"nines/internal/service/servicetest"
)

const savedView = `my_uuid: c5d5d990-30ee-11e4-aab1-46d0ed84b408
#vwbeg
view_id: 3 bc85bd53-31ac-11e4-9895-1f2ce13f2542 2
bootstrap: 0
member: bc85bd53-31ac-11e4-9895-1f2ce13f2542 0
member: c5d5d990-30ee-11e4-aab1-46d0ed84b408 0
#vwend
`

// atRestRig is a member whose server is stopped, with data.
func atRestRig(t *testing.T, seqno string, safe string) *rig {
	t.Helper()
	r := newRig(t, "ctl2", fakePeers{})
	r.host.Answer("pgrep --exact mariadbd", "", 1)
	r.host.Answer("find /var/lib/mysql", "/var/lib/mysql/ibdata1\n", 0)
	r.host.Answer("find "+evidenceDir, "", 0)
	r.grastate(someUUID, seqno, safe)
	r.recovered(someUUID + ":42")
	return r
}

func (r *rig) evidenceIn(t *testing.T, epoch int64) recovery.Evidence {
	t.Helper()
	raw, err := r.Evidence(context.Background(), r.env, epoch)
	if err != nil {
		t.Fatal(err)
	}
	var e recovery.Evidence
	if err := json.Unmarshal(raw, &e); err != nil {
		t.Fatal(err)
	}
	return e
}

func (r *rig) step(epoch int64, name string, args ...string) error {
	s := service.HealStep{Node: "ctl2", Name: name, Args: map[string]string{}}
	for _, a := range args {
		s.Args[a] = "true"
	}
	return r.Step(context.Background(), r.env, epoch, s, func(context.Context) error { return nil })
}

func (r *rig) text(path string) string {
	f, err := r.host.ReadFile(path)
	if err != nil {
		return ""
	}
	return string(f.Content)
}

func TestHaltKeepsEvidenceAndReadsThePosition(t *testing.T) {
	r := atRestRig(t, "-1", "0")
	r.host.PutUnit(unitName, host.UnitState{Loaded: true, Active: "activating", Invocation: "one"})
	r.host.PutFile(host.File{Path: viewFile, Mode: 0o600, Content: []byte(savedView)})
	if e := r.evidenceIn(t, 4); e.Server != recovery.Silent || !e.Starting || e.Founds || e.Recovered != nil || len(e.View.Members) != 2 {
		t.Errorf("before: %+v", e)
	}
	if err := r.step(4, recovery.StepHalt); err != nil {
		t.Fatal(err)
	}
	e := r.evidenceIn(t, 4)
	if class, at := recovery.Classify(e); class != recovery.ClassCrashed || at.Seqno != 42 || at.UUID != someUUID {
		t.Errorf("%s at %s: %+v", class, at, e)
	}
	if r.text(epochs.Dir(4)+"/gvwstate.dat") != savedView || !strings.Contains(r.text(epochs.Dir(4)+"/grastate.dat"), someUUID) {
		t.Error("the evidence was not kept")
	}
	if e := r.evidenceIn(t, 5); e.Recovered != nil {
		t.Error("a position of another epoch is believed")
	}
	r.host.PutUnit(unitName, host.UnitState{Loaded: true, Active: "inactive", Invocation: "two"})
	if e := r.evidenceIn(t, 4); e.Recovered != nil {
		t.Error("a position from before the last start is believed")
	}
}

func TestHaltLeavesAPrimaryAlone(t *testing.T) {
	r := atRestRig(t, "-1", "0")
	r.alive("Primary", "4")
	if err := r.step(4, recovery.StepHalt); err == nil || r.unit(t).Active != "active" {
		t.Errorf("halted: %v", err)
	}
}

func (r *rig) unit(t *testing.T) host.UnitState {
	t.Helper()
	u, err := r.host.Unit(context.Background(), unitName)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestAStrangersServerIsNoStoppedMember(t *testing.T) {
	r := atRestRig(t, "-1", "0")
	r.host.Answer("pgrep --exact mariadbd", "4711\n", 0)
	if e := r.evidenceIn(t, 0); e.Server != recovery.Silent || e.Starting {
		t.Errorf("%+v", e)
	}
	for _, step := range []string{recovery.StepHalt, recovery.StepClear, recovery.StepFound, recovery.StepJoin} {
		if err := r.step(4, step); err == nil {
			t.Errorf("%s was done beside a server that nobody knows", step)
		}
	}
}

func TestAStartThatFounds(t *testing.T) {
	for _, c := range []struct {
		state, mark string
		founds      bool
	}{{"activating", bootstrapMark, true}, {"activating", bootstrapEnv, true}, {"activating", startedMark, false}, {"failed", bootstrapEnv, false}} {
		r := atRestRig(t, "-1", "0")
		r.host.PutUnit(unitName, host.UnitState{Loaded: true, Active: c.state})
		r.host.PutFile(host.File{Path: c.mark, Mode: 0o644})
		if e := r.evidenceIn(t, 4); e.Founds != c.founds {
			t.Errorf("%s with %s: %+v", c.state, c.mark, e)
		}
	}
}

func TestFoundOnceInAnEpoch(t *testing.T) {
	r := atRestRig(t, "-1", "0")
	if err := r.step(4, recovery.StepFound); err == nil {
		t.Error("founded without having been read")
	}
	if err := errors.Join(r.step(4, recovery.StepHalt), r.step(4, recovery.StepFound)); err != nil {
		t.Fatal(err)
	}
	if !r.marked {
		t.Error("the start could not found")
	}
	if r.text(bootstrapMark) != "" || exists(r.host, bootstrapMark) {
		t.Error("the permission outlives the start")
	}
	if g, _, err := readGrastate(r.host); err != nil || !g.SafeToBootstrap || g.UUID != someUUID || g.Seqno != -1 {
		t.Errorf("grastate.dat: %+v, %v", g, err)
	}
	if e := r.evidenceIn(t, 4); e.Founded != 4 {
		t.Errorf("%+v", e)
	}
	// It dies, and the same epoch is asked for again.
	r.marked = false
	r.server.err = errors.New("gone")
	r.host.PutUnit(unitName, host.UnitState{Loaded: true, Active: "failed"})
	if err := errors.Join(r.step(4, recovery.StepHalt), r.step(4, recovery.StepFound)); err == nil || r.marked {
		t.Errorf("founded twice in one epoch: %v", err)
	}
	if err := errors.Join(r.step(5, recovery.StepHalt), r.step(5, recovery.StepFound)); err != nil || !r.marked {
		t.Errorf("the next epoch: %v", err)
	}
}

func TestFoundTakesWhatInnoDBSaysAndRenewDropsTheUUID(t *testing.T) {
	r := atRestRig(t, "17", "0")
	if err := errors.Join(r.step(4, recovery.StepHalt), r.step(4, recovery.StepFound)); err != nil {
		t.Fatal(err)
	}
	if g, _, _ := readGrastate(r.host); g.Seqno != -1 || g.UUID != someUUID {
		t.Errorf("%+v", g)
	}
	r = atRestRig(t, "42", "0")
	if err := errors.Join(r.step(4, recovery.StepHalt), r.step(4, recovery.StepFound, recovery.ArgRenew)); err != nil {
		t.Fatal(err)
	}
	if g, _, _ := readGrastate(r.host); !g.None() || g.Seqno != -1 || !g.SafeToBootstrap {
		t.Errorf("%+v", g)
	}
}

func TestClearTakesAwayWhatCouldFound(t *testing.T) {
	r := atRestRig(t, "42", "1")
	for _, name := range []string{viewFile, asideFile, bootstrapMark, loneFile} {
		r.host.PutFile(host.File{Path: name, Mode: 0o600, Content: []byte(savedView)})
	}
	if err := errors.Join(r.step(4, recovery.StepHalt), r.step(4, recovery.StepClear), r.step(4, recovery.StepClear)); err != nil {
		t.Fatal(err)
	}
	if g, _, _ := readGrastate(r.host); g.SafeToBootstrap || g.Seqno != 42 {
		t.Errorf("%+v", g)
	}
	if exists(r.host, viewFile) || exists(r.host, asideFile) || exists(r.host, bootstrapMark) || exists(r.host, loneFile) {
		t.Error("something is left with which it could found")
	}
	if e := r.evidenceIn(t, 4); e.View == nil {
		t.Error("what was known of the view is forgotten")
	}
	if !strings.Contains(r.text(epochs.Dir(4)+"/grastate.dat"), "safe_to_bootstrap: 1") {
		t.Error("the copy is not what was found")
	}
}

// A view that was set aside is known, kept, told of, and keeps an apply from starting the member.
func TestAMemberThatWasAlone(t *testing.T) {
	r := atRestRig(t, "-1", "1")
	r.host.PutFile(host.File{Path: asideFile, Mode: 0o600, Content: []byte(loneView)})
	r.server.err = errors.New("connection refused")
	if e := r.evidenceIn(t, 4); e.View == nil || !e.Aside || len(e.View.Members) != 1 {
		t.Errorf("%+v", e)
	}
	o := r.Observe(context.Background(), r.env)
	if len(o.Conditions) != 1 || o.Conditions[0].Code != "galera-apart" || o.Facts[factApart] == "" {
		t.Errorf("%+v", o)
	}
	if err := r.start(context.Background(), r.env, nil); !errors.Is(err, ErrOtherHistory) {
		t.Errorf("it was started: %v", err)
	}
	if err := errors.Join(r.step(4, recovery.StepHalt), r.step(4, recovery.StepFound)); err != nil {
		t.Fatal(err)
	}
	if exists(r.host, asideFile) || r.text(epochs.Dir(4)+"/gvwstate.dat.aside") != loneView {
		t.Error("a founder's old view is not kept, or still in its way")
	}
}

func TestPromoteOnlyWhoIsAliveWithoutAPrimary(t *testing.T) {
	r := atRestRig(t, "-1", "0")
	if err := r.step(4, recovery.StepPromote); err == nil {
		t.Error("promoted a stopped server")
	}
	r.alive("Primary", "4")
	if err := r.step(4, recovery.StepPromote); err == nil {
		t.Error("promoted a Primary")
	}
	r.alive("non-Primary", "0")
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	err := r.Step(ctx, r.env, 4, service.HealStep{Node: "ctl2", Name: recovery.StepPromote}, func(context.Context) error { return nil })
	if !errors.Is(err, context.DeadlineExceeded) || !slices.Contains(r.server.done, "SET GLOBAL wsrep_provider_pc_bootstrap = ON") {
		t.Errorf("%v, done %q", err, r.server.done)
	}
}

func TestJoinKeepsWhatTheClusterHasNot(t *testing.T) {
	r := atRestRig(t, "-1", "0")
	r.host.Answer("test -e", "", 1)
	r.host.Answer("mv", "", 0)
	r.host.Answer("install", "", 0)
	if err := r.step(4, recovery.StepJoin, recovery.ArgKeep); err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(r.host.Calls(), func(c string) bool {
		return strings.Contains(c, "mv --no-target-directory --no-clobber /var/lib/mysql /var/lib/mysql.nines-epoch-4")
	}) {
		t.Errorf("not set aside: %q", r.host.Calls())
	}
	if r.marked {
		t.Error("a joiner could found")
	}
	r = atRestRig(t, "-1", "0")
	if err := r.step(4, recovery.StepJoin, recovery.ArgFresh); err != nil || exists(r.host, grastateFile) {
		t.Errorf("a suspect copy is offered as if it were good: %v", err)
	}
}

func TestAStepAsksAfterItHasSaidThatItIsAtWork(t *testing.T) {
	r := atRestRig(t, "-1", "0")
	stale := errors.New("stale")
	err := r.Step(context.Background(), r.env, 4, service.HealStep{Node: "ctl2", Name: recovery.StepHalt}, func(ctx context.Context) error {
		if e := r.evidenceIn(t, 4); e.Busy == "" {
			t.Error("the evidence does not say that a step is under way")
		}
		if err := r.step(4, recovery.StepHalt); err == nil {
			t.Error("two steps at once")
		}
		return stale
	})
	if !errors.Is(err, stale) || exists(r.host, positionFile) {
		t.Errorf("a stale step was done: %v", err)
	}
	if e := r.evidenceIn(t, 4); e.Busy != "" {
		t.Errorf("still busy: %q", e.Busy)
	}
}

func TestLineage(t *testing.T) {
	s, c := testService(), servicetest.Cluster()
	now := time.Unix(1000, 0)
	member := func(view, size string) service.Observation {
		return service.Observation{Serving: true, Facts: map[string]string{"wsrep_cluster_status": "Primary", "wsrep_cluster_state_uuid": someUUID,
			"wsrep_cluster_conf_id": view, "wsrep_cluster_size": size, "wsrep_last_committed": "17"}}
	}
	seen := map[string]service.Observation{"ctl1": member("3", "3"), "ctl2": member("3", "3")}
	if l, well := s.Watch(c, seen, nil, now); l != nil || !well {
		t.Errorf("a cluster that never was whole has no lineage: %s", l)
	}
	seen["ctl3"] = seen["ctl1"]
	first, well := s.Watch(c, seen, nil, now)
	l := parseLineage(first)
	if !well || l == nil || l.UUID != someUUID || len(l.Members) != 3 || l.Seqno["ctl3"] != 17 {
		t.Fatalf("%s", first)
	}
	if again, _ := s.Watch(c, seen, first, now.Add(time.Hour)); again != nil {
		t.Error("written although nothing changed")
	}
	delete(seen, "ctl3")
	if l, well := s.Watch(c, seen, first, now.Add(time.Second)); l != nil || !well {
		t.Errorf("who cannot be asked is still in it: %s, well %v", l, well)
	}
	if l, well := s.Watch(c, map[string]service.Observation{"ctl2": member("3", "3")}, first, now); l != nil || well {
		t.Errorf("two of three are out, and the third has not noticed: %s, well %v", l, well)
	}
	seen["ctl1"], seen["ctl2"] = member("4", "2"), member("4", "2")
	next, _ := s.Watch(c, seen, first, now.Add(time.Second))
	if l := parseLineage(next); l == nil || !slices.Equal(l.Members, []string{"ctl1", "ctl2"}) || l.Seqno["ctl3"] != 17 {
		t.Errorf("a member left: %s", next)
	}
	seen["ctl3"] = service.Observation{Facts: map[string]string{factApart: "3 x 1"}}
	over, _ := s.Watch(c, seen, next, now.Add(2*time.Second))
	if l := parseLineage(over); l == nil || !slices.Equal(l.PassedOver, []string{"ctl3"}) {
		t.Errorf("a member stands aside: %s", over)
	}
	if l, well := s.Watch(c, map[string]service.Observation{"ctl1": {Facts: map[string]string{"wsrep_cluster_status": "non-Primary"}}}, first, now); l != nil || well {
		t.Error("no Primary is no well cluster")
	}
}

func TestParseView(t *testing.T) {
	v, err := parseView(savedView)
	if err != nil || v.Mine != "c5d5d990-30ee-11e4-aab1-46d0ed84b408" || v.ID != "3 bc85bd53-31ac-11e4-9895-1f2ce13f2542 2" || len(v.Members) != 2 {
		t.Errorf("%+v, %v", v, err)
	}
	for _, text := range []string{"", "\x00\x00\x00", "my_uuid: c5d5d990-30ee-11e4-aab1-46d0ed84b408\n"} {
		if v, err := parseView(text); v != nil || err != nil {
			t.Errorf("%q: %+v, %v", text, v, err)
		}
	}
	if _, err := parseView("my_uuid: x\nview_id: 3 y 2\nmember: z 0\n"); err == nil {
		t.Error("rubbish is a view")
	}
}

func FuzzParseView(f *testing.F) {
	f.Add(savedView)
	f.Fuzz(func(t *testing.T, text string) {
		if v, err := parseView(text); err == nil && v != nil && (v.Mine == "" || len(v.Members) == 0) {
			t.Errorf("%q: %+v", text, v)
		}
	})
}

// A power cut soon after a state transfer leaves tables without their descriptions: the copy is no source.
func TestLostFilesAreATornCopy(t *testing.T) {
	for out, want := range map[string][2]bool{ // empty, torn
		"/var/lib/mysql/ibdata1\n": {false, false},
		"":                         {true, false},
		"/var/lib/mysql/ibdata1\n/var/lib/mysql/.sst\n":                 {false, true},
		"/var/lib/mysql/keystone/project.frm\n/var/lib/mysql/ibdata1\n": {false, true},
	} {
		r := newRig(t, "ctl1", fakePeers{})
		r.host.Answer("find /var/lib/mysql", out, 0)
		empty, torn, err := lookInside(t.Context(), r.host)
		if err != nil || empty != want[0] || torn != want[1] {
			t.Errorf("%q: empty %v, torn %v, %v", out, empty, torn, err)
		}
	}
}

func TestEvidenceOnlyOfMembers(t *testing.T) {
	r := newRig(t, "ctl1", fakePeers{})
	r.env.Cluster = &model.Cluster{Nodes: []model.Node{{Name: "w1", Roles: []model.Role{model.RoleCompute}}}}
	if _, err := r.Evidence(context.Background(), r.env, 0); err == nil {
		t.Error("a node without a member has evidence")
	}
}

func TestANewViewIsFlushedOnce(t *testing.T) {
	r := newRig(t, "ctl2", fakePeers{}) // outside: the service keeps a pool of connections
	synctest.Test(t, func(t *testing.T) {
		r.alive("Primary", "4")
		r.server.status["wsrep_cluster_conf_id"] = "7"
		syncs := func() (n int) {
			synctest.Wait()
			for _, c := range r.host.Commands() {
				if c.Args[0] == "sync" {
					n++
				}
			}
			return n
		}
		r.Observe(t.Context(), r.env) // nobody answers sync yet: it is tried again
		r.Observe(t.Context(), r.env)
		failed := syncs()
		time.Sleep(flushAgain)
		r.host.Answer("sync", "", 0)
		for range 3 {
			r.Observe(t.Context(), r.env)
			synctest.Wait()
		}
		if n := syncs() - failed; failed != 1 || n != 1 {
			t.Errorf("flushed %d times, then %d", failed, n)
		}
		r.server.status["wsrep_cluster_conf_id"] = "8"
		r.Observe(t.Context(), r.env)
		if n := syncs() - failed; n != 2 {
			t.Errorf("a new view was flushed %d times", n-1)
		}
		// Another run of the server: a state transfer may have brought all its files.
		r.server.status["wsrep_gcomm_uuid"] = someUUID
		for range 3 {
			r.Observe(t.Context(), r.env)
			synctest.Wait()
		}
		all := r.host.Commands()
		if n := syncs() - failed; n != 3 || !slices.Equal(all[len(all)-1].Args, []string{"sync", "--file-system", "/var/lib/mysql"}) {
			t.Errorf("after a start flushed %d times: %q", n-2, all[len(all)-1].Args)
		}
	})
}
