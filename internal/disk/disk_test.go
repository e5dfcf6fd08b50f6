package disk

import (
	"strings"
	"testing"
	"time"

	"nines/internal/health"
)

const gib = 1 << 30

// fill has a meter see a disk that begins with free bytes and loses so many a second.
func fill(m *Meter, at time.Time, free, perSecond int64, seconds int) (Level, time.Time) {
	var l Level
	for range seconds {
		l = m.Note(at, "/var/lib", free, 20*gib)
		at, free = at.Add(time.Second), max(0, free-perSecond)
	}
	return l, at
}

func TestMeter(t *testing.T) {
	start := time.Unix(1_800_000_000, 0)
	t.Run("rests", func(t *testing.T) {
		l, _ := fill(&Meter{}, start, 10*gib, 0, 4000)
		if l.Rate != 0 || l.Short {
			t.Errorf("%+v", l)
		}
	})
	t.Run("one large file is no rate", func(t *testing.T) {
		var m Meter
		_, at := fill(&m, start, 18*gib, 0, 60)
		for s := range 30 {
			if l := m.Note(at.Add(time.Duration(s)*time.Second), "/var/lib", 6*gib, 20*gib); l.Short || l.Rate != 0 {
				t.Fatalf("after %d s: %+v", s, l)
			}
		}
	})
	t.Run("fills fast", func(t *testing.T) {
		var m Meter
		_, at := fill(&m, start, 6*gib, 0, 30)
		free := int64(6 * gib)
		for s := 0; ; s++ {
			l := m.Note(at.Add(time.Duration(s)*time.Second), "/var/lib", free, 20*gib)
			if l.Short {
				if left := free / (200 << 20); left < 10 || s < 5 {
					t.Errorf("told after %d s, with %d s left", s, left)
				}
				break
			}
			free -= 200 << 20
		}
	})
	t.Run("fills slowly", func(t *testing.T) {
		l, _ := fill(&Meter{}, start, 10*gib, 1<<20, 31*60)
		left, ok := l.Left()
		if l.Short || !ok || left < 2*time.Hour || left > 3*time.Hour || !strings.Contains(l.String(), "at 1.0 MB/s it is full in 2 h") {
			t.Errorf("%v: %v", l, left)
		}
	})
	t.Run("comes back only with room to spare", func(t *testing.T) {
		var m Meter
		for _, tc := range []struct {
			free  int64
			short bool
		}{{gib - 1, true}, {gib + 1, true}, {2*gib - 1, true}, {2 * gib, false}, {gib + 1, false}} {
			if l := m.Note(start, "/", tc.free, 20*gib); l.Short != tc.short {
				t.Errorf("%d free: short %t", tc.free, l.Short)
			}
		}
	})
}

func TestDecide(t *testing.T) {
	all := func(change func(ms []Member)) []Member {
		var ms []Member
		for _, n := range []string{"ctl1", "ctl2", "ctl3"} {
			ms = append(ms, Member{Name: n, Known: true, Free: 9 * gib, Serves: map[string]bool{"galera": true, "rabbitmq": true}})
		}
		change(ms)
		return ms
	}
	short := func(i int, free int64) func([]Member) {
		return func(ms []Member) { ms[i].Short, ms[i].Free = true, free }
	}
	stopped := func(i int) func([]Member) {
		return func(ms []Member) { ms[i].Serves = map[string]bool{"galera": false, "rabbitmq": false} }
	}
	both := func(fs ...func([]Member)) func([]Member) {
		return func(ms []Member) {
			for _, f := range fs {
				f(ms)
			}
		}
	}
	for name, tc := range map[string]struct {
		change  func([]Member)
		drained string
		act     Act
		node    string
		says    string
	}{
		"all is well":                        {func([]Member) {}, "", Nothing, "", ""},
		"one is short":                       {short(1, gib), "", Drain, "ctl2", ""},
		"the shortest first":                 {both(short(0, 3*gib), short(2, gib)), "", Drain, "ctl3", ""},
		"another does not serve":             {both(short(1, gib), func(ms []Member) { ms[0].Serves["rabbitmq"] = false }), "", Nothing, "ctl2", "1 of 3 members of rabbitmq"},
		"another does not answer":            {both(short(1, gib), func(ms []Member) { ms[0] = Member{Name: "ctl1"} }), "", Nothing, "ctl2", "1 of 3 members of galera"},
		"never two":                          {both(short(1, gib), stopped(1), short(2, 0)), "ctl2", Nothing, "ctl2", ""},
		"stays out":                          {both(short(1, gib), stopped(1)), "ctl2", Nothing, "ctl2", ""},
		"was started with its machine":       {short(1, gib), "ctl2", Drain, "ctl2", ""},
		"comes back":                         {stopped(1), "ctl2", Restore, "ctl2", ""},
		"its agent has no room to live":      {func(ms []Member) { ms[1] = Member{Name: "ctl2"} }, "ctl2", Nothing, "ctl2", "does not answer"},
		"who is out is no member any longer": {short(0, gib), "ctl9", Drain, "ctl1", ""},
	} {
		t.Run(name, func(t *testing.T) {
			d := Decide(all(tc.change), tc.drained)
			if d.Act != tc.act || d.Node != tc.node || !strings.Contains(d.Reason, tc.says) {
				t.Errorf("%+v", d)
			}
		})
	}
}

func TestConditions(t *testing.T) {
	full := Level{Path: "/var/lib", Free: gib / 2, Total: 20 * gib, Rate: 1 << 20, Short: true}
	for name, tc := range map[string]struct {
		levels []Level
		out    bool
		want   []string
	}{
		"room":              {[]Level{{Free: 9 * gib}}, false, nil},
		"fills in a week":   {[]Level{{Free: 9 * gib, Rate: 10 << 10}}, false, nil},
		"fills in an hour":  {[]Level{{Free: 9 * gib, Rate: 2 << 20}}, false, []string{"disk-filling warning"}},
		"low":               {[]Level{{Free: lowRoom - 1}}, false, []string{"disk-filling warning"}},
		"short, not helped": {[]Level{full}, false, []string{"disk-filling critical"}},
		"short, and out":    {[]Level{full}, true, []string{"disk-filling warning", "disk-drained warning"}},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, c := range Conditions("ctl1", tc.levels, tc.out, "") {
				if c.Hint == "" || c.Node != "ctl1" {
					t.Errorf("%+v", c)
				}
				got = append(got, c.Code+" "+string(c.Severity))
			}
			if strings.Join(got, ",") != strings.Join(tc.want, ",") {
				t.Errorf("%q, want %q", got, tc.want)
			}
		})
	}
	if c := Conditions("ctl1", []Level{full}, false, "the others are away")[0]; c.Severity != health.Critical || !strings.Contains(c.Text, "the others are away") {
		t.Errorf("%+v", c)
	}
}
