package ovsdb

import (
	"encoding/json"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The real daemons send echo requests of their own.
func TestSockets(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	served := make(chan error, 1)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				served <- nil
				return
			}
			var ask struct{ Method string }
			_ = json.NewDecoder(conn).Decode(&ask)
			switch ask.Method {
			case "good":
				conn.Write([]byte(`{"id":"echo","method":"echo","params":[]}{"id":0,"result":"fine","error":null}`))
			case "bad":
				conn.Write([]byte(`{"id":0,"result":null,"error":"no such command"}`))
			}
			conn.Close()
		}
	}()
	if got, err := Text(t.Context(), Sockets{}, path, "good"); got != "fine" || err != nil {
		t.Errorf("%q %v", got, err)
	}
	if _, err := Text(t.Context(), Sockets{}, path, "bad"); err == nil || !strings.Contains(err.Error(), "no such command") {
		t.Errorf("%v", err)
	}
	if _, err := Text(t.Context(), Sockets{}, path, "none"); !errors.Is(err, ErrSilent) || Absent(err) {
		t.Errorf("%v", err)
	}
	l.Close()
	<-served
	if _, err := Text(t.Context(), Sockets{}, path, "good"); !errors.Is(err, ErrSilent) || !Absent(err) {
		t.Errorf("%v", err)
	}
}

func FuzzRows(f *testing.F) {
	f.Add([]byte(`{"options":["map",[["a","b"]]],"ports":["set",[["uuid","x"]]],"_uuid":["uuid","y"]}`))
	f.Fuzz(func(_ *testing.T, raw []byte) {
		var r Row
		if json.Unmarshal(raw, &r) != nil {
			return
		}
		for column := range r {
			r.Text(column)
			r.Number(column)
			r.Pairs(column)
			r.Refs(column)
		}
	})
}
