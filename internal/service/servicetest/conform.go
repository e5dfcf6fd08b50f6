package servicetest

import (
	"fmt"
	"path"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"nines/internal/model"
	"nines/internal/plan"
	"nines/internal/secret"
	"nines/internal/service"
)

// capabilities are all that resources may provide and need.
var capabilities = []string{service.CapPackages, service.CapBase, service.CapSQL, service.CapBroker,
	service.CapCache, service.CapEngine, service.CapProxyFiles, service.CapProxy, service.CapVIP, service.CapIdentity, service.CapOverlay}

// Secrets makes the secrets that the services ask for.
func Secrets(t *testing.T, c *model.Cluster, all ...service.Service) secret.Map {
	t.Helper()
	var specs []secret.Spec
	for _, s := range all {
		if u, ok := s.(service.SecretUser); ok {
			specs = append(specs, u.Secrets(c)...)
		}
	}
	m, _, err := secret.Complete(secret.Map{}, specs)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// Conform checks what every service must keep to. s holds all secrets that it reads,
// those of its users among them.
func Conform(t *testing.T, svc service.Service, c *model.Cluster, s secret.Map) {
	t.Helper()
	if folder := path.Base(reflect.TypeOf(svc).Elem().PkgPath()); svc.Name() != folder {
		t.Errorf("the service %q stands in the folder %q", svc.Name(), folder)
	}
	rs, err := svc.Resources(c, s)
	if err != nil {
		t.Fatal(err)
	}
	if len(rs) == 0 {
		t.Errorf("%s wants nothing", svc.Name())
	}
	again, err := svc.Resources(c, s)
	if d := cmp.Diff(rs, again); err != nil || d != "" {
		t.Errorf("%s is no pure function of the cluster and the secrets: %v\n%s", svc.Name(), err, d)
	}
	redacted, err := svc.Resources(c, secret.Redacted{})
	if err != nil || len(redacted) != len(rs) {
		t.Errorf("%s cannot be reviewed without its secrets: %d of %d resources, %v", svc.Name(), len(redacted), len(rs), err)
	}
	graph(t, c, rs)
	for _, r := range rs {
		resource(t, svc, c, r)
		protected(t, r, s)
	}
	units(t, svc, c, rs)
	persistent(t, rs)
	secrets(t, svc, c)
}

// graph: unique IDs, After, RestartOn and ReloadOn name what exists, no cycle; what other
// services provide is taken for granted.
func graph(t *testing.T, c *model.Cluster, rs []plan.Resource) {
	t.Helper()
	outside := plan.Resource{ID: "outside/x/action:x", Node: "x", Action: &plan.Action{Name: "x"}}
	provided := map[string]bool{}
	for _, r := range rs {
		for _, p := range r.Provides {
			provided[p] = true
		}
	}
	known := slices.Clone(capabilities)
	for _, n := range c.Nodes {
		known = append(known, service.SwitchOf(n))
	}
	for _, p := range known {
		if !provided[p] {
			outside.Provides = append(outside.Provides, p)
		}
	}
	if _, err := plan.Graph(append([]plan.Resource{outside}, rs...)); err != nil {
		t.Error(err)
	}
	all := plan.Index(rs)
	for _, r := range rs {
		if r.Unit == nil {
			continue
		}
		for _, id := range append(append([]plan.ID{}, r.Unit.RestartOn...), r.Unit.ReloadOn...) {
			if from := all[id]; from.Node != r.Node || from.File == nil && from.Packages == nil {
				t.Errorf("%s restarts or reloads on %s, which is no file or package of its node", r.ID, id)
			}
		}
	}
}

// resource: one kind, the parts of the ID are true, actions exist, files are well-formed.
func resource(t *testing.T, svc service.Service, c *model.Cluster, r plan.Resource) {
	t.Helper()
	kinds := 0
	for _, set := range []bool{r.Packages != nil, r.File != nil, r.Unit != nil, r.Action != nil} {
		if set {
			kinds++
		}
	}
	if kinds != 1 {
		t.Errorf("%s is of %d kinds", r.ID, kinds)
	}
	if prefix := fmt.Sprintf("%s/%s/%s:", r.Service, r.Node, r.Kind()); !strings.HasPrefix(string(r.ID), prefix) || r.Service != svc.Name() {
		t.Errorf("%s: the ID of a resource of %s must begin with %s", r.ID, svc.Name(), prefix)
	}
	if _, ok := c.Node(r.Node); !ok {
		t.Errorf("%s is on a node that does not exist", r.ID)
	}
	if r.File != nil {
		file(t, r)
	}
	actor, _ := svc.(service.Actor)
	known := func(a *plan.Action, runs bool) {
		if a == nil {
			return
		}
		var action service.Action
		if actor != nil {
			action = actor.Actions()[a.Name]
		}
		if action.Check == nil || runs && action.Run == nil {
			t.Errorf("%s: the service has no action %s that can be checked and run", r.ID, a.Name)
		}
	}
	known(r.Action, true)
	if r.Unit != nil {
		known(r.Unit.Start, true)
		known(r.Unit.Ready, false)
	}
}

func file(t *testing.T, r plan.Resource) {
	t.Helper()
	f := r.File
	if !path.IsAbs(f.Path) || path.Clean(f.Path) != f.Path {
		t.Errorf("%s: the path %q is not absolute and clean", r.ID, f.Path)
	}
	if f.Mode&^0o777 != 0 || f.Mode&0o022 != 0 || f.Mode&0o400 == 0 {
		t.Errorf("%s: mode %v", r.ID, f.Mode)
	}
	if f.Owner == "" || f.Group == "" {
		t.Errorf("%s has no owner or no group", r.ID)
	}
}

// protected: no secret in a file that everybody may read, in an argument, in a name.
func protected(t *testing.T, r plan.Resource, s secret.Map) {
	t.Helper()
	open := fmt.Sprintf("%+v %+v", r.ID, r.Packages)
	for _, a := range actions(r) {
		open += fmt.Sprintf(" %+v", *a)
	}
	if r.File != nil {
		open += fmt.Sprint(" ", r.File.Path, r.File.Validate)
		if r.File.Mode&0o007 != 0 {
			open += string(r.File.Content)
		}
	}
	redactor := secret.NewRedactor(s)
	if masked := redactor.String(open); masked != open {
		t.Errorf("%s shows a secret to everybody:\n%s", r.ID, masked)
	}
}

// actions of a resource: its own, or those of its unit.
func actions(r plan.Resource) []*plan.Action {
	var out []*plan.Action
	if r.Action != nil {
		out = append(out, r.Action)
	}
	if r.Unit != nil && r.Unit.Start != nil {
		out = append(out, r.Unit.Start)
	}
	if r.Unit != nil && r.Unit.Ready != nil {
		out = append(out, r.Unit.Ready)
	}
	return out
}

// units: quorums are as large as they say and survive a restart, faults hit units that exist, observation has a rhythm.
func units(t *testing.T, svc service.Service, c *model.Cluster, rs []plan.Resource) {
	t.Helper()
	members, names := map[plan.Member]map[string]bool{}, map[string]bool{} // a node's units are one member
	for _, r := range rs {
		if r.Unit == nil {
			continue
		}
		names[r.Unit.Name] = true
		if r.Unit.Member != nil {
			if members[*r.Unit.Member] == nil {
				members[*r.Unit.Member] = map[string]bool{}
			}
			members[*r.Unit.Member][r.Node] = true
		}
	}
	for m, nodes := range members {
		if n := len(nodes); m.Size != n || m.Needed >= m.Size || m.Needed < 1 {
			t.Errorf("quorum %+v has %d members", m, n)
		}
	}
	if f, ok := svc.(service.Faulty); ok {
		for _, fault := range f.Faults(c) {
			if !names[fault.Unit] || fault.Name == "" || fault.Signal == 0 {
				t.Errorf("the fault %+v hits no unit of %s", fault, svc.Name())
			}
		}
	}
	if o, ok := svc.(service.Observer); ok && (o.Interval() < 100*time.Millisecond || o.Interval() > time.Minute) {
		t.Errorf("%s is observed every %s", svc.Name(), o.Interval())
	}
}

// persistent: every daemon is started again whenever it dies, for ever. After a power cut some die many times while they wait for what
// they need; with systemd's own limit (five starts in ten seconds) they would stay dead.
func persistent(t *testing.T, rs []plan.Resource) {
	t.Helper()
	for _, r := range rs {
		if r.Unit == nil || !r.Unit.Running || !strings.HasSuffix(r.Unit.Name, ".service") {
			continue
		}
		said, section := map[string]string{}, ""
		for _, f := range rs {
			if f.Node != r.Node || f.File == nil || f.File.Path != unitDir+r.Unit.Name && !strings.HasPrefix(f.File.Path, unitDir+r.Unit.Name+".d/") {
				continue
			}
			for line := range strings.Lines(string(f.File.Content)) {
				line = strings.TrimSpace(line)
				if key, value, ok := strings.Cut(line, "="); ok {
					said[section+key] = value
				} else if strings.HasPrefix(line, "[") {
					section = line
				}
			}
		}
		if said["[Service]Type"] == "oneshot" {
			continue
		}
		if restart := said["[Service]Restart"]; restart != "always" && restart != "on-failure" {
			t.Errorf("%s: its unit file says Restart=%q: who starts it when it dies?", r.ID, restart)
		}
		if limit := said["[Unit]StartLimitIntervalSec"]; limit != "0" {
			t.Errorf("%s: its unit file says StartLimitIntervalSec=%q: systemd gives up after a few starts", r.ID, limit)
		}
	}
}

const unitDir = "/etc/systemd/system/"

// secrets: each is named after its service; a judge says nothing wrong about a cluster nobody saw.
func secrets(t *testing.T, svc service.Service, c *model.Cluster) {
	t.Helper()
	if u, ok := svc.(service.SecretUser); ok {
		for _, s := range u.Secrets(c) {
			if !strings.HasPrefix(s.Name, svc.Name()+"/") {
				t.Errorf("the secret %q of %s must begin with %s/", s.Name, svc.Name(), svc.Name())
			}
		}
	}
	if j, ok := svc.(service.ClusterJudge); ok {
		for _, cond := range j.Judge(c, nil) {
			if cond.Code == "" || cond.Text == "" || cond.Hint == "" {
				t.Errorf("a condition without code, text or hint: %+v", cond)
			}
		}
	}
}
