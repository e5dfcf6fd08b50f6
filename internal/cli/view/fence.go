package view

import (
	"fmt"
	"io"

	"nines/internal/api"
)

// FenceTests shows what the BMCs answered, and to whom.
func FenceTests(w io.Writer, tests []api.FenceTest) {
	rows := [][]string{{"NODE", "BMC", "ASKED BY", "POWER", "TOOK", "CERTIFICATE", ""}}
	for _, t := range tests {
		if t.Error != "" {
			rows = append(rows, []string{"-", "-", t.From, "-", "-", "-", t.Error})
			continue
		}
		for _, r := range t.Results {
			verdict := "ok"
			if r.Trouble != "" {
				verdict = string(r.Trouble) + ": " + r.Text
			}
			bmc := fmt.Sprintf("%s %s", r.Protocol, r.Address)
			if r.Level > 1 {
				bmc += " (second)"
			}
			rows = append(rows, []string{r.Node, bmc, dash(t.From), dash(string(r.Power)), Duration(r.Took), dash(short(r.Fingerprint)), verdict})
		}
	}
	table(w, "", rows)
}

// short is as much of a fingerprint as a person compares.
func short(fingerprint string) string {
	const enough = 16
	if len(fingerprint) > enough {
		return fingerprint[:enough]
	}
	return fingerprint
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
