package galera

import (
	"math"
	"slices"
	"strconv"
	"testing"
	"time"

	"nines/internal/service"
	"nines/internal/service/galera/recovery"
	"nines/internal/service/servicetest"
)

func codes(o service.Observation) []string {
	var out []string
	for _, c := range o.Conditions {
		out = append(out, c.Code)
		if c.Hint == "" || c.Text == "" {
			out = append(out, c.Code+" says too little")
		}
	}
	return out
}

func TestObservation(t *testing.T) {
	with := func(kv ...string) status {
		st := synced3()
		for i := 0; i < len(kv); i += 2 {
			st[kv[i]] = kv[i+1]
		}
		return st
	}
	without := func(key string, kv ...string) status {
		st := with(kv...)
		delete(st, key)
		return st
	}
	cases := map[string]struct {
		status  status
		serving bool
		codes   []string
	}{
		"synced":       {with(), true, nil},
		"donor serves": {with("wsrep_local_state", "2", "wsrep_local_state_comment", "Donor/Desynced"), true, []string{"galera-donor"}},
		"joined":       {with("wsrep_local_state", "3"), false, []string{"galera-not-synced"}},
		"not ready":    {with("wsrep_ready", "OFF"), false, []string{"galera-not-synced"}},
		"non-Primary":  {with("wsrep_cluster_status", "non-Primary", "wsrep_ready", "OFF"), false, []string{"galera-non-primary"}},
		// As seen after "Receiving IST failed, node restart required", and after its address of the cluster was taken from it.
		"left":           {without("wsrep_gcomm_uuid", "wsrep_cluster_status", "non-Primary", "wsrep_ready", "OFF", "wsrep_local_state", "1"), false, []string{"galera-left"}},
		"disconnected":   {without("wsrep_gcomm_uuid", "wsrep_cluster_status", "Disconnected", "wsrep_ready", "OFF", "wsrep_local_state", "0"), false, []string{"galera-left"}},
		"without Galera": {status{}, false, []string{"galera-non-primary"}},
	}
	for name, c := range cases {
		o := observation(c.status)
		if o.Serving != c.serving || !slices.Equal(codes(o), c.codes) || o.Reason == "" {
			t.Errorf("%s: serving %v (%s), %v", name, o.Serving, o.Reason, codes(o))
		}
		if stuck := slices.Contains(c.codes, "galera-left"); stuck != (o.Stuck != "") {
			t.Errorf("%s: stuck %q", name, o.Stuck)
		}
	}
}

// What is said of pauses is of the last half minute alone: not of the joining before, nor of another server.
func TestPausesOfLate(t *testing.T) {
	var p pauses
	start := time.Now()
	at := func(seconds int, paused time.Duration) float64 {
		return p.note(status{"wsrep_flow_control_paused_ns": strconv.FormatInt(paused.Nanoseconds(), 10)}, start.Add(time.Duration(seconds)*time.Second))
	}
	for s, c := range []struct {
		paused time.Duration
		want   float64
	}{{20 * time.Second, 0}, {20 * time.Second, 0}, {20 * time.Second, 0}, {20 * time.Second, 0}, {26 * time.Second, 0.2}, {32 * time.Second, 0.4},
		{32 * time.Second, 0.4}, {32 * time.Second, 0.2}, {32 * time.Second, 0}, {0, 0}, {6 * time.Second, 0}, {6 * time.Second, 0}, {6 * time.Second, 0.2}} {
		if got := at(s*10, c.paused); math.Abs(got-c.want) > 0.001 {
			t.Errorf("after %d s: %.2f, want %.2f", s*10, got, c.want)
		}
	}
}

func TestObserveAStoppedServer(t *testing.T) {
	r := newRig(t, "ctl1", fakePeers{})
	r.grastate(someUUID, "12", "0")
	o := r.Observe(t.Context(), r.env)
	if o.Serving || o.Facts["grastate_uuid"] != someUUID || o.Facts["grastate_seqno"] != "12" || !slices.Equal(codes(o), []string{"galera-down"}) {
		t.Errorf("%+v", o)
	}
}

func TestJudge(t *testing.T) {
	member := func(uuid, size string) service.Observation {
		return service.Observation{Serving: true, Facts: map[string]string{"wsrep_cluster_state_uuid": uuid, "wsrep_cluster_size": size}}
	}
	down := func(uuid string) service.Observation {
		return service.Observation{Facts: map[string]string{"grastate_uuid": uuid}}
	}
	cases := map[string]struct {
		seen map[string]service.Observation
		want []string
	}{
		"whole":                 {map[string]service.Observation{"ctl1": member(someUUID, "3"), "ctl2": member(someUUID, "3"), "ctl3": member(someUUID, "3")}, nil},
		"one down":              {map[string]service.Observation{"ctl1": member(someUUID, "2"), "ctl2": member(someUUID, "2"), "ctl3": down(someUUID)}, []string{"galera-size", "galera-size", "galera-degraded"}},
		"two histories":         {map[string]service.Observation{"ctl1": member(someUUID, "3"), "ctl2": member(someUUID, "3"), "ctl3": down(otherUUID)}, []string{"galera-split-history", "galera-degraded"}},
		"a new one is empty":    {map[string]service.Observation{"ctl1": member(someUUID, "3"), "ctl2": member(someUUID, "3"), "ctl3": down(recovery.ZeroUUID)}, []string{"galera-degraded"}},
		"nobody serves":         {map[string]service.Observation{"ctl1": down(someUUID), "ctl2": down(someUUID), "ctl3": down(someUUID)}, []string{"galera-no-service"}},
		"an agent is silent":    {map[string]service.Observation{"ctl1": member(someUUID, "3"), "ctl2": member(someUUID, "3")}, []string{"galera-unknown", "galera-degraded"}},
		"a stranger takes part": {map[string]service.Observation{"ctl1": member(someUUID, "4"), "ctl2": member(someUUID, "3"), "ctl3": member(someUUID, "3")}, []string{"galera-size"}},
	}
	for name, c := range cases {
		var got []string
		for _, x := range testService().Judge(servicetest.Cluster(), c.seen) {
			got = append(got, x.Code)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
