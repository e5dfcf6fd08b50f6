package live

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	tea "github.com/charmbracelet/bubbletea"
	"github.com/charmbracelet/lipgloss"

	"nines/internal/progress"
)

const (
	refresh     = 100 * time.Millisecond
	showCursor  = "\x1b[?25h"
	fewestLines = 3 // running tasks that are shown on the smallest terminal
)

var spinner = []string{"⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"}

// onTerminal draws the board until f returns. The program reads no input, so the
// terminal is never in raw mode and Ctrl-C ends ctx as everywhere else.
func onTerminal(ctx context.Context, out *os.File, title string, f func(ctx context.Context, emit progress.Emit) error) error {
	b := newBoard()
	m := &screen{ctx: ctx, title: title, board: b, began: time.Now(), style: newStyle(lipgloss.NewRenderer(out)), height: 24}
	program := tea.NewProgram(m, tea.WithOutput(out), tea.WithInput(nil), tea.WithoutSignalHandler(), tea.WithoutCatchPanics())
	finished := make(chan error, 1)
	go func() {
		defer func() {
			if r := recover(); r != nil {
				fmt.Fprint(out, showCursor)
				panic(r)
			}
		}()
		err := f(ctx, func(e progress.Event) { b.note(e, time.Now()) })
		finished <- err
		program.Send(ended{err})
	}()
	if _, err := program.Run(); err != nil {
		// The view is gone, not the work: wait for it.
		fmt.Fprintf(out, "%sprogress cannot be shown: %v\n", showCursor, err)
	}
	return <-finished
}

// ended says that the work has returned.
type ended struct{ err error }

type tick time.Time

// screen is the view's model.
type screen struct {
	ctx    context.Context // only asked whether it has ended, to say so
	title  string
	board  *board
	began  time.Time
	style  style
	frame  int
	height int
	over   *ended
}

func next() tea.Cmd { return tea.Tick(refresh, func(t time.Time) tea.Msg { return tick(t) }) }

func (s *screen) Init() tea.Cmd { return next() }

func (s *screen) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		s.height = msg.Height
	case tick:
		s.frame++
		return s, tea.Batch(s.flush(), next())
	case ended:
		s.over = &msg
		return s, tea.Sequence(s.flush(), tea.Quit)
	}
	return s, nil
}

// flush prints what has ended above the view, where it scrolls away like any output.
func (s *screen) flush() tea.Cmd {
	var text []string
	for _, t := range s.board.take() {
		text = append(text, s.finished(t))
	}
	if s.over != nil {
		// The failures last, where the eye is, and in the scroll-back: there
		// may be more of them than the terminal has lines.
		for _, t := range s.board.look().failed {
			text = append(text, s.finished(t))
		}
	}
	if len(text) == 0 {
		return nil
	}
	return tea.Println(strings.Join(text, "\n"))
}

func (s *screen) View() string {
	now, l := time.Now(), s.board.look()
	var b strings.Builder
	if s.over != nil {
		return s.summary(l, now) + "\n"
	}
	const linesOfFailure = 2
	failed := l.failed[max(0, len(l.failed)-s.height/(2*linesOfFailure)):]
	for _, t := range failed {
		b.WriteString(s.finished(t) + "\n")
	}
	room := max(s.height-len(failed)*linesOfFailure-4, fewestLines)
	for i, t := range l.running {
		if i == room {
			fmt.Fprintf(&b, "    %s\n", s.style.dim.Render(fmt.Sprintf("and %d more", len(l.running)-room)))
			break
		}
		b.WriteString(s.running(t, now) + "\n")
	}
	b.WriteString(s.heading(l, now) + "\n")
	return b.String()
}

func (s *screen) running(t task, now time.Time) string {
	line := fmt.Sprintf("  %s %s  %s", s.style.busy.Render(spinner[s.frame%len(spinner)]), oneLine(t.Title), s.style.dim.Render(duration(t.took(now))))
	if t.Detail != "" {
		line += s.style.dim.Render("  " + oneLine(t.Detail))
	}
	return line
}

func (s *screen) finished(t task) string {
	took := s.style.dim.Render(duration(t.took(t.ended)))
	detail := oneLine(t.Detail)
	switch t.State {
	case progress.Failed:
		return fmt.Sprintf("  %s %s  %s\n      %s", s.style.bad.Render("✗"), oneLine(t.Title), took, s.style.bad.Render(detail))
	case progress.Skipped:
		return s.style.dim.Render(strings.TrimRight(fmt.Sprintf("  – %s  %s", oneLine(t.Title), detail), " "))
	}
	return strings.TrimRight(fmt.Sprintf("  %s %s  %s  %s", s.style.good.Render("✓"), oneLine(t.Title), took, s.style.dim.Render(detail)), " ")
}

func (s *screen) heading(l look, now time.Time) string {
	text := s.style.title.Render(s.title) + s.style.dim.Render(fmt.Sprintf("  %s, %d running  %s", outcome(look{counts: l.counts}, nil), len(l.running), duration(now.Sub(s.began))))
	if s.ctx.Err() != nil {
		text += s.style.bad.Render("  stopping; once more to leave at once")
	}
	return text
}

func (s *screen) summary(l look, now time.Time) string {
	mark := s.style.good.Render("✓")
	if s.over.err != nil {
		mark = s.style.bad.Render("✗")
	}
	return fmt.Sprintf("%s %s  %s", mark, s.style.title.Render(s.title), s.style.dim.Render(outcome(l, s.over.err)+" in "+duration(now.Sub(s.began))))
}

// style holds the colours; a terminal without colours, or NO_COLOR, gets none.
type style struct{ good, bad, busy, dim, title lipgloss.Style }

func newStyle(r *lipgloss.Renderer) style {
	return style{
		good:  r.NewStyle().Foreground(lipgloss.Color("2")),
		bad:   r.NewStyle().Foreground(lipgloss.Color("1")),
		busy:  r.NewStyle().Foreground(lipgloss.Color("6")),
		dim:   r.NewStyle().Faint(true),
		title: r.NewStyle().Bold(true),
	}
}
