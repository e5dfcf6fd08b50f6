package bootstrap

import (
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"nines/internal/model"
)

var update = flag.Bool("update", false, "rewrite the golden files")

const clusterID = "5b0f8cc4-9f0b-4a49-a4a5-000000000001"

func testCluster() *model.Cluster {
	c := &model.Cluster{Name: "lab", Release: model.Debian13,
		VIP: model.VIP{Address: netip.MustParsePrefix("198.18.0.10/24"), Network: model.Management}}
	for i := 1; i <= 3; i++ {
		c.Nodes = append(c.Nodes, model.Node{Name: fmt.Sprintf("ctl%d", i), Roles: []model.Role{model.RoleController}, Addresses: map[model.NetworkName]netip.Addr{
			model.Management: netip.MustParseAddr(fmt.Sprintf("198.18.0.1%d", i)),
			model.External:   netip.MustParseAddr(fmt.Sprintf("198.18.1.1%d", i)),
		}})
	}
	return c
}

// answer is what a new machine says, with lines replaced (by their first word, or
// first two for keys that repeat) or added.
func answer(change ...string) string {
	lines := []string{
		"now 1763690000.250000000", "os debian", "codename trixie", "pretty Debian GNU/Linux 13 (trixie)", "arch amd64",
		"init systemd", "system running", "agent inactive", "socket inactive", "enabled ",
		"free /usr/local 4000000", "free /etc 4000000", "free /var/lib 4000000",
		"addr lo 127.0.0.1/8", "addr lo ::1/128", "addr mgmt0 198.18.0.11/24", "addr ext0 198.18.1.11/24", "addr mgmt0 fe80::1/64",
	}
	for _, c := range change {
		key, _, _ := strings.Cut(c, " ")
		w := strings.Fields(c)
		done := false
		for i, l := range lines {
			same := strings.HasPrefix(l, key+" ")
			if (key == "free" || key == "addr") && len(w) > 1 {
				same = strings.HasPrefix(l, key+" "+w[1]+" ")
			}
			if same && key != "listen" && key != "cgroup" && key != "missing" && key != "file" && !done {
				lines[i], done = c, true
			}
		}
		if !done {
			lines = append(lines, c)
		}
	}
	return strings.Join(append(lines, "end ok"), "\n") + "\n"
}

func agentFile(t *testing.T, id, node string) string {
	t.Helper()
	b, err := json.Marshal(model.AgentConfig{ClusterName: "other", ClusterID: id, Node: node})
	if err != nil {
		t.Fatal(err)
	}
	return "file " + model.PathAgentConfig + " 600 root:root " + base64.StdEncoding.EncodeToString(b)
}

func TestJudge(t *testing.T) {
	mine := agentFile(t, clusterID, "ctl1")
	for name, tc := range map[string]struct {
		say  []string
		want []string // parts of each problem, in order
	}{
		"a new machine":                         {nil, nil},
		"degraded is good enough":               {[]string{"system degraded"}, nil},
		"still starting":                        {[]string{"system starting"}, nil},
		"Ubuntu":                                {[]string{"os ubuntu", "codename noble", "pretty Ubuntu 24.04"}, []string{"it runs Ubuntu 24.04; nines deploys to Debian trixie"}},
		"older Debian":                          {[]string{"codename bookworm", "pretty Debian GNU/Linux 12 (bookworm)"}, []string{"it runs Debian GNU/Linux 12 (bookworm)"}},
		"ARM":                                   {[]string{"arch arm64"}, []string{"architecture is arm64"}},
		"plain container":                       {[]string{"init sh", "system offline"}, []string{"systemd does not run it: process 1 is sh"}},
		"rescue mode":                           {[]string{"system maintenance"}, []string{"state maintenance"}},
		"without ip and ss":                     {[]string{"missing ip", "missing ss"}, []string{"it lacks ip, ss"}},
		"full disk":                             {[]string{"free /var/lib 1000"}, []string{"/var/lib has 0 MiB free, 1024 MiB are needed"}},
		"no room for the program":               {[]string{"free /usr/local 20000"}, []string{"/usr/local has 19 MiB free"}},
		"full disk, but in the cluster already": {[]string{"free /var/lib 0", "free /etc 0", mine}, nil},
		"clock 29 s ahead":                      {[]string{"now 1763690029.5"}, nil},
		"clock a minute ahead":                  {[]string{"now 1763690061.0"}, []string{"its clock is 1m0s ahead of"}},
		"clock a minute behind":                 {[]string{"now 1763689940.0"}, []string{"its clock is 1m0s behind"}},
		"no such address":                       {[]string{"addr ext0 198.18.1.99/24"}, []string{"no interface has its external address 198.18.1.11 (there are 198.18.0.11/24 on mgmt0, 198.18.1.99/24 on ext0)"}},
		"VIP of another size":                   {[]string{"addr mgmt0 198.18.0.11/16"}, []string{"interface mgmt0, which is to carry the VIP 198.18.0.10/24, has the prefix length /16"}},
		"other size, no VIP there":              {[]string{"addr ext0 198.18.1.11/16"}, nil},
		"of this cluster":                       {[]string{mine}, nil},
		"of another cluster":                    {[]string{agentFile(t, "f00d", "db7")}, []string{`another cluster: "other", id f00d, as node db7 (this one is "lab", id ` + clusterID + ")"}},
		"another node of this":                  {[]string{agentFile(t, clusterID, "ctl2")}, []string{"it is node ctl2 of this cluster already, not ctl1"}},
		"damaged agent.json":                    {[]string{"file " + model.PathAgentConfig + " 600 root:root e30="}, []string{"is damaged"}},
		"data of etcd alone":                    {[]string{"store yes"}, []string{"data of etcd"}},
		"data of etcd, our authority":           {[]string{"store yes", "file " + model.PathCA + " 644 root:root b3Vycw=="}, nil},
		"data of etcd, another authority":       {[]string{"store yes", "file " + model.PathCA + " 644 root:root b3RoZXI="}, []string{"data of etcd"}},
		"data of etcd, known":                   {[]string{"store yes", mine}, nil},
		"port taken": {[]string{`listen 0.0.0.0:7441 users:(("nginx",pid=77,fd=6),("nginx",pid=78,fd=6))`, "cgroup 77 0::/system.slice/nginx.service"},
			[]string{"port 7441, which the agent needs, is taken by nginx (pid 77)"}},
		"port taken on all, by nobody we see": {[]string{"listen *:7443 "}, []string{"port 7443, which the agent needs, is taken by another program"}},
		"port taken on another address":       {[]string{`listen 127.0.0.1:7441 users:(("nginx",pid=77,fd=6))`, `listen [::1]:7442 `, "listen 127.0.0.53%lo:7443 "}, nil},
		"the agent's own ports": {[]string{"socket active", `listen 198.18.0.11:7441 users:(("nines",pid=9,fd=3))`, "cgroup 9 0::/system.slice/nines-agent.service",
			`listen 198.18.0.11:7440 users:(("systemd",pid=1,fd=44))`, "cgroup 1 0::/init.scope"}, nil},
		"systemd listens, but not for us": {[]string{`listen 198.18.0.11:7441 users:(("systemd",pid=1,fd=44))`, "cgroup 1 0::/init.scope"}, []string{"taken by systemd (pid 1)"}},
		"everything at once": {[]string{"arch arm64", "missing ss", "now 0", agentFile(t, "f00d", "db7"), "addr ext0 10.0.0.1/8", "listen *:7440 "},
			[]string{"architecture", "lacks ss", "another cluster", "clock", "external address", "port 7440"}},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := parseFacts([]byte("Welcome to ctl1!\n" + answer(tc.say...)))
			if err != nil {
				t.Fatal(err)
			}
			c := testCluster()
			asked := time.Unix(1763690000, 0)
			got := judge(expectation{cluster: c, node: c.Nodes[0], id: clusterID, ca: []byte("ours"), binary: 60 << 20, asked: asked, answered: asked.Add(time.Second)}, f)
			if len(got) != len(tc.want) {
				t.Fatalf("%d problems, want %d: %+v", len(got), len(tc.want), got)
			}
			for i, p := range got {
				if !strings.Contains(p.Text, tc.want[i]) {
					t.Errorf("%q does not say %q", p.Text, tc.want[i])
				}
				if p.Node != "ctl1" || p.Next == "" {
					t.Errorf("no node or no hint: %+v", p)
				}
			}
		})
	}
}

func TestParseFactsRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":           "",
		"an end too early":  strings.TrimSuffix(answer(), "end ok\n"),
		"a time of letters": answer("now soon"),
		"a broken file":     answer("file /etc/nines/tls/node.key 640 root:root S3CRET!"),
		"a port of letters": answer("listen *:https "),
	} {
		_, err := parseFacts([]byte(text))
		if err == nil {
			t.Errorf("%s: taken", name)
		} else if strings.Contains(err.Error(), "S3CRET") {
			t.Errorf("%s: a file's content is in the error: %v", name, err)
		}
	}
}

func FuzzParseFacts(f *testing.F) {
	f.Add([]byte(answer()))
	f.Add([]byte(answer("store yes", `listen [::ffff:198.18.0.11%eth0]:7441 users:(("a",pid=1,fd=2))`, "cgroup 1 0::/", "file /x 600 root:root YQ==")))
	c := testCluster()
	f.Fuzz(func(t *testing.T, out []byte) {
		facts, err := parseFacts(out)
		if err != nil {
			return
		}
		for _, p := range judge(expectation{cluster: c, node: c.Nodes[0], id: clusterID}, facts) {
			if p.Text == "" || p.Next == "" {
				t.Fatalf("%+v", p)
			}
		}
	})
}

func TestPreflightErrorListsEverything(t *testing.T) {
	err := &PreflightError{Nodes: 3, Problems: []Problem{{"ctl1", "no ip", "install it"}, {"ctl1", "clock", ""}, {"ctl3", "two\nlines", "do\nthis"}}}
	want := "3 problems on 2 of 3 nodes:\n  ctl1: no ip\n      install it\n  ctl1: clock\n  ctl3: two\n      lines\n      do\n      this"
	if diff := cmp.Diff(want, err.Error()); diff != "" {
		t.Error(diff)
	}
}

func TestUnits(t *testing.T) {
	c := testCluster()
	got, err := Units(model.AgentConfigFor(c, c.Nodes[0], "id"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range got {
		golden := filepath.Join("testdata", f.Name)
		if *update {
			if err := os.WriteFile(golden, f.Content, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(f.Content)); diff != "" {
			t.Errorf("%s (-update rewrites it):\n%s", golden, diff)
		}
	}
	c.Nodes[0].Addresses[model.Management] = netip.MustParseAddr("fd00::11")
	got, err = Units(model.AgentConfigFor(c, c.Nodes[0], "id"))
	if err != nil || !strings.Contains(string(got[0].Content), "\nListenStream=[fd00::11]:7440\n") {
		t.Errorf("IPv6: %v\n%s", err, got[0].Content)
	}
}

func TestMissingFiles(t *testing.T) {
	want := []file{{"/a", 0o600, root, []byte("x")}, {"/b", 0o640, "root:nines-tls", []byte("y")}}
	same := map[string]remoteFile{"/a": {0o600, root, []byte("x")}, "/b": {0o640, "root:nines-tls", []byte("y")}}
	if got := missing(want, facts{files: same}); len(got) != 0 {
		t.Errorf("%+v", got)
	}
	for name, b := range map[string]remoteFile{"content": {0o640, "root:nines-tls", []byte("z")}, "mode": {0o644, "root:nines-tls", []byte("y")}, "owner": {0o640, root, []byte("y")}} {
		got := missing(want, facts{files: map[string]remoteFile{"/a": same["/a"], "/b": b}})
		if len(got) != 1 || got[0].path != "/b" {
			t.Errorf("another %s: %+v", name, got)
		}
	}
	if got := missing(want, facts{}); len(got) != 2 {
		t.Errorf("%+v", got)
	}
}
