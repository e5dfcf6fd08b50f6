package galera

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"nines/internal/model"
	"nines/internal/plan"
	"nines/internal/secret"
	"nines/internal/service/servicetest"
)

// runsWith is the detector of a member with the tuning.
func runsWith(t model.GaleraTuning) detector {
	d := detector{}
	for _, l := range dials {
		d[l.option] = l.want(t)
	}
	return d
}

// rowsOf is what the server shows of a detector.
func rowsOf(d detector) [][]string {
	rows := [][]string{{"wsrep_provider_options", "base_dir = /var/lib/mysql/"}}
	for _, l := range dials {
		rows = append(rows, []string{l.variable(), strconv.FormatFloat(d[l.option].Seconds(), 'f', 6, 64)})
	}
	return rows
}

// genTuning draws values that nines accepts.
func genTuning(t *rapid.T, name string) model.GaleraTuning {
	ms := func(lo, hi int, what string) time.Duration {
		return time.Duration(rapid.IntRange(lo, hi).Draw(t, name+" "+what)) * time.Millisecond
	}
	g := servicetest.Cluster().Tuning.Galera
	g.SuspectTimeout = ms(400, 6000, "suspect")
	g.InactiveTimeout = g.SuspectTimeout + ms(0, 20000, "inactive")
	g.JoinRetrans = min(ms(100, 5000, "join"), g.SuspectTimeout-time.Millisecond)
	g.Keepalive = min(ms(100, 2000, "keepalive"), (g.SuspectTimeout-time.Millisecond)/3)
	g.InstallTimeout = min(max(ms(100, 20000, "install"), 2*g.Keepalive), g.InactiveTimeout)
	return g
}

// safe reports whether a member with d may meet one with other: what Galera survives.
func safe(d, other detector) bool {
	return d["evs.suspect_timeout"] > other["evs.join_retrans_period"] && d["evs.suspect_timeout"] > 3*other["evs.keepalive_period"]
}

// At every moment of a change, in whichever order the members go and wherever one of them restarts, any two
// members get on with each other, and Galera accepts each single value.
func TestChangeNeverMakesADangerousPair(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		before, after := genTuning(t, "before"), genTuning(t, "after")
		file := before
		members := []detector{runsWith(before), runsWith(before), runsWith(before)}
		check := func() {
			for i, a := range members {
				for j, b := range members {
					if i != j && !safe(a, b) {
						t.Fatalf("%v meets %v", a, b)
					}
				}
			}
		}
		step := func(to func(d detector, l dial) time.Duration) {
			for _, i := range rapid.Permutation([]int{0, 1, 2}).Draw(t, "order") {
				if rapid.IntRange(0, 3).Draw(t, "restarts") == 0 {
					members[i] = runsWith(file)
					check()
					if file == before { // it came back with the old values: its step is repeated
						members[i] = runsWith(before)
					}
				}
				have := members[i]
				now := detector{}
				for k, v := range have {
					now[k] = v
				}
				members[i] = now
				for _, l := range dials {
					if l.fixed {
						continue
					}
					now[l.option] = to(have, l)
					if l.option == "evs.install_timeout" && (now[l.option] > now["evs.inactive_timeout"] || now[l.option] < 2*now["evs.keepalive_period"]) {
						t.Fatalf("install_timeout %s is out of range: %v", now[l.option], now)
					}
					check()
				}
			}
		}
		step(func(d detector, l dial) time.Duration { return l.wide(d[l.option], l.want(after)) })
		for _, m := range members {
			if r := m.tooNarrow(after); r != "" {
				t.Fatalf("widened and still too narrow: %s", r)
			}
		}
		file = after
		step(func(_ detector, l dial) time.Duration { return l.want(after) })
		for _, m := range members {
			if r := m.notAs(after); r != "" {
				t.Fatal(r)
			}
		}
	})
}

// changed is the test cluster with a slower detector.
func changed() *model.Cluster {
	c := servicetest.Cluster()
	g := &c.Tuning.Galera
	g.SuspectTimeout, g.JoinRetrans, g.InactiveTimeout = 3*time.Second, time.Second, 20*time.Second
	return c
}

// detectorRig is ctl1 while it runs with the old values.
func detectorRig(t *testing.T, others map[string]member) *rig {
	r := newRig(t, "ctl1", fakePeers{members: others})
	r.server.err, r.server.status = nil, synced3()
	r.server.rows = map[string][][]string{"wsrep": rowsOf(runsWith(servicetest.Cluster().Tuning.Galera))}
	r.env.Cluster = changed()
	return r
}

func TestWidenDetector(t *testing.T) {
	r := detectorRig(t, nil)
	done, reason, err := r.detectorWide(t.Context(), r.env, nil)
	if want := "evs.suspect_timeout runs with 1s, want 3s; evs.inactive_timeout runs with 15s, want 20s"; err != nil || done || reason != want {
		t.Errorf("done %t, reason %q, err %v; want %q", done, reason, err, want)
	}
	if err := r.widenDetector(t.Context(), r.env, nil); err != nil {
		t.Fatal(err)
	}
	// join_retrans_period grows: the wide value is the old one.
	want := []string{"SET GLOBAL wsrep_provider_evs_suspect_timeout = 3", "SET GLOBAL wsrep_provider_evs_inactive_timeout = 20"}
	if d := cmp.Diff(want, r.server.done); d != "" {
		t.Errorf("statements (-want +got):\n%s", d)
	}
}

func TestSetDetector(t *testing.T) {
	wide, narrow := changed().Tuning.Galera, servicetest.Cluster().Tuning.Galera
	all := func(d model.GaleraTuning, st status) map[string]member {
		return map[string]member{"ctl2": {st, runsWith(wide)}, "ctl3": {st, runsWith(d)}}
	}
	joining := synced3()
	joining["wsrep_local_state"], joining["wsrep_local_state_comment"] = "1", "Joining"
	two := synced3()
	two["wsrep_cluster_size"] = "2"
	for name, c := range map[string]struct {
		others map[string]member
		own    status
		want   string // part of the error
	}{
		"all are wide":           {all(wide, synced3()), synced3(), ""},
		"a member is not wide":   {all(narrow, synced3()), synced3(), "ctl3: evs.suspect_timeout runs with 1s"},
		"a member joins":         {all(wide, joining), synced3(), "ctl2: Joining"},
		"a member is missing":    {all(wide, two), two, "2 members"},
		"a member does not tell": {map[string]member{"ctl2": {synced3(), runsWith(wide)}}, synced3(), "ctl3: connection refused"},
	} {
		t.Run(name, func(t *testing.T) {
			r := detectorRig(t, c.others)
			r.server.status = c.own
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				err := r.setDetector(ctx, r.env, nil)
				if c.want == "" {
					want := []string{"SET GLOBAL wsrep_provider_evs_suspect_timeout = 3", "SET GLOBAL wsrep_provider_evs_inactive_timeout = 20",
						"SET GLOBAL wsrep_provider_evs_join_retrans_period = 1"}
					if d := cmp.Diff(want, r.server.done); d != "" || err != nil {
						t.Errorf("err %v, statements (-want +got):\n%s", err, d)
					}
					return
				}
				if err == nil || !strings.Contains(err.Error(), c.want) || len(r.server.done) > 0 {
					t.Errorf("error %v, statements %v; want %q and none", err, r.server.done, c.want)
				}
			})
		})
	}
}

func TestDetectorThatNeedsARestartIsTold(t *testing.T) {
	c := changed()
	r := detectorRig(t, map[string]member{"ctl2": {synced3(), runsWith(c.Tuning.Galera)}, "ctl3": {synced3(), runsWith(c.Tuning.Galera)}})
	old := runsWith(c.Tuning.Galera)
	old["gmcast.peer_timeout"] = time.Second
	r.server.rows["wsrep"] = rowsOf(old)
	if done, reason, _ := r.detectorSet(t.Context(), r.env, nil); done || reason != "gmcast.peer_timeout runs with 1s, want 3s" {
		t.Errorf("done %t, %q", done, reason)
	}
	if err := r.setDetector(t.Context(), r.env, nil); err == nil || !strings.Contains(err.Error(), "restart mariadb.service") {
		t.Errorf("error %v, want a hint to restart", err)
	}
}

// Without a running member both steps are done: the next start reads the file. What
// cannot be told is no reason to write it.
func TestDetectorWithoutAMember(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		st   status
		done bool
	}{
		"no socket":           {fmt.Errorf("dial: %w", syscall.ENOENT), nil, true},
		"nobody listens":      {fmt.Errorf("dial: %w", syscall.ECONNREFUSED), nil, true},
		"a server of its own": {nil, status{"wsrep_provider_name": ""}, true},
		"frozen":              {context.DeadlineExceeded, nil, false},
	} {
		r := newRig(t, "ctl1", fakePeers{})
		r.server.err, r.server.status = c.err, c.st
		wide, _, err := r.detectorWide(t.Context(), r.env, nil)
		set, _, err2 := r.detectorSet(t.Context(), r.env, nil)
		if wide != c.done || set != c.done || (err == nil) != c.done || (err2 == nil) != c.done {
			t.Errorf("%s: wide %t (%v), set %t (%v); want %t", name, wide, err, set, err2, c.done)
		}
	}
}

func TestParseDetector(t *testing.T) {
	want := runsWith(servicetest.Cluster().Tuning.Galera)
	got, err := parseDetector(rowsOf(want))
	if err != nil || cmp.Diff(want, got) != "" {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"", "PT1S", "-1", "NaN", "1e300"} {
		rows := rowsOf(want)
		rows[1][1] = bad
		if _, err := parseDetector(rows); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func FuzzParseDetector(f *testing.F) {
	f.Add("wsrep_provider_evs_suspect_timeout", "1.000000")
	f.Fuzz(func(t *testing.T, name, value string) {
		rows := append(rowsOf(runsWith(servicetest.Cluster().Tuning.Galera)), []string{name, value})
		d, err := parseDetector(rows)
		for k, v := range d {
			if v < 0 || err != nil {
				t.Errorf("%s = %s, err %v", k, v, err)
			}
		}
	})
}

// A change of the detector leaves the unit alone; a change of what is read at the start does not.
func TestOnlyFixedValuesRestart(t *testing.T) {
	print := func(c *model.Cluster) plan.Fingerprint {
		rs, err := testService().Resources(c, secret.Redacted{})
		if err != nil {
			t.Fatal(err)
		}
		all := plan.Index(rs)
		return all[unitID("ctl2")].Fingerprint(all)
	}
	was := print(servicetest.Cluster())
	if print(changed()) != was {
		t.Error("a change of suspect_timeout restarts the member")
	}
	for name, change := range map[string]func(*model.GaleraTuning){
		"gcache":         func(g *model.GaleraTuning) { g.GCache = "256M" },
		"peer_timeout":   func(g *model.GaleraTuning) { g.PeerTimeout = 4 * time.Second },
		"inactive_check": func(g *model.GaleraTuning) { g.InactiveCheck = 200 * time.Millisecond },
	} {
		c := servicetest.Cluster()
		change(&c.Tuning.Galera)
		if print(c) == was {
			t.Errorf("a change of %s restarts nobody", name)
		}
	}
}

// Widened on all, then written, then set on all.
func TestDetectorStepsAreInOrder(t *testing.T) {
	at := graphOf(t, testResources(t))
	for _, n := range []string{"ctl1", "ctl2", "ctl3"} {
		for _, m := range []string{"ctl1", "ctl2", "ctl3"} {
			file, set := at[fileID(m, "provider")], at[plan.Make("galera", n, "action", "set-failure-detector")]
			if at[widenID(n)] > file || file > set || at[unitID(m)] > set {
				t.Errorf("%s widens at %d, %s's file at %d, unit at %d, %s sets at %d", n, at[widenID(n)], m, file, at[unitID(m)], n, set)
			}
		}
	}
}
