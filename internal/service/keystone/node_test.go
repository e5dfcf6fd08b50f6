package keystone

import (
	"context"
	"encoding/pem"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"nines/internal/host"
	"nines/internal/model"
	"nines/internal/service"
	"nines/internal/service/servicetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// disk is a node with files and a log of commands.
type disk struct {
	host.Host
	files map[string]string
	ran   []host.Cmd
}

func (d *disk) ReadFile(name string) (host.File, error) {
	text, ok := d.files[name]
	if !ok {
		return host.File{}, fs.ErrNotExist
	}
	return host.File{Path: name, Content: []byte(text)}, nil
}

func (d *disk) WriteFile(_ context.Context, f host.File, _ []string) error {
	d.files[f.Path] = string(f.Content)
	return nil
}

func (d *disk) RemoveFile(name string) error { delete(d.files, name); return nil }

func (d *disk) Run(_ context.Context, cmd host.Cmd) (host.Output, error) {
	d.ran = append(d.ran, cmd)
	if cmd.Args[0] != "ls" {
		return host.Output{}, nil
	}
	var names []string
	for _, name := range slices.Sorted(maps.Keys(d.files)) {
		if path.Dir(name) == cmd.Args[2] {
			names = append(names, path.Base(name))
		}
	}
	return host.Output{Stdout: []byte(strings.Join(names, "\n") + "\n")}, nil
}

func testEnv(d *disk) service.Env {
	c := servicetest.Cluster()
	return service.Env{Host: d, Cluster: c, Node: c.Nodes[0], Secrets: testSecrets(), Log: slog.New(slog.DiscardHandler)}
}

func TestKeysAction(t *testing.T) {
	d := &disk{files: map[string]string{fernetDir + "/0": keyB, fernetDir + "/7": keyA, fernetDir + "/.0.tmp": "x"}}
	act, env := New().Actions()[actionKeys], testEnv(d)
	args := map[string]string{"dir": fernetDir, "secret": SecretFernet}
	done, reason, err := act.Check(t.Context(), env, args)
	if err != nil || done || strings.Contains(reason, keyA) {
		t.Fatalf("before: done %v, %q, %v", done, reason, err)
	}
	if err := act.Run(t.Context(), env, args); err != nil {
		t.Fatal(err)
	}
	if done, reason, err = act.Check(t.Context(), env, args); err != nil || !done {
		t.Fatalf("after: done %v, %q, %v", done, reason, err)
	}
	want := map[string]string{fernetDir + "/0": keyA, fernetDir + "/1": keyB, fernetDir + "/.0.tmp": "x"}
	if !maps.Equal(d.files, want) {
		t.Errorf("files %v", slices.Sorted(maps.Keys(d.files)))
	}
}

// database has so many endpoints.
type database struct {
	endpoints int
	err       error
}

func (d database) IdentityEndpoints(context.Context, string, string, string) (int, error) {
	return d.endpoints, d.err
}
func (d database) Close() error { return nil }

func TestBootstrapIsDoneWhenTheEndpointsAreThere(t *testing.T) {
	for name, tc := range map[string]struct {
		db   database
		done bool
	}{
		"done":  {database{3, nil}, true},
		"half":  {database{2, nil}, false},
		"empty": {database{}, false},
		"down":  {database{3, errors.New("connect: no such file")}, false},
	} {
		s := New()
		s.openSQL = func() (catalogue, error) { return tc.db, nil }
		done, reason, err := s.Actions()[actionBootstrap].Check(t.Context(), testEnv(&disk{}), nil)
		if err != nil || done != tc.done || done == (reason != "") {
			t.Errorf("%s: done %v (%s), error %v", name, done, reason, err)
		}
	}
}

func TestBootstrapKeepsThePasswordOutOfTheArguments(t *testing.T) {
	d := &disk{files: map[string]string{}}
	err := New().Actions()[actionBootstrap].Run(t.Context(), testEnv(d), map[string]string{"region": Region, "url": "https://vip:5000/v3"})
	if err != nil || len(d.ran) != 1 {
		t.Fatalf("%d commands, %v", len(d.ran), err)
	}
	if strings.Contains(strings.Join(d.ran[0].Args, " "), "adminpassword") || !slices.Contains(d.ran[0].Env, "OS_BOOTSTRAP_PASSWORD=adminpassword") {
		t.Errorf("command %v", d.ran[0].Args)
	}
}

// keystoneServer answers on loopback; the service's connections are led to it.
func keystoneServer(t *testing.T, h http.HandlerFunc) (*Service, service.Env) {
	t.Helper()
	srv := httptest.NewTLSServer(h)
	t.Cleanup(srv.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	env := testEnv(&disk{files: map[string]string{model.PathCA: string(ca)}})
	env.Node.Addresses = map[model.NetworkName]netip.Addr{model.Management: netip.MustParseAddr("127.0.0.1")}
	return dialing(srv.Listener.Addr().String()), env
}

func dialing(address string) *Service {
	s := New()
	s.client.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, address)
	}
	return s
}

func TestObserve(t *testing.T) {
	for name, tc := range map[string]struct {
		status  int
		serving bool
	}{"answers": {200, true}, "broken": {500, false}, "starting": {503, false}} {
		t.Run(name, func(t *testing.T) {
			s, env := keystoneServer(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/v3" {
					t.Errorf("asked for %s", r.URL.Path)
				}
				w.WriteHeader(tc.status)
			})
			if o := s.Observe(t.Context(), env); o.Serving != tc.serving || (len(o.Conditions) == 0) != tc.serving || o.Reason == "" {
				t.Errorf("%+v", o)
			}
		})
	}
}

// A stopped process: the kernel accepts, nobody answers.
func TestObserveFrozen(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, env := keystoneServer(t, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if o := dialing(l.Addr().String()).Observe(ctx, env); o.Serving || !strings.Contains(o.Reason, "frozen") {
		t.Errorf("%+v", o)
	}
}

func TestTokenIsProvenOnce(t *testing.T) {
	asked := map[string]int{}
	s, env := keystoneServer(t, func(w http.ResponseWriter, r *http.Request) {
		asked[r.Method]++
		if r.Method == http.MethodPost {
			w.WriteHeader(http.StatusCreated)
		}
	})
	args := map[string]string{"url": "https://127.0.0.1:5000/v3"}
	for range 3 {
		if done, reason, err := s.checkToken(t.Context(), env, args); !done || err != nil {
			t.Fatalf("%s %v", reason, err)
		}
	}
	if asked["POST"] != 1 || asked["GET"] != 2 {
		t.Errorf("asked %v, want one password and two looks", asked)
	}
}

func TestJudge(t *testing.T) {
	o := func(serving bool, hash string) service.Observation {
		return service.Observation{Serving: serving, Facts: map[string]string{FactFernet: hash}}
	}
	for name, tc := range map[string]struct {
		seen map[string]service.Observation
		want []string
	}{
		"whole":          {map[string]service.Observation{"ctl1": o(true, "a"), "ctl2": o(true, "a"), "ctl3": o(true, "a")}, nil},
		"keys differ":    {map[string]service.Observation{"ctl1": o(true, "a"), "ctl2": o(true, "b")}, []string{"keystone-keys-differ"}},
		"all away":       {map[string]service.Observation{"ctl1": o(false, "a"), "ctl2": o(false, "")}, []string{"keystone-unavailable"}},
		"nobody answers": {nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, c := range New().Judge(servicetest.Cluster(), tc.seen) {
				got = append(got, c.Code)
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("%v, want %v", got, tc.want)
			}
		})
	}
}
