package openstack

import (
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"nines/internal/model"
	"nines/internal/plan"
	"nines/internal/service/servicetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// golden compares files, as those of one node, with testdata/dir.
func golden(t *testing.T, dir string, files ...plan.File) {
	t.Helper()
	var rs []plan.Resource
	for _, f := range files {
		rs = append(rs, plan.Resource{ID: plan.Make("x", "ctl1", "file", f.Path), Node: "ctl1", File: &f})
	}
	servicetest.Golden(t, "testdata/"+dir, "ctl1", rs)
}

// Every set of options, as a service would use it.
func TestOptions(t *testing.T) {
	c := servicetest.Cluster()
	conf, err := Render(Templates(os.DirFS("testdata")), "all.conf.tmpl", map[string]any{
		"Database":  NewDatabase(c, "placement", "p$ss/word", 16),
		"Cache":     NewCache(c, 16),
		"Login":     NewLogin(c, "placement", "p$ssword", 16),
		"Messaging": NewMessaging(c, "nova", "p$ss@word"),
	})
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "options", rootFile("/all.conf", conf))
	for line := range strings.Lines(string(conf)) {
		if strings.Count(line, "$")%2 != 0 {
			t.Errorf("oslo.config would read a reference in %q", line)
		}
	}
}

func TestUnits(t *testing.T) {
	c := servicetest.Cluster()
	n := c.Nodes[0]
	api := WSGI{Name: "x-api", Unit: "x-api.service", Description: "OpenStack X API", Manual: "x(1)", User: "x", Home: "/var/lib/x",
		Script: "/usr/bin/x-wsgi", Ini: "/etc/x/nines-uwsgi.ini", Port: 9999}
	files, err := api.Files(c, n, "")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "api", files...)
	api.Streams, api.Messaging, api.Processes, api.Threads = true, true, 3, 16
	api.Env = []string{"X=y", "Z=1;2"}
	if files, err = api.Files(c, n, "/srv/x"); err != nil {
		t.Fatal(err)
	}
	golden(t, "streams", files...)
	worker := Daemon{Unit: "x-worker.service", Description: "OpenStack X worker", Manual: "x-worker(1)", User: "x",
		Command: []string{"/usr/bin/x-worker", "--config-file", "/etc/x/x.conf"}}
	daemon, err := worker.File(c, n, true)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "daemon", daemon)
	root, err := Daemon{Unit: "x-agent.service", Description: "OpenStack X agent", Manual: "x-agent(1)", User: "x",
		Command: []string{"/usr/bin/x-agent"}, Root: true, Uses: []string{"a.service", "b.socket"}, Prepare: []string{"/etc/x/prepare", "x"}}.File(c, n, true)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "root", root)
	worker.Role = model.RoleController
	worker.Exclusive, worker.Needs = true, "/srv/x/mark"
	if daemon, err = worker.File(c, n, true); err != nil {
		t.Fatal(err)
	}
	golden(t, "exclusive", daemon)
}
