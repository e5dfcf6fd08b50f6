package supervise

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var now = time.Date(2027, 6, 1, 12, 0, 0, 0, time.UTC)

const long = time.Hour

var nodes = []string{"ctl1", "ctl2", "ctl3"}

// whole is a cluster in which everything serves.
func whole(at time.Time) View {
	v := View{Now: at, Nodes: map[string]Node{}, Quorums: map[string][]string{"db": nodes, "broker": nodes}, Recovering: map[string]bool{}}
	for _, n := range nodes {
		v.Nodes[n] = Node{Serving: map[string]bool{"db": true, "broker": true, "api": true, "cache": true, "clock": true}}
	}
	return v
}

// ail has a unit be of no use on a node.
func (v *View) ail(a Ailing) {
	if a.Active == "" {
		a.Active = "active"
	}
	if a.Running == 0 {
		a.Running = long
	}
	if a.Service == "db" || a.Service == "broker" {
		a.Needed = 2
	}
	a.Unit = a.Service + ".service"
	v.Ailing = append(v.Ailing, a)
	n := v.Nodes[a.Node]
	n.Serving[a.Service] = false
	n.Silent++
	v.Nodes[a.Node] = n
}

func tried(node, service string, member bool, ago ...time.Duration) Record {
	u := Unit{Node: node, Service: service, Member: member}
	for _, d := range ago {
		u.Tries = append(u.Tries, now.Add(-d))
	}
	return Record{Units: map[string]Unit{node + "/" + service + ".service": u}}
}

func TestNext(t *testing.T) {
	stopped := func(node, svc string) Ailing { return Ailing{Node: node, Service: svc, Stopped: 11 * time.Second} }
	silent := func(node, svc string, d time.Duration) Ailing { return Ailing{Node: node, Service: svc, Silent: d} }
	stuck := func(node, svc string) Ailing {
		return Ailing{Node: node, Service: svc, Stuck: 11 * time.Second, Why: "it left"}
	}
	with := func(a Ailing, change func(*Ailing)) Ailing { change(&a); return a }
	for name, tc := range map[string]struct {
		ailing []Ailing
		change func(*View)
		record Record
		want   []string // "ACT NODE/UNIT: part of the reason"
	}{
		"all is well":                     {},
		"a stopped API":                   {ailing: []Ailing{stopped("ctl1", "api")}, want: []string{"restart ctl1/api.service: nothing that others need"}},
		"all APIs at once":                {ailing: []Ailing{stopped("ctl1", "api"), stopped("ctl2", "api")}, want: []string{"restart ctl1/api", "restart ctl2/api"}},
		"stopped a moment ago":            {ailing: []Ailing{with(stopped("ctl1", "api"), func(a *Ailing) { a.Stopped = 9 * time.Second })}},
		"an API that owes an answer":      {ailing: []Ailing{silent("ctl1", "api", 61*time.Second)}, want: []string{"restart ctl1/api"}},
		"it has just started":             {ailing: []Ailing{with(silent("ctl1", "api", long), func(a *Ailing) { a.Running = 20 * time.Second })}},
		"a member is given more time":     {ailing: []Ailing{silent("ctl1", "db", 179*time.Second)}},
		"a member that owes an answer":    {ailing: []Ailing{silent("ctl1", "db", 181*time.Second)}, want: []string{"restart ctl1/db.service: all other members serve"}},
		"it starts, or is sent its state": {ailing: []Ailing{with(stopped("ctl1", "db"), func(a *Ailing) { a.Active = "activating" })}},
		"it stops":                        {ailing: []Ailing{with(stopped("ctl1", "db"), func(a *Ailing) { a.Active = "deactivating" })}},
		"its unit is not known":           {ailing: []Ailing{with(stopped("ctl1", "db"), func(a *Ailing) { a.Active = "unknown" })}},
		"a debugger":                      {ailing: []Ailing{with(stopped("ctl1", "api"), func(a *Ailing) { a.Traced = true })}, want: []string{"wait ctl1/api.service: debugger"}},
		"a recovery":                      {ailing: []Ailing{stopped("ctl1", "db")}, change: func(v *View) { v.Recovering["db"] = true }, want: []string{"wait ctl1/db.service: recovery of db"}},
		"the recovery of another":         {ailing: []Ailing{stopped("ctl1", "db")}, change: func(v *View) { v.Recovering["broker"] = true }, want: []string{"restart ctl1/db"}},
		"an apply":                        {ailing: []Ailing{stopped("ctl1", "api")}, change: func(v *View) { v.Busy = "an apply is under way" }, want: []string{"wait ctl1/api.service: apply"}},
		"a daemon that does not report":   {ailing: []Ailing{{Node: "ctl1", Service: "api", Unreported: 11 * time.Minute}}, want: []string{"restart ctl1/api.service: nothing that others need"}},
		"it has yet to report":            {ailing: []Ailing{{Node: "ctl1", Service: "api", Unreported: long, Running: 9 * time.Minute}}},
		"it cannot report": {ailing: []Ailing{{Node: "ctl1", Service: "api", Unreported: long}}, change: func(v *View) {
			v.Lacking = map[string]string{"api": "db serves on 1 of 3 nodes, and must on 2"}
		}, want: []string{"wait ctl1/api.service: it cannot answer: db serves on 1 of 3"}},
		"several of a machine do not report": {ailing: []Ailing{{Node: "ctl1", Service: "api", Unreported: long}, {Node: "ctl1", Service: "cache", Unreported: long}, {Node: "ctl1", Service: "clock", Unreported: long}},
			change: func(v *View) { v.Nodes["ctl1"].Serving["more"], v.Nodes["ctl1"].Serving["yet more"] = true, true },
			want:   []string{"restart ctl1/api", "wait ctl1/cache.service: ctl1/api.service was restarted", "wait ctl1/clock"}},
		"what it needs does not serve": {ailing: []Ailing{silent("ctl1", "api", long), stopped("ctl2", "api")}, change: func(v *View) {
			v.Lacking = map[string]string{"api": "db serves on 1 of 3 nodes, and must on 2"}
		}, want: []string{"restart ctl2/api", "wait ctl1/api.service: it cannot answer: db serves on 1 of 3"}},
		"two of a machine": {ailing: []Ailing{silent("ctl1", "api", 61*time.Second), silent("ctl1", "cache", 61*time.Second)},
			want: []string{"restart ctl1/api", "wait ctl1/cache.service: ctl1/api.service was restarted"}},
		"several of a machine that just started": {ailing: []Ailing{silent("ctl1", "api", 61*time.Second), silent("ctl1", "cache", 61*time.Second), silent("ctl1", "clock", 61*time.Second)},
			change: func(v *View) { v.Nodes["ctl1"].Serving["more"], v.Nodes["ctl1"].Serving["yet more"] = true, true },
			want:   []string{"wait ctl1/api.service: 3 daemons of ctl1", "wait ctl1/cache.service: 3 daemons", "wait ctl1/clock.service: 3 daemons"}},
		"several of a machine, for long": {ailing: []Ailing{silent("ctl1", "api", long), silent("ctl1", "cache", long), silent("ctl1", "clock", long)},
			change: func(v *View) { v.Nodes["ctl1"].Serving["more"], v.Nodes["ctl1"].Serving["yet more"] = true, true },
			want:   []string{"restart ctl1/api", "wait ctl1/cache.service: ctl1/api.service was restarted", "wait ctl1/clock"}},
		"two members of one quorum":        {ailing: []Ailing{stopped("ctl1", "db"), stopped("ctl2", "db")}, want: []string{"wait ctl1/db.service: db on ctl2 must serve", "wait ctl2/db.service: db on ctl1 must serve"}},
		"members of two quorums":           {ailing: []Ailing{stopped("ctl1", "db"), stopped("ctl2", "broker")}, want: []string{"restart ctl1/db", "wait ctl2/broker.service: ctl1/db.service was restarted"}},
		"another member is away":           {ailing: []Ailing{stopped("ctl1", "db")}, change: func(v *View) { delete(v.Nodes, "ctl3") }, want: []string{"wait ctl1/db.service: db on ctl3 must serve"}},
		"another member was restarted":     {ailing: []Ailing{stopped("ctl1", "db")}, change: func(v *View) { v.Nodes["ctl3"].Serving["broker"] = false }, record: tried("ctl3", "broker", true, 2*time.Minute), want: []string{"wait ctl1/db.service: ctl3/broker.service was restarted"}},
		"another member serves again":      {ailing: []Ailing{stopped("ctl1", "db")}, record: tried("ctl3", "broker", true, 2*time.Minute), want: []string{"restart ctl1/db"}},
		"another was waited for in vain":   {ailing: []Ailing{stopped("ctl1", "db")}, change: func(v *View) { v.Nodes["ctl3"].Serving["broker"] = false }, record: tried("ctl3", "broker", true, 11*time.Minute), want: []string{"restart ctl1/db"}},
		"a stateless one need not wait":    {ailing: []Ailing{stopped("ctl1", "api")}, change: func(v *View) { v.Nodes["ctl3"].Serving["broker"] = false }, record: tried("ctl3", "broker", true, time.Minute), want: []string{"restart ctl1/api"}},
		"again, too soon":                  {ailing: []Ailing{stopped("ctl1", "api")}, record: tried("ctl1", "api", false, 59*time.Second), want: []string{"wait ctl1/api.service: restarted once and is restarted again at 12:00:01 UTC"}},
		"again":                            {ailing: []Ailing{stopped("ctl1", "api")}, record: tried("ctl1", "api", false, 61*time.Second), want: []string{"restart ctl1/api"}},
		"the third time":                   {ailing: []Ailing{stopped("ctl1", "api")}, record: tried("ctl1", "api", false, 5*time.Minute, 119*time.Second), want: []string{"wait ctl1/api.service: 2 times"}},
		"five times":                       {ailing: []Ailing{stopped("ctl1", "db")}, record: tried("ctl1", "db", true, 40*time.Minute, 39*time.Minute, 37*time.Minute, 32*time.Minute, 17*time.Minute), want: []string{"give-up ctl1/db.service: 5 times"}},
		"given up does not keep others":    {ailing: []Ailing{stopped("ctl1", "api"), stopped("ctl2", "api")}, record: tried("ctl1", "api", false, 40*time.Minute, 39*time.Minute, 37*time.Minute, 32*time.Minute, 17*time.Minute), want: []string{"give-up ctl1/api", "restart ctl2/api"}},
		"an overloaded machine":            {ailing: []Ailing{silent("ctl1", "api", long), silent("ctl1", "cache", long), silent("ctl1", "db", long)}, want: []string{"wait ctl1/api.service: overloaded", "wait ctl1/cache.service: overloaded", "wait ctl1/db.service: overloaded"}},
		"a member that is stuck":           {ailing: []Ailing{stuck("ctl1", "db")}, want: []string{"restart ctl1/db.service: all other members serve"}},
		"stuck a moment ago":               {ailing: []Ailing{with(stuck("ctl1", "db"), func(a *Ailing) { a.Stuck = 9 * time.Second })}},
		"two members that are stuck":       {ailing: []Ailing{stuck("ctl1", "db"), stuck("ctl2", "db")}, want: []string{"wait ctl1/db.service: db on ctl2 must serve", "wait ctl2/db.service: db on ctl1 must serve"}},
		"stuck, and being recovered":       {ailing: []Ailing{stuck("ctl1", "db")}, change: func(v *View) { v.Recovering["db"] = true }, want: []string{"wait ctl1/db.service: recovery of db"}},
		"stuck on an overloaded machine":   {ailing: []Ailing{silent("ctl1", "cache", long), silent("ctl1", "api", long), stuck("ctl1", "db")}, want: []string{"restart ctl1/db", "wait ctl1/api.service: overloaded", "wait ctl1/cache.service: overloaded"}},
		"stopped on an overloaded machine": {ailing: []Ailing{silent("ctl1", "cache", long), silent("ctl1", "db", long), stopped("ctl1", "api")}, want: []string{"restart ctl1/api", "wait ctl1/cache.service: overloaded", "wait ctl1/db.service: overloaded"}},
	} {
		t.Run(name, func(t *testing.T) {
			v := whole(now)
			for _, a := range tc.ailing {
				v.ail(a)
			}
			if tc.change != nil {
				tc.change(&v)
			}
			var got []string
			for _, d := range Next(v, tc.record).Decisions {
				got = append(got, fmt.Sprintf("%s %s/%s: %s", d.Act, d.Node, d.Unit, d.Reason))
			}
			slices.Sort(got)
			if len(got) != len(tc.want) {
				t.Fatalf("%q, want %q", got, tc.want)
			}
			for i, want := range tc.want {
				head, part, _ := strings.Cut(want, ": ")
				if !strings.HasPrefix(got[i], head) || !strings.Contains(got[i], part) {
					t.Errorf("%q, want %q", got[i], want)
				}
			}
		})
	}
}

// What was done is forgotten when it has been well for long enough, and not before, nor while nobody knows.
// A member that has served since its restart keeps nobody waiting when it goes down again, for whatever reason.
func TestAMemberThatServedIsNoLongerAwaited(t *testing.T) {
	v := whole(now)
	v.ail(Ailing{Node: "ctl1", Service: "db", Stopped: time.Minute})
	r := Next(v, Record{})
	for _, step := range []struct {
		after  time.Duration
		serves bool
		held   bool
	}{{5 * time.Second, true, true}, {20 * time.Second, false, true}, {40 * time.Second, true, false}, {50 * time.Second, false, false}} {
		v := whole(now.Add(step.after))
		v.Nodes["ctl1"].Serving["db"] = step.serves
		r = Next(v, r)
		if got := r.Holds(v); got != step.held {
			t.Errorf("%s after it was restarted (serves: %t): held %t", step.after, step.serves, got)
		}
	}
}

func TestForget(t *testing.T) {
	old, fresh := tried("ctl1", "api", false, 16*time.Minute), tried("ctl1", "api", false, 14*time.Minute)
	if got := Next(whole(now), old).Units; len(got) != 0 {
		t.Errorf("well for long: %+v", got)
	}
	if got := Next(whole(now), fresh).Units; len(got) != 1 {
		t.Errorf("not for long: %+v", got)
	}
	v := whole(now)
	delete(v.Nodes, "ctl1")
	if got := Next(v, old).Units; len(got) != 1 {
		t.Errorf("the node does not answer: %+v", got)
	}
}

func TestAllows(t *testing.T) {
	v := whole(now)
	v.ail(Ailing{Node: "ctl1", Service: "api", Stopped: time.Minute})
	r := Next(v, Record{})
	if !r.Allows("ctl1", "api.service", 1) {
		t.Errorf("not what it decided: %+v", r)
	}
	for _, no := range []struct {
		node, unit string
		try        int
	}{{"ctl2", "api.service", 1}, {"ctl1", "db.service", 1}, {"ctl1", "api.service", 2}, {"ctl1", "api.service", 0}} {
		if r.Allows(no.node, no.unit, no.try) {
			t.Errorf("allows %+v", no)
		}
	}
	v.Now = now.Add(5 * time.Second)
	if Next(v, r).Allows("ctl1", "api.service", 1) {
		t.Error("the next look wants it no more")
	}
}

// world is a cluster whose units freeze at random, and come back, or not, when they are restarted.
type world struct {
	now     time.Time
	frozen  map[string]time.Time // NODE SERVICE -> since
	away    map[string]time.Time // restarted, not serving again until then
	tries   map[string][]time.Time
	lost    map[string]bool // nodes that do not answer
	records Record
}

func (w *world) view() View {
	v := whole(w.now)
	for _, n := range nodes {
		for _, s := range []string{"db", "broker", "api"} {
			key := n + " " + s
			if since, ok := w.frozen[key]; ok {
				v.ail(Ailing{Node: n, Service: s, Stopped: w.now.Sub(since)})
			} else if w.away[key].After(w.now) {
				v.Nodes[n].Serving[s] = false
			}
		}
	}
	for n := range w.lost {
		delete(v.Nodes, n)
		v.Ailing = slices.DeleteFunc(v.Ailing, func(a Ailing) bool { return a.Node == n })
	}
	return v
}

// Whatever freezes when: no member is restarted while another one of its quorum does not serve, or another member has been taken
// away and is awaited; a unit is not restarted more often than the back-off allows.
func TestSafety(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &world{now: now, frozen: map[string]time.Time{}, away: map[string]time.Time{}, tries: map[string][]time.Time{}, lost: map[string]bool{}}
		for range rapid.IntRange(20, 200).Draw(t, "steps") {
			w.now = w.now.Add(rapid.SampledFrom([]time.Duration{time.Second, 5 * time.Second, time.Minute, 6 * time.Minute}).Draw(t, "passes"))
			n := rapid.SampledFrom(nodes).Draw(t, "node")
			key := n + " " + rapid.SampledFrom([]string{"db", "broker", "api"}).Draw(t, "service")
			switch rapid.IntRange(0, 5).Draw(t, "event") {
			case 0, 1:
				if _, ok := w.frozen[key]; !ok {
					w.frozen[key] = w.now
				}
			case 2:
				delete(w.frozen, key)
			case 3:
				w.lost[n] = true
			case 4:
				delete(w.lost, n)
			}
			v := w.view()
			w.records = Next(v, w.records)
			members := 0
			for _, d := range w.records.Restarts() {
				key := d.Node + " " + d.Service
				if d.Service != "api" {
					members++
					for _, other := range nodes {
						if other != d.Node && !v.Nodes[other].Serving[d.Service] {
							t.Fatalf("%s is taken away while %s on %s does not serve", key, d.Service, other)
						}
					}
					for other, until := range w.away {
						if other != key && until.After(w.now) && !strings.HasSuffix(other, "api") {
							t.Fatalf("%s is taken away while %s is awaited", key, other)
						}
					}
				}
				if i := len(w.tries[key]); i > 0 && d.Try > 1 && w.now.Sub(w.tries[key][i-1]) < backOff[d.Try-2] {
					t.Fatalf("%s is restarted again after %s only", key, w.now.Sub(w.tries[key][i-1]))
				}
				if d.Try > Tries() {
					t.Fatalf("%s is restarted for the %dth time", key, d.Try)
				}
				w.tries[key] = append(w.tries[key], w.now)
				if rapid.Bool().Draw(t, "mends") {
					delete(w.frozen, key)
					w.away[key] = w.now.Add(rapid.SampledFrom([]time.Duration{time.Second, 2 * time.Minute}).Draw(t, "takes"))
				} else {
					w.frozen[key] = w.now
				}
			}
			if members > 1 {
				t.Fatalf("%d members are restarted at once", members)
			}
		}
	})
}

// A single frozen unit in a cluster that is otherwise whole is restarted.
func TestProgress(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := whole(now)
		v.ail(Ailing{Node: rapid.SampledFrom(nodes).Draw(t, "node"), Service: rapid.SampledFrom([]string{"db", "broker", "api"}).Draw(t, "service"),
			Stopped: rapid.Custom(func(t *rapid.T) time.Duration {
				return time.Duration(rapid.IntRange(10, 1000).Draw(t, "seconds")) * time.Second
			}).Draw(t, "stopped")})
		if got := Next(v, Record{}).Restarts(); len(got) != 1 {
			t.Fatalf("%+v", got)
		}
	})
}
