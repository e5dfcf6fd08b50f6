package ovn

import (
	"context"
	"errors"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"nines/internal/host"
	"nines/internal/host/hosttest"
)

func TestParseStatus(t *testing.T) {
	for name, tc := range map[string]struct {
		answer  string
		serving bool
		words   string
		peers   int
	}{
		"leader":     {status("leader", "self"), true, "leader", 3},
		"follower":   {status("follower", "5c2c"), true, "follower", 3},
		"candidate":  {status("candidate", "unknown"), false, "candidate without a leader", 3},
		"leaderless": {status("follower", "unknown"), false, "follower without a leader", 3},
		"joining":    {joining, false, "joining cluster", 0},
		"nothing":    {"", false, "", 0},
	} {
		m := parseStatus(tc.answer)
		if m.serving() != tc.serving || m.String() != tc.words || len(m.peers) != tc.peers {
			t.Errorf("%s: serving %v, %q, %+v", name, m.serving(), m, m)
		}
	}
	m := parseStatus(status("leader", "self"))
	if m.cluster != clusterID || m.server != "1b37" || m.term != 3 || !m.peers[1].self || m.peers[0].silent != 127*time.Millisecond || m.peers[1].silent >= 0 {
		t.Errorf("%+v", m)
	}
}

func FuzzParseStatus(f *testing.F) {
	f.Add(status("leader", "self"))
	f.Add(joining)
	f.Fuzz(func(t *testing.T, answer string) {
		m := parseStatus(answer)
		if m.serving() && (m.cluster == "" || m.leader == "unknown") {
			t.Errorf("serves: %+v", m)
		}
		for _, p := range stale(m) {
			if p.self {
				t.Errorf("would remove itself: %+v", m)
			}
		}
	})
}

// A member is removed only when another has its address and is heard from.
func TestStaleMembers(t *testing.T) {
	line := func(id, address, rest string) string {
		return "    " + id + " (" + id + " at " + address + ") " + rest + "\n"
	}
	const a, b = "ssl:198.18.0.11:6643", "ssl:198.18.0.12:6643"
	for name, tc := range map[string]struct {
		servers string
		want    []string
	}{
		"whole":            {line("aaaa", a, "(self)") + line("bbbb", b, "last msg 100 ms ago"), nil},
		"joined anew":      {line("aaaa", a, "(self)") + line("bbbb", b, "last msg 90000 ms ago") + line("cccc", b, "last msg 100 ms ago"), []string{"bbbb"}},
		"never heard":      {line("aaaa", a, "(self)") + line("bbbb", b, "next_index=3") + line("cccc", b, "last msg 100 ms ago"), []string{"bbbb"}},
		"both silent":      {line("aaaa", a, "(self)") + line("bbbb", b, "last msg 90000 ms ago") + line("cccc", b, "last msg 80000 ms ago"), nil},
		"both just heard":  {line("bbbb", b, "last msg 100 ms ago") + line("cccc", b, "last msg 300 ms ago"), nil},
		"only powered off": {line("aaaa", a, "(self)") + line("bbbb", b, "last msg 90000 ms ago"), nil},
		"own address":      {line("aaaa", a, "(self)") + line("bbbb", a, "last msg 90000 ms ago"), []string{"bbbb"}},
	} {
		var got []string
		for _, p := range stale(parseStatus("Status: cluster member\n" + tc.servers)) {
			got = append(got, p.id)
		}
		if !slices.Equal(got, tc.want) {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
}

// tool scripts the commands that make a database.
func tool(h *hosttest.Host) {
	for _, c := range []string{"ovsdb-tool", "mkdir", "mv", "sync"} {
		h.Answer(c, "", 0)
	}
	h.Answer("test -e", "", 1)
}

func made(h *hosttest.Host) string {
	for _, c := range h.Calls() {
		if strings.Contains(c, "ovsdb-tool") {
			return c
		}
	}
	return ""
}

func TestFounding(t *testing.T) {
	for name, tc := range map[string]struct {
		node    string
		ports   map[string]error // by address:port; others are open
		want    string           // part of the command; empty: refused
		refused error
	}{
		"first of all": {"ctl1", map[string]error{"198.18.0.12:6641": syscall.ECONNREFUSED, "198.18.0.13:6641": syscall.ECONNREFUSED},
			"--election-timer=1000 create-cluster /var/lib/ovn/ovnnb_db.db.new /usr/share/ovn/ovn-nb.ovsschema ssl:198.18.0.11:6643", nil},
		"first, emptied, others serve": {"ctl1", nil, "join-cluster", nil},
		"first, emptied, one serves":   {"ctl1", map[string]error{"198.18.0.12:6641": syscall.ECONNREFUSED}, "join-cluster", nil},
		"another machine is off": {"ctl1", map[string]error{"198.18.0.12:6641": syscall.ECONNREFUSED, "198.18.0.13:6641": context.DeadlineExceeded},
			"", ErrWouldFound},
		"an agent does not run": {"ctl1", map[string]error{"198.18.0.12:6641": syscall.ECONNREFUSED, "198.18.0.12:7441": syscall.ECONNREFUSED,
			"198.18.0.13:6641": syscall.ECONNREFUSED}, "", ErrWouldFound},
		"another controller": {"ctl2", map[string]error{"198.18.0.11:6641": syscall.ECONNREFUSED, "198.18.0.13:6641": syscall.ECONNREFUSED},
			"join-cluster /var/lib/ovn/ovnnb_db.db.new OVN_Northbound ssl:198.18.0.12:6643 ssl:198.18.0.11:6643 ssl:198.18.0.13:6643", nil},
	} {
		t.Run(name, func(t *testing.T) {
			e, h := env(tc.node)
			tool(h)
			s := &Service{rpc: daemons{}, dial: func(address string) error { return tc.ports[address] }}
			args := map[string]string{"database": "nb"}
			if tc.node == "ctl1" {
				args["found"] = "true"
			}
			err := s.create(t.Context(), e, args)
			if !errors.Is(err, tc.refused) || !strings.Contains(made(h), tc.want) || (tc.want == "") != (made(h) == "") {
				t.Errorf("%q, %v", made(h), err)
			}
		})
	}
}

// A database that is there is never made again, whatever the others say.
func TestDatabaseIsKept(t *testing.T) {
	e, h := env("ctl1")
	h.Answer("test -e", "", 0)
	s := &Service{rpc: daemons{}, dial: func(string) error { return syscall.ECONNREFUSED }}
	args := map[string]string{"database": "sb", "found": "true"}
	if done, why, err := present(t.Context(), e, args); !done || err != nil {
		t.Errorf("%v %q %v", done, why, err)
	}
	if err := s.create(t.Context(), e, args); err != nil || made(h) != "" {
		t.Errorf("%q, %v", made(h), err)
	}
}

// The founder may take a closed port for "no database" only because the others start what they have.
func TestStanding(t *testing.T) {
	e, h := env("ctl2")
	args := map[string]string{"database": "nb"}
	h.Answer("test -e", "", 1)
	if done, _, err := standing(t.Context(), e, args); !done || err != nil {
		t.Errorf("nothing to stand: %v %v", done, err)
	}
	h.Answer("test -e", "", 0)
	h.PutUnit(UnitNorth, host.UnitState{Loaded: true, Active: "inactive"})
	if done, why, err := standing(t.Context(), e, args); done || why == "" || err != nil {
		t.Errorf("stopped with a database: %v %q %v", done, why, err)
	}
	if err := stand(t.Context(), e, args); err != nil {
		t.Fatal(err)
	}
	if done, why, err := standing(t.Context(), e, args); !done || err != nil {
		t.Errorf("started: %v %q %v", done, why, err)
	}
}

func TestServes(t *testing.T) {
	e, _ := env("ctl1")
	for name, tc := range map[string]struct {
		answers daemons
		done    bool
	}{
		"leader":  {daemons{north.ctl + " cluster/status OVN_Northbound": quoted(status("leader", "self"))}, true},
		"joining": {daemons{north.ctl + " cluster/status OVN_Northbound": quoted(joining)}, false},
		"silent":  {daemons{}, false},
	} {
		s := &Service{rpc: tc.answers}
		done, why, err := s.serves(t.Context(), e, map[string]string{"database": "nb"})
		if done != tc.done || err != nil || done == (why != "") {
			t.Errorf("%s: %v %q %v", name, done, why, err)
		}
	}
}

// A member that is reached before any northd has worked must not be taken for ready.
func TestFilled(t *testing.T) {
	key := south.socket + " transact SB_Global"
	for name, tc := range map[string]struct {
		answers daemons
		want    bool
	}{
		"written": {daemons{key: table(`{"nb_cfg":0}`)}, true},
		"empty":   {daemons{key: table("")}, false},
		"down":    {daemons{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			e, _ := env("ctl1")
			done, reason, err := (&Service{rpc: tc.answers}).filled(t.Context(), e, nil)
			if err != nil || done != tc.want || done == (reason != "") {
				t.Errorf("done %v (%s), %v", done, reason, err)
			}
		})
	}
}

func TestOptions(t *testing.T) {
	const schema = `{"name":"x","version":"7.11.0"}`
	e, h := env("ctl1")
	for _, d := range databases {
		h.PutFile(host.File{Path: d.schema, Mode: 0o644, Owner: "root", Group: "root", Content: []byte(schema)})
	}
	good := func() daemons {
		return daemons{
			north.socket + " get_schema OVN_Northbound": schema, south.socket + " get_schema OVN_Southbound": schema,
			north.socket + " transact NB_Global": table(`{"options":["map",[["bfd-min-rx","500"],["bfd-min-tx","100"],["bfd-mult","3"],["northd_probe_interval","2000"],["x","y"]]]}`),
		}
	}
	for name, tc := range map[string]struct {
		change func(daemons)
		done   bool
	}{
		"as wanted":     {func(daemons) {}, true},
		"nobody serves": {func(d daemons) { clear(d) }, false},
		"empty":         {func(d daemons) { d[north.socket+" transact NB_Global"] = table("") }, false},
		"others": {func(d daemons) {
			d[north.socket+" transact NB_Global"] = table(`{"options":["map",[["bfd-min-rx","1000"]]]}`)
		}, false},
		"old schema": {func(d daemons) {
			d[south.socket+" get_schema OVN_Southbound"] = `{"version":"7.0.0"}`
		}, false},
	} {
		d := good()
		tc.change(d)
		done, why, err := (&Service{rpc: d}).optionsSet(t.Context(), e, nil)
		if done != tc.done || err != nil || done == (why != "") {
			t.Errorf("%s: %v %q %v", name, done, why, err)
		}
	}
}
