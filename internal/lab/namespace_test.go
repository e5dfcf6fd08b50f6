package lab

import (
	"fmt"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// TestOwnThread: never the main thread, which would keep a machine's mounts until the process ends.
func TestOwnThread(t *testing.T) {
	var all sync.WaitGroup
	for range 500 {
		all.Go(func() {
			err := onOwnThread(func() error {
				if unix.Gettid() == unix.Getpid() {
					return fmt.Errorf("runs on the main thread")
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}
