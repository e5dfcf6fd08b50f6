package app

import (
	"testing"

	"nines/internal/plan"
	"nines/internal/service/servicetest"
)

func TestServicesConform(t *testing.T) {
	c, all := servicetest.Cluster(), Services()
	secrets := servicetest.Secrets(t, c, all...)
	for _, s := range all {
		t.Run(s.Name(), func(t *testing.T) { servicetest.Conform(t, s, c, secrets) })
	}
}

// Together they form one graph: everything needed is provided, nothing is declared twice.
func TestServicesFitTogether(t *testing.T) {
	c, all := servicetest.Cluster(), Services()
	secrets := servicetest.Secrets(t, c, all...)
	var rs []plan.Resource
	names, files := map[string]bool{}, map[string]plan.ID{}
	for _, s := range all {
		if names[s.Name()] || !c.Runs(s.Name()) {
			t.Errorf("the service %s stands there twice or is not in cluster.yaml's vocabulary", s.Name())
		}
		names[s.Name()] = true
		own, err := s.Resources(c, secrets)
		if err != nil {
			t.Fatal(err)
		}
		rs = append(rs, own...)
	}
	if _, err := plan.Graph(rs); err != nil {
		t.Error(err)
	}
	for _, r := range rs {
		if r.File == nil {
			continue
		}
		where := r.Node + ":" + r.File.Path
		if other, ok := files[where]; ok {
			t.Errorf("%s and %s both write %s", r.ID, other, where)
		}
		files[where] = r.ID
	}
}
