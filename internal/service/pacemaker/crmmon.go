package pacemaker

import (
	"context"
	"encoding/xml"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"nines/internal/host"
	"nines/internal/service"
)

// picture is the cluster as this node's Pacemaker sees it: crm_mon's report.
type picture struct {
	DC struct {
		Present bool `xml:"present,attr"`
		Quorum  bool `xml:"with_quorum,attr"`
	} `xml:"summary>current_dc"`
	Options struct {
		Maintenance bool `xml:"maintenance-mode,attr"`
	} `xml:"summary>cluster_options"`
	Nodes    []nodeState     `xml:"nodes>node"`
	Single   []resourceState `xml:"resources>resource"`
	Cloned   []resourceState `xml:"resources>clone>resource"`
	Failures []failure       `xml:"failures>failure"`
	Fencing  []fencing       `xml:"fence_history>fence_event"`
}

// fencing is one time that a machine's power was taken away, or should have been.
type fencing struct {
	Target    string `xml:"target,attr"`
	Action    string `xml:"action,attr"`
	Status    string `xml:"status,attr"`
	Completed string `xml:"completed,attr"`
}

// done is when it was switched off; false: it was not.
func (f fencing) done() (time.Time, bool) {
	if f.Action != "off" || f.Status != "success" {
		return time.Time{}, false
	}
	// "2026-11-28 19:30:00.123456Z", elsewhere "... 19:30:00.123456 +01:00".
	at, err := time.Parse("2006-01-02 15:04:05Z07:00", strings.NewReplacer(" +", "+", " -", "-").Replace(f.Completed))
	return at, err == nil
}

// fenced lists who was switched off and when, the last time each: "ctl3 2026-11-28T19:30:00.123456Z".
func (p picture) fenced() []string {
	last := map[string]time.Time{}
	for _, f := range p.Fencing {
		if at, ok := f.done(); ok && at.After(last[f.Target]) {
			last[f.Target] = at
		}
	}
	var out []string
	for _, node := range slices.Sorted(maps.Keys(last)) {
		out = append(out, node+" "+last[node].UTC().Format(time.RFC3339Nano))
	}
	return out
}

type nodeState struct {
	Name        string `xml:"name,attr"`
	Online      bool   `xml:"online,attr"`
	Pending     bool   `xml:"pending,attr"`
	Standby     bool   `xml:"standby,attr"`
	Maintenance bool   `xml:"maintenance,attr"`
	Unclean     bool   `xml:"unclean,attr"`
}

type resourceState struct {
	ID      string `xml:"id,attr"`
	Role    string `xml:"role,attr"`
	Failed  bool   `xml:"failed,attr"`
	Blocked bool   `xml:"blocked,attr"`
	Nodes   []struct {
		Name string `xml:"name,attr"`
	} `xml:"node"`
}

type failure struct {
	Operation string `xml:"op_key,attr"` // vip_monitor_10000
	Node      string `xml:"node,attr"`
	Status    string `xml:"exitstatus,attr"`
	Reason    string `xml:"exitreason,attr"`
}

// resource is the name of the failed resource.
func (f failure) resource() string {
	parts := strings.Split(f.Operation, "_")
	if len(parts) < 3 {
		return f.Operation
	}
	return strings.Join(parts[:len(parts)-2], "_")
}

func (f failure) String() string {
	s := fmt.Sprintf("%s on %s: %s", f.resource(), f.Node, f.Status)
	if f.Reason != "" {
		s += " (" + f.Reason + ")"
	}
	return s
}

// look asks Pacemaker on this node.
func look(ctx context.Context, env service.Env) (picture, error) {
	var p picture
	out, err := env.Host.Run(ctx, host.Cmd{Args: []string{"crm_mon", "--one-shot", "--inactive", "--output-as=xml"}})
	if err != nil {
		return p, fmt.Errorf("crm_mon: %w", err)
	}
	if err := xml.Unmarshal(out.Stdout, &p); err != nil {
		return p, fmt.Errorf("crm_mon: %w", err)
	}
	return p, nil
}

// online are the names of the nodes that take part.
func (p picture) online() []string {
	var out []string
	for _, n := range p.Nodes {
		if n.Online && !n.Pending {
			out = append(out, n.Name)
		}
	}
	slices.Sort(out)
	return out
}

// outside says why the node takes part in no cluster with the majority; "": it does.
func (p picture) outside(node string) string {
	switch {
	case !slices.Contains(p.online(), node):
		return "not a member of the cluster yet"
	case !p.DC.Present:
		return "no node has been elected to decide yet"
	case !p.DC.Quorum:
		return "no majority of the controllers: only " + strings.Join(p.online(), ", ")
	}
	return ""
}

// runs reports whether the resource is started, on any node.
func (p picture) runs(id string) bool {
	return slices.ContainsFunc(slices.Concat(p.Single, p.Cloned), func(r resourceState) bool { return r.ID == id && r.Role == "Started" })
}

// recovered: the resource works again; a clone on that very node. Pacemaker remembers the failure for some time.
func (p picture) recovered(f failure) bool {
	works := func(r resourceState) bool { return r.ID == f.resource() && r.Role == "Started" && !r.Failed }
	return slices.ContainsFunc(p.Single, works) || slices.ContainsFunc(p.Cloned, func(r resourceState) bool {
		return works(r) && len(r.Nodes) == 1 && r.Nodes[0].Name == f.Node
	})
}

// failed says what failed and does not work yet: "vip on ctl1: not running".
func (p picture) failed() []string {
	var out []string
	for _, f := range p.Failures {
		if !p.recovered(f) {
			out = append(out, f.String())
		}
	}
	for _, r := range slices.Concat(p.Single, p.Cloned) {
		if r.Blocked {
			out = append(out, r.ID+" is blocked: it failed to stop")
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
