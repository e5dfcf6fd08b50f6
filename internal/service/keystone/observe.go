package keystone

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"nines/internal/health"
	"nines/internal/model"
	"nines/internal/openstack"
	"nines/internal/service"
)

// FactFernet is the fact that holds the hash of a node's token keys.
const FactFernet = "fernet-hash"

// hashAge is how long a computed hash of the keys serves: they change once in days.
const hashAge = 10 * time.Second

// Interval implements service.Observer: a dead or frozen Keystone costs its clients
// at most this long before HAProxy is told.
func (*Service) Interval() time.Duration { return time.Second }

// Observe asks this node's Keystone for its version document, over a new connection: a
// frozen process still has its port open.
func (s *Service) Observe(ctx context.Context, env service.Env) service.Observation {
	o := service.Observation{Facts: map[string]string{}}
	if hash := s.fernetHash(ctx, env); hash != "" {
		o.Facts[FactFernet] = hash
	}
	if openstack.Loading(env.Host, Unit) {
		return down(o, openstack.Loads)
	}
	start := s.now()
	clock, err := s.clockOf(ctx, env, env.Node)
	if err != nil {
		return down(o, openstack.Silent(err))
	}
	o.Serving = true
	o.Reason = fmt.Sprintf("answered in %d ms", s.now().Sub(start).Milliseconds())
	if clock != nil {
		if off, with := s.clocks.note(ctx, s, env, *clock); len(with) > 0 {
			skewed(&o, off, with)
		}
	}
	return o
}

func down(o service.Observation, reason string) service.Observation {
	o.Reason = reason
	o.Conditions = append(o.Conditions, health.Condition{
		Code: "keystone-down", Follows: Name, Severity: health.Warning, Text: reason,
		Hint: "see 'journalctl -u keystone' and 'systemctl status keystone' on the node",
	})
	return o
}

// fernetHash returns the hash of the keys on this node; empty when it cannot be told.
func (s *Service) fernetHash(ctx context.Context, env service.Env) string {
	s.mu.Lock()
	hash, fresh := s.hash, s.now().Sub(s.listed) < hashAge
	s.mu.Unlock()
	if fresh {
		return hash
	}
	keys, err := readKeys(ctx, env.Host, fernetDir)
	if err != nil || len(keys) == 0 {
		return ""
	}
	hash = Ring{Keys: keys}.Hash()
	s.mu.Lock()
	s.hash, s.listed = hash, s.now()
	s.mu.Unlock()
	return hash
}

// Judge implements service.ClusterJudge.
func (*Service) Judge(c *model.Cluster, seen map[string]service.Observation) []health.Condition {
	nodes := map[string][]string{} // hash -> nodes
	serving, answered := 0, 0
	for _, n := range c.Controllers() {
		o, ok := seen[n.Name]
		if !ok {
			continue
		}
		answered++
		if o.Serving {
			serving++
		}
		if h := o.Facts[FactFernet]; h != "" {
			nodes[h] = append(nodes[h], n.Name)
		}
	}
	var out []health.Condition
	if answered > 0 && serving == 0 {
		out = append(out, health.Condition{
			Code: "keystone-unavailable", Follows: Name, Severity: health.Critical, Service: Name,
			Text: "no controller's Keystone answers", Hint: "see 'journalctl -u keystone' on the controllers; is there disk space and memory?",
		})
	}
	if len(nodes) > 1 {
		var groups []string
		for _, names := range nodes {
			groups = append(groups, strings.Join(names, "+"))
		}
		slices.Sort(groups)
		out = append(out, health.Condition{
			Code: "keystone-keys-differ", Severity: health.Warning, Service: Name,
			Text: "token keys are not the same on all controllers: " + strings.Join(groups, " / "),
			Hint: "run 'nines apply': tokens of one controller may be refused by another",
		})
	}
	return out
}

// ask gets the version document of this node's Keystone.
func (s *Service) ask(ctx context.Context, env service.Env) error {
	return s.client.Get(ctx, env.Host, "https://"+openstack.HostPort(env.Node.Address(), model.PortKeystone)+"/v3")
}

// issueToken asks for a token of the admin user.
func (s *Service) issueToken(ctx context.Context, env service.Env, url, password string) error {
	type object = map[string]any
	domain := object{"id": "default"}
	body, err := json.Marshal(object{"auth": object{
		"identity": object{"methods": []string{"password"}, "password": object{
			"user": object{"name": "admin", "domain": domain, "password": password}}},
		"scope": object{"project": object{"name": "admin", "domain": domain}},
	}})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/auth/tokens", bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	return s.client.Send(env.Host, req, http.StatusCreated)
}
