package etcd

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// memberEnv, when set, makes the test binary run one member, so that it can be
// frozen and killed as a real one.
const memberEnv = "NINES_TEST_MEMBER"

func TestMain(m *testing.M) {
	if conf := os.Getenv(memberEnv); conf != "" {
		if err := runMember(conf); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// runMember serves until its standard input ends, and prints "yes" or "no
// REASON" whenever the answer of HasQuorum changes.
func runMember(conf string) error {
	cfg := ServerConfig{Log: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	if err := json.Unmarshal([]byte(conf), &cfg); err != nil {
		return err
	}
	s, err := StartServer(context.Background(), cfg)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer cancel()
		_, _ = os.Stdin.Read(make([]byte, 1))
	}()
	words := map[bool]string{true: "yes", false: "no"}
	ok, reason := s.HasQuorum()
	fmt.Println(words[ok], reason)
	for tick := time.NewTicker(lookInterval / 2); ; {
		select {
		case <-ctx.Done():
			return s.Close()
		case <-tick.C:
		}
		if now, reason := s.HasQuorum(); now != ok {
			fmt.Println(words[now], reason)
			ok = now
		}
	}
}

// process is a member in a process of its own.
type process struct {
	cmd     *exec.Cmd
	answers chan answer
}

type answer struct {
	yes    bool
	at     time.Time
	reason string
}

// spawn starts a member; it ends with the test at the latest.
func spawn(t testing.TB, cfg ServerConfig) *process {
	t.Helper()
	conf, err := json.Marshal(cfg)
	check(t, err)
	p := &process{cmd: exec.Command(os.Args[0]), answers: make(chan answer, 100)}
	p.cmd.Env = append(os.Environ(), memberEnv+"="+string(conf))
	p.cmd.Stderr = t.Output()
	_, err = p.cmd.StdinPipe() // kept open: the member ends with this process
	check(t, err)
	out, err := p.cmd.StdoutPipe()
	check(t, err)
	check(t, p.cmd.Start())
	go func() {
		defer close(p.answers)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			word, reason, _ := strings.Cut(lines.Text(), " ")
			p.answers <- answer{word == "yes", time.Now(), reason}
		}
	}()
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		for range p.answers {
		}
		p.cmd.Wait()
	})
	return p
}

func (p *process) signal(t testing.TB, s os.Signal) time.Time {
	t.Helper()
	check(t, p.cmd.Process.Signal(s))
	return time.Now()
}

// await waits for the next answer of that kind.
func (p *process) await(t testing.TB, yes bool) answer {
	t.Helper()
	for timeout := time.After(20 * time.Second); ; {
		select {
		case a, ok := <-p.answers:
			if !ok {
				t.Fatal("the member ended")
			}
			if a.yes == yes {
				return a
			}
		case <-timeout:
			t.Fatalf("no %v within 20 s", yes)
		}
	}
}

// quiet demands that the answer stays as it is for d.
func (p *process) quiet(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case a := <-p.answers:
		t.Errorf("the answer became %v (%s)", a.yes, a.reason)
	case <-time.After(d):
	}
}

// spawnThree starts three members and returns them, the leader first.
func spawnThree(t testing.TB) ([]*process, []ServerConfig, authority) {
	t.Helper()
	a := newAuthority(t)
	cfgs := configs(t, a, 3)
	ps := make([]*process, 3)
	for i := range ps {
		ps[i] = spawn(t, cfgs[i])
	}
	for _, p := range ps {
		p.await(t, true)
	}
	c := connect(t, a, cfgs...)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	members, err := c.Members(ctx)
	check(t, err)
	for i := range cfgs {
		for _, m := range members {
			if m.Leader && m.Name == cfgs[i].Name {
				ps[0], ps[i] = ps[i], ps[0]
				cfgs[0], cfgs[i] = cfgs[i], cfgs[0]
				return ps, cfgs, a
			}
		}
	}
	t.Fatalf("no leader among %+v", members)
	return nil, nil, a
}

// bound is how soon a member that is cut off must know it: raft's two election time-outs, the time to ask
// the others, and a second for a busy machine.
const bound = 2*time.Second + leaderAge + time.Second

// TestQuorum does not run beside other tests: it measures time.
func TestQuorum(t *testing.T) {
	t.Run("survives an election", func(t *testing.T) {
		t.Parallel()
		ps, _, _ := spawnThree(t)
		ps[0].signal(t, syscall.SIGKILL)
		ps[1].quiet(t, 4*time.Second)
		ps[2].quiet(t, 0)
	})
	t.Run("survives a frozen leader", func(t *testing.T) { // which still accepts connections
		t.Parallel()
		ps, _, _ := spawnThree(t)
		ps[0].signal(t, syscall.SIGSTOP)
		ps[1].quiet(t, 5*time.Second)
		ps[2].quiet(t, 0)
		// When it wakes up it must not believe what it knew before: the others have gone on.
		woken := ps[0].signal(t, syscall.SIGCONT)
		if took := ps[0].await(t, false).at.Sub(woken); took > bound {
			t.Errorf("the leader that was frozen answered yes for %s", took)
		}
		ps[0].await(t, true)
	})
	for _, c := range []struct {
		name     string
		signal   syscall.Signal
		survivor int // 0 is the leader
	}{
		{"is lost by a leader when the others freeze", syscall.SIGSTOP, 0},
		{"is lost by a follower when the others freeze", syscall.SIGSTOP, 1},
		{"is lost by a follower when the others die", syscall.SIGKILL, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ps, _, _ := spawnThree(t)
			testLost(t, ps, ps[c.survivor], c.signal)
		})
	}
}

// testLost stops all members but one, and wakes them up again where it can.
func testLost(t *testing.T, ps []*process, survivor *process, stop syscall.Signal) {
	var cut time.Time
	for _, p := range ps {
		if p != survivor {
			cut = p.signal(t, stop)
		}
	}
	a := survivor.await(t, false)
	if took := a.at.Sub(cut); took > bound {
		t.Errorf("knew after %s, want %s at most", took, bound)
	} else {
		t.Logf("knew after %s: %s", took, a.reason)
	}
	if stop != syscall.SIGSTOP {
		return
	}
	for _, p := range ps {
		if p != survivor {
			p.signal(t, syscall.SIGCONT)
		}
	}
	survivor.await(t, true)
}
