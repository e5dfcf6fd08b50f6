package smoke

import (
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// fakeAPI answers as OpenStack's APIs do, and notes what it was asked.
type fakeAPI struct {
	t      *testing.T
	server *httptest.Server
	mu     sync.Mutex
	seen   []string
	// answers by "METHOD path": status and body.
	answers map[string]string
}

func (a *fakeAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	request := r.Method + " " + r.URL.Path
	if r.URL.Path == "/v3/auth/tokens" {
		w.Header().Set("X-Subject-Token", "t")
		w.WriteHeader(http.StatusCreated)
		fmt.Fprint(w, a.token())
		return
	}
	if version := map[string]string{"/image/": "v2.17", "/network/": "v2.0"}[r.URL.Path]; version != "" { // asked at the login
		w.WriteHeader(http.StatusMultipleChoices)
		fmt.Fprintf(w, `{"versions":[{"id":%q,"status":"CURRENT"}]}`, version)
		return
	}
	note := request
	if r.URL.RawQuery != "" {
		note += "?" + r.URL.RawQuery
	}
	if len(body) > 0 {
		note += " " + string(body)
	}
	a.mu.Lock()
	a.seen = append(a.seen, note)
	answer, ok := a.answers[request]
	a.mu.Unlock()
	if !ok {
		a.t.Errorf("unexpected request: %s", note)
		w.WriteHeader(http.StatusNotFound)
		return
	}
	code, text, _ := strings.Cut(answer, " ")
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-OpenStack-Nova-API-Version", "2.1")
	if location, ok := strings.CutPrefix(text, "Location: "); ok {
		w.Header().Set("Location", location)
		text = ""
	}
	var status int
	_, _ = fmt.Sscan(code, &status)
	w.WriteHeader(status)
	fmt.Fprint(w, text)
}

func (a *fakeAPI) token() string {
	var catalogue []map[string]any
	for kind, path := range map[string]string{"compute": "/compute/v2.1", "image": "/image", "network": "/network", "block-storage": "/volume/v3", "identity": "/v3"} {
		catalogue = append(catalogue, map[string]any{"type": kind, "name": kind, "id": kind, "endpoints": []map[string]string{
			{"id": "1", "interface": "public", "region": "regionOne", "region_id": "regionOne", "url": a.server.URL + path},
			{"id": "2", "interface": "internal", "region": "regionOne", "region_id": "regionOne", "url": "https://192.0.2.1"}}})
	}
	text, err := json.Marshal(map[string]any{"token": map[string]any{"expires_at": "2100-01-01T00:00:00.000000Z", "project": map[string]string{"id": "p1", "name": "admin"}, "catalog": catalogue}})
	if err != nil {
		a.t.Fatal(err)
	}
	return string(text)
}

// requests returns what was asked since the last call.
func (a *fakeAPI) requests() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := a.seen
	a.seen = nil
	return out
}

// openFake logs in to a fake cloud by a clouds.yaml as nines writes it.
func openFake(t *testing.T, answers map[string]string) (*openStack, *fakeAPI) {
	t.Helper()
	api := &fakeAPI{t: t, answers: answers}
	api.server = httptest.NewTLSServer(api)
	t.Cleanup(api.server.Close)
	dir := t.TempDir()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: api.server.Certificate().Raw})
	yaml := fmt.Sprintf("clouds:\n  \"prod\":\n    auth:\n      auth_url: %q\n      username: admin\n      password: \"x\"\n      project_name: admin\n"+
		"      user_domain_name: Default\n      project_domain_name: Default\n    region_name: regionOne\n    interface: public\n    identity_api_version: 3\n    cacert: \"elsewhere/ca.pem\"\n", api.server.URL+"/v3")
	for name, text := range map[string]string{"clouds.yaml": yaml, "ca.pem": string(ca)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("OS_REGION_NAME", "elsewhere") // another cloud's
	t.Setenv("OS_INTERFACE", "internal")
	cloud, err := Login(t.Context(), Credentials{File: filepath.Join(dir, "clouds.yaml"), Cloud: "prod", CA: filepath.Join(dir, "ca.pem")})
	if err != nil {
		t.Fatal(err)
	}
	o := cloud.(*openStack)
	if o.project != "p1" {
		t.Errorf("project %q", o.project)
	}
	return o, api
}

func TestRequestsThatMake(t *testing.T) {
	o, api := openFake(t, map[string]string{
		"POST /image/v2/images":                                    `201 {"id":"i1"}`,
		"PUT /image/v2/images/i1/file":                             `204`,
		"POST /network/v2.0/networks":                              `201 {"network":{"id":"n1"}}`,
		"POST /network/v2.0/subnets":                               `201 {"subnet":{"id":"s1"}}`,
		"POST /network/v2.0/routers":                               `201 {"router":{"id":"r1"}}`,
		"PUT /network/v2.0/routers/r1/add_router_interface":        `200 {"id":"r1"}`,
		"POST /network/v2.0/security-groups":                       `201 {"security_group":{"id":"g1"}}`,
		"POST /network/v2.0/security-group-rules":                  `201 {"security_group_rule":{"id":"x"}}`,
		"POST /network/v2.0/ports":                                 `201 {"port":{"id":"p1","fixed_ips":[{"subnet_id":"s1","ip_address":"192.168.233.7"}]}}`,
		"POST /network/v2.0/floatingips":                           `201 {"floatingip":{"id":"a1","floating_ip_address":"198.51.100.9"}}`,
		"POST /compute/v2.1/flavors":                               `200 {"flavor":{"id":"f1"}}`,
		"POST /compute/v2.1/os-keypairs":                           `200 {"keypair":{"name":"k"}}`,
		"POST /compute/v2.1/servers":                               `202 {"server":{"id":"v1"}}`,
		"POST /compute/v2.1/servers/v1/action":                     `202 Location: https://x/v2/images/i2`,
		"POST /compute/v2.1/servers/v1/os-volume_attachments":      `200 {"volumeAttachment":{"id":"d1"}}`,
		"DELETE /compute/v2.1/servers/v1/os-volume_attachments/d1": `202`,
		"POST /volume/v3/volumes":                                  `202 {"volume":{"id":"d1"}}`,
		"POST /volume/v3/snapshots":                                `202 {"snapshot":{"id":"h1"}}`,
	})
	ctx, about := t.Context(), `"description":"made by 'nines smoke', which removes it"`
	network, external := Thing{ID: "n1", Subnet: "s1"}, Thing{ID: "n2"}
	prefix, address := netip.MustParsePrefix, netip.MustParseAddr
	for name, tc := range map[string]struct {
		spec Spec
		want Thing
		asks []string
	}{
		"kernel": {ImageSpec{Format: "aki", Content: []byte("K")}, Thing{ID: "i1"}, []string{
			`POST /image/v2/images {"container_format":"aki","disk_format":"aki","name":"kernel","visibility":"private"}`, "PUT /image/v2/images/i1/file K"}},
		"image": {ImageSpec{Format: "raw", Content: []byte("R"), Kernel: "k1", Ramdisk: "r1"}, Thing{ID: "i1"}, []string{
			`POST /image/v2/images {"container_format":"bare","disk_format":"raw","kernel_id":"k1","name":"image","ramdisk_id":"r1","visibility":"private"}`, "PUT /image/v2/images/i1/file R"}},
		"network": {NetworkSpec{CIDR: prefix("192.168.233.0/24")}, Thing{ID: "n1", Subnet: "s1"}, []string{
			`POST /network/v2.0/networks {"network":{` + about + `,"name":"network"}}`,
			`POST /network/v2.0/subnets {"subnet":{"cidr":"192.168.233.0/24",` + about + `,"ip_version":4,"name":"network","network_id":"n1"}}`}},
		"external": {ExternalSpec{Physical: "external", CIDR: prefix("198.51.100.0/24"), Gateway: address("198.51.100.1"), First: address("198.51.100.9"), Last: address("198.51.100.20")},
			Thing{ID: "n1", Subnet: "s1"}, []string{
				`POST /network/v2.0/networks {"network":{` + about + `,"name":"external","provider:network_type":"flat","provider:physical_network":"external","router:external":true}}`,
				`POST /network/v2.0/subnets {"subnet":{"allocation_pools":[{"end":"198.51.100.20","start":"198.51.100.9"}],"cidr":"198.51.100.0/24",` + about +
					`,"enable_dhcp":false,"gateway_ip":"198.51.100.1","ip_version":4,"name":"external","network_id":"n1"}}`}},
		"router": {RouterSpec{External: external, Network: network}, Thing{ID: "r1"}, []string{
			`POST /network/v2.0/routers {"router":{` + about + `,"external_gateway_info":{"network_id":"n2"},"name":"router"}}`,
			`PUT /network/v2.0/routers/r1/add_router_interface {"subnet_id":"s1"}`}},
		"group": {GroupSpec{TCP: []int{22}, ICMP: true}, Thing{ID: "g1"}, []string{
			`POST /network/v2.0/security-groups {"security_group":{` + about + `,"name":"group"}}`,
			`POST /network/v2.0/security-group-rules {"security_group_rule":{"direction":"ingress","ethertype":"IPv4","port_range_max":22,"port_range_min":22,"protocol":"tcp","security_group_id":"g1"}}`,
			`POST /network/v2.0/security-group-rules {"security_group_rule":{"direction":"ingress","ethertype":"IPv4","protocol":"icmp","security_group_id":"g1"}}`}},
		"port": {PortSpec{Network: network, Group: Thing{ID: "g1"}}, Thing{ID: "p1", Address: address("192.168.233.7")}, []string{
			`POST /network/v2.0/ports {"port":{` + about + `,"name":"port","network_id":"n1","security_groups":["g1"]}}`}},
		"address": {AddressSpec{External: external, Port: Thing{ID: "p1"}}, Thing{ID: "a1", Address: address("198.51.100.9")}, []string{
			`POST /network/v2.0/floatingips {"floatingip":{"description":"address","floating_network_id":"n2","port_id":"p1"}}`}},
		"flavor": {FlavorSpec{MemoryMB: 96, CPUs: 1}, Thing{ID: "f1"}, []string{
			`POST /compute/v2.1/flavors {"flavor":{"disk":0,"name":"flavor","os-flavor-access:is_public":false,"ram":96,"vcpus":1}}`}},
		"k": {KeySpec{Public: "ssh-ed25519 AAAA"}, Thing{ID: "k"}, []string{`POST /compute/v2.1/os-keypairs {"keypair":{"name":"k","public_key":"ssh-ed25519 AAAA"}}`}},
		"server": {ServerSpec{Image: Thing{ID: "i1"}, Flavor: Thing{ID: "f1"}, Key: Thing{ID: "k"}, Port: Thing{ID: "p1"}}, Thing{ID: "v1"}, []string{
			`POST /compute/v2.1/servers {"server":{"flavorRef":"f1","imageRef":"i1","key_name":"k","name":"server","networks":[{"port":"p1"}]}}`}},
		"shot": {ServerImageSpec{Server: Thing{ID: "v1"}}, Thing{ID: "i2"}, []string{`POST /compute/v2.1/servers/v1/action {"createImage":{"name":"shot"}}`}},
		"volume": {VolumeSpec{GB: 1}, Thing{ID: "d1"}, []string{
			`POST /volume/v3/volumes {"volume":{` + about + `,"name":"volume","size":1}}`}},
		"snapshot": {SnapshotSpec{Volume: Thing{ID: "d1"}}, Thing{ID: "h1"}, []string{
			`POST /volume/v3/snapshots {"snapshot":{` + about + `,"force":true,"name":"snapshot","volume_id":"d1"}}`}},
	} {
		tc.want.Name, tc.want.Kind = name, tc.spec.Kind()
		got, err := o.Make(ctx, name, tc.spec)
		if err != nil || got != tc.want {
			t.Errorf("%s: %+v, %v; want %+v", name, got, err, tc.want)
		}
		if diff := cmp.Diff(tc.asks, api.requests()); diff != "" {
			t.Errorf("%s (-want +got)\n%s", name, diff)
		}
	}
	server, volume := Thing{ID: "v1"}, Thing{ID: "d1"}
	if err := errors.Join(o.Attach(ctx, server, volume), o.Detach(ctx, server, volume)); err != nil {
		t.Error(err)
	}
}

func TestRequestsThatLookAndDelete(t *testing.T) {
	const name = `"name":"nines-smoke-0000000000-x"`
	answers := map[string]string{
		"GET /network/v2.0/ports":                             `200 {"ports":[{"id":"g","device_owner":"network:router_gateway"},{"id":"i","device_owner":"network:router_interface"},{"id":"x",` + name + `}]}`,
		"PUT /network/v2.0/routers/x/remove_router_interface": `200 {"id":"x"}`,
	}
	type kind struct{ path, list, one, state, word string }
	kinds := map[Kind]kind{
		KindImage:    {"/image/v2/images", `"images"`, `{"id":"x","status":"active"}`, "", "active"},
		KindNetwork:  {"/network/v2.0/networks", `"networks"`, `{}`, "", "there"},
		KindRouter:   {"/network/v2.0/routers", `"routers"`, `{}`, "", "there"},
		KindGroup:    {"/network/v2.0/security-groups", `"security_groups"`, `{}`, "", "there"},
		KindPort:     {"/network/v2.0/ports", "", `{}`, "", "there"},
		KindAddress:  {"/network/v2.0/floatingips", `"floatingips"`, `{}`, "", "there"},
		KindFlavor:   {"/compute/v2.1/flavors", `"flavors"`, `{"flavor":{"id":"x"}}`, "/detail", "there"},
		KindKey:      {"/compute/v2.1/os-keypairs", `"keypairs"`, `{"keypair":{}}`, "", "there"},
		KindServer:   {"/compute/v2.1/servers", `"servers"`, `{"server":{"id":"x","status":"ACTIVE","OS-EXT-STS:task_state":null}}`, "/detail", "active"},
		KindVolume:   {"/volume/v3/volumes", `"volumes"`, `{"volume":{"id":"x","status":"in-use"}}`, "/detail", "in-use"},
		KindSnapshot: {"/volume/v3/snapshots", `"snapshots"`, `{"snapshot":{"id":"x","status":"available"}}`, "", "available"},
	}
	id := func(k Kind) string {
		if k == KindKey {
			return "nines-smoke-0000000000-x"
		}
		return "x"
	}
	for k, v := range kinds {
		item := `{"id":"x",` + name + `}`
		switch k {
		case KindAddress:
			item = strings.Replace(item, "name", "description", 1)
		case KindKey:
			item = `{"keypair":` + item + `}`
		}
		if v.list != "" {
			answers["GET "+v.path+v.state] = `200 {` + v.list + `:[` + item + `]}`
		}
		answers["GET "+v.path+"/"+id(k)] = "200 " + v.one
		answers["DELETE "+v.path+"/"+id(k)] = "204"
	}
	for _, path := range []string{"/compute/v2.1/os-keypairs/" + id(KindKey), "/compute/v2.1/flavors/x", "/volume/v3/volumes/x", "/volume/v3/snapshots/x"} {
		answers["DELETE "+path] = "202"
	}
	o, api := openFake(t, answers)
	ctx := t.Context()
	if got := slices.Sorted(maps.Keys(kinds)); len(got) != len(removal) {
		t.Fatalf("%d kinds are tested, %d are deleted", len(got), len(removal))
	}
	for _, k := range removal {
		want := Thing{Kind: k, ID: id(k), Name: "nines-smoke-0000000000-x"}
		list, err := o.List(ctx, k)
		list = slices.DeleteFunc(list, func(t Thing) bool { return t.Name == "" })
		if err != nil || len(list) != 1 || list[0] != want {
			t.Errorf("list of %s: %+v, %v", k, list, err)
		}
		if s, err := o.State(ctx, want); err != nil || s.Word != kinds[k].word {
			t.Errorf("state of %s: %+v, %v", k, s, err)
		}
		if err := o.Delete(ctx, want); err != nil {
			t.Errorf("delete %s: %v", k, err)
		}
	}
	if got := api.requests(); !slices.Contains(got, `PUT /network/v2.0/routers/x/remove_router_interface {"port_id":"i"}`) ||
		!slices.Contains(got, "GET /network/v2.0/networks?project_id=p1") || !slices.Contains(got, "GET /image/v2/images?owner=p1") {
		t.Errorf("%s", strings.Join(got, "\n"))
	}
}

func TestGatewayOfARouter(t *testing.T) {
	for answer, want := range map[string]string{
		`{"ports":[{"id":"g","binding:host_id":"ctl2"}]}`: "ctl2",
		`{"ports":[{"id":"g","binding:host_id":""}]}`:     "",
		`{"ports":[]}`: "",
	} {
		o, api := openFake(t, map[string]string{"GET /network/v2.0/ports": "200 " + answer})
		got, err := o.Gateway(t.Context(), Thing{Kind: KindRouter, ID: "r", Name: "router"})
		if got != want || (err != nil) != (want == "") {
			t.Errorf("%s: %q, %v", answer, got, err)
		}
		if asked := api.requests(); !slices.Contains(asked, "GET /network/v2.0/ports?device_id=r&device_owner=network%3Arouter_gateway") {
			t.Errorf("asked %q", asked)
		}
	}
}

func TestAnswersThatSayNo(t *testing.T) {
	const path = "/network/v2.0/networks"
	o, _ := openFake(t, map[string]string{
		"GET " + path + "/x": "404 {}", "DELETE " + path + "/x": `409 {"NeutronError":{"message":"in use"}}`, "DELETE /volume/v3/volumes/x": `400 {}`,
		"GET " + path:  `200 {"networks":[{"id":"a","name":"a","admin_state_up":true},{"id":"b","name":"b","admin_state_up":true,"subnets":["s"]}]}`,
		"POST " + path: "409 {}",
	})
	ctx := t.Context()
	network := Thing{Kind: KindNetwork, ID: "x"}
	if _, err := o.State(ctx, network); !errors.Is(err, ErrGone) {
		t.Error(err)
	}
	if err := o.Delete(ctx, network); !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), "in use") {
		t.Error(err)
	}
	if err := o.Delete(ctx, Thing{Kind: KindVolume, ID: "x"}); !errors.Is(err, ErrBusy) {
		t.Error(err)
	}
	if _, err := o.Make(ctx, "x", NetworkSpec{}); !errors.Is(err, ErrRefused) {
		t.Error(err)
	}
	if got, found, err := o.External(ctx); err != nil || !found || got.ID != "b" { // the first cannot give addresses
		t.Errorf("%+v, %t, %v", got, found, err)
	}
}

func TestLoginSaysWhatToDo(t *testing.T) {
	_, err := Login(t.Context(), Credentials{File: filepath.Join(t.TempDir(), "clouds.yaml"), Cloud: "prod"})
	var hint interface{ Hint() string }
	if !errors.As(err, &hint) || !strings.Contains(hint.Hint(), "nines status") {
		t.Error(err)
	}
}
