package drill

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"nines/internal/service"
)

// foundAlone has the database of a machine found a cluster of its own from the data it has, and write to it, as somebody
// does who wants a database at any price. It prints the new cluster's UUID. %s names the rows. What Galera saved of it is on the disk within a second.
const foundAlone = `systemctl kill -s KILL mariadb || true
systemctl stop mariadb
cd /var/lib/mysql
rm -f gvwstate.dat
printf 'version: 2.1\nuuid:    00000000-0000-0000-0000-000000000000\nseqno:   -1\nsafe_to_bootstrap: 1\n' >grastate.dat
chown mysql:mysql grastate.dat
mkdir -p /run/nines
touch /run/nines/galera-bootstrap
systemctl start mariadb
for n in 1 2 3 4 5 6 7 8 9 10; do mariadb -e "INSERT INTO nines_probe.ledger VALUES ('%s', $n)"; done
sleep 2
mariadb -NBe "SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME = 'wsrep_cluster_state_uuid'"
`

// The copies that recoveries kept since a moment: what of them has the saved state of a cluster, and removing them all.
const (
	findCopies   = `find /var/lib -maxdepth 1 -name 'mysql.nines-epoch-*' -newerct '@%d'`
	findHistory  = findCopies + ` -exec grep -l '%s' {}/grastate.dat ';'`
	removeCopies = findCopies + ` -exec rm -r {} +`
)

// history is the other history that a drill made.
type history struct {
	node, uuid string
	since      time.Time
}

// writerLast puts the node that takes the writes at the end: it has all that was acknowledged, so that the history that goes on has it too.
func (x *run) writerLast(ctx context.Context) error {
	writer, err := x.work.Locate(ctx, Writer)
	if err != nil {
		return err
	}
	x.victims = append(slices.DeleteFunc(x.victims, func(n string) bool { return n == writer }), writer)
	return nil
}

// diverge gives one machine a history of its own, switches the others on, sees that nobody goes first, and then makes a person's choice.
func (x *run) diverge(ctx context.Context) error {
	h := &history{node: x.victims[0], since: time.Now()}
	err := x.step("diverge", h.node+" alone founds a database of its own and takes writes", func() error {
		if err := x.Machines.On(ctx, h.node); err != nil {
			return err
		}
		out, err := x.Machines.Shell(ctx, h.node, fmt.Sprintf(foundAlone, x.name+"-other"))
		if h.uuid = strings.TrimSpace(out); err == nil && h.uuid == "" {
			err = errors.New("it does not say which cluster it founded")
		}
		if err != nil {
			return err
		}
		// A power cut: at its boot Galera would form the group of one again, and the others' starts would join it.
		return x.Machines.Cut(ctx, h.node)
	})
	if err != nil {
		return err
	}
	x.other = h
	if err := x.step("others", "power on "+strings.Join(x.victims, ", "), func() error { return x.switchOn(ctx, x.victims) }); err != nil {
		return err
	}
	var choices []service.Choice
	err = x.step("refuse", "nobody may go first until a person has chosen, and status must say so", func() (err error) {
		choices, err = x.refused(ctx, h)
		return err
	})
	if err != nil || len(choices) == 0 {
		return err
	}
	most := slices.MaxFunc(choices, func(a, b service.Choice) int { return len(a.Members) - len(b.Members) })
	return x.step("choose", "choose "+most.Node+": "+most.Data, func() error { return x.Person.Choose(ctx, "galera", most.Node) })
}

// refused waits until a person is asked to choose between the histories, and sees that it stays so. No choices: nobody was asked.
func (x *run) refused(ctx context.Context, h *history) ([]service.Choice, error) {
	asked := func() ([]service.Choice, error) {
		ctx, cancel := context.WithTimeout(ctx, lookLimit)
		defer cancel()
		choices, err := x.Person.Asked(ctx, "galera")
		if err == nil && len(choices) > 1 && x.stuck(ctx, "galera", func(text string) bool { return strings.Contains(text, h.uuid) }) {
			return choices, nil
		}
		return nil, err
	}
	on := time.Now()
	for {
		choices, err := asked()
		if len(choices) > 0 {
			x.note(fmt.Sprintf("%.1f s after all were on a person was asked to choose between %d histories", time.Since(on).Seconds(), len(choices)))
			break
		}
		if time.Since(on) > sayLimit {
			x.wound("nobody was asked which of two histories goes on")
			return nil, nil
		}
		if !pause(ctx, lookEvery) {
			return nil, errors.Join(context.Cause(ctx), err)
		}
	}
	if !pause(ctx, seenWait) {
		return nil, context.Cause(ctx)
	}
	choices, err := asked()
	if err == nil && len(choices) == 0 {
		x.wound("a person was asked which history goes on, and it was decided without one")
	}
	return choices, err
}

// otherKept sees that the history that was not chosen was kept, and removes the copies: they are the drill's.
func (x *run) otherKept(ctx context.Context) {
	h := x.other
	err := x.step("kept", "the other history is kept on "+h.node, func() error {
		since := h.since.Unix()
		out, err := x.Machines.Shell(ctx, h.node, fmt.Sprintf(findHistory, since, h.uuid))
		if err != nil {
			return err
		}
		if strings.TrimSpace(out) == "" {
			x.wound("the history of " + h.node + " that was not chosen was not kept")
		}
		var errs []error
		for _, n := range x.victims {
			_, err := x.Machines.Shell(ctx, n, fmt.Sprintf(removeCopies, since))
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	})
	if err != nil {
		x.wound("whether the other history was kept is not known: " + failure(err))
	}
}
