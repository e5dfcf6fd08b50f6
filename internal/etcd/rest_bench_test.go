package etcd

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// BenchmarkRest reports what each of three members takes at rest, in a process
// of its own: resident memory and processor time, the leader first.
// Run with -benchtime=1x; it watches for ten seconds.
func BenchmarkRest(b *testing.B) {
	const watched = 10 * time.Second
	for b.Loop() {
		ps, cfgs, a := spawnThree(b)
		c := connect(b, a, cfgs...)
		value := make([]byte, 2048)
		for i := range 3000 { // the journal of a few dozen applies
			_, err := c.Put(context.Background(), fmt.Sprintf("k/%d", i%500), value, -1)
			check(b, err)
		}
		l, err := c.Campaign(context.Background(), "leader", "bench")
		check(b, err)
		<-time.After(5 * time.Second)
		before := make([]time.Duration, len(ps))
		for i, p := range ps {
			before[i] = cpuTime(b, p.cmd.Process.Pid)
		}
		<-time.After(watched)
		for i, p := range ps {
			used := cpuTime(b, p.cmd.Process.Pid) - before[i]
			b.ReportMetric(100*used.Seconds()/watched.Seconds(), fmt.Sprintf("%%core/member%d", i))
			b.ReportMetric(residentMiB(b, p.cmd.Process.Pid), fmt.Sprintf("MiB/member%d", i))
		}
		check(b, l.Resign(context.Background()))
		for _, p := range ps {
			p.signal(b, syscall.SIGKILL)
		}
	}
}

func cpuTime(b *testing.B, pid int) time.Duration {
	b.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	check(b, err)
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+2:]))
	user, err := strconv.Atoi(fields[11]) // in ticks of 10 ms, proc(5)
	check(b, err)
	system, err := strconv.Atoi(fields[12])
	check(b, err)
	return time.Duration(user+system) * 10 * time.Millisecond
}

func residentMiB(b *testing.B, pid int) float64 {
	b.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	check(b, err)
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.Atoi(strings.Fields(rest)[0])
			check(b, err)
			return float64(kib) / 1024
		}
	}
	b.Fatal("no VmRSS")
	return 0
}
