package fence

import (
	"errors"
	"testing"
	"time"

	"nines/internal/model"
)

func three() *model.Cluster {
	c := &model.Cluster{}
	for _, name := range []string{"ctl1", "ctl2", "ctl3"} {
		c.Nodes = append(c.Nodes, model.Node{Name: name, Roles: []model.Role{model.RoleController}})
	}
	c.Nodes = append(c.Nodes, model.Node{Name: "cmp1", Roles: []model.Role{model.RoleCompute}})
	return c
}

func TestSpare(t *testing.T) {
	all := []string{"ctl1", "ctl2", "ctl3"}
	for name, tc := range map[string]struct {
		node    string
		serving map[string][]string
		service string // of the refusal; "": allowed
	}{
		"all well":                      {"ctl1", map[string][]string{"etcd": all, "galera": all}, ""},
		"a second of etcd":              {"ctl1", map[string][]string{"etcd": {"ctl1", "ctl3"}, "galera": all}, "etcd"},
		"a second of the database":      {"ctl1", map[string][]string{"etcd": all, "galera": {"ctl1", "ctl2"}}, "galera"},
		"the one that is down already":  {"ctl2", map[string][]string{"etcd": {"ctl1", "ctl3"}, "galera": {"ctl1", "ctl3"}}, ""},
		"the database is lost anyway":   {"ctl1", map[string][]string{"etcd": all, "galera": {"ctl1"}}, ""},
		"runs on one controller only":   {"ctl1", map[string][]string{"etcd": all, "lonely": {"ctl1"}}, ""},
		"a compute":                     {"cmp1", map[string][]string{"etcd": {"ctl1", "ctl3"}}, ""},
		"computes do not make a quorum": {"ctl1", map[string][]string{"etcd": {"ctl1", "ctl2", "cmp1"}}, "etcd"},
	} {
		t.Run(name, func(t *testing.T) {
			err := Spare(three(), tc.node, tc.serving)
			var q *QuorumError
			if tc.service == "" && err != nil || tc.service != "" && (!errors.As(err, &q) || q.Service != tc.service || q.Hint() == "") {
				t.Errorf("%v, want %q", err, tc.service)
			}
		})
	}
}

func TestOrder(t *testing.T) {
	now := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	if _, err := NewOrder("1", "ctl1", "explode", "me", now); err == nil {
		t.Error("an unknown action was taken")
	}
	o, err := NewOrder("1", "ctl1", Cycle, "me", now)
	if err != nil || !o.Open() || o.Todo[0] != Off {
		t.Fatalf("%+v, %v", o, err)
	}
	if o.Orphaned(now.Add(switchLimit)) || !o.Orphaned(now.Add(2*switchLimit)) {
		t.Error("an executor at work was taken for gone, or one that is gone for at work")
	}
	if o.WasOff() || o.Stepped(&Error{model.Level{Node: "ctl1"}, Unreachable, errors.New("silence")}, now).WasOff() || (Order{}).WasOff() {
		t.Error("the power was not off")
	}
	o = o.Stepped(nil, now.Add(time.Second))
	if !o.WasOff() || !o.Stepped(&Error{model.Level{Node: "ctl1"}, Unreachable, errors.New("silence")}, now).WasOff() {
		t.Error("the power was off, whatever came after")
	}
	if !o.Open() || o.Todo[0] != On || o.Touched.Equal(now) {
		t.Fatalf("%+v", o)
	}
	if failed := o.Stepped(&Error{model.Level{Node: "ctl1"}, Unreachable, errors.New("silence")}, now); failed.Open() || failed.Error == "" || failed.Hint == "" {
		t.Errorf("%+v", failed)
	}
	if done := o.Stepped(nil, now); done.Open() || done.Error != "" || done.Orphaned(now.Add(time.Hour)) {
		t.Errorf("%+v", done)
	}
}

func TestUnknownProtocol(t *testing.T) {
	l := model.Level{Node: "ctl1", Number: 1, BMC: model.BMC{Protocol: "carrier-pigeon", Address: "192.0.2.1"}}
	if Hint(Certificate, l) == Hint(Unreachable, l) {
		t.Error("each trouble has its own hint")
	}
	r := Test(t.Context(), Device{Level: l})
	if r.Trouble != Unreachable || r.Text == "" {
		t.Errorf("%+v", r)
	}
}
