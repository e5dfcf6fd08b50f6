package api

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// One agent that cannot answer yet does not keep the others from being asked.
func TestAnyAgentThatCan(t *testing.T) {
	serve := func(err error) string {
		s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if err != nil {
				WriteError(w, err)
				return
			}
			WriteJSON(w, Status{Leader: "ctl2"})
		}))
		t.Cleanup(s.Close)
		return strings.TrimPrefix(s.URL, "https://")
	}
	nobody := "127.0.0.1:1"
	starting := serve(&Error{Status: 503, Code: CodeNoLeader, Text: "etcd is starting"})
	refuses := serve(&Error{Status: 404, Code: CodeInvalid, Text: "nothing has been applied yet"})
	answers := serve(nil)
	for _, c := range []struct {
		about string
		addrs []string
		want  string // the error
	}{
		{"the second one can", []string{nobody, starting, answers}, ""},
		{"what one says that is up counts", []string{starting, refuses, answers}, "nothing has been applied yet"},
		{"the only one that is up waits", []string{starting, nobody}, "etcd is starting"},
		{"nobody is up", []string{nobody}, "no agent answers"},
	} {
		t.Run(c.about, func(t *testing.T) {
			ts := httptest.NewTLSServer(nil) // for its client's trust
			defer ts.Close()
			client := &Client{http: ts.Client(), addrs: c.addrs}
			defer client.Close()
			st, err := client.Status(t.Context(), LookAtHealth)
			switch {
			case c.want == "" && (err != nil || st.Leader != "ctl2"):
				t.Errorf("%+v, %v", st, err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("%v, want %q", err, c.want)
			}
			var none *NobodyError
			if errors.As(err, &none) != (c.want == "no agent answers") {
				t.Errorf("%T", err)
			}
		})
	}
}
