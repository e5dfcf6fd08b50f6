package galera

import (
	"context"
	"sync"
	"time"

	"nines/internal/host"
	"nines/internal/service"
)

// flushed has what Galera saves of a new view brought to the disk. Galera writes its files and leaves it at that: for half a
// minute a power cut would bring back the view before, with which no group is formed again, or a position of long ago. The same holds
// for all files that a state transfer brings but InnoDB's own: after a start the whole file system is flushed.
type flushed struct {
	mu   sync.Mutex
	run  string // of the server: everything it started with is on the disk
	view string // whose files are on the disk, or being brought there
	busy bool
}

// flushTimeout bounds one attempt: a disk that takes longer has other troubles. After a failure the next one waits a little.
const (
	flushTimeout = 20 * time.Second
	flushAgain   = 3 * time.Second
)

// note brings the files of the member's view to the disk if that was not done yet. It does not wait: an observation must not.
func (f *flushed) note(ctx context.Context, env service.Env, st status) {
	view, run := st["wsrep_cluster_state_uuid"]+"/"+st["wsrep_cluster_conf_id"], st["wsrep_gcomm_uuid"]
	f.mu.Lock()
	defer f.mu.Unlock()
	started := run != f.run && st.serves()
	if f.busy || f.view == view && !started || !st.primary() {
		return
	}
	// The directory too: Galera replaces the view by renaming.
	args := []string{"sync", grastateFile, viewFile, dataDir}
	if started {
		args = []string{"sync", "--file-system", dataDir}
	}
	f.busy = true
	go func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTimeout)
		defer cancel()
		_, err := env.Host.Run(ctx, host.Cmd{Args: args})
		if err != nil {
			env.Log.Debug("flush what Galera saved", "err", err)
			select {
			case <-time.After(flushAgain):
			case <-ctx.Done():
			}
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		f.busy = false
		if err == nil {
			f.view = view
			if started {
				f.run = run
			}
		}
	}()
}
