// Package disk judges how much room the file systems of nodes have, and what follows: who is to be taken out of the quorums
// before its disk is full. It is pure.
//
// Invariants: a disk that fills is told before it is full, also if it fills fast; at most one node at a time is taken out, and only while
// the others have a majority of every quorum without it. It must never decide from one measurement: a file that
// was copied once is no rate.
package disk

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"nines/internal/health"
	"nines/internal/model"
)

// Where it begins to matter.
const (
	// shortRoom is free space with which a member must not go on: RabbitMQ blocks all publishers of the cluster at half of it, and MariaDB needs
	// room for what it has in memory.
	shortRoom = 1 << 30
	// lowRoom is little enough to say so, and enough for a member that was taken out to come back.
	lowRoom = 2 << 30
	// reaction is how long it may take from here until a member has stopped.
	reaction = 20 * time.Second
	// soon is when a disk that fills is worth a word.
	soon = 24 * time.Hour
)

// A rate holds if both halves of a window show it.
const (
	fastHalf  = 5 * time.Second
	slowHalf  = 15 * time.Minute
	slowEvery = time.Minute
)

// Level is how full a file system is.
type Level struct {
	Path  string `json:"path"`
	Free  int64  `json:"free"`
	Total int64  `json:"total"`
	// Rate is by how many bytes a second the free space shrinks, as far as that lasts.
	Rate int64 `json:"rate,omitempty"`
	// Short: it is, or will be in seconds, too full for a member to go on.
	Short bool `json:"short,omitempty"`
}

// Left is when the disk is full at this rate; false: it does not fill.
func (l Level) Left() (time.Duration, bool) {
	if l.Rate <= 0 {
		return 0, false
	}
	return time.Duration(float64(l.Free) / float64(l.Rate) * float64(time.Second)), true
}

// String says it in words: "1.2 GB of 20.0 GB are free in /var/lib; at 3.1 MB/s it is full in 6 min".
func (l Level) String() string {
	s := fmt.Sprintf("%.1f GB of %.1f GB are free in %s", float64(l.Free)/1e9, float64(l.Total)/1e9, l.Path)
	if left, ok := l.Left(); ok {
		s += fmt.Sprintf("; at %.1f MB/s it is full in %s", float64(l.Rate)/1e6, words(left))
	}
	return s
}

func words(d time.Duration) string {
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d < 2*time.Hour:
		return fmt.Sprintf("%.0f min", d.Minutes())
	}
	return fmt.Sprintf("%.0f h", d.Hours())
}

type sample struct {
	at   time.Time
	free int64
}

// Meter remembers how the free space of a file system went.
type Meter struct {
	fast, slow []sample // the oldest first
	short      bool
}

// Note takes a measurement, about one a second, and judges.
func (m *Meter) Note(now time.Time, path string, free, total int64) Level {
	m.fast = keep(append(m.fast, sample{now, free}), now, 2*fastHalf)
	if n := len(m.slow); n == 0 || now.Sub(m.slow[n-1].at) >= slowEvery {
		m.slow = keep(append(m.slow, sample{now, free}), now, 2*slowHalf)
	}
	quick := rate(m.fast, fastHalf)
	l := Level{Path: path, Free: free, Total: total, Rate: max(quick, rate(m.slow, slowHalf))}
	ahead := free - quick*int64(reaction/time.Second)
	m.short = ahead < shortRoom || m.short && ahead < lowRoom
	l.Short = m.short
	return l
}

// keep drops what is older than the window, but for the last one before it.
func keep(s []sample, now time.Time, window time.Duration) []sample {
	for len(s) > 1 && now.Sub(s[1].at) >= window {
		s = s[1:]
	}
	return s
}

// rate is by how much the free space shrinks a second, in both of the last two halves; 0 if they are not known yet.
func rate(s []sample, half time.Duration) int64 {
	last := s[len(s)-1]
	if last.at.Sub(s[0].at) < 2*half {
		return 0
	}
	i := slices.IndexFunc(s, func(x sample) bool { return last.at.Sub(x.at) <= half })
	return max(0, min(speed(s[0], s[i]), speed(s[i], last)))
}

func speed(a, b sample) int64 {
	t := b.at.Sub(a.at).Seconds()
	if t <= 0 {
		return 0
	}
	return int64(float64(a.free-b.free) / t)
}

// Member is a node that has members of quorums.
type Member struct {
	Name  string
	Known bool // its agent answers
	Short bool
	Free  int64
	// Serves says of each quorum whether the node's member serves in it.
	Serves map[string]bool
}

// Act is what is to be done with a node.
type Act string

// The acts.
const (
	Nothing Act = ""
	Drain   Act = "drain"   // its members are stopped
	Restore Act = "restore" // and started again
)

// Decision is what follows, and why nothing does although a disk is short.
type Decision struct {
	Act    Act
	Node   string
	Reason string
}

// Decide says who is taken out, or comes back. drained is who is out already, "": nobody.
func Decide(members []Member, drained string) Decision {
	if i := slices.IndexFunc(members, func(m Member) bool { return m.Name == drained }); i >= 0 {
		m := members[i]
		switch {
		case !m.Known:
			return Decision{Node: drained, Reason: drained + " is out, and its agent does not answer"}
		case !m.Short:
			return Decision{Act: Restore, Node: drained, Reason: "there is room again"}
		case !m.serves(): // one at a time
			return Decision{Node: drained, Reason: drained + " is out"}
		}
		return drainIf(members, m) // it was started again, perhaps with its machine
	}
	var short []Member
	for _, m := range members {
		if m.Known && m.Short {
			short = append(short, m)
		}
	}
	if len(short) == 0 {
		return Decision{}
	}
	return drainIf(members, slices.MinFunc(short, func(a, b Member) int { return int(a.Free>>20) - int(b.Free>>20) }))
}

func (m Member) serves() bool {
	for _, s := range m.Serves {
		if s {
			return true
		}
	}
	return false
}

// drainIf takes m out if every quorum has a majority without it.
func drainIf(members []Member, m Member) Decision {
	var quorums []string
	for q := range m.Serves {
		quorums = append(quorums, q)
	}
	slices.Sort(quorums)
	for _, q := range quorums {
		others := 0
		for _, o := range members {
			if o.Name != m.Name && o.Known && o.Serves[q] {
				others++
			}
		}
		if others < model.Quorum(len(members)) {
			return Decision{Node: m.Name, Reason: fmt.Sprintf("without it %d of %d members of %s serve", others, len(members), q)}
		}
	}
	return Decision{Act: Drain, Node: m.Name, Reason: "its disk is nearly full"}
}

// Conditions says what is to be said of a node's file systems. out: its members were stopped for them; why says
// why they were not, where that was needed.
func Conditions(node string, levels []Level, out bool, why string) []health.Condition {
	const hint = "free space on the node ('du -xh / | sort -h | tail', 'journalctl --vacuum-size=100M', 'apt-get clean'), or give it a larger disk"
	var list []health.Condition
	var short []string
	for _, l := range levels {
		left, fills := l.Left()
		if l.Short {
			short = append(short, l.String())
		}
		if l.Short || l.Free < lowRoom || fills && left < soon {
			c := health.Condition{Code: "disk-filling", Severity: health.Warning, Node: node, Text: l.String(), Hint: hint}
			if l.Short && !out {
				c.Severity = health.Critical
				if why != "" {
					c.Text += "; its members go on: " + why
				}
			}
			list = append(list, c)
		}
	}
	if out {
		text := "its members of the database and the broker are stopped until there is room again, so that its full disk stops nobody else"
		if len(short) > 0 {
			text += ": " + strings.Join(short, "; ")
		}
		list = append(list, health.Condition{Code: "disk-drained", Severity: health.Warning, Node: node, Text: text, Hint: hint + "; they are started by themselves then"})
	}
	return list
}
