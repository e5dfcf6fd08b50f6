package openstack

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"nines/internal/health"
	"nines/internal/model"
	"nines/internal/service"
)

// Reports is a table in which daemons note now and then that they work. A daemon that answers nobody
// directly is known by it alone: its report goes the way of its work.
type Reports struct {
	Database string
	// Query returns program, host, age of the last report in seconds, and whether it is kept from work.
	Query string
	// Limit is the age from which the service itself gives the daemon no work.
	Limit time.Duration
}

const (
	// reportsEvery is how often the table is read: reports come seconds apart.
	reportsEvery = 5 * time.Second
	// reportsPatience bounds a read, well below the time that an observation may take.
	reportsPatience = 300 * time.Millisecond
)

// Facts of an observation: factReports says whether the table was read, factReport+PROGRAM+" "+HOST how
// many seconds old a report is, followed by " disabled" where the daemon is kept from work.
const (
	factReports = "reports"
	factReport  = "report "
	reportsRead = "read"
)

// reportsReader reads the table now and then and keeps what it read. The zero value is ready to use.
type reportsReader struct {
	mu    sync.Mutex
	at    time.Time
	facts map[string]string
	read  func(context.Context, Reports) (map[string]string, error) // tests replace it
}

// seen returns the facts, read anew when they are old.
func (r *reportsReader) seen(ctx context.Context, now time.Time, t Reports) map[string]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.facts != nil && now.Sub(r.at) < reportsEvery {
		return r.facts
	}
	read := r.read
	if read == nil {
		read = readReports
	}
	ctx, cancel := context.WithTimeout(ctx, reportsPatience)
	defer cancel()
	facts, err := read(ctx, t)
	if err != nil {
		facts = map[string]string{factReports: "unknown: " + oneLine(err)}
	}
	r.at, r.facts = now, facts
	return facts
}

// readReports reads the table of the node's own database.
func readReports(ctx context.Context, t Reports) (map[string]string, error) {
	db, err := OpenLocal(t.Database)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	rows, err := db.QueryContext(ctx, t.Query)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	facts := map[string]string{factReports: reportsRead}
	for rows.Next() {
		var program, host string
		var age sql.NullInt64
		var disabled sql.NullBool
		if err := rows.Scan(&program, &host, &age, &disabled); err != nil {
			return nil, err
		}
		if age.Valid {
			facts[factReport+program+" "+host] = report{int(age.Int64), disabled.Bool}.String()
		}
	}
	return facts, rows.Err()
}

// report is the last of a daemon.
type report struct {
	age      int // seconds
	disabled bool
}

func (r report) String() string {
	if r.disabled {
		return fmt.Sprintf("%d disabled", r.age)
	}
	return strconv.Itoa(r.age)
}

func parseReport(text string) (report, bool) {
	number, rest, _ := strings.Cut(text, " ")
	age, err := strconv.Atoi(number)
	return report{age, rest == "disabled"}, err == nil
}

// latest merges what the controllers read: of each daemon the youngest report. known: one of them could read.
func latest(seen map[string]service.Observation) (reports map[string]report, known bool) {
	reports = map[string]report{}
	for _, node := range slices.Sorted(maps.Keys(seen)) {
		facts := seen[node].Facts
		known = known || facts[factReports] == reportsRead
		for key, value := range facts {
			name, ok := strings.CutPrefix(key, factReport)
			r, valid := parseReport(value)
			if !ok || !valid {
				continue
			}
			if have, again := reports[name]; !again || r.age < have.age {
				reports[name] = r
			}
		}
	}
	return reports, known
}

// reporting: the cluster has daemons that report.
func (s *Service) reporting(c *model.Cluster) bool {
	return s.Desc.Reports != nil && slices.ContainsFunc(s.daemons(c), func(d Daemon) bool { return d.Reports != "" })
}

// judgeReports says which daemons do not report.
func (s *Service) judgeReports(c *model.Cluster, seen map[string]service.Observation) []health.Condition {
	if !s.reporting(c) {
		return nil
	}
	reports, known := latest(seen)
	if !known {
		return nil // that the database cannot be read is its own service's matter
	}
	var out []health.Condition
	for _, d := range s.daemons(c) {
		if d.Reports != "" {
			out = append(out, s.judgeDaemon(c, d, reports)...)
		}
	}
	return out
}

// never is the age of a report that was never made.
const never = 24 * time.Hour

// Unreported implements service.Reporter. Who reports for whichever node it runs on is left out: which one that is the report does not say.
func (s *Service) Unreported(c *model.Cluster, n model.Node, seen service.Observation) map[string]time.Duration {
	if !s.reporting(c) {
		return nil
	}
	reports, known := latest(map[string]service.Observation{n.Name: seen})
	if !known {
		return nil
	}
	out := map[string]time.Duration{}
	for _, d := range s.daemons(c) {
		if d.Reports == "" || d.ReportsAs != "" || !d.on(n) {
			continue
		}
		age := never
		if r, ok := reports[d.Reports+" "+n.Name]; ok {
			age = time.Duration(r.age) * time.Second
		}
		if age > s.Desc.Reports.Limit {
			out[d.Unit] = age
		}
	}
	return out
}

// reporter is who should report: a host, and the node that it is (none: it is on whichever node the daemon runs).
type reporter struct{ host, node string }

func (d Daemon) reporters(c *model.Cluster) []reporter {
	if d.ReportsAs != "" {
		return []reporter{{host: d.ReportsAs}}
	}
	var out []reporter
	for _, n := range c.Nodes {
		if d.on(n) {
			out = append(out, reporter{n.Name, n.Name})
		}
	}
	return out
}

// judgeDaemon judges the reports of one daemon on all its nodes.
func (s *Service) judgeDaemon(c *model.Cluster, d Daemon, reports map[string]report) []health.Condition {
	var out []health.Condition
	expected, silent := d.reporters(c), 0
	for _, w := range expected {
		r, ok := reports[d.Reports+" "+w.host]
		text := fmt.Sprintf("%s last reported %d s ago", d.Reports, r.age)
		if !ok {
			text = d.Reports + " has never reported"
		}
		switch {
		case !ok || time.Duration(r.age)*time.Second > s.Desc.Reports.Limit:
			silent++
			out = append(out, health.Condition{Code: "daemon-silent", Follows: s.Desc.Service, Severity: health.Warning, Node: w.node, Text: text + ": it gets no work",
				Hint: fmt.Sprintf("see 'journalctl -u %s' on %s; do the database and the broker serve?", d.Unit, cmp.Or(w.node, "the controllers"))})
		case r.disabled:
			out = append(out, health.Condition{Code: "daemon-disabled", Severity: health.Notice, Node: w.node, Text: d.Reports + " is kept from new work",
				Hint: "somebody disabled it, or it disabled itself; the service's own list says why"})
		}
	}
	if silent > 0 && silent == len(expected) {
		for i := range out {
			out[i].Severity = health.Critical // nobody does its work
		}
	}
	slices.SortFunc(out, func(a, b health.Condition) int { return cmp.Compare(a.Node, b.Node) })
	return out
}
