// Package view turns plans, status and results into text for people. The JSON of
// the same things is their own encoding. It is pure: it writes to the io.Writer it is given
// and reads nothing.
package view

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// table writes rows in aligned columns. A short row leaves the rest of its columns empty.
func table(w io.Writer, indent string, rows [][]string) {
	var aligned strings.Builder
	t := tabwriter.NewWriter(&aligned, 0, 0, 2, ' ', 0)
	width := 0
	for _, r := range rows {
		width = max(width, len(r))
	}
	for _, r := range rows {
		// A column ends for tabwriter where a row has no cell in it.
		fmt.Fprintln(t, indent+strings.Join(r, "\t")+strings.Repeat("\t", width-len(r)))
	}
	t.Flush()
	for line := range strings.Lines(aligned.String()) {
		fmt.Fprintln(w, strings.TrimRight(line, " \n"))
	}
}

// Duration shows a duration as people read it: 0.3 s, 12.4 s, 2 min 5 s.
func Duration(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%d min %d s", int(d.Minutes()), int(d.Seconds())%60)
	default:
		return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
	}
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
