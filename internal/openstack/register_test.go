package openstack

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"nines/internal/host"
	"nines/internal/host/hosttest"
	"nines/internal/model"
	"nines/internal/service"
)

// object is a JSON object of Keystone's API.
type object = map[string]any

// keystone answers like Keystone as far as registration asks. Its collections are by path ("users").
type keystone struct {
	mu        sync.Mutex
	things    map[string][]object
	passwords map[string]string // by name
	roles     []string          // "PROJECT USER ROLE"
	changes   []string
	next      int
}

func newKeystone() *keystone {
	k := &keystone{things: map[string][]object{}, passwords: map[string]string{"admin": "adminpassword"}}
	for _, role := range []string{"admin", "service"} {
		k.add("roles", object{"name": role})
	}
	return k
}

func (k *keystone) add(kind string, o object) object {
	k.next++
	o["id"] = fmt.Sprintf("%s%d", kind, k.next)
	k.things[kind] = append(k.things[kind], o)
	return o
}

func (k *keystone) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var body map[string]object
	if raw, _ := io.ReadAll(r.Body); len(raw) > 0 {
		if err := json.Unmarshal(raw, &body); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
	}
	parts := strings.Split(strings.TrimPrefix(r.URL.Path, "/v3/"), "/")
	if r.Method != http.MethodGet && parts[0] != "auth" {
		k.changes = append(k.changes, r.Method+" "+parts[0])
	}
	switch {
	case parts[0] == "auth":
		k.token(w, body["auth"])
	case len(parts) == 6: // projects/P/users/U/roles/R
		k.roles = append(k.roles, parts[1]+" "+parts[3]+" "+parts[5])
		w.WriteHeader(http.StatusNoContent)
	case r.Method == http.MethodGet:
		k.list(w, parts[0], r)
	case r.Method == http.MethodPost:
		kind := strings.TrimSuffix(parts[0], "s")
		answer(w, http.StatusCreated, object{kind: k.set(k.add(parts[0], object{"enabled": true}), body[kind])})
	default:
		k.one(w, r, parts, body)
	}
}

func (k *keystone) set(o, with object) object {
	for key, v := range with {
		if key == "password" {
			continue // below, when the name is known
		}
		if key == "region" {
			o["region_id"] = v
		}
		o[key] = v
	}
	if p, ok := with["password"]; ok {
		k.passwords[o["name"].(string)] = p.(string)
	}
	return o
}

func (k *keystone) one(w http.ResponseWriter, r *http.Request, parts []string, body map[string]object) {
	kind := strings.TrimSuffix(parts[0], "s")
	i := slices.IndexFunc(k.things[parts[0]], func(o object) bool { return o["id"] == parts[1] })
	if i < 0 {
		answer(w, http.StatusNotFound, object{})
		return
	}
	if r.Method == http.MethodDelete {
		k.things[parts[0]] = slices.Delete(k.things[parts[0]], i, i+1)
		w.WriteHeader(http.StatusNoContent)
		return
	}
	answer(w, http.StatusOK, object{kind: k.set(k.things[parts[0]][i], body[kind])})
}

func (k *keystone) list(w http.ResponseWriter, kind string, r *http.Request) {
	out := []object{}
	for _, o := range k.things[kind] {
		match := true
		for key := range r.URL.Query() {
			match = match && (o[key] == nil || fmt.Sprint(o[key]) == r.URL.Query().Get(key))
		}
		if match {
			out = append(out, o)
		}
	}
	answer(w, http.StatusOK, object{kind: out, "links": object{}})
}

func (k *keystone) token(w http.ResponseWriter, auth object) {
	user := auth["identity"].(object)["password"].(object)["user"].(object)
	if k.passwords[user["name"].(string)] != user["password"] {
		answer(w, http.StatusUnauthorized, object{})
		return
	}
	w.Header().Set("X-Subject-Token", "token")
	answer(w, http.StatusCreated, object{"token": object{"expires_at": "2099-01-01T00:00:00.000000Z", "catalog": []object{}}})
}

func answer(w http.ResponseWriter, status int, body object) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the test sees a broken answer
}

// serve starts Keystone on loopback and returns a registrar that is led there whatever address it wants.
func serve(t *testing.T, handler http.Handler) (*Client, service.Env, *hosttest.Host) {
	t.Helper()
	srv := httptest.NewTLSServer(handler)
	t.Cleanup(srv.Close)
	env, h := testEnv()
	h.PutFile(host.File{Path: model.PathCA, Mode: 0o644,
		Content: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})})
	// The certificate of httptest is for 127.0.0.1.
	env.Cluster.VIP.Address = prefix("127.0.0.1/8")
	env.Node.Addresses[model.Management] = prefix("127.0.0.1/8").Addr()
	return &Client{Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, srv.Listener.Addr().String())
	}}, env, h
}

var wanted = Registration{Name: "x", Type: "x-type", URL: "https://127.0.0.1:9999/x", Public: "https://127.0.0.2:9999/x", User: "x", Secret: "x/user", Roles: []string{"admin", "service"}}

// catalogue is what localCatalogue would find in Keystone's tables.
func (k *keystone) catalogue(context.Context, Registration) (registered, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var r registered
	for _, e := range k.things["endpoints"] {
		if e["enabled"] == true {
			r.endpoints = append(r.endpoints, fmt.Sprint(e["interface"], " ", e["url"]))
		}
	}
	slices.Sort(r.endpoints)
	for _, role := range k.things["roles"] {
		if slices.ContainsFunc(k.roles, func(a string) bool { return strings.HasSuffix(a, " "+role["id"].(string)) }) {
			r.roles = append(r.roles, role["name"].(string))
		}
	}
	return r, nil
}

func TestRegister(t *testing.T) {
	k := newKeystone()
	client, env, _ := serve(t, k)
	args := wanted.Resource("x", env.Node).Action.Args
	apply := func(what string, changed bool) {
		t.Helper()
		r := &Registrar{Client: client, catalogue: k.catalogue} // as after a start of the agent
		if done, _, err := r.Action().Check(t.Context(), env, args); err != nil || done == changed {
			t.Fatalf("%s: before: done %v, %v", what, done, err)
		}
		if err := r.Action().Run(t.Context(), env, args); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if done, reason, err := r.Action().Check(t.Context(), env, args); err != nil || !done {
			t.Fatalf("%s: after: done %v (%s), %v", what, done, reason, err)
		}
	}
	apply("new", true)
	k.changes = nil
	apply("again", false)
	if want := []string{"PUT projects", "PUT projects"}; !slices.Equal(k.changes, want) { // roles, which can be given twice
		t.Errorf("the second time changed %v", k.changes)
	}
	k.passwords["x"] = "other"
	apply("password", true)
	k.things["endpoints"][0]["url"] = "https://old"
	apply("an old address", true)
	k.add("endpoints", object{"interface": "public", "service_id": k.things["services"][0]["id"], "region_id": Region, "enabled": true, "url": "https://old"})
	apply("a second one", true)
	if n := len(k.things["endpoints"]); n != 3 {
		t.Errorf("%d endpoints", n)
	}
	for kind, n := range map[string]int{"users": 1, "projects": 1, "services": 1} {
		if len(k.things[kind]) != n {
			t.Errorf("%d %s", len(k.things[kind]), kind)
		}
	}
}

// While the database's writer moves, Keystone answers 500, or not at all.
func TestRegistrationIsTriedAgain(t *testing.T) {
	for name, tc := range map[string]struct {
		fail func(http.ResponseWriter)
		ok   bool
	}{
		"500":       {func(w http.ResponseWriter) { w.WriteHeader(http.StatusInternalServerError) }, true},
		"no answer": {func(http.ResponseWriter) { panic(http.ErrAbortHandler) }, true},
		"403":       {func(w http.ResponseWriter) { w.WriteHeader(http.StatusForbidden) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			k := newKeystone()
			var requests atomic.Int32
			client, env, _ := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if requests.Add(1) == 4 { // in the middle
					tc.fail(w)
					return
				}
				k.ServeHTTP(w, r)
			}))
			r := &Registrar{Client: client, catalogue: k.catalogue, pause: time.Millisecond}
			err := r.Action().Run(t.Context(), env, wanted.Resource("x", env.Node).Action.Args)
			if (err == nil) != tc.ok {
				t.Errorf("error %v after %d requests", err, requests.Load())
			}
		})
	}
}

func TestRegistrationWithoutKeystone(t *testing.T) {
	client, env, _ := serve(t, http.NotFoundHandler())
	r := &Registrar{Client: client, catalogue: newKeystone().catalogue}
	err := r.Action().Run(t.Context(), env, wanted.Resource("x", env.Node).Action.Args)
	if err == nil || strings.Contains(err.Error(), "adminpassword") {
		t.Errorf("error %v", err)
	}
}
