package host

import (
	"context"
	"errors"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
)

// UnitChange says that a unit is in another state than before.
type UnitChange struct {
	Name  string
	State UnitState
}

const (
	watchCheck = 2 * time.Second // how often a broken connection is looked for
	watchQueue = 1024            // property changes of all units on the machine, between two looks
)

// WatchUnits sends the state of each of the units at once, and again whenever it
// changes, as systemd reports it (nothing is polled). A change that
// is over before it was looked at is not sent. The channel is closed when ctx ends.
func (l *Linux) WatchUnits(ctx context.Context, names []string) <-chan UnitChange {
	w := &unitWatch{l: l, out: make(chan UnitChange), last: make(map[string]UnitState, len(names))}
	go func() {
		defer close(w.out)
		for ctx.Err() == nil {
			if err := w.run(ctx, names); err != nil {
				l.log.Debug("watching units: trying again", "err", err)
			}
			select {
			case <-ctx.Done():
			case <-time.After(watchCheck):
			}
		}
	}()
	return w.out
}

type unitWatch struct {
	l    *Linux
	out  chan UnitChange
	last map[string]UnitState
}

// run watches over one connection, until that breaks or ctx ends.
func (w *unitWatch) run(ctx context.Context, names []string) error {
	conn, err := dialSystemd() // its own: there is one subscriber a connection
	if err != nil {
		return err
	}
	defer conn.Close()
	updates, overflow := make(chan *dbus.PropertiesUpdate, watchQueue), make(chan error, 1)
	conn.SetPropertiesSubscriber(updates, overflow)
	watched := make(map[string]bool, len(names))
	for _, n := range names {
		watched[n] = true
		w.look(ctx, n)
	}
	check := time.NewTicker(watchCheck)
	defer check.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case u := <-updates:
			if watched[u.UnitName] {
				w.look(ctx, u.UnitName)
			}
		case <-overflow: // changes were dropped: look at all
			for _, n := range names {
				w.look(ctx, n)
			}
		case <-check.C:
			if !conn.Connected() {
				return errors.New("disconnected")
			}
		}
	}
}

// look sends the unit's state if it is another than the last one sent.
func (w *unitWatch) look(ctx context.Context, name string) {
	st, err := w.l.Unit(ctx, name)
	if err != nil {
		return // the connection broke: run notices
	}
	if old, seen := w.last[name]; seen && old == st {
		return
	}
	select {
	case w.out <- UnitChange{Name: name, State: st}:
		w.last[name] = st
	case <-ctx.Done():
	}
}
