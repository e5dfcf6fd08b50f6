package view

import (
	"strings"
	"testing"

	"nines/internal/health"
)

// All that wait for the same stand in one line; what is left out is said.
func TestWaits(t *testing.T) {
	var out strings.Builder
	one := []health.Condition{{Code: "a"}}
	Waits(&out, []health.Wait{{Service: "galera", Reason: "the state of ctl3 is not known", Folded: append(one, one...)},
		{Service: "glance", For: []string{"galera"}}, {Service: "keystone", For: []string{"galera"}, Folded: one}, {Service: "nova", For: []string{"galera", "rabbitmq"}}})
	want := `WAITS     galera waits: the state of ctl3 is not known
          -> left out: 2 lines that would say no more; --json has them
WAITS     glance, keystone wait for galera
          -> left out: 1 line that would say no more; --json has them
WAITS     nova waits for galera and rabbitmq
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}
