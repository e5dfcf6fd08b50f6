package stale

import (
	"context"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// trio is three controllers whose agents run on a network of which any direction may be cut.
type trio struct {
	nodes    []*trioNode
	cut      map[[2]int]bool
	off      map[int]bool
	mute     map[int]bool    // its agent answers no questions
	filtered map[[2]int]bool // echo requests from a to b are lost, and nothing else
}

type trioNode struct {
	*watch
	dead       Refusal
	closed     []netip.Addr
	left       time.Time // when it first stood aside
	said       time.Time // when it last said that it does
	returns    int
	patient    bool      // leaves it to others to take a peer for dead
	yielded    time.Time // when it first was
	acquainted time.Time // when it was
	lost       time.Time // when it first gave the virtual address back
	next       time.Time // its next tick
}

var trioAddresses = []netip.Addr{one, two, three}

func (n *trioNode) Close(_ context.Context, a netip.Addr) error {
	n.closed = append(n.closed, a)
	return nil
}
func (n *trioNode) Abandon(context.Context, netip.Addr) error { return nil }
func (n *trioNode) Refuse(_ context.Context, r Refusal) error {
	n.dead = r
	return nil
}

func newTrio() *trio {
	s := &trio{cut: map[[2]int]bool{}, off: map[int]bool{}, mute: map[int]bool{}, filtered: map[[2]int]bool{}}
	for i := range trioAddresses {
		s.nodes = append(s.nodes, s.boot(i))
	}
	return s
}

// boot is a controller that has heard nobody yet.
func (s *trio) boot(i int) *trioNode {
	own, n := trioAddresses[i], &trioNode{next: time.Now().Add(rand.N(every))}
	peers := slices.DeleteFunc(slices.Clone(trioAddresses), func(a netip.Addr) bool { return a == own })
	ears := &Ears{}
	n.watch = &watch{silence: newSilence(peers), partial: newPartial(own), words: make(chan word),
		askOne: func(netip.Addr) {}, born: time.Now(), Options: Options{Own: own, Peers: peers, Connections: n, Ears: ears, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
			Aside: func(a netip.Addr) {
				switch {
				case !a.IsValid():
					n.returns++
				case n.left.IsZero():
					n.left = time.Now()
				}
				n.said = time.Now()
			},
			Acquainted: func() { n.acquainted = time.Now() },
			Yielding: func(a netip.Addr) {
				n.patient = a.IsValid()
				if n.patient && n.yielded.IsZero() {
					n.yielded = time.Now()
				}
			},
			Contested: func(a netip.Addr) {
				if a.IsValid() && n.lost.IsZero() {
					n.lost = time.Now()
				}
			},
			Absent: func(context.Context, []netip.Addr) {},
			Third: func(_ context.Context, asked, about netip.Addr) (time.Duration, error) {
				to := slices.Index(trioAddresses, asked)
				if s.lost(i, to) || s.mute[to] || slices.Contains(s.nodes[to].dead.Dead, own) {
					return 0, context.DeadlineExceeded
				}
				age, ok := s.nodes[to].Ears.Age(about)
				if !ok {
					return 0, context.DeadlineExceeded
				}
				return age, nil
			}}}
	return n
}

// lost reports whether a request from a to b, or its answer, is.
func (s *trio) lost(a, b int) bool {
	return s.off[a] || s.off[b] || s.cut[[2]int{a, b}] || s.cut[[2]int{b, a}]
}

// run plays each node's loop for a time: ticks at a phase of its own, answers a millisecond after each.
func (s *trio) run(t *testing.T, span time.Duration) {
	end := time.Now().Add(span)
	for {
		i := 0
		for j, n := range s.nodes {
			if n.next.Before(s.nodes[i].next) {
				i = j
			}
		}
		n := s.nodes[i]
		if !n.next.Before(end) {
			time.Sleep(time.Until(end))
			return
		}
		time.Sleep(time.Until(n.next))
		n.next = n.next.Add(every)
		if s.off[i] {
			continue
		}
		n.judge(t.Context(), time.Now())
		for j, peer := range trioAddresses {
			if j != i && !s.lost(i, j) && !s.filtered[[2]int{i, j}] {
				n.answered(t.Context(), answer{peer, time.Now()})
			}
		}
		s.words(t, n)
	}
}

// words has a node read what it was told.
func (s *trio) words(t *testing.T, n *trioNode) {
	for {
		synctest.Wait()
		select {
		case said := <-n.words:
			n.testify(t.Context(), said, time.Now())
		case <-n.contest.next:
			n.askContest(t.Context(), time.Now())
		default:
			return
		}
	}
}

// alone lists the nodes that stand aside.
func (s *trio) alone() []int {
	var out []int
	for i, n := range s.nodes {
		if n.unheard.IsValid() {
			out = append(out, i)
		}
	}
	return out
}

// expectAside runs for a time, after which these nodes must stand aside and no others.
func (s *trio) expectAside(t *testing.T, span time.Duration, want []int) {
	t.Helper()
	s.run(t, span)
	if got := s.alone(); !slices.Equal(got, want) {
		t.Fatalf("aside: %v, want %v", got, want)
	}
}

func (s *trio) end() {
	for _, n := range s.nodes {
		n.asking.Wait()
	}
}

// withTrio runs f where the fault has just come upon three controllers that heard each other.
func withTrio(t *testing.T, name string, fault func(*trio), f func(t *testing.T, s *trio)) {
	t.Run(name, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newTrio()
			defer s.end()
			s.run(t, 3*time.Second)
			fault(s)
			f(t, s)
		})
	})
}

func TestStandingAside(t *testing.T) {
	for name, tc := range map[string]struct {
		fault func(*trio)
		want  []int // stand aside after six seconds
	}{
		"nothing":                         {func(*trio) {}, nil},
		"one way, the first is not heard": {func(s *trio) { s.cut[[2]int{0, 1}] = true }, []int{1}},
		"one way, the other direction":    {func(s *trio) { s.cut[[2]int{1, 0}] = true }, []int{1}},
		"both ways":                       {func(s *trio) { s.cut[[2]int{0, 2}], s.cut[[2]int{2, 0}] = true, true }, []int{2}},
		"the last two":                    {func(s *trio) { s.cut[[2]int{2, 1}] = true }, []int{2}},
		"a power cut":                     {func(s *trio) { s.off[0] = true }, nil},
		"one is cut off":                  {func(s *trio) { s.cut[[2]int{0, 1}], s.cut[[2]int{2, 0}] = true, true }, nil},
		"two are off":                     {func(s *trio) { s.off[0], s.off[1] = true, true }, nil},
		"the third says nothing":          {func(s *trio) { s.cut[[2]int{0, 1}], s.mute[2] = true, true }, nil},
	} {
		withTrio(t, name, tc.fault, func(t *testing.T, s *trio) {
			s.expectAside(t, 6*time.Second, tc.want)
			for _, i := range tc.want {
				if n := s.nodes[i]; len(n.dead.Dead)+len(n.dead.Avoided) != 2 || len(n.closed) < 2 {
					t.Errorf("stands aside, refuses %+v, and closed those to %v", n.dead, n.closed)
				}
			}
			clear(s.cut)
			clear(s.off)
			s.expectAside(t, 6*time.Second, nil)
			for i, n := range s.nodes {
				if len(n.dead.Dead)+len(n.dead.Avoided) > 0 {
					t.Errorf("mended, %d still refuses %+v", i, n.dead)
				}
			}
		})
	}
}

// A controller that boots has heard nobody yet: whom it cannot hear now it would not miss.
func TestStandingAsideAfterABoot(t *testing.T) {
	all := func(s *trio) {
		for i := range s.nodes {
			s.nodes[i] = s.boot(i)
		}
	}
	for name, tc := range map[string]struct {
		fault func(*trio)
		want  []int // stand aside after eight seconds
	}{
		"whole":                     {all, nil},
		"the one that stands aside": {func(s *trio) { s.cut[[2]int{0, 1}] = true; s.nodes[1] = s.boot(1) }, []int{1}},
		"the one that stays":        {func(s *trio) { s.cut[[2]int{0, 1}] = true; s.nodes[0] = s.boot(0) }, []int{1}},
		"all three":                 {func(s *trio) { s.cut[[2]int{1, 0}] = true; all(s) }, []int{1}},
		"one is off":                {func(s *trio) { s.off[0] = true; all(s) }, nil},
		"no echo between two":       {func(s *trio) { s.filtered[[2]int{0, 1}], s.filtered[[2]int{1, 0}] = true, true; all(s) }, nil},
		"no echo at all": {func(s *trio) {
			for i := range s.nodes {
				for j := range s.nodes {
					s.filtered[[2]int{i, j}] = true
				}
			}
			all(s)
		}, nil},
	} {
		withTrio(t, name, tc.fault, func(t *testing.T, s *trio) {
			booted := time.Now()
			s.expectAside(t, 8*time.Second, tc.want)
			for i, n := range s.nodes {
				switch {
				case s.off[i]:
				case n.acquainted.IsZero() || n.acquainted.Sub(booted) > acquaint+thirdPatience+every:
					t.Errorf("%d is acquainted at %s, booted at %s", i, n.acquainted, booted)
				case !n.left.IsZero() && n.acquainted.After(booted) && n.acquainted.Before(n.left):
					t.Errorf("%d is acquainted %s before it stands aside", i, n.left.Sub(n.acquainted))
				}
			}
			if len(tc.want) > 0 { // the other one dies, and nobody ever heard it here
				s.off[0] = true
				s.run(t, 6*time.Second)
				if n := s.nodes[1]; n.unheard.IsValid() || name != "the one that stays" && len(n.dead.Dead)+len(n.dead.Avoided) > 0 {
					t.Errorf("the other one is off, aside for %s, and refuses %+v", n.unheard, n.dead)
				}
			}
			clear(s.cut)
			clear(s.off)
			s.expectAside(t, 6*time.Second, nil)
		})
	}
}

// Who starts something meanwhile believes a word of fifteen seconds ago, and no older one.
func TestAsideIsSaidAgain(t *testing.T) {
	withTrio(t, "a long cut", func(s *trio) { s.cut[[2]int{0, 1}] = true }, func(t *testing.T, s *trio) {
		s.expectAside(t, 6*time.Second, []int{1})
		for range 60 {
			s.run(t, time.Second)
			if age := time.Since(s.nodes[1].said); age > held/2 {
				t.Fatalf("it was last said %s ago", age)
			}
		}
	})
}

// The virtual address came here because its holder is not heard.
func TestContest(t *testing.T) {
	for name, tc := range map[string]struct {
		fault  func(*trio)
		came   int // the node that it came to
		silent netip.Addr
		gives  bool // it back
	}{
		"the holder is dead":         {func(s *trio) { s.off[0] = true }, 1, one, false},
		"the holder is alive":        {func(s *trio) { s.cut[[2]int{0, 1}] = true }, 1, one, true},
		"the holder is to give way":  {func(s *trio) { s.cut[[2]int{1, 0}] = true }, 0, two, false},
		"the third is not heard too": {func(s *trio) { s.cut[[2]int{1, 0}], s.cut[[2]int{2, 1}] = true, true }, 1, one, false},
	} {
		withTrio(t, name, tc.fault, func(t *testing.T, s *trio) {
			s.run(t, 300*time.Millisecond)
			n, came := s.nodes[tc.came], time.Now()
			n.roll.began = came
			n.beginContest(t.Context(), []netip.Addr{tc.silent}, came)
			for range 10 * 10 {
				s.run(t, 100*time.Millisecond)
				s.words(t, n)
			}
			if gave := !n.lost.IsZero(); gave != tc.gives {
				t.Fatalf("gave it back: %v, want %v", gave, tc.gives)
			}
			if tc.gives && n.lost.Sub(came) > every+2*contestEvery {
				t.Errorf("gave it back after %s", n.lost.Sub(came))
			}
			if n.contest.about.IsValid() {
				t.Error("it does not end")
			}
		})
	}
}

// Whatever the phases of their ticks: the one that stays must not close its connections before the other is out.
func TestAsideBeforeTheOtherCloses(t *testing.T) {
	for range 50 {
		synctest.Test(t, func(t *testing.T) {
			s := newTrio()
			defer s.end()
			s.run(t, 3*time.Second)
			s.cut[[2]int{0, 1}] = true
			for range 100 {
				s.run(t, 50*time.Millisecond)
				if slices.Contains(s.nodes[0].closed, two) {
					break
				}
			}
			if left := s.nodes[1].left; left.IsZero() {
				t.Error("it closed its connections before the other stood aside")
			}
		})
	}
}

// A database's member that is not heard is suspected 1.5 s after its last word: until then the one that stands aside must have been told to
// leave that to the other, and nobody else must.
func TestYieldingBeforeAnybodySuspects(t *testing.T) {
	for range 50 {
		synctest.Test(t, func(t *testing.T) {
			s := newTrio()
			defer s.end()
			s.run(t, 3*time.Second+rand.N(every))
			s.cut[[2]int{0, 1}] = true
			cut := time.Now()
			s.run(t, 6*time.Second)
			switch n := s.nodes[1]; {
			case n.yielded.IsZero():
				t.Error("it did not yield")
			case n.yielded.Sub(cut) > 1500*time.Millisecond:
				t.Errorf("it yielded after %s", n.yielded.Sub(cut))
			case !n.patient:
				t.Error("it yields no longer")
			}
			for _, i := range []int{0, 2} {
				if !s.nodes[i].yielded.IsZero() {
					t.Errorf("%d yielded", i)
				}
			}
			clear(s.cut)
			s.run(t, 6*time.Second)
			if s.nodes[1].patient {
				t.Error("mended, and it still yields")
			}
		})
	}
}

// Whom nobody hears is dead, and nobody is patient with it.
func TestNobodyYieldsToTheDead(t *testing.T) {
	for range 50 {
		synctest.Test(t, func(t *testing.T) {
			s := newTrio()
			defer s.end()
			s.run(t, 3*time.Second+rand.N(every))
			s.off[0] = true
			s.run(t, 6*time.Second)
			for i, n := range s.nodes {
				if !n.yielded.IsZero() {
					t.Errorf("%d yielded", i)
				}
			}
		})
	}
}

// The one that stands aside comes back when the other is dead: the two that are left are a majority only together.
func TestAsideEndsWithTheOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTrio()
		defer s.end()
		s.run(t, 3*time.Second)
		s.cut[[2]int{0, 1}] = true
		s.run(t, 6*time.Second)
		s.off[0] = true
		s.run(t, 6*time.Second)
		if got := s.alone(); len(got) > 0 {
			t.Errorf("aside: %v", got)
		}
		if n := s.nodes[1]; slices.Contains(n.dead.Avoided, three) || slices.Contains(n.dead.Dead, three) {
			t.Errorf("it refuses the only other: %+v", n.dead)
		}
	})
}

// A machine that comes back is heard by one first, and by the other up to a second later.
func TestWhoComesBackIsHeardOneAfterTheOther(t *testing.T) {
	for name, fault := range map[string]func(*trio){
		"after a power cut": func(s *trio) { s.off[0] = true },
		"it was cut off": func(s *trio) {
			s.cut[[2]int{0, 1}], s.cut[[2]int{0, 2}] = true, true
		},
		"never heard": func(s *trio) { s.off[0] = true; s.nodes[1], s.nodes[2] = s.boot(1), s.boot(2) },
	} {
		for _, first := range []int{1, 2} {
			withTrio(t, name, fault, func(t *testing.T, s *trio) {
				s.run(t, 6*time.Second+rand.N(every))
				later := 3 - first
				clear(s.off)
				clear(s.cut)
				s.cut[[2]int{0, later}] = true
				s.run(t, time.Second)
				clear(s.cut)
				s.run(t, 6*time.Second)
				for i, n := range s.nodes {
					if !n.left.IsZero() || !n.yielded.IsZero() {
						t.Errorf("heard by %d first: %d stood aside, or was about to", first, i)
					}
				}
				s.off[0] = true
				s.run(t, 6*time.Second)
				clear(s.off)
				s.cut[[2]int{0, later}] = true
				s.expectAside(t, 6*time.Second, []int{later}) // this is no second
			})
		}
	}
}

// However links break and heal: of three never two stand aside for long, and none while nothing is broken.
func TestNeverTwoAside(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		type change struct {
			From, To int
			Cut      bool
			Off      int
		}
		changes := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) change {
			return change{rapid.IntRange(0, 2).Draw(rt, "from"), rapid.IntRange(0, 2).Draw(rt, "to"), rapid.Bool().Draw(rt, "cut"), rapid.IntRange(0, 5).Draw(rt, "off")}
		}), 0, 6).Draw(rt, "changes")
		synctest.Test(t, func(t *testing.T) {
			s := newTrio()
			defer s.end()
			s.run(t, 3*time.Second)
			for _, c := range changes {
				s.cut[[2]int{c.From, c.To}] = c.Cut
				s.off = map[int]bool{}
				if c.Off < 3 {
					s.off[c.Off] = true
				}
				s.run(t, 8*time.Second)
				if got := slices.DeleteFunc(s.alone(), func(i int) bool { return s.off[i] }); len(got) > 1 {
					rt.Fatalf("aside: %v after %+v", got, changes)
				}
			}
			clear(s.cut)
			s.off = map[int]bool{}
			s.run(t, 8*time.Second)
			if got := s.alone(); len(got) > 0 {
				rt.Fatalf("all is well, and aside: %v", got)
			}
		})
	})
}
