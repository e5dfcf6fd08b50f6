package config

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Problem is one thing that is wrong in cluster.yaml.
type Problem struct {
	File   string `json:"file"`
	Line   int    `json:"line"`   // from 1
	Column int    `json:"column"` // from 1, in characters
	Text   string `json:"text"`   // what is wrong
	Right  string `json:"right"`  // what would be right; may be empty
	Source string `json:"source"` // the line itself
}

// String returns the problem with the line it stands in and a mark below the place.
func (p Problem) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%d:%d: %s\n", p.File, p.Line, p.Column, p.Text)
	if strings.TrimSpace(p.Source) != "" {
		number := strconv.Itoa(p.Line)
		fmt.Fprintf(&b, "  %s | %s\n", number, p.Source)
		fmt.Fprintf(&b, "  %s | %s^\n", strings.Repeat(" ", len(number)), pad(p.Source, p.Column-1))
	}
	if p.Right != "" {
		fmt.Fprintf(&b, "  right: %s\n", p.Right)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// pad returns white space as wide as the first n characters of the line: tabs stay tabs.
func pad(line string, n int) string {
	var b strings.Builder
	for i, r := range []rune(line) {
		if i >= n {
			break
		}
		if r == '\t' {
			b.WriteRune('\t')
		} else {
			b.WriteByte(' ')
		}
	}
	return b.String()
}

// Errors is everything that is wrong in one file, in the order of its lines.
type Errors struct {
	Problems []Problem `json:"problems"`
}

func (e *Errors) Error() string {
	parts := make([]string, 0, len(e.Problems)+1)
	for _, p := range e.Problems {
		parts = append(parts, p.String())
	}
	if len(e.Problems) > 1 {
		parts = append(parts, fmt.Sprintf("%d problems in %s", len(e.Problems), e.Problems[0].File))
	}
	return strings.Join(parts, "\n")
}

func (p *decoder) report(at position, text, right string) {
	p.problems = append(p.problems, Problem{File: p.name, Line: at.line, Column: at.column, Text: text, Right: right})
}

func (p *decoder) failed() bool { return len(p.problems) > 0 }

// errors returns the problems sorted, with their source lines.
func (p *decoder) errors() *Errors {
	// YAML ends lines at CR, LF and CR LF.
	lines := strings.Split(strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(string(p.text)), "\n")
	out := slices.Clone(p.problems)
	for i := range out {
		q := &out[i]
		q.Line, q.Column = min(max(q.Line, 1), len(lines)), max(q.Column, 1)
		q.Source = clean(lines[q.Line-1])
	}
	slices.SortStableFunc(out, func(a, b Problem) int {
		return cmp.Or(a.Line-b.Line, a.Column-b.Column, cmp.Compare(a.Text, b.Text))
	})
	return &Errors{Problems: slices.Compact(out)}
}

// clean makes a line safe to print: no control characters, a bounded length.
func clean(line string) string {
	line = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || r < ' ' && r != '\t' || r == 0x7f {
			return '?'
		}
		return r
	}, line)
	if r := []rune(line); len(r) > 160 {
		return string(r[:160])
	}
	return line
}
