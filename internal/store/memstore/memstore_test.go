package memstore_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"

	"nines/internal/store"
	"nines/internal/store/memstore"
	"nines/internal/store/storetest"
)

func TestConformance(t *testing.T) {
	defer goleak.VerifyNone(t)
	storetest.Run(t, func(*testing.T) store.Store { return memstore.New() })
}

func TestBubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memstore.New()
		events := s.Watch(t.Context(), "", 0)
		if _, err := s.Campaign(t.Context(), "leader", "ctl1"); err != nil {
			t.Fatal(err)
		}
		var second store.Lease
		go func() { second, _ = s.Campaign(t.Context(), "leader", "ctl2") }()
		synctest.Wait()
		if second != nil {
			t.Fatal("two holders")
		}
		s.Expire("leader")
		synctest.Wait()
		if second == nil {
			t.Fatal("nobody won the lease that ran out")
		}
		if _, err := s.PutFenced(t.Context(), "leader", second.Fence(), "a", nil, 0); err != nil {
			t.Fatal(err)
		}
		if e := <-events; e.Key != "a" {
			t.Fatalf("event %+v, want a", e)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := s.Campaign(ctx, "leader", "ctl3"); !errors.Is(err, context.Canceled) {
			t.Fatalf("error is %v, want a cancelled campaign", err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}
