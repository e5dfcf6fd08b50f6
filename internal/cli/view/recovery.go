package view

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"nines/internal/api"
	"nines/internal/service/galera/recovery"
	rabbit "nines/internal/service/rabbitmq/recovery"
)

// GaleraRecovery shows what is known of a database's members, what follows from it, and what was done so far.
func GaleraRecovery(w io.Writer, r api.Recovery, members []string) {
	rows := [][]string{{"NODE", "SERVER", "COPY", "POSITION", "GRASTATE", "SAVED VIEW"}}
	for _, n := range members {
		rows = append(rows, memberRow(n, r))
	}
	table(w, "", rows)
	var l recovery.Lineage
	if json.Unmarshal(r.Lineage, &l) == nil && l.UUID != "" {
		var seqnos []string
		for _, n := range members {
			if s, ok := l.Seqno[n]; ok {
				seqnos = append(seqnos, fmt.Sprintf("%s %d", n, s))
			}
		}
		fmt.Fprintf(w, "\non record: the Primary of %s was %s; last committed: %s (written %s)\n", l.UUID, strings.Join(l.Members, ", "),
			strings.Join(seqnos, ", "), l.At.Local().Format(time.DateTime))
	} else {
		fmt.Fprintln(w, "\non record: nothing; the database was never seen whole")
	}
	decided(w, r)
}

// RabbitMQRecovery shows the same of a broker's members.
func RabbitMQRecovery(w io.Writer, r api.Recovery, members []string) {
	rows := [][]string{{"NODE", "BROKER", "FOR", "LAST SAW RUNNING", "CLUSTER"}}
	for _, n := range members {
		rows = append(rows, brokerRow(n, r))
	}
	table(w, "", rows)
	var l rabbit.Lineage
	if json.Unmarshal(r.Lineage, &l) == nil && len(l.Running) > 0 {
		fmt.Fprintf(w, "\non record: %s served together in %s (written %s)\n", strings.Join(l.Running, ", "), l.Cluster, l.At.Local().Format(time.DateTime))
	} else {
		fmt.Fprintln(w, "\non record: nothing; the broker was never seen whole")
	}
	decided(w, r)
}

func brokerRow(n string, r api.Recovery) []string {
	var e rabbit.Evidence
	raw, ok := r.Evidence[n]
	if !ok || json.Unmarshal(raw, &e) != nil {
		return []string{n, "not known", "-", "-", strings.ReplaceAll(r.Absent[n], "\n", " ")}
	}
	broker, last, cluster := string(e.Broker), strings.Join(e.Last, ", "), e.Cluster
	if e.Busy != "" {
		broker += ", " + e.Busy
	}
	switch {
	case e.Empty:
		last, cluster = "-", "holds no state"
	case e.SavedError != "":
		cluster = e.SavedError
	}
	if e.Broker == rabbit.Serving {
		last = "sees " + strings.Join(e.Running, ", ")
	}
	return []string{n, broker, e.For.Round(time.Second).String(), last, cluster}
}

// decided shows what follows from the evidence, and what was done so far.
func decided(w io.Writer, r api.Recovery) {
	m := r.Now
	fmt.Fprintf(w, "\ndiagnosis: %s\n  because  %s\n  so       %s\n", m.Diagnosis, m.Reason, strings.TrimSpace(m.Act+" "+m.Node))
	if m.Hint != "" {
		fmt.Fprintf(w, "  ->       %s\n", m.Hint)
	}
	rec := r.Record
	if rec.Epoch == 0 {
		return
	}
	state := "over since " + rec.Finished.Local().Format(time.DateTime)
	if rec.Open {
		state = "under way since " + rec.Since.Local().Format(time.DateTime)
	}
	fmt.Fprintf(w, "\nrecovery, epoch %d: %s, led by %s\n", rec.Epoch, state, rec.Leader)
	if rec.Who != "" {
		fmt.Fprintf(w, "  begun by %s%s\n", rec.Who, chose(rec.Choice))
	}
	for _, line := range rec.Log {
		if line.At.Before(rec.Since) {
			continue // another outage
		}
		fmt.Fprintf(w, "  %s  epoch %d: %s\n", line.At.Local().Format(time.TimeOnly), line.Epoch, line.Text)
	}
}

func chose(node string) string {
	if node == "" {
		return ""
	}
	return ", who chose " + node
}

func memberRow(n string, r api.Recovery) []string {
	var e recovery.Evidence
	raw, ok := r.Evidence[n]
	if !ok || json.Unmarshal(raw, &e) != nil {
		return []string{n, "not known", "-", "-", "-", strings.ReplaceAll(r.Absent[n], "\n", " ")}
	}
	server := string(e.Server)
	switch {
	case e.Founds:
		server += ", founding"
	case e.Starting:
		server += ", starting"
	}
	if e.Busy != "" {
		server += ", " + e.Busy
	}
	class, at := recovery.Classify(e)
	quality := string(class)
	if e.Server == recovery.Primary {
		quality = "in use"
	}
	position, saved, view := "-", "none", "none"
	switch {
	case !at.None():
		position = at.String()
	case !e.Live.None():
		position = e.Live.String()
	}
	switch {
	case e.SavedError != "":
		saved = e.SavedError
	case e.Saved != nil:
		saved = e.Saved.String()
		if e.Saved.SafeToBootstrap {
			saved += ", safe to bootstrap"
		}
	}
	if e.View != nil {
		view = fmt.Sprintf("%d members, %s", len(slices.Compact(slices.Clone(e.View.Members))), e.View.ID)
	}
	return []string{n, server, quality, position, saved, view}
}
