package main

import (
	"archive/tar"
	"bytes"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/rogpeppe/go-internal/txtar"
	"pgregory.net/rapid"

	"nines/internal/model"
	"nines/internal/plan"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares what was made with a file of testdata.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got; go test -update writes it anew):\n%s", name, diff)
	}
}

func node(name, address string) model.Node {
	return model.Node{Name: name, Addresses: map[model.NetworkName]netip.Addr{model.Management: netip.MustParseAddr(address)}}
}

func TestAnsibleProject(t *testing.T) {
	rs := []plan.Resource{
		{Node: "ctl1", Packages: &plan.Packages{Names: []string{"haproxy", "socat"}}},
		{Node: "ctl1", Packages: &plan.Packages{Names: []string{"socat", "chrony"}}},
		{Node: "ctl1", File: &plan.File{Path: "/etc/haproxy/haproxy.cfg", Mode: 0o600, Owner: "root", Group: "haproxy", Content: []byte("a secret")}},
		{Node: "ctl1", Unit: &plan.Unit{Name: "haproxy.service", Enabled: true, Running: true}},
		{Node: "ctl1", Unit: &plan.Unit{Name: "mariadb.socket"}},
		{Node: "ctl1", Action: &plan.Action{Name: "sysctl"}},
		{Node: "ctl2", File: &plan.File{Path: "/etc/hosts", Mode: 0o4644, Owner: "root", Group: "root"}},
	}
	p := project{
		Dir: "/tmp/bench", KnownHosts: "/lab/ssh/known_hosts", Identity: "/lab/ssh/id_ed25519", User: "root", Port: 22, Forks: 2,
		Nodes: []model.Node{node("ctl1", "198.18.0.11"), node("ctl2", "198.18.0.12")},
	}
	files, err := p.files(rs)
	if err != nil {
		t.Fatal(err)
	}
	var archive txtar.Archive
	for name, content := range files {
		archive.Files = append(archive.Files, txtar.File{Name: name, Data: content})
	}
	slices.SortFunc(archive.Files, func(a, b txtar.File) int { return strings.Compare(a.Name, b.Name) })
	golden(t, "project.txtar", txtar.Format(&archive))
}

func TestAnsibleEnvironment(t *testing.T) {
	got := project{Dir: "/d"}.environment([]string{"PATH=/bin", "ANSIBLE_FORKS=50", "LC_ALL=C", "LANG=C"})
	want := []string{"PATH=/bin", "LANG=C", "LC_ALL=C.UTF-8", "ANSIBLE_CONFIG=/d/ansible.cfg", "ANSIBLE_HOME=/d/home"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

const played = `
PLAY [what nines keeps in place] ***********************************************

TASK [files] *******************************************************************
ok: [ctl1] => (item=/etc/hosts)
changed: [ctl2] => (item=/etc/hosts)

PLAY RECAP *********************************************************************
ctl1                       : ok=4    changed=0    unreachable=0    failed=0    skipped=0    rescued=0    ignored=0   
ctl2                       : ok=3    changed=1    unreachable=0    failed=0    skipped=0    rescued=0    ignored=0   
`

func TestParseRecap(t *testing.T) {
	got, err := parseRecap(played)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]recap{"ctl1": {OK: 4}, "ctl2": {OK: 3, Changed: 1}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if _, err := parseRecap("ERROR! the playbook could not be found"); err == nil {
		t.Error("no recap, and no error")
	}
	if got, want := problems(played), "changed: [ctl2] => (item=/etc/hosts)"; got != want {
		t.Errorf("problems: %q, want %q", got, want)
	}
}

func TestUnchanged(t *testing.T) {
	nodes := []model.Node{node("ctl1", "198.18.0.11"), node("ctl2", "198.18.0.12")}
	for name, test := range map[string]struct {
		hosts map[string]recap
		want  string // part of the error; empty: none
	}{
		"nothing to do": {map[string]recap{"ctl1": {OK: 3}, "ctl2": {OK: 3}}, ""},
		"changed":       {map[string]recap{"ctl1": {OK: 3}, "ctl2": {OK: 3, Changed: 1}}, "ctl2: ok=3 changed=1"},
		"failed":        {map[string]recap{"ctl1": {OK: 3, Failed: 1}, "ctl2": {OK: 3}}, "ctl1"},
		"unreachable":   {map[string]recap{"ctl1": {Unreachable: 1}, "ctl2": {OK: 3}}, "unreachable=1"},
		"did nothing":   {map[string]recap{"ctl1": {}, "ctl2": {OK: 3}}, "ok=0"},
		"missing":       {map[string]recap{"ctl1": {OK: 3}}, "does not name ctl2"},
	} {
		err := unchanged(test.hosts, nodes)
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: error %v, want %q", name, err, test.want)
		}
	}
}

func FuzzParseRecap(f *testing.F) {
	f.Add(played)
	f.Fuzz(func(t *testing.T, text string) {
		hosts, err := parseRecap(text)
		if err != nil && hosts != nil {
			t.Error("hosts together with an error")
		}
	})
}

func TestMedian(t *testing.T) {
	for _, test := range []struct {
		values []float64
		want   float64
	}{
		{nil, 0},
		{[]float64{7}, 7},
		{[]float64{3, 1, 2}, 2},
		{[]float64{4, 1, 3, 2}, 2.5},
	} {
		before := slices.Clone(test.values)
		if got := median(test.values); got != test.want {
			t.Errorf("median(%v) = %v, want %v", before, got, test.want)
		}
		if !slices.Equal(before, test.values) {
			t.Errorf("median changed the order of %v", before)
		}
	}
}

func TestMedianHasHalfOnEachSide(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(rapid.Float64Range(0, 1e6), 1, 20).Draw(t, "values")
		m, below, above := median(values), 0, 0
		for _, v := range values {
			if v < m {
				below++
			} else if v > m {
				above++
			}
		}
		if 2*below > len(values) || 2*above > len(values) {
			t.Errorf("median %v of %v: %d below, %d above", m, values, below, above)
		}
	})
}

const rested = `100
412 (nines (agent)) S 1 412 412 0 -1 4194560 9000 800 0 0 200 100 30 20 20 0 12 0 5000 1300000000 20000
1000.50 1900.00
412 (nines (agent)) S 1 412 412 0 -1 4194560 9100 900 0 0 215 109 33 23 20 0 12 0 5000 1300000000 20000
1030.50 1950.00
VmRSS:	   81920 kB
`

func TestParseRest(t *testing.T) {
	got, err := parseRest(rested)
	if err != nil {
		t.Fatal(err)
	}
	want := agentReport{CPU: 0.8, WithChildren: 1, Resident: 80} // 24 and 30 ticks in 30 s
	if diff := cmp.Diff(want, got, cmpopts.EquateApprox(0, 1e-9)); diff != "" {
		t.Error(diff)
	}
}

func TestParseRestRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":         "",
		"no such process": "100\ncat: /proc/0/stat: No such file or directory\n",
		"a restart":       strings.Replace(rested, " 215 109 ", " 2 1 ", 1),
		"no time between": strings.Replace(rested, "1030.50", "1000.50", 1),
		"no ticks":        strings.Replace(rested, "100\n", "0\n", 1),
		"short stat":      strings.Replace(rested, " 9000 800 0 0 200 100 30 20 20 0 12 0 5000 1300000000 20000", "", 1),
		"no memory":       strings.Replace(rested, "81920", "", 1),
	} {
		if got, err := parseRest(text); err == nil {
			t.Errorf("%s: %+v, want an error", name, got)
		}
	}
}

func FuzzParseRest(f *testing.F) {
	f.Add(rested)
	f.Fuzz(func(t *testing.T, text string) {
		if got, err := parseRest(text); err == nil && !(got.CPU >= 0 && got.WithChildren >= got.CPU) {
			t.Errorf("%+v", got)
		}
	})
}

const appliedJSON = `{
  "id": "a1", "who": "root@desk", "state": "converged",
  "since": "2026-01-02T03:04:00Z", "finished": "2026-01-02T03:04:10Z",
  "plan": {"spec": "s", "ops": [
    {"id": "galera/ctl1/packages:mariadb", "node": "ctl1", "summary": "install 3 packages"},
    {"id": "galera/ctl1/unit:mariadb.service", "node": "ctl1", "summary": "start mariadb.service"},
    {"id": "galera/ctl2/packages:mariadb", "node": "ctl2", "summary": "install 3 packages"}]},
  "results": {
    "galera/ctl1/packages:mariadb": {"took": 5000000000},
    "galera/ctl1/unit:mariadb.service": {"took": 3000000000},
    "galera/ctl2/packages:mariadb": {"took": 4000000000}},
  "critical_path": ["galera/ctl1/packages:mariadb", "galera/ctl1/unit:mariadb.service"]
}`

func TestSummarize(t *testing.T) {
	got, err := summarize([]byte(appliedJSON))
	if err != nil {
		t.Fatal(err)
	}
	want := &applyReport{
		since: time.Date(2026, 1, 2, 3, 4, 0, 0, time.UTC), Apply: 10, Operations: 3, Critical: 8, Work: 12,
		ApplyToCritical: 1.25, WorkToApply: 1.2,
		Path: []step{
			{ID: "galera/ctl1/packages:mariadb", Node: "ctl1", Summary: "install 3 packages", Seconds: 5},
			{ID: "galera/ctl1/unit:mariadb.service", Node: "ctl1", Summary: "start mariadb.service", Seconds: 3},
		},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(applyReport{})); diff != "" {
		t.Error(diff)
	}
	for name, text := range map[string]string{
		"not JSON":         "error: no agents",
		"failed":           strings.Replace(appliedJSON, "converged", "failed", 1),
		"nothing happened": `{"state": "converged"}`,
	} {
		if _, err := summarize([]byte(text)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestUnpack(t *testing.T) {
	archive := func(headers ...tar.Header) *bytes.Buffer {
		var out bytes.Buffer
		w := tar.NewWriter(&out)
		for _, h := range headers {
			h.Size = int64(len("secret"))
			if h.Typeflag != tar.TypeReg {
				h.Size = 0
			}
			if err := w.WriteHeader(&h); err != nil {
				t.Fatal(err)
			}
			if h.Size > 0 {
				if _, err := w.Write([]byte("secret")); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return &out
	}
	dir := filepath.Join(t.TempDir(), "tree")
	if err := unpack(archive(tar.Header{Typeflag: tar.TypeReg, Name: "etc/hosts", Mode: 0o644}), dir); err != nil {
		t.Fatal(err)
	}
	if s, err := os.Stat(filepath.Join(dir, "etc/hosts")); err != nil || s.Mode() != 0o600 {
		t.Errorf("mode of the copy: %v, %v; want 0600", s, err)
	}
	for name, h := range map[string]tar.Header{
		"outside": {Typeflag: tar.TypeReg, Name: "../etc/hosts"},
		"a link":  {Typeflag: tar.TypeSymlink, Name: "etc/link", Linkname: "/etc/shadow"},
	} {
		if err := unpack(archive(h), dir); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestQuote(t *testing.T) {
	if got, want := quote("it's; $HOME"), `'it'\''s; $HOME'`; got != want {
		t.Errorf("quote: %s, want %s", got, want)
	}
}

func TestReport(t *testing.T) {
	r := report{
		Nines: "v1", Date: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Cores: 2, Load: 0.1, Nodes: 3,
		Apply: &applyReport{
			LabUp: 90, Before: 25.5, Apply: 60, Operations: 170, Critical: 57.2, Work: 150, ApplyToCritical: 60 / 57.2, WorkToApply: 2.5,
			Path: []step{{ID: "a", Node: "ctl1", Summary: "install 3 packages", Seconds: 50}, {ID: "b", Node: "ctl2", Summary: "start mariadb.service", Seconds: 7.2}},
		},
		Noop: &noopReport{
			Resources: resources{Packages: 60, Files: 90, Units: 27, Actions: 33},
			Nines:     timing{Runs: []float64{0.5, 0.4, 0.6}, Median: 0.5},
			Discarded: 1,
			Ansible: &ansibleReport{
				Version: "core 2.14.18", Gathering: timing{Runs: []float64{21, 20, 19}, Median: 20, ToNines: 40},
				Bare: timing{Runs: []float64{18, 18, 18}, Median: 18, ToNines: 36},
			},
		},
		Rest: &restReport{
			Seconds: 30, Agents: []agentReport{{Node: "ctl1", Leader: true, CPU: 1.2, WithChildren: 1.5, Resident: 80}, {Node: "ctl2", CPU: 1, WithChildren: 1, Resident: 70}},
			MaxCPU: 1.2, MaxWithChildren: 1.5, MaxResident: 80,
		},
	}
	var text, asJSON bytes.Buffer
	if err := writeText(&text, r); err != nil {
		t.Fatal(err)
	}
	golden(t, "report.txt", text.Bytes())
	if err := writeJSON(&asJSON, r); err != nil {
		t.Fatal(err)
	}
	golden(t, "report.json", asJSON.Bytes())
}

func TestNoopSum(t *testing.T) {
	r := noopReport{Nines: timing{Runs: []float64{2, 1, 3}}}
	r.sum() // without Ansible
	if r.Nines.Median != 2 {
		t.Errorf("median of nines: %v, want 2", r.Nines.Median)
	}
	r.Ansible = &ansibleReport{Gathering: timing{Runs: []float64{30, 10, 20}}, Bare: timing{Runs: []float64{5}}}
	r.sum()
	if r.Ansible.Gathering.ToNines != 10 || r.Ansible.Bare.ToNines != 2.5 {
		t.Errorf("to nines: %v and %v, want 10 and 2.5", r.Ansible.Gathering.ToNines, r.Ansible.Bare.ToNines)
	}
}
