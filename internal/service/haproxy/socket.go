package haproxy

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// ask sends one command to the administration socket and returns the whole answer.
func (s *Service) ask(ctx context.Context, command string) ([]byte, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", s.socket)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := io.WriteString(conn, command+"\n"); err != nil {
		return nil, err
	}
	const maxAnswer = 4 << 20
	return io.ReadAll(io.LimitReader(conn, maxAnswer))
}

// server is the state of one server of one listener.
type server struct {
	listener, name string
	up             bool
	why            string // last check's outcome: "L7STS 503", "L4CON"
}

// whyDown is the last check's outcome, if that is why. What was set or what failed connections did has no place in the statistics.
func (v server) whyDown() string {
	if strings.HasPrefix(v.why, "L7OK") {
		return "by the word of an agent, or for failed connections"
	}
	return v.why
}

var errNoHeader = errors.New("statistics have no header line")

// parseStat reads the answer to "show stat": CSV with a header "# pxname,svname,...".
// Lines that are no servers (FRONTEND, BACKEND) are left out; columns are found by name.
func parseStat(answer []byte) ([]server, error) {
	answer, ok := bytes.CutPrefix(bytes.TrimSpace(answer), []byte("# "))
	if !ok {
		return nil, errNoHeader
	}
	r := csv.NewReader(bytes.NewReader(answer))
	r.FieldsPerRecord = -1
	lines, err := r.ReadAll()
	if err != nil {
		return nil, fmt.Errorf("statistics: %w", err)
	}
	column := map[string]int{}
	for i, name := range lines[0] {
		column[name] = i
	}
	for _, name := range []string{"pxname", "svname", "status", "type"} {
		if _, ok := column[name]; !ok {
			return nil, fmt.Errorf("statistics have no column %q", name)
		}
	}
	var out []server
	for _, l := range lines[1:] {
		get := func(name string) string {
			if i, ok := column[name]; ok && i < len(l) {
				return l[i]
			}
			return ""
		}
		if get("type") != "2" { // 0 frontend, 1 backend, 2 server, 3 listener
			continue
		}
		// "UP", "UP 1/2" (going down), "DOWN", "DOWN 1/2" (going up), "MAINT", "no check"
		status, _, _ := strings.Cut(get("status"), " ")
		out = append(out, server{listener: get("pxname"), name: get("svname"), up: status == "UP" || status == "no",
			// "* L7OK": a check is under way, this is the last one's outcome.
			why: strings.TrimSpace(strings.TrimPrefix(get("check_status"), "* ") + " " + get("check_code"))})
	}
	return out, nil
}

// parseWriter reads "show table": the server of the one entry, empty when there is none.
//
//	# table: mariadb, type: ip, size:1, used:1
//	0x7f...: key=198.18.0.10 use=0 exp=0 shard=0 server_id=2 server_key=ctl2
func parseWriter(answer []byte) string {
	for word := range strings.FieldsSeq(string(answer)) {
		if key, ok := strings.CutPrefix(word, "server_key="); ok {
			return key
		}
	}
	return ""
}
