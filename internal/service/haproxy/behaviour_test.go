package haproxy

import (
	"bufio"
	"context"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"nines/internal/model"
	"nines/internal/plan"
	"nines/internal/service"
	"nines/internal/service/servicetest"
)

// As HAProxy 3.0 prints it, shortened to the columns around those that count.
const stat = `# pxname,svname,qcur,status,weight,type,check_status,check_code,check_duration,
keystone,ctl1,0,UP,1,2,L7OK,200,3,
keystone,ctl2,0,DOWN 1/2,1,2,L7STS,503,2,
mariadb,ctl1,0,DOWN,1,2,* L4CON,,0,
mariadb,ctl2,0,UP 1/2,1,2,L7OK,200,0,
mariadb,ctl3,0,UP,1,2,L7OK,200,0,
keystone,BACKEND,0,UP,3,1,,,,

`

const table = `# table: mariadb, type: ip, size:1, used:1
0x7f3c2c0: key=198.18.0.10 use=0 exp=0 shard=0 server_id=3 server_key=ctl3

`

// socket serves canned answers like the administration socket does: one command a connection.
func socket(t *testing.T, answers map[string]string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "admin.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			command, _ := bufio.NewReader(conn).ReadString('\n')
			if answer, ok := answers[strings.TrimSpace(command)]; ok {
				io.WriteString(conn, answer)
			} else {
				io.Copy(io.Discard, conn) // frozen: takes the connection and says nothing
			}
			conn.Close()
		}
	}()
	return path
}

func TestObserve(t *testing.T) {
	s := New(testListeners)
	s.socket = socket(t, map[string]string{"show stat -1 4 -1": stat, "show table mariadb": table})
	o := s.Observe(t.Context(), service.Env{Cluster: servicetest.Cluster()})
	if !o.Serving || o.Reason != "3 of 5 servers up" {
		t.Errorf("serving %v: %s", o.Serving, o.Reason)
	}
	if got, want := o.Facts[FactDown], "keystone/ctl2=L7STS 503;mariadb/ctl1=L4CON"; got != want {
		t.Errorf("down %q, want %q", got, want)
	}
	if got := o.Facts[FactWriter+"mariadb"]; got != "ctl3" {
		t.Errorf("writer %q, want ctl3: it stands in the table", got)
	}
}

// The last check of a server that an agent has set down passed: that is no reason.
func TestServerThatIsDownByAnAgentsWord(t *testing.T) {
	s := New(testListeners)
	set := strings.Replace(stat, "keystone,ctl1,0,UP", "keystone,ctl1,0,DOWN", 1)
	s.socket = socket(t, map[string]string{"show stat -1 4 -1": set, "show table mariadb": table})
	o := s.Observe(t.Context(), service.Env{Cluster: servicetest.Cluster()})
	if got := o.Facts[FactDown]; !strings.HasPrefix(got, "keystone/ctl1=by the word of an agent") {
		t.Errorf("down %q", got)
	}
}

func TestWriterWithoutTableEntryIsTheFirstThatIsUp(t *testing.T) {
	s := New(testListeners)
	s.socket = socket(t, map[string]string{"show stat -1 4 -1": stat, "show table mariadb": "# table: mariadb, type: ip, size:1, used:0\n\n"})
	o := s.Observe(t.Context(), service.Env{Cluster: servicetest.Cluster()})
	if got := o.Facts[FactWriter+"mariadb"]; got != "ctl2" {
		t.Errorf("writer %q, want ctl2", got)
	}
}

func TestFrozenOrDeadProxyDoesNotServe(t *testing.T) {
	s := New(testListeners)
	s.socket = filepath.Join(t.TempDir(), "none")
	if o := s.Observe(t.Context(), service.Env{Cluster: servicetest.Cluster()}); o.Serving {
		t.Error("serving without a socket")
	}
	s.socket = socket(t, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if o := s.Observe(ctx, service.Env{Cluster: servicetest.Cluster()}); o.Serving {
		t.Error("serving although nothing is answered")
	}
}

func TestReadyAfterFirstChecks(t *testing.T) {
	s := New(testListeners)
	s.socket = socket(t, map[string]string{"show stat -1 4 -1": strings.ReplaceAll(stat, "* L4CON,,", "* INI,,")})
	if done, reason, err := s.ready(t.Context(), service.Env{}, nil); done || err != nil {
		t.Errorf("ready before the first check of a server: %q, %v", reason, err)
	}
	s.socket = socket(t, map[string]string{"show stat -1 4 -1": stat})
	if done, reason, err := s.ready(t.Context(), service.Env{}, nil); !done || err != nil {
		t.Errorf("not ready: %q, %v", reason, err)
	}
}

func TestPassOver(t *testing.T) {
	s := New(testListeners)
	const command = "set server keystone/ctl1 health down;set server mariadb/ctl3 health down"
	s.socket = socket(t, map[string]string{"show stat -1 4 -1": stat, command: "\n\n"})
	if err := s.PassOver(t.Context(), service.Env{}, []string{"ctl1", "ctl3"}); err != nil {
		t.Errorf("those that are up, and no others, are set down: %v", err)
	}
	if err := s.PassOver(t.Context(), service.Env{}, []string{"com1"}); err != nil {
		t.Errorf("a node without servers: %v", err)
	}
	s.socket = socket(t, map[string]string{"show stat -1 4 -1": stat, command: "No such server.\n\n"})
	if err := s.PassOver(t.Context(), service.Env{}, []string{"ctl1", "ctl3"}); err == nil {
		t.Error("what HAProxy complains of is kept quiet")
	}
}

// What an agent says is set where it is not so already; what it says nothing of stays as it is.
func TestHeed(t *testing.T) {
	env := service.Env{Cluster: servicetest.Cluster()}
	for _, c := range []struct {
		name, node string
		said       map[string]bool
		want       string // command; empty: none
	}{
		{"it ceases to serve", "ctl3", map[string]bool{"galera": false}, "set server mariadb/ctl3 health down"},
		{"it serves again", "ctl2", map[string]bool{"keystone": true}, "set server keystone/ctl2 health up"},
		{"several words", "ctl1", map[string]bool{"galera": true, "keystone": false}, "set server keystone/ctl1 health down;set server mariadb/ctl1 health up"},
		{"known already", "ctl2", map[string]bool{"keystone": false, "galera": true}, ""},
		{"of nothing that is published", "ctl1", map[string]bool{"chrony": false}, ""},
		{"of a node without servers", "cmp1", map[string]bool{"keystone": false}, ""},
	} {
		heed := func(answer string) error {
			s := New(testListeners)
			answers := map[string]string{"show stat -1 4 -1": stat}
			if c.want != "" {
				answers[c.want] = answer
			}
			s.socket = socket(t, answers)
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond) // another command is never answered
			defer cancel()
			return s.Heed(ctx, env, c.node, c.said)
		}
		if err := heed("\n"); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if c.want != "" && heed("No such server.\n\n") == nil {
			t.Errorf("%s: what HAProxy complains of is kept quiet, or was not asked", c.name)
		}
	}
	s := New(testListeners)
	s.socket = filepath.Join(t.TempDir(), "none")
	if err := s.Heed(t.Context(), env, "ctl1", map[string]bool{"keystone": false}); err != nil {
		t.Errorf("no instance here, with Pacemaker that is usual: %v", err)
	}
}

func TestJudge(t *testing.T) {
	sees := func(down string) service.Observation {
		return service.Observation{Serving: true, Facts: map[string]string{FactDown: down}}
	}
	tests := []struct {
		name string
		seen map[string]service.Observation
		want []string
	}{
		{"all well", map[string]service.Observation{"ctl1": sees(""), "ctl2": sees(""), "ctl3": sees("")}, nil},
		{"one server down, told once", map[string]service.Observation{"ctl1": sees("keystone/ctl2=L7STS 503"), "ctl2": sees("keystone/ctl2=L7STS 503"), "ctl3": sees("keystone/ctl2=L7STS 503")},
			[]string{"haproxy-backend-down/ctl2"}},
		{"an instance down", map[string]service.Observation{"ctl1": {Reason: "x"}, "ctl2": sees("")}, []string{"haproxy-down/ctl1", "haproxy-down/ctl3"}},
		{"seen by one only: not dead", map[string]service.Observation{"ctl1": sees("k/ctl1=a;k/ctl2=a;k/ctl3=a"), "ctl2": sees(""), "ctl3": sees("")},
			[]string{"haproxy-backend-down/ctl1", "haproxy-backend-down/ctl2", "haproxy-backend-down/ctl3"}},
		{"no server left", map[string]service.Observation{"ctl1": sees("k/ctl1=a;k/ctl2=a;k/ctl3=a"), "ctl2": sees("k/ctl1=a;k/ctl2=a;k/ctl3=a"), "ctl3": sees("k/ctl1=a;k/ctl2=a;k/ctl3=a")},
			[]string{"haproxy-backend-down/ctl1", "haproxy-backend-down/ctl2", "haproxy-backend-down/ctl3", "haproxy-listener-dead/"}},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			var got []string
			for _, c := range New(testListeners).Judge(servicetest.Cluster(), tc.seen) {
				got = append(got, c.Code+"/"+c.Node)
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestListenersThatClashAreRefused(t *testing.T) {
	for name, ls := range map[string][]service.Listener{
		"name": {{Name: "a", Port: 1}, {Name: "a", Port: 2}},
		"port": {{Name: "a", Port: 1}, {Name: "b", Port: 1}},
	} {
		s := New(nil)
		if _, err := s.published(servicetest.Cluster()); err != nil {
			t.Fatal(err)
		}
		s = New(testListenersOf(ls))
		if _, err := s.published(servicetest.Cluster()); err == nil {
			t.Errorf("two listeners of one %s are accepted", name)
		}
	}
}

func TestResourcesFormAPlan(t *testing.T) {
	rs := testResources(t)
	for _, name := range []string{service.CapPackages, service.CapBase, service.CapEngine} {
		rs = append(rs, plan.Resource{ID: plan.ID(name), Action: &plan.Action{Name: name}, Provides: []string{name}})
	}
	if _, err := plan.Graph(rs); err != nil {
		t.Fatal(err)
	}
	for _, r := range rs {
		if r.File != nil && strings.Contains(string(r.File.Content), "statspw") && r.File.Mode&0o077 != 0 {
			t.Errorf("%s: the password of the statistics page is readable by others", r.ID)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte(stat))
	f.Add([]byte("# pxname,svname,status,type\n\"a,b\n"))
	f.Fuzz(func(t *testing.T, answer []byte) {
		servers, err := parseStat(answer)
		if err != nil && servers != nil {
			t.Error("servers and an error")
		}
	})
}

func FuzzParseWriter(f *testing.F) {
	f.Add([]byte(table))
	f.Fuzz(func(t *testing.T, answer []byte) {
		if key := parseWriter(answer); strings.ContainsAny(key, " \n") {
			t.Errorf("writer %q", key)
		}
	})
}

func testListenersOf(ls []service.Listener) func(*model.Cluster) []service.Listener {
	return func(*model.Cluster) []service.Listener { return ls }
}
