package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"nines/internal/lab"
)

const (
	restTime  = 30 * time.Second
	agentUnit = "nines-agent.service"
)

// restScript measures an agent from inside its node: proc(5) says what the fields are.
// The times come from the node too, so that the way there is not measured.
const restScript = `set -eu
pid=$(systemctl show --property=MainPID --value %[1]s)
look() { cat /proc/$pid/stat; cat /proc/uptime; }
getconf CLK_TCK
look
sleep %[2]d
look
grep VmRSS: /proc/$pid/status
`

// rest measures the agents of all nodes, at the same time, while nothing is asked of them.
func (b *bench) rest(ctx context.Context, l *lab.Lab) error {
	leader := b.leader(ctx, l)
	nodes := l.Nodes()
	b.say("measuring the agents at rest for %s", restTime)
	r := &restReport{Load: load(), Seconds: restTime.Seconds(), Agents: make([]agentReport, len(nodes))}
	script := fmt.Sprintf(restScript, agentUnit, int(restTime.Seconds()))
	group, ctx := errgroup.WithContext(ctx)
	for i, node := range nodes {
		group.Go(func() error {
			out, err := b.nines.run(ctx, "lab", "ssh", "--name", b.lab, node, script)
			if err != nil {
				return err
			}
			a, err := parseRest(string(out.stdout))
			if err != nil {
				return fmt.Errorf("agent of %s: %w", node, err)
			}
			a.Node, a.Leader = node, node == leader
			r.Agents[i] = a
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for _, a := range r.Agents {
		r.MaxCPU = max(r.MaxCPU, a.CPU)
		r.MaxWithChildren = max(r.MaxWithChildren, a.WithChildren)
		r.MaxResident = max(r.MaxResident, a.Resident)
	}
	b.report.Rest = r
	return nil
}

// look is what one reading of /proc says of a process.
type look struct {
	own, children uint64  // clock ticks
	uptime        float64 // seconds
}

// parseRest reads what restScript printed.
func parseRest(text string) (agentReport, error) {
	var lines []string
	for s := bufio.NewScanner(strings.NewReader(text)); s.Scan(); {
		lines = append(lines, s.Text())
	}
	if len(lines) != 6 {
		return agentReport{}, fmt.Errorf("want 6 lines of measurements, got %d", len(lines))
	}
	ticks, err := strconv.ParseFloat(lines[0], 64)
	if err != nil || !(ticks > 0) {
		return agentReport{}, fmt.Errorf("clock ticks a second: %q", lines[0])
	}
	first, err := parseLook(lines[1], lines[2])
	if err != nil {
		return agentReport{}, err
	}
	last, err := parseLook(lines[3], lines[4])
	if err != nil {
		return agentReport{}, err
	}
	var kib uint64
	if _, err := fmt.Sscanf(lines[5], "VmRSS: %d kB", &kib); err != nil {
		return agentReport{}, fmt.Errorf("resident memory %q: %w", lines[5], err)
	}
	seconds := last.uptime - first.uptime
	if !(seconds > 0) || last.own < first.own || last.children < first.children {
		return agentReport{}, errors.New("the second reading is not later than the first: was the agent restarted?")
	}
	own, children := float64(last.own-first.own), float64(last.children-first.children)
	percent := 100 / ticks / seconds
	return agentReport{CPU: own * percent, WithChildren: (own + children) * percent, Resident: float64(kib) / 1024}, nil
}

// parseLook reads a line of /proc/PID/stat and one of /proc/uptime.
func parseLook(stat, uptime string) (look, error) {
	// The second field, the name in parentheses, may hold anything: count from its end.
	// utime, stime, cutime and cstime are fields 14 to 17.
	const utime, after = 14, 3
	end := strings.LastIndexByte(stat, ')')
	fields := strings.Fields(stat[end+1:])
	if end < 0 || len(fields) <= utime+3-after {
		return look{}, fmt.Errorf("not a line of /proc/PID/stat: %q", stat)
	}
	var ticks []uint64
	for _, f := range fields[utime-after : utime+4-after] {
		n, err := strconv.ParseUint(f, 10, 64)
		if err != nil {
			return look{}, fmt.Errorf("processor time in /proc/PID/stat: %w", err)
		}
		ticks = append(ticks, n)
	}
	first, _, _ := strings.Cut(uptime, " ")
	seconds, err := strconv.ParseFloat(first, 64)
	if err != nil {
		return look{}, fmt.Errorf("/proc/uptime: %w", err)
	}
	return look{own: ticks[0] + ticks[1], children: ticks[2] + ticks[3], uptime: seconds}, nil
}
