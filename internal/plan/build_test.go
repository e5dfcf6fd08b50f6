package plan_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nines/internal/plan"
)

// galera declares, on each node, packages, a configuration file and the unit of a
// member; every further option changes the resources.
func galera(nodes []string, options ...func([]plan.Resource)) []plan.Resource {
	var out []plan.Resource
	for _, node := range nodes {
		pkg, file := plan.Make("galera", node, "packages", "galera"), plan.Make("galera", node, "file", "nines.cnf")
		out = append(out,
			plan.Resource{ID: pkg, Service: "galera", Node: node, Packages: &plan.Packages{Names: []string{"mariadb-server", "galera-4"}}},
			plan.Resource{ID: file, Service: "galera", Node: node, After: []plan.ID{pkg},
				File: &plan.File{Path: "/etc/mysql/nines.cnf", Mode: 0o600, Owner: "mysql", Group: "mysql", Content: []byte("password=hunter2")}},
			plan.Resource{ID: unit(node), Service: "galera", Node: node, Provides: []string{"sql"},
				Unit: &plan.Unit{Name: "mariadb.service", Enabled: true, Running: true, RestartOn: []plan.ID{pkg, file},
					Member: &plan.Member{Quorum: "galera", Size: len(nodes), Needed: len(nodes)/2 + 1}}},
		)
	}
	for _, o := range options {
		o(out)
	}
	return out
}

func unit(node string) plan.ID { return plan.Make("galera", node, "unit", "mariadb.service") }

var three = []string{"ctl1", "ctl2", "ctl3"}

// inSync observes every resource as wanted and every member serving.
func inSync(rs []plan.Resource) plan.Observed {
	seen := plan.Observed{Resources: map[plan.ID]plan.Status{}, Unreachable: map[string]string{}, Serving: map[string][]string{}}
	for _, r := range rs {
		seen.Resources[r.ID] = plan.Status{State: plan.InSync}
		if r.Unit != nil && r.Unit.Member != nil {
			seen.Serving[r.Unit.Member.Quorum] = append(seen.Serving[r.Unit.Member.Quorum], r.Node)
		}
	}
	return seen
}

func TestBuild(t *testing.T) {
	drift := func(change string, nodes ...string) func(*plan.Observed) {
		return func(o *plan.Observed) {
			for _, n := range nodes {
				o.Resources[unit(n)] = plan.Status{State: plan.Drifted, Change: change}
			}
		}
	}
	for _, c := range []struct {
		name   string
		rs     []plan.Resource
		change []func(*plan.Observed)
		want   string // one line an op: "SUMMARY on NODE [quorum LEFT/SIZE] < NODE:KIND ..." ("<": waits for), then "blocked CODE"
	}{
		{name: "nothing to do", rs: galera(three)},
		{
			name: "first installation starts side by side",
			rs:   galera(three[:2]),
			change: []func(*plan.Observed){func(o *plan.Observed) {
				clear(o.Resources)
				clear(o.Serving)
			}},
			want: `
install mariadb-server galera-4 on ctl1
write /etc/mysql/nines.cnf on ctl1 < ctl1:packages
start mariadb.service on ctl1 < ctl1:packages ctl1:file
install mariadb-server galera-4 on ctl2
write /etc/mysql/nines.cnf on ctl2 < ctl2:packages
start mariadb.service on ctl2 < ctl2:packages ctl2:file`,
		},
		{
			name: "first starts follow what is declared",
			rs:   galera(three, func(rs []plan.Resource) { rs[5].After, rs[8].After = []plan.ID{unit("ctl1")}, []plan.ID{unit("ctl2")} }),
			change: []func(*plan.Observed){drift("start", three...), func(o *plan.Observed) {
				clear(o.Serving)
			}},
			want: `
start mariadb.service on ctl1
start mariadb.service on ctl2 < ctl1:unit
start mariadb.service on ctl3 < ctl2:unit`,
		},
		{
			name:   "restarts go one after the other",
			rs:     galera(three),
			change: []func(*plan.Observed){drift("restart", three...)},
			want: `
restart mariadb.service on ctl1 [quorum 2/3]
restart mariadb.service on ctl2 [quorum 2/3] < ctl1:unit
restart mariadb.service on ctl3 [quorum 2/3] < ctl2:unit`,
		},
		{
			name:   "restarts keep to a declared order against the declaration",
			rs:     galera(three, func(rs []plan.Resource) { rs[2].After = []plan.ID{unit("ctl3")} }),
			change: []func(*plan.Observed){drift("restart", three...)},
			want: `
restart mariadb.service on ctl3 [quorum 2/3]
restart mariadb.service on ctl1 [quorum 2/3] < ctl3:unit
restart mariadb.service on ctl2 [quorum 2/3] < ctl1:unit`,
		},
		{
			name: "the units of a node are one member",
			rs: galera(three, func(rs []plan.Resource) {
				for i := range rs {
					if rs[i].Unit == nil {
						continue
					}
					rs[i].Unit.Member.Size, rs[i].Unit.Member.Needed = 2, 1
					if rs[i].Node == "ctl2" { // now the second on ctl1
						rs[i].Node = "ctl1"
					}
				}
			}),
			change: []func(*plan.Observed){drift("restart", three...)},
			want: `
restart mariadb.service on ctl1 [quorum 1/2]
restart mariadb.service on ctl1 [quorum 1/2]
restart mariadb.service on ctl3 [quorum 1/2] < ctl1:unit ctl2:unit`,
		},
		{
			name:   "other parts of the service on other nodes are no members",
			rs:     galera(three),
			change: []func(*plan.Observed){drift("restart", "ctl1"), func(o *plan.Observed) { o.Serving["galera"] = []string{"ctl1", "ctl2", "cmp1", "cmp2"} }},
			want: `
restart mariadb.service on ctl1 [quorum 1/3]
blocked quorum`,
		},
		{
			name: "what is started beside a unit on the same node is not yet a member to lose",
			rs: galera(three, func(rs []plan.Resource) {
				for i := range rs {
					if rs[i].Unit != nil && rs[i].Node == "ctl2" { // now the second on ctl1
						rs[i].Node = "ctl1"
					}
				}
				for i := range rs {
					if rs[i].Unit != nil {
						rs[i].Unit.Member.Needed = 1
					}
				}
			}),
			change: []func(*plan.Observed){drift("start", "ctl1"), drift("restart", "ctl2"), drift("start", "ctl3"), func(o *plan.Observed) { clear(o.Serving) }},
			want: `
start mariadb.service on ctl1
restart mariadb.service on ctl1 [quorum 0/3]
start mariadb.service on ctl3 < ctl1:unit ctl2:unit`,
		},
		{
			name:   "a start waits while another restarts",
			rs:     galera(three),
			change: []func(*plan.Observed){drift("restart", "ctl1"), drift("start", "ctl3")},
			want: `
restart mariadb.service on ctl1 [quorum 2/3]
start mariadb.service on ctl3 < ctl1:unit`,
		},
		{
			name: "an interrupted rolling restart goes on with the member that it left stopped",
			rs:   galera(three),
			change: []func(*plan.Observed){drift("start", "ctl1"), drift("restart", "ctl2", "ctl3"),
				func(o *plan.Observed) { o.Serving["galera"] = three[1:] }},
			want: `
start mariadb.service on ctl1
restart mariadb.service on ctl2 [quorum 2/3] < ctl1:unit
restart mariadb.service on ctl3 [quorum 2/3] < ctl2:unit`,
		},
		{
			name:   "a restart that would take the majority",
			rs:     galera(three),
			change: []func(*plan.Observed){drift("restart", "ctl1"), func(o *plan.Observed) { o.Serving["galera"] = three[:2] }},
			want: `
restart mariadb.service on ctl1 [quorum 1/3]
blocked quorum`,
		},
		{
			name:   "a stop that would take the majority",
			rs:     galera(three),
			change: []func(*plan.Observed){drift("stop", "ctl1"), func(o *plan.Observed) { o.Serving["galera"] = three[:2] }},
			want: `
stop mariadb.service on ctl1 [quorum 1/3]
blocked quorum`,
		},
		{
			name:   "a restart of a member that does not serve is the way out",
			rs:     galera(three),
			change: []func(*plan.Observed){drift("restart", "ctl3"), func(o *plan.Observed) { o.Serving["galera"] = three[:1] }},
			want:   "\nrestart mariadb.service on ctl3 [quorum 1/3]",
		},
		{
			name:   "a start while the quorum is lost is the way out",
			rs:     galera(three),
			change: []func(*plan.Observed){drift("start", "ctl2"), func(o *plan.Observed) { o.Serving["galera"] = three[:1] }},
			want:   "\nstart mariadb.service on ctl2",
		},
		{
			name: "a node that does not answer gets no ops",
			rs:   galera(three),
			change: []func(*plan.Observed){func(o *plan.Observed) {
				for id := range o.Resources {
					if strings.Contains(string(id), "/ctl2/") {
						delete(o.Resources, id)
					}
				}
				o.Unreachable["ctl2"] = "no route to host"
			}},
			want: "\nblocked node-unreachable",
		},
		{
			name: "what is not known is brought into its state",
			rs:   galera(three[:1]),
			change: []func(*plan.Observed){func(o *plan.Observed) {
				o.Resources[plan.Make("galera", "ctl1", "file", "nines.cnf")] = plan.Status{State: plan.Unknown, Reason: "permission denied"}
			}},
			want: "\nwrite /etc/mysql/nines.cnf on ctl1",
		},
		{
			name: "an op waits through what is in sync",
			rs: append(galera(three[:1]), plan.Resource{ID: "keystone/ctl1/action:database", Service: "keystone", Node: "ctl1", Needs: []string{"sql"},
				Action: &plan.Action{Name: "create-database", Args: map[string]string{"name": "keystone"}}}),
			change: []func(*plan.Observed){func(o *plan.Observed) {
				o.Resources["keystone/ctl1/action:database"] = plan.Status{State: plan.Missing}
				o.Resources[plan.Make("galera", "ctl1", "file", "nines.cnf")] = plan.Status{State: plan.Drifted}
			}},
			want: `
change /etc/mysql/nines.cnf on ctl1
create database keystone on ctl1 < ctl1:file`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			seen := inSync(c.rs)
			for _, change := range c.change {
				change(&seen)
			}
			p, err := plan.Build("spec", c.rs, seen)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(strings.TrimSpace(c.want), script(p)); diff != "" {
				t.Errorf("plan (-want +got):\n%s", diff)
			}
			if p.Spec != "spec" || p.Empty() != (len(p.Ops) == 0) {
				t.Errorf("plan of %q is empty: %v", p.Spec, p.Empty())
			}
		})
	}
}

// script writes a plan as the cases above do.
func script(p plan.Plan) string {
	var lines []string
	for _, op := range p.Ops {
		line := op.Summary + " on " + op.Node
		if op.Quorum != nil {
			line += fmt.Sprintf(" [quorum %d/%d]", op.Quorum.Left, op.Quorum.Size)
		}
		if len(op.After) > 0 {
			line += " <"
		}
		for _, a := range op.After {
			parts := strings.Split(string(a), "/")
			kind, _, _ := strings.Cut(parts[2], ":")
			line += " " + parts[1] + ":" + kind
		}
		lines = append(lines, line)
	}
	for _, b := range p.Blocked {
		if b.Text == "" || b.Hint == "" {
			lines = append(lines, "a block without text or hint")
		}
		lines = append(lines, "blocked "+b.Code)
	}
	return strings.Join(lines, "\n")
}

func TestGraphRefuses(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func([]plan.Resource) []plan.Resource
		want   string
	}{
		{"declared twice", func(rs []plan.Resource) []plan.Resource { return append(rs, rs[0]) }, "twice"},
		{"unknown dependency", func(rs []plan.Resource) []plan.Resource { rs[0].After = []plan.ID{"no/such:thing"}; return rs }, "no/such:thing"},
		{"unknown restart", func(rs []plan.Resource) []plan.Resource { rs[2].Unit.ReloadOn = []plan.ID{"no/such:file"}; return rs }, "no/such:file"},
		{"unknown capability", func(rs []plan.Resource) []plan.Resource { rs[0].Needs = []string{"amqp"}; return rs }, "amqp"},
		{"cycle", func(rs []plan.Resource) []plan.Resource { rs[0].Needs = []string{"sql"}; return rs }, "cycle"},
	} {
		t.Run(c.name, func(t *testing.T) {
			rs := c.change(galera(three))
			if _, err := plan.Graph(rs); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error is %v, want one about %q", err, c.want)
			}
			if _, err := plan.Build("spec", rs, plan.Observed{}); err == nil {
				t.Error("a plan was made of it")
			}
		})
	}
}

func TestPlanHoldsNoSecret(t *testing.T) {
	rs := galera(three)
	p, err := plan.Build("spec", rs, plan.Observed{})
	if err != nil {
		t.Fatal(err)
	}
	for name, v := range map[string]any{"plan": p, "resources": rs} {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range []string{"hunter2", "aHVudGVyM", "cGFzc3dvcmQ9"} { // plain and base64
			if strings.Contains(string(b), secret) {
				t.Errorf("the JSON of the %s holds the content of a file: %s", name, b)
			}
		}
	}
}

func TestHash(t *testing.T) {
	hash := func(change func([]plan.Resource)) []string {
		rs := galera(three[:1], change)
		var out []string
		for _, r := range rs {
			out = append(out, r.Hash(plan.Index(rs)))
		}
		return out
	}
	before := hash(func([]plan.Resource) {})
	for _, c := range []struct {
		name   string
		change func([]plan.Resource)
		want   []bool // packages, file, unit differ
	}{
		{"nothing", func([]plan.Resource) {}, []bool{false, false, false}},
		{"content of a file, and the unit that runs with it", func(rs []plan.Resource) { rs[1].File.Content = []byte("x") }, []bool{false, true, true}},
		{"mode of a file", func(rs []plan.Resource) { rs[1].File.Mode = 0o644 }, []bool{false, true, true}},
		{"packages", func(rs []plan.Resource) { rs[0].Packages.Names = []string{"x"} }, []bool{true, false, true}},
		{"unit alone", func(rs []plan.Resource) { rs[2].Unit.Enabled = false }, []bool{false, false, true}},
		{"order alone", func(rs []plan.Resource) { rs[2].After = nil; rs[2].Provides = nil }, []bool{false, false, false}},
	} {
		t.Run(c.name, func(t *testing.T) {
			after := hash(c.change)
			for i, want := range c.want {
				if got := before[i] != after[i]; got != want {
					t.Errorf("hash of resource %d differs: %v, want %v", i, got, want)
				}
			}
		})
	}
}

func TestKindAndIndex(t *testing.T) {
	rs := append(galera(three[:1]), plan.Resource{ID: "a", Action: &plan.Action{Name: "a"}}, plan.Resource{ID: "none"})
	var kinds []string
	for _, r := range rs {
		kinds = append(kinds, r.Kind())
		if plan.Index(rs)[r.ID].Kind() != r.Kind() {
			t.Errorf("index of %s holds another", r.ID)
		}
	}
	if want := []string{"packages", "file", "unit", "action", ""}; !slices.Equal(kinds, want) {
		t.Errorf("kinds are %v, want %v", kinds, want)
	}
}
