package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func TestWhileBooting(t *testing.T) {
	refused := fmt.Errorf("dial: %w", syscall.ECONNREFUSED)
	unreachable := errors.New("no route to host")
	for name, c := range map[string]struct {
		listensAfter time.Duration
		then         error
		want         error
		took         time.Duration
	}{
		"up at once":          {0, nil, nil, 0},
		"boots":               {3 * time.Second, nil, nil, 3 * time.Second},
		"not there":           {0, unreachable, unreachable, 0},
		"no SSH server there": {time.Hour, nil, syscall.ECONNREFUSED, bootPatience + 500*time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin, waited := time.Now(), 0
				err := whileBooting(t.Context(), func() { waited++ }, func() error {
					if time.Since(begin) < c.listensAfter {
						return refused
					}
					return c.then
				})
				if !errors.Is(err, c.want) {
					t.Errorf("error %v, want %v", err, c.want)
				}
				if took := time.Since(begin); took > c.took || (c.took > 0) != (waited > 0) {
					t.Errorf("took %s and said %d times that it waits", took, waited)
				}
			})
		})
	}
}

func TestWhileBootingEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		begin := time.Now()
		err := whileBooting(ctx, cancel, func() error { return syscall.ECONNREFUSED })
		if !errors.Is(err, syscall.ECONNREFUSED) || time.Since(begin) > 0 {
			t.Errorf("%v after %s", err, time.Since(begin))
		}
	})
}
