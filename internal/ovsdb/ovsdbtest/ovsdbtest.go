// Package ovsdbtest stands in for the daemons of Open vSwitch and OVN in tests.
package ovsdbtest

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"syscall"

	"nines/internal/ovsdb"
)

// Daemons answer at sockets in place of the real ones: "SOCKET METHOD FIRST-PARAMETER" is a key; for
// a database the parameter is the table. Who has no answer does not run.
type Daemons map[string]string

// Call implements ovsdb.Caller.
func (d Daemons) Call(_ context.Context, socket, method string, params ...any) (json.RawMessage, error) {
	key := strings.TrimSpace(socket + " " + method)
	if len(params) > 0 {
		what := params[0]
		if op, ok := params[len(params)-1].(map[string]any); ok {
			what = op["table"]
		}
		key += fmt.Sprint(" ", what)
	}
	answer, ok := d[key]
	if !ok {
		return nil, fmt.Errorf("%s %w: %w", socket, ovsdb.ErrSilent, syscall.ECONNREFUSED)
	}
	return json.RawMessage(answer), nil
}

// Quoted is a text as a control answers it.
func Quoted(text string) string {
	b, err := json.Marshal(text)
	if err != nil {
		panic(err) // a text: cannot happen
	}
	return string(b)
}

// Table is the answer of a database to a select.
func Table(rows string) string { return `[{"rows":[` + rows + `]}]` }
