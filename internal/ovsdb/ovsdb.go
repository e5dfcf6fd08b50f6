// Package ovsdb asks the daemons of Open vSwitch and OVN at their local sockets: their databases, and the controls that
// ovs-appctl uses. Nothing else is between: an observation costs no process.
//
// Invariants: a request has its answer, or an error, within callTimeout; one that hangs (ErrSilent) is told from one that is not
// there (Absent). The package must never change a database: what nines writes goes through the components' own programs.
package ovsdb

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strings"
	"syscall"
	"time"

	"nines/internal/host"
)

// Where Open vSwitch has its sockets, and the name of its database.
const (
	SwitchSocket = "/run/openvswitch/db.sock"
	SwitchPID    = "/run/openvswitch/ovs-vswitchd.pid"
	SwitchSchema = "Open_vSwitch"
)

// Caller makes one JSON-RPC request (version 1.0, as OVSDB speaks it: RFC 7047) at a local socket. Both the
// databases and the daemons' controls (ovs-appctl) answer in it: asking them so costs no process.
type Caller interface {
	Call(ctx context.Context, socket, method string, params ...any) (json.RawMessage, error)
}

// ErrSilent: nobody listens at the socket, or does not answer in time.
var ErrSilent = errors.New("does not answer")

// callTimeout bounds a request: the daemons answer in a millisecond.
const callTimeout = 800 * time.Millisecond

// Sockets is the Caller of the real daemons.
type Sockets struct{}

// Call implements Caller.
func (Sockets) Call(ctx context.Context, socket, method string, params ...any) (json.RawMessage, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, fmt.Errorf("%s %w: %w", socket, ErrSilent, err)
	}
	defer conn.Close()
	end, _ := ctx.Deadline()
	if err := conn.SetDeadline(end); err != nil {
		return nil, err
	}
	if params == nil {
		params = []any{}
	}
	if err := json.NewEncoder(conn).Encode(map[string]any{"method": method, "params": params, "id": 0}); err != nil {
		return nil, fmt.Errorf("%s %w: %w", socket, ErrSilent, err)
	}
	return answer(json.NewDecoder(conn), socket)
}

// answer reads up to the answer; a server may send an echo request first.
func answer(in *json.Decoder, socket string) (json.RawMessage, error) {
	for {
		var reply struct {
			Method *string         `json:"method"`
			Result json.RawMessage `json:"result"`
			Error  json.RawMessage `json:"error"`
		}
		if err := in.Decode(&reply); err != nil {
			return nil, fmt.Errorf("%s %w: %w", socket, ErrSilent, err)
		}
		if reply.Method != nil {
			continue
		}
		if e := string(reply.Error); e != "" && e != "null" {
			return nil, fmt.Errorf("%s: %s", socket, strings.Trim(e, `"`))
		}
		return reply.Result, nil
	}
}

// Absent reports whether nobody is there at all, as opposed to somebody who hangs.
func Absent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)
}

// Text asks a daemon's control at a socket.
func Text(ctx context.Context, c Caller, socket, command string, args ...any) (string, error) {
	raw, err := c.Call(ctx, socket, command, args...)
	if err != nil {
		return "", err
	}
	var out string
	if err := json.Unmarshal(raw, &out); err != nil {
		return "", fmt.Errorf("%s: answer to %s: %w", socket, command, err)
	}
	return out, nil
}

// Control asks a daemon whose control socket has its process ID in its name.
func Control(ctx context.Context, c Caller, h host.Host, pidFile, command string, args ...any) (string, error) {
	f, err := h.ReadFile(pidFile)
	if err != nil {
		return "", fmt.Errorf("%s: %w", pidFile, err)
	}
	socket := strings.TrimSuffix(pidFile, "pid") + strings.TrimSpace(string(f.Content)) + ".ctl"
	answer, err := Text(ctx, c, socket, command, args...)
	return strings.TrimSpace(answer), err
}

// Word says why a daemon did not answer.
func Word(err error) string {
	switch {
	case Absent(err):
		return "does not run"
	case errors.Is(err, ErrSilent):
		return "does not answer"
	}
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

// Row is a row of a table: values as OVSDB writes them.
type Row map[string]json.RawMessage

// Rows reads all rows of a table, or those that meet the conditions.
func Rows(ctx context.Context, c Caller, socket, database, table string, columns []string, where ...any) ([]Row, error) {
	if where == nil {
		where = []any{}
	}
	op := map[string]any{"op": "select", "table": table, "where": where, "columns": columns}
	raw, err := c.Call(ctx, socket, "transact", database, op)
	if err != nil {
		return nil, err
	}
	var results []struct {
		Rows    []Row  `json:"rows"`
		Error   string `json:"error"`
		Details string `json:"details"`
	}
	if err := json.Unmarshal(raw, &results); err != nil {
		return nil, fmt.Errorf("%s: rows of %s: %w", socket, table, err)
	}
	if len(results) == 0 {
		return nil, fmt.Errorf("%s: no rows of %s", socket, table)
	}
	if e := results[0]; e.Error != "" {
		return nil, fmt.Errorf("%s: rows of %s: %s %s", socket, table, e.Error, e.Details)
	}
	return results[0].Rows, nil
}

// Text returns a column of one text; empty when the set is empty.
func (r Row) Text(column string) string {
	var s string
	if json.Unmarshal(r[column], &s) == nil {
		return s
	}
	return ""
}

// Number returns a column of one integer.
func (r Row) Number(column string) int64 {
	var n int64
	_ = json.Unmarshal(r[column], &n) // anything else is none
	return n
}

// Pairs returns a column that maps texts to texts.
func (r Row) Pairs(column string) map[string]string {
	out := map[string]string{}
	var wrapped []json.RawMessage
	var pairs [][2]string
	if json.Unmarshal(r[column], &wrapped) == nil && len(wrapped) == 2 && json.Unmarshal(wrapped[1], &pairs) == nil {
		for _, p := range pairs {
			out[p[0]] = p[1]
		}
	}
	return out
}

// Refs returns a column of references to rows: one, or a set.
func (r Row) Refs(column string) []string {
	var wrapped []json.RawMessage
	if json.Unmarshal(r[column], &wrapped) != nil || len(wrapped) != 2 {
		return nil
	}
	var id string
	if json.Unmarshal(wrapped[1], &id) == nil {
		return []string{id}
	}
	var set [][2]string
	if json.Unmarshal(wrapped[1], &set) != nil {
		return nil
	}
	var out []string
	for _, e := range set {
		out = append(out, e[1])
	}
	return out
}
