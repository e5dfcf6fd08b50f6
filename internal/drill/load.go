package drill

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"
)

// load sends the requests of all probes, open-loop: each at its planned time, whatever became of the ones before.
type load struct {
	start  time.Time
	probes []Probe
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	samples map[string][]Sample
}

// startLoad begins to send. stop must be called.
func startLoad(ctx context.Context, probes []Probe) *load {
	ctx, cancel := context.WithCancel(ctx)
	l := &load{start: time.Now(), probes: probes, cancel: cancel, samples: map[string][]Sample{}}
	for i, p := range probes {
		// Probes of equal rate must not all fire at the same moment.
		phase := p.Every * time.Duration(i) / time.Duration(len(probes))
		l.wg.Go(func() { l.schedule(ctx, p, phase) })
	}
	return l
}

func (l *load) schedule(ctx context.Context, p Probe, phase time.Duration) {
	timer := time.NewTimer(phase)
	defer timer.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		planned := l.start.Add(phase + time.Duration(n)*p.Every)
		l.wg.Go(func() { l.send(ctx, p, n, planned) })
		timer.Reset(time.Until(planned.Add(p.Every)))
	}
}

// send sends one request. Its time-out counts from the planned time. A request that was cut off by the end
// of the load is not counted: nobody knows how it would have ended.
func (l *load) send(ctx context.Context, p Probe, n int, planned time.Time) {
	// Requests outlive the load's end by their time-out at most: stop waits for them.
	ctx, cancel := context.WithDeadline(context.WithoutCancel(ctx), planned.Add(p.Timeout))
	defer cancel()
	err := p.Send(ctx, n)
	s := Sample{At: planned.Sub(l.start), Took: time.Since(planned)}
	if err == nil && s.Took > p.Timeout {
		s.Failure = "answered after the time-out"
	}
	if err != nil {
		s.Failure = failure(err)
	}
	l.mu.Lock()
	l.samples[p.Name] = append(l.samples[p.Name], s)
	l.mu.Unlock()
}

func failure(err error) string {
	text, _, _ := strings.Cut(err.Error(), "\n")
	if text == "" {
		text = "failed"
	}
	return text
}

// stop ends the schedule, waits for the requests under way, and returns the load's length.
func (l *load) stop() time.Duration {
	l.cancel()
	end := time.Since(l.start)
	l.wg.Wait()
	return end
}

// settled reports whether every probe was answered without failure for the last window.
func (l *load) settled(window time.Duration) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	from := time.Since(l.start) - window
	for _, p := range l.probes {
		good := false
		for _, s := range l.samples[p.Name] {
			if s.end() < from {
				continue
			}
			if !s.OK() || s.Took > max(p.Late, window) {
				return false
			}
			good = true
		}
		if !good && window >= 2*p.Every {
			return false
		}
	}
	return true
}

// measured returns what clients of each probe have felt of requests planned at or after from, in the order of the probes. Who was being served
// when the fault came (zero: there was none) has waited for it since then, not since the request began.
func (l *load) measured(from, fault, end time.Duration) []Felt {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]Felt, len(l.probes))
	for i, p := range l.probes {
		since := slices.DeleteFunc(slices.Clone(l.samples[p.Name]), func(s Sample) bool { return s.At < from })
		for j, s := range since {
			since[j] = s.since(fault)
		}
		out[i] = Measure(since, p.Late, end)
	}
	return out
}

// failures counts a probe's failed requests planned at or after from, and returns the first reason.
func (l *load) failures(probe string, from time.Duration) (n int, reason string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.samples[probe] {
		if s.At >= from && !s.OK() {
			if n++; n == 1 {
				reason = s.Failure
			}
		}
	}
	return n, reason
}

// successes counts a probe's requests planned from one moment to the other that were answered.
func (l *load) successes(probe string, from, to time.Duration) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.samples[probe] {
		if s.At >= from && s.At < to && s.OK() {
			n++
		}
	}
	return n
}
