package storetest

import (
	"context"
	"testing"

	"nines/internal/store"
)

func wantHolder(t *testing.T, s store.Store, name, holder string, fence store.Fence) {
	t.Helper()
	gotHolder, gotFence, err := s.Holder(patient(t), name)
	check(t, err)
	if gotHolder != holder || gotFence != fence {
		t.Fatalf("holder is %s with fence %d, want %s with %d", gotHolder, gotFence, holder, fence)
	}
}

func wantHeld(t *testing.T, l store.Lease) {
	t.Helper()
	select {
	case <-l.Lost():
		t.Fatal("the lease is lost, want it held")
	default:
	}
}

type won struct {
	lease store.Lease
	err   error
}

func campaign(ctx context.Context, s store.Store, name, holder string) <-chan won {
	c := make(chan won, 1)
	go func() {
		l, err := s.Campaign(ctx, name, holder)
		c <- won{l, err}
	}()
	return c
}

func wantWon(t *testing.T, c <-chan won) store.Lease {
	t.Helper()
	select {
	case w := <-c:
		check(t, w.err)
		return w.lease
	case <-patient(t).Done():
		t.Fatal("nobody won")
		return nil
	}
}

// testCampaignExclusive lets many campaign for one lease: at each moment one
// holds it, and all get it in the end.
func testCampaignExclusive(t *testing.T, s store.Store) {
	const n = 4
	ctx := patient(t)
	wins := make(chan won)
	for _, holder := range []string{"a", "b", "c", "d"}[:n] {
		go func() {
			l, err := s.Campaign(ctx, "leader", holder)
			wins <- won{l, err}
		}()
	}
	last := store.Fence(0)
	for range n {
		w := <-wins
		check(t, w.err)
		select {
		case other := <-wins:
			t.Fatalf("a second holder won while the first holds: %+v", other)
		default:
		}
		wantHeld(t, w.lease)
		if w.lease.Fence() <= last {
			t.Fatalf("fence %d after %d, want it to grow", w.lease.Fence(), last)
		}
		last = w.lease.Fence()
		check(t, w.lease.Resign(ctx))
	}
}

func testFencesGrow(t *testing.T, s store.Store) {
	first := mustCampaign(t, s, "leader", "ctl1")
	wantHolder(t, s, "leader", "ctl1", first.Fence())
	waiting := campaign(patient(t), s, "leader", "ctl2")
	check(t, first.Resign(patient(t)))
	wantClosed(t, first.Lost(), "Lost of the resigned lease")
	second := wantWon(t, waiting)
	if second.Fence() <= first.Fence() {
		t.Fatalf("fence went from %d to %d, want it to grow", first.Fence(), second.Fence())
	}
	wantHolder(t, s, "leader", "ctl2", second.Fence())
	wantHeld(t, second)
	check(t, second.Resign(patient(t)))
	_, _, err := s.Holder(patient(t), "leader")
	wantErr(t, err, store.ErrNotFound)
}

func testCampaignCancelled(t *testing.T, s store.Store) {
	held := mustCampaign(t, s, "leader", "ctl1")
	ctx, cancel := context.WithCancel(context.Background())
	waiting := campaign(ctx, s, "leader", "ctl2")
	cancel()
	select {
	case w := <-waiting:
		wantErr(t, w.err, context.Canceled)
	case <-patient(t).Done():
		t.Fatal("the campaign goes on after its context ended")
	}
	wantHolder(t, s, "leader", "ctl1", held.Fence())
	check(t, held.Resign(patient(t)))
	mustCampaign(t, s, "leader", "ctl3") // the cancelled one is not in the way
}

func testLeaseOutlivesContext(t *testing.T, s store.Store) {
	ctx, cancel := context.WithCancel(context.Background())
	l, err := s.Campaign(ctx, "leader", "ctl1")
	check(t, err)
	cancel()
	_, err = s.PutFenced(patient(t), "leader", l.Fence(), "a", nil, store.Any)
	check(t, err)
	wantHeld(t, l)
}

func testLeaseNames(t *testing.T, s store.Store) {
	a, b := mustCampaign(t, s, "leader", "ctl1"), mustCampaign(t, s, "galera-recovery", "ctl2")
	_, err := s.PutFenced(patient(t), "leader", b.Fence(), "k", nil, store.Any)
	wantErr(t, err, store.ErrFenced) // the fence of another lease
	check(t, a.Resign(patient(t)))
	wantHeld(t, b)
	wantHolder(t, s, "galera-recovery", "ctl2", b.Fence())
}

func testLeasesAreNotKeys(t *testing.T, s store.Store) {
	events := s.Watch(patient(t), "", 0)
	mustCampaign(t, s, "leader", "ctl1")
	entries, err := s.List(patient(t), "")
	check(t, err)
	if len(entries) != 0 {
		t.Fatalf("a lease shows up as %+v", entries)
	}
	wantEvent(t, events, event("a", "1", mustPut(t, s, "a", "1", 0)))
}

func testFencedPut(t *testing.T, s store.Store) {
	l := mustCampaign(t, s, "leader", "ctl1")
	rev, err := s.PutFenced(patient(t), "leader", l.Fence(), "a", []byte("1"), 0)
	check(t, err)
	wantEntry(t, s, "a", "1", rev)
	_, err = s.PutFenced(patient(t), "leader", l.Fence(), "a", []byte("x"), 0)
	wantErr(t, err, store.ErrConflict)
	_, err = s.PutFenced(patient(t), "leader", l.Fence()+1, "a", []byte("x"), rev)
	wantErr(t, err, store.ErrFenced)
	_, err = s.PutFenced(patient(t), "nobody", l.Fence(), "a", []byte("x"), rev)
	wantErr(t, err, store.ErrFenced)
	_, err = s.PutFenced(patient(t), "nobody", 0, "a", []byte("x"), rev)
	wantErr(t, err, store.ErrFenced) // no fence is not a fence
	wantEntry(t, s, "a", "1", rev)
}

func testFencedPutAfterResign(t *testing.T, s store.Store) {
	old := mustCampaign(t, s, "leader", "ctl1")
	rev, err := s.PutFenced(patient(t), "leader", old.Fence(), "a", []byte("old"), 0)
	check(t, err)
	check(t, old.Resign(patient(t)))
	_, err = s.PutFenced(patient(t), "leader", old.Fence(), "a", []byte("x"), rev)
	wantErr(t, err, store.ErrFenced)
	next := mustCampaign(t, s, "leader", "ctl1") // the same holder again: a new fence all the same
	_, err = s.PutFenced(patient(t), "leader", old.Fence(), "a", []byte("x"), rev)
	wantErr(t, err, store.ErrFenced)
	rev, err = s.PutFenced(patient(t), "leader", next.Fence(), "a", []byte("new"), rev)
	check(t, err)
	wantEntry(t, s, "a", "new", rev)
}

func testFencedPutAfterLoss(t *testing.T, s store.Store) {
	e, ok := s.(Expirer)
	if !ok {
		t.Skip("the store under test cannot expire a lease")
	}
	old := mustCampaign(t, s, "leader", "ctl1")
	waiting := campaign(patient(t), s, "leader", "ctl2")
	e.Expire("leader")
	wantClosed(t, old.Lost(), "Lost of the lease that ran out")
	next := wantWon(t, waiting)
	_, err := s.PutFenced(patient(t), "leader", old.Fence(), "a", []byte("x"), store.Any)
	wantErr(t, err, store.ErrFenced)
	_, err = s.PutFenced(patient(t), "leader", next.Fence(), "a", []byte("y"), store.Any)
	check(t, err)
	check(t, old.Resign(patient(t))) // must not touch the lease of the other
	wantHolder(t, s, "leader", "ctl2", next.Fence())
}

func testResignTwice(t *testing.T, s store.Store) {
	l := mustCampaign(t, s, "leader", "ctl1")
	check(t, l.Resign(patient(t)))
	check(t, l.Resign(patient(t)))
}
