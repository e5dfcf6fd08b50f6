package ovn

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
)

// caller makes one JSON-RPC request (version 1.0, as OVSDB speaks it: RFC 7047) at a local socket. Both the
// databases and the daemons' controls (ovs-appctl) answer in it: asking them so costs no process.
type caller interface {
	call(ctx context.Context, socket, method string, params ...any) (json.RawMessage, error)
}

// errSilent: nobody listens at the socket, or does not answer in time.
var errSilent = errors.New("does not answer")

// callTimeout bounds a request: the daemons answer in a millisecond.
const callTimeout = 800 * time.Millisecond

type unixCaller struct{}

func (unixCaller) call(ctx context.Context, socket, method string, params ...any) (json.RawMessage, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, fmt.Errorf("%s %w: %w", socket, errSilent, err)
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
		return nil, fmt.Errorf("%s %w: %w", socket, errSilent, err)
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
			return nil, fmt.Errorf("%s %w: %w", socket, errSilent, err)
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

// absent reports whether nobody is there at all, as opposed to somebody who hangs.
func absent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)
}

// text asks a daemon's control.
func text(ctx context.Context, c caller, socket, command string, args ...any) (string, error) {
	raw, err := c.call(ctx, socket, command, args...)
	if err != nil {
		return "", err
	}
	var out string
	if err := json.Unmarshal(raw, &out); err != nil {
		return "", fmt.Errorf("%s: answer to %s: %w", socket, command, err)
	}
	return out, nil
}

// row is a row of a table: values as OVSDB writes them.
type row map[string]json.RawMessage

// rows reads all rows of a table, or those that meet the conditions.
func rows(ctx context.Context, c caller, socket, database, table string, columns []string, where ...any) ([]row, error) {
	if where == nil {
		where = []any{}
	}
	op := map[string]any{"op": "select", "table": table, "where": where, "columns": columns}
	raw, err := c.call(ctx, socket, "transact", database, op)
	if err != nil {
		return nil, err
	}
	var results []struct {
		Rows    []row  `json:"rows"`
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

// text returns a column of one text; empty when the set is empty.
func (r row) text(column string) string {
	var s string
	if json.Unmarshal(r[column], &s) == nil {
		return s
	}
	return ""
}

// number returns a column of one integer.
func (r row) number(column string) int64 {
	var n int64
	_ = json.Unmarshal(r[column], &n) // anything else is none
	return n
}

// pairs returns a column that maps texts to texts.
func (r row) pairs(column string) map[string]string {
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

// refs returns a column of references to rows: one, or a set.
func (r row) refs(column string) []string {
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
